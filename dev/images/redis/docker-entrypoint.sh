#!/bin/bash
# Stands in for the entry point of the public redis image, and of the valkey image.
set -euo pipefail

# The image's server and user; the build writes the image's own name here.
NAME=redis

# An option or a configuration file as first argument means the server.
if [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- "$NAME-server" "$@"; fi

# The public images are compiled with protected mode off by default; a setting still wins.
says_protected_mode() {
  case " $* " in *" --protected-mode "*) return 0 ;; esac
  [ -f "${2:-}" ] && grep -qi '^[[:space:]]*protected-mode' "$2"
}
if [ "$1" = "$NAME-server" ] && ! says_protected_mode "$@"; then set -- "$@" --protected-mode no; fi

if [ "$1" = "$NAME-server" ] && [ "$(id -u)" = 0 ]; then
  find . ! -user "$NAME" -exec chown "$NAME" '{}' +
  exec setpriv --reuid="$NAME" --regid="$NAME" --clear-groups "$0" "$@"
fi

[ "$(umask)" = 0022 ] && umask 0077
# shellcheck disable=SC2086  # words on purpose, as in the public valkey image
exec "$@" ${VALKEY_EXTRA_FLAGS:-}
