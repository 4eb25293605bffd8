#!/bin/bash
# Stands in for the public postgres image's entry point: same variables, same results.
# First start: initdb, the password, POSTGRES_DB and /docker-entrypoint-initdb.d; then exec the server.
set -euo pipefail

# from_file VAR DEFAULT: VAR, or what the file named by VAR_FILE holds, or DEFAULT.
from_file() {
  local var=$1 file=${1}_FILE
  if [ -n "${!var:-}" ] && [ -n "${!file:-}" ]; then
    echo "error: both $var and $file are set (but are exclusive)" >&2
    exit 1
  fi
  if [ -n "${!file:-}" ]; then export "$var=$(<"${!file}")"; else export "$var=${!var:-$2}"; fi
  unset "$file"
}

require_password() {
  [ -n "$POSTGRES_PASSWORD" ] || [ "${POSTGRES_HOST_AUTH_METHOD:-}" = trust ] && return
  echo "Error: Database is uninitialized and superuser password is not specified." >&2
  exit 1
}

create_cluster() {
  # The arguments are words for a shell by the image's contract.
  eval "initdb --username=\"\$POSTGRES_USER\" --pwfile=<(printf '%s\n' \"\$POSTGRES_PASSWORD\") ${POSTGRES_INITDB_ARGS:-}"
  printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
}

sql() { PGHOST='' psql -v ON_ERROR_STOP=1 --no-psqlrc --no-password --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" "$@"; }

run_init_files() {
  local file
  # shellcheck disable=SC1090  # scripts are sourced by the image's contract
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
      *.sql) sql -f "$file" ;;
      *.sql.gz) gunzip -c "$file" | sql ;;
    esac
  done
}

# A server without TCP, only where something asks for one: it costs a second.
prepare_content() {
  local files=(/docker-entrypoint-initdb.d/*) database=$POSTGRES_DB
  [ "$POSTGRES_DB" != postgres ] || [ -e "${files[0]}" ] || return 0
  export PGPASSWORD=${PGPASSWORD:-$POSTGRES_PASSWORD}
  pg_ctl -D "$PGDATA" -w -o "$(printf '%q ' "${@:2}" -c listen_addresses= -p "${PGPORT:-5432}")" start
  if [ "$POSTGRES_DB" != postgres ]; then
    POSTGRES_DB=postgres sql --set db="$database" <<<'CREATE DATABASE :"db";'
  fi
  run_init_files
  pg_ctl -D "$PGDATA" -m fast -w stop
  unset PGPASSWORD
}

first_start() {
  require_password
  create_cluster
  prepare_content "$@"
  printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

wants_server() {
  local arg
  [ "$1" = postgres ] || return 1
  for arg; do case $arg in '-?' | --help | --describe-config | -V | --version) return 1 ;; esac; done
}

[ "${1:0:1}" = - ] && set -- postgres "$@"
if wants_server "$@"; then
  mkdir -p "$PGDATA"
  chmod 0700 "$PGDATA" || true
  if [ "$(id -u)" = 0 ]; then
    find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres '{}' +
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
  fi
  from_file POSTGRES_PASSWORD ''
  from_file POSTGRES_USER postgres
  from_file POSTGRES_DB "$POSTGRES_USER"
  from_file POSTGRES_INITDB_ARGS ''
  [ -s "$PGDATA/PG_VERSION" ] || first_start "$@"
fi
exec "$@"
