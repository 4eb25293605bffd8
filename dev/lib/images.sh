# shellcheck shell=bash
# Images on the node: loading archives, naming what is there.

images_import() { # FILE: absolute or relative path of an OCI or docker archive
  local file
  file=$(readlink -f "$1")
  [ -f "$file" ] || die "no archive $1"
  in_machine node ctr -n k8s.io images import --local "$file"
}

images_names() { in_machine node ctr -n k8s.io images ls -q | grep -v '@\|^sha256' || true; }
