# shellcheck shell=bash
# The names of the local images, and nothing else. The table (engine, version) -> public image is the
# operator's; on the local cluster it is given these instead.
# shellcheck disable=SC2034  # read by the scripts that source this file
IMAGE_POSTGRES=localhost/amas-postgres:17
IMAGE_REDIS=localhost/amas-redis:8
IMAGE_VALKEY=localhost/amas-valkey:8
IMAGE_NEO4J=localhost/amas-neo4j:5.26
IMAGE_PAUSE=localhost/pause:dev
