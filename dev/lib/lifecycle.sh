# shellcheck shell=bash
# The life of a cluster: up, down, status, and running commands inside of it.

cluster_runs() { machine_pid control >/dev/null && machine_pid node >/dev/null; }

cluster_up() {
  local images since
  since=$(date +%s)
  images=$("$DEV/images/build")
  if cluster_runs && node_ready 0; then
    images_current "$images" || images_import "$images"
    say "cluster '$NAME' is up already: dev/cluster status"
    return
  fi
  # Half a cluster (a failed start, a restart of the machine) is not repaired but replaced.
  [ ! -d "$STATE" ] || { say "clearing what is left of cluster '$NAME'"; cluster_clear; }
  mkdir -p "$CONF" "$LOG" "$STATE/volumes"
  network_up
  cgroups_up
  pki_up
  config_node
  config_control
  start_containerd
  # Images are loaded while the control plane starts.
  (wait_until 120 "containerd's socket" containerd_ready; images_import "$images") >"$LOG/import.log" 2>&1 9>&- &
  local import=$!
  control_up
  start_kubelet
  wait_until 360 "the node's readiness" node_ready "$since"
  progress "node ready"
  wait "$import" || die "loading the images failed: $(tail -3 "$LOG/import.log")"
  progress "images loaded: $(images_names | tr '\n' ' ')"
  cluster_check
  progress "cluster '$NAME' is up; AMAS_CLUSTER=$NAME dev/kubectl get pods -A"
}

# What a user relies on first: names resolve, and claims get a volume.
cluster_check() {
  wait_until 120 "an answer of the cluster's DNS" dns_answers
  "$DEV/kubectl" get storageclass -o name >/dev/null || die "no StorageClass"
  wait_until 80 "the default service account" "$DEV/kubectl" -n default get serviceaccount default
  progress "DNS, StorageClass and service accounts are there"
}

dns_answers() { cluster_exec getent hosts kubernetes.default.svc.cluster.local; }

cluster_clear() {
  machine_stop node
  machine_stop control
  network_down
  cgroups_down
  rm -rf "$STATE"
}

cluster_down() {
  if [ ! -d "$STATE" ] && [ ! -e "$NETNS_FILE" ]; then
    say "cluster '$NAME' is not up"
    return
  fi
  cluster_clear
  progress "cluster '$NAME' is gone"
}

down_all() {
  local dir
  for dir in "$CLUSTERS"/*/; do
    [ -d "$dir" ] || continue
    AMAS_CLUSTER=$(basename "$dir") "$DEV/cluster" down
  done
}

cluster_status() {
  local machine
  for machine in control node; do
    if machine_pid "$machine" >/dev/null; then
      say "$machine of '$NAME' runs: $(machine_processes "$machine" | awk '{print $2}' | sort | uniq -c | awk '{printf "%s%s ", $2, ($1 > 1 ? "x" $1 : "")}')"
    else
      say "$machine of '$NAME' does not run"
    fi
  done
  cluster_runs || return 1
  "$DEV/kubectl" get nodes,storageclass
}

# Inside the network namespace, with a resolv.conf of its own in a mount namespace of its own.
cluster_exec() {
  [ -e "$NETNS_FILE" ] || die "cluster '$NAME' is not up"
  # shellcheck disable=SC2016  # expanded by the inner shell
  exec_env nsenter --net="$NETNS_FILE" unshare --mount \
    sh -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$CONF/resolv-exec.conf" "$@"
}

exec_env() { env KUBECONFIG="$KUBECONFIG_ADMIN" AMAS_CLUSTER="$NAME" PATH="$PATH" "$@"; }
