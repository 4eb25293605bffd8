# shellcheck shell=bash
# Images on the node: loading archives, naming what is there.

images_import() { # FILE: absolute or relative path of an OCI or docker archive
  local file
  file=$(readlink -f "$1")
  [ -f "$file" ] || die "no archive $1"
  in_machine node ctr -n k8s.io images import --local "$file" 2>&1 | grep -v DEPRECATION >&2
  # Which of our own archives is loaded: they are named by their content.
  [[ $file != "$CACHE"/images/* ]] || printf '%s\n' "$file" >"$STATE/images"
}

images_current() { [ "$(cat "$STATE/images" 2>/dev/null)" = "$1" ]; }

images_names() { in_machine node ctr -n k8s.io images ls -q 2>/dev/null | grep -v '@\|^sha256' || true; }
