# shellcheck shell=bash
# What every dev script shares: where things are, how progress is said, locks. Sourced, never run.

DEV=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${AMAS_CACHE:-$HOME/.cache/amas-operator}
# shellcheck disable=SC2034  # this and the next are read by the scripts that source this file
CLUSTERS=$CACHE/clusters
# shellcheck disable=SC2034
TOOL_SOURCES=$DEV/tools
# One clock for a script and all it calls: the column of seconds never runs backwards.
AMAS_STARTED=${AMAS_STARTED:-$(date +%s%N)}
export AMAS_STARTED

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Seconds since the outermost script began, with one decimal.
elapsed() {
  local ms=$((($(date +%s%N) - AMAS_STARTED) / 1000000))
  printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# One line of progress: how long we have been at it, and what was just done.
progress() { printf '%7ss  %s\n' "$(elapsed)" "$*" >&2; }

# wait_until SECONDS WHAT CMD...: run CMD until it succeeds; give up loudly.
wait_until() {
  local limit=$1 what=$2 deadline
  shift 2
  deadline=$(($(date +%s) + limit))
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$deadline" ] || die "$what did not happen within ${limit}s"
    sleep 0.1
  done
}

# with_lock FILE CMD...: run CMD while nobody else holds FILE.
# The lock is on descriptor 9: whatever outlives the command must be started with 9>&-.
with_lock() {
  local file=$1
  shift
  mkdir -p "${file%/*}"
  (
    exec 9>"$file"
    flock -n 9 || { say "waiting for another dev command (${file##*/})"; flock 9; }
    "$@"
  )
}

# The pinned programs of this checkout, keyed by everything that goes into them.
tools_key() {
  (cd "$TOOL_SOURCES" && find . -type f | LC_ALL=C sort | xargs sha256sum) | sha256sum | cut -c1-12
}
tools_bin() { printf '%s/tools/set-%s/bin' "$CACHE" "$(tools_key)"; }
