# shellcheck shell=bash
# Writes OCI images into a layout folder from finished layer archives: no build engine, no copy of the
# layers, and the same digests for the same content.

oci_begin() { # DIR
  OCI=$1
  rm -rf "$OCI" && mkdir -p "$OCI/blobs/sha256"
  printf '{"imageLayoutVersion": "1.0.0"}\n' >"$OCI/oci-layout"
  OCI_MANIFESTS='[]'
}

# oci_blob FILE TYPE: stores FILE (a link where possible) and prints its descriptor.
oci_blob() {
  local digest
  digest=$(sha256sum "$1" | cut -d' ' -f1)
  ln -f "$1" "$OCI/blobs/sha256/$digest" 2>/dev/null || cp "$1" "$OCI/blobs/sha256/$digest"
  jq -cn --arg type "application/vnd.oci.image.$2" --arg digest "sha256:$digest" --argjson size "$(stat -c %s "$1")" \
    '{mediaType: $type, digest: $digest, size: $size}'
}

oci_layer() { oci_blob "$1" layer.v1.tar; } # FILE.tar

# oci_image NAME CONFIG LAYER...: an image of these layer descriptors; CONFIG is its OCI config object.
oci_image() {
  local name=$1 config=$2 layers config_blob manifest
  shift 2
  layers=$(printf '%s\n' "$@" | jq -cs .)
  jq -n --argjson config "$config" --argjson layers "$layers" \
    '{architecture: "amd64", os: "linux", config: $config, rootfs: {type: "layers", diff_ids: [$layers[].digest]}}' \
    >"$OCI/tmp.json"
  config_blob=$(oci_blob "$OCI/tmp.json" config.v1+json)
  rm "$OCI/tmp.json"
  jq -n --argjson config "$config_blob" --argjson layers "$layers" \
    '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json", config: $config, layers: $layers}' \
    >"$OCI/tmp.json"
  manifest=$(oci_blob "$OCI/tmp.json" manifest.v1+json)
  rm "$OCI/tmp.json"
  OCI_MANIFESTS=$(jq -c --argjson manifest "$manifest" --arg name "$name" \
    '. + [$manifest + {annotations: {"io.containerd.image.name": $name, "org.opencontainers.image.ref.name": $name}}]' \
    <<<"$OCI_MANIFESTS")
}

oci_end() { # FILE.tar: the whole layout as one archive
  jq -n --argjson manifests "$OCI_MANIFESTS" '{schemaVersion: 2, manifests: $manifests}' >"$OCI/index.json"
  tar -C "$OCI" -cf "$1.new" oci-layout index.json blobs
  mv "$1.new" "$1"
  rm -rf "$OCI"
}
