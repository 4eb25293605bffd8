#!/bin/bash
# Stands in for the public redis image's entry point.
set -euo pipefail

# An option or a configuration file as first argument means the server.
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- redis-server "$@"; fi

# The public image is compiled with protected mode off by default; a setting still wins.
says_protected_mode() {
  case " $* " in *" --protected-mode "*) return 0 ;; esac
  [ -f "${2:-}" ] && grep -qi '^[[:space:]]*protected-mode' "$2"
}
if [ "$1" = redis-server ] && ! says_protected_mode "$@"; then set -- "$@" --protected-mode no; fi

if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . ! -user redis -exec chown redis '{}' +
  exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi

[ "$(umask)" = 0022 ] && umask 0077
exec "$@"
