# shellcheck shell=bash
# The node: containerd, kubelet and kube-proxy in a PID and mount namespace of their own. Stopping it
# is a power cut; what is on the disk (images, volumes) is there when it starts again.

# Kernel settings are the whole machine's. kubelet insists on writing these: it gets files to write to.
SHADOWED_SYSCTLS="vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops
  kernel/keys/root_maxkeys kernel/keys/root_maxbytes"

# Runs as process 1 of the node: lays out its file system, then waits as amas-init.
node_init() {
  local setting shadow=$STATE/sysctl
  mount --make-rprivate /
  mount -t proc proc /proc
  mkdir -p "$shadow" "$STATE/cni" /var/lib/kubelet /var/lib/cni
  for setting in $SHADOWED_SYSCTLS; do
    cat "/proc/sys/$setting" >"$shadow/${setting//\//.}"
    mount --bind "$shadow/${setting//\//.}" "/proc/sys/$setting"
  done
  # Sockets, locks and symlinks that every kubelet and containerd put at the same place.
  mount -t tmpfs tmpfs /run
  mount -t tmpfs tmpfs /var/log
  mount -t tmpfs tmpfs /var/lib/kubelet
  mount --bind "$STATE/cni" /var/lib/cni # CNI's memory of attached pods, needed after a power cut
  mkdir -p /run/netns /run/lock /run/containerd
  mount --make-rshared /
  exec "$BIN/amas-init" "node-$NAME"
}

containerd_ready() { in_machine node ctr version; }

start_containerd() {
  machine_start node --mount --propagation slave -- "$DEV/cluster" _node-init
  daemon node containerd containerd -c "$CONF/containerd.toml"
}

start_kubelet() {
  wait_until 120 "containerd's socket" containerd_ready
  daemon node kubelet kubelet --config="$CONF/kubelet.yaml" --kubeconfig="$CONF/kubelet.kubeconfig" \
    --root-dir="$STATE/kubelet" --cert-dir="$STATE/kubelet-pki" --hostname-override="$NODE" \
    --node-ip="$NODE_IP" --v=1
  daemon node proxy kube-proxy --config="$CONF/proxy.yaml" --v=1
}

# Ready by a heartbeat since SECOND: the API server shows the state of before a stop for a while.
node_ready() { # SECOND
  local ready beat
  read -r ready beat < <("$DEV/kubectl" get node "$NODE" \
    -o 'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{"\n"}{end}')
  [ "$ready" = True ] && [ "$(date -d "$beat" +%s)" -ge "$1" ]
}

node_start() {
  local since
  since=$(date +%s)
  [ -d "$STATE/etcd" ] || die "cluster '$NAME' is not up"
  if machine_pid node >/dev/null; then say "the node of '$NAME' runs already"; return; fi
  start_containerd
  start_kubelet
  wait_until 360 "the node's readiness" node_ready "$since"
  progress "the node of '$NAME' runs"
}

node_stop() {
  machine_stop node
  # A reboot empties the cgroups; kubelet waits three seconds for each stale one it finds.
  cgroups_down
  cgroups_up
  progress "the node of '$NAME' is stopped; its volumes and the control plane are untouched"
}
