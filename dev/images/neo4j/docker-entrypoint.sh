#!/bin/bash
# Stands in for the public neo4j image's entry point: NEO4J_* settings, the initial password by the server's own
# command (a JVM of its own, as in the public image), then the server.
set -euo pipefail

CONF=$NEO4J_HOME/conf/neo4j.conf
# The class-data archive holds for this very list, in this order.
CLASSPATH=$(LC_ALL=C; printf ':%s' "$NEO4J_HOME"/lib/*.jar)
CLASSPATH=${CLASSPATH#:}
OPENS=(--add-opens=java.base/java.nio=ALL-UNNAMED --add-opens=java.base/java.io=ALL-UNNAMED
  --add-opens=java.base/sun.nio.ch=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED)

setting() { sed -n "s/^$1=//p" "$CONF" | tail -1; }

# set_conf KEY VALUE: replaces what is there; JVM options add up instead.
set_conf() {
  if [ "$1" != server.jvm.additional ]; then
    local rest
    rest=$(awk -v key="$1=" 'index($0, key) != 1' "$CONF")
    printf '%s\n' "$rest" >"$CONF"
  fi
  printf '%s=%s\n' "$1" "$2" >>"$CONF"
}

default_conf() { [ -n "$(setting "$1")" ] || printf '%s=%s\n' "$1" "$2" >>"$CONF"; }

# NEO4J_server_memory_heap_initial__size -> server.memory.heap.initial_size
settings_from_environment() {
  local var key
  unset NEO4J_SHA256 NEO4J_TARBALL NEO4J_EDITION NEO4J_ACCEPT_LICENSE_AGREEMENT
  for var in $(compgen -e | grep '^NEO4J_[a-z]' || true); do
    key=$(printf '%s' "${var#NEO4J_}" | sed 's/__/\n/g; s/_/./g' | paste -sd_)
    set_conf "$key" "${!var}"
  done
}

initial_password() {
  local auth=${NEO4J_AUTH:-} password
  [ -n "$auth" ] || [ -z "${NEO4J_AUTH_PATH:-}" ] || auth=$(<"$NEO4J_AUTH_PATH")
  case $auth in
    '') return ;; # neo4j/neo4j, to be changed at the first log-in; or the auth.ini that is there
    none) set_conf dbms.security.auth_enabled false; return ;;
    neo4j/?*) password=${auth#neo4j/} ;;
    *) echo "Invalid value for NEO4J_AUTH: it is neo4j/PASSWORD or none" >&2; exit 1 ;;
  esac
  [ "$password" != neo4j ] || { echo "Invalid value for password. It cannot be 'neo4j', which is the default." >&2; exit 1; }
  # Without effect once a system database exists, as the command itself would say.
  [ ! -e /data/databases/system ] || return 0
  java "${OPENS[@]}" -cp "$CLASSPATH" org.neo4j.server.startup.Neo4jAdminCommand dbms set-initial-password "$password"
}

# As the public image: from a file or an emptyDir as conf folder, both must do.
prepare() {
  touch "$CONF"
  settings_from_environment
  default_conf server.default_listen_address 0.0.0.0
  default_conf server.memory.pagecache.size 512M
  [ ! -d /logs ] || default_conf server.directories.logs /logs
  default_conf dbms.usage_report.enabled false
  initial_password
  unset NEO4J_AUTH NEO4J_AUTH_PATH
}

serve() {
  local options=() option initial max
  initial=$(setting server.memory.heap.initial_size)
  max=$(setting server.memory.heap.max_size)
  [ -z "$initial" ] || options+=("-Xms$initial")
  [ -z "$max" ] || options+=("-Xmx$max")
  while read -r option; do options+=("$option"); done < <(sed -n 's/^server.jvm.additional=//p' "$CONF")
  # One collector thread is enough for a development database, unless another one is asked for.
  [[ " ${options[*]-} " =~ UseG1GC|UseZGC|UseParallelGC|UseSerialGC ]] || options+=(-XX:+UseSerialGC)
  # The quick compiler only: half the start, and enough for a development database.
  [[ " ${options[*]-} " =~ -XX:.?Tiered ]] || options+=(-XX:TieredStopAtLevel=1)
  # The class-data archive made with the image takes seconds off every start.
  [ ! -f "$NEO4J_HOME/neo4j.jsa" ] || options=("-XX:SharedArchiveFile=$NEO4J_HOME/neo4j.jsa" "${options[@]}")
  exec java "${options[@]}" "${OPENS[@]}" -cp "$CLASSPATH" \
    org.neo4j.server.CommunityEntryPoint --home-dir="$NEO4J_HOME" --config-dir="$NEO4J_HOME/conf" --console-mode
}

if [ "${1:-neo4j}" = neo4j ] && [ $# -le 1 ]; then
  if [ "$(id -u)" = 0 ]; then
    find /data /logs ! -user neo4j -exec chown neo4j:neo4j '{}' +
    exec setpriv --reuid=neo4j --regid=neo4j --clear-groups "$0" "$@"
  fi
  prepare
  serve
fi
exec "$@"
