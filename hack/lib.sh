# shellcheck shell=bash
# What the scripts of this folder share. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1
# shellcheck source=dev/lib/common.sh
. "$ROOT/dev/lib/common.sh"

GO_VERSION=1.26.8
LOGS=$CACHE/log
mkdir -p "$LOGS"
# Ours first: hack/prepare puts them there only where the system has none that is new enough.
PATH=$CACHE/go-$GO_VERSION/bin:$HOME/.cargo/bin:$PATH
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/target}
export PATH CARGO_TARGET_DIR

# Checkouts share what is compiled of the dependencies, so they take turns. Their own files cargo tells apart by time alone: what another
# checkout has compiled of ours is forgotten.
forget_other_checkout() {
  local mark=$CARGO_TARGET_DIR/.checkout
  [ "$(cat "$mark" 2>/dev/null)" != "$ROOT" ] || return 0
  mkdir -p "$CARGO_TARGET_DIR"
  find "$CARGO_TARGET_DIR" -path '*/.fingerprint/amas-operator-*' -prune -exec rm -rf {} +
  printf '%s' "$ROOT" >"$mark"
}
cargo_in_turn() { forget_other_checkout && command cargo "$@"; }
cargo() { with_lock "$CARGO_TARGET_DIR.lock" cargo_in_turn "$@"; }

seconds_since() { # NANOSECONDS: with one decimal
  local ms=$((($(date +%s%N) - $1) / 1000000))
  printf '%d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

# step WHAT CMD...: run CMD, its output in a log, and say in one line how long it took; the log's end when it fails.
step() {
  local what=$1 log began status=0
  log=$LOGS/$(tr -cs '[:alnum:]' '-' <<<"$what")$$.log
  began=$(date +%s%N)
  shift
  "$@" >"$log" 2>&1 || status=$?
  if [ "$status" -eq 0 ]; then
    progress "$what ($(seconds_since "$began") s)"
    rm -f "$log"
  else
    tail -40 "$log" >&2
    progress "$what: FAILED after $(seconds_since "$began") s, log: $log"
  fi
  return "$status"
}

# Where the operator's program is compiled for: static, so that the image needs nothing else.
# Rust from rustup links musl; Debian's Rust has no musl library and links glibc statically.
static_target() {
  if command -v rustup >/dev/null; then printf '%s-unknown-linux-musl\n' "$(uname -m)"; else printf '%s-unknown-linux-gnu\n' "$(uname -m)"; fi
}

# Installs or upgrades the operator on the local cluster AMAS_CLUSTER, with its local images.
install_locally() { # IMAGE_ARCHIVE NAMESPACE [helm options]
  local archive=$1 namespace=$2 overrides
  shift 2
  # shellcheck source=dev/images/table.sh
  . "$ROOT/dev/images/table.sh"
  overrides=$(printf '{"postgres:17":"%s","redis:8":"%s","valkey:8":"%s","neo4j:5.26":"%s"}' "$IMAGE_POSTGRES" "$IMAGE_REDIS" "$IMAGE_VALKEY" "$IMAGE_NEO4J")
  # The operator's own namespace takes restricted pods only, as those of the tests do.
  dev/kubectl apply -f - >/dev/null <<<"{\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"$namespace\", \"labels\": {\"pod-security.kubernetes.io/enforce\": \"restricted\"}}}"
  # The annotation changes with the image, so that a new build of the same tag is rolled out.
  dev/helm upgrade --install amas-operator charts/amas-operator --namespace "$namespace" --create-namespace --wait --timeout 2m \
    --set image.registry=localhost,image.repository=amas-operator,image.tag=dev \
    --set-json "images.overrides=$overrides" --set-string "podAnnotations.archive=$(basename "$archive" .tar)" "$@"
}
