# shellcheck shell=bash
# Configuration of the components on the node: containerd, CNI, kubelet, kube-proxy.

config_containerd() {
  cat <<T
version = 3
root = "$STATE/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "localhost/pause:dev"
[plugins.'io.containerd.cri.v1.runtime']
  # Lowering oom_score_adj takes CAP_SYS_RESOURCE, which a sandboxed root may lack.
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["$BIN"]
    conf_dir = "$CONF/cni"
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
T
}

config_cni() {
  cat <<T
{"cniVersion": "1.0.0", "name": "amas", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "${POD_CIDR%/*}/24"}]],
            "routes": [{"dst": "0.0.0.0/0"}], "dataDir": "$STATE/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
T
}

config_kubelet() {
  cat <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-server.crt
tlsPrivateKeyFile: $PKI/kubelet-server.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
podLogsDir: $STATE/pod-logs
resolvConf: $CONF/resolv.conf
clusterDomain: cluster.local
clusterDNS: [$NODE_IP]
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP
cgroupsPerQOS: true
enforceNodeAllocatable: [pods]
failCgroupV1: false # the machine may still have version 1
failSwapOn: false
oomScoreAdj: 0
# The machine is shared with builds: never evict for a disk that others fill.
evictionHard: {memory.available: "100Mi", nodefs.available: "1%", imagefs.available: "1%"}
imageGCHighThresholdPercent: 100
imageMinimumGCAge: 8760h
maxPods: 200
serializeImagePulls: false
kubeAPIQPS: 100
kubeAPIBurst: 200
# Pods that just ended are noticed and cleaned up soon: tests delete and recreate many.
syncFrequency: 10s
T
}

config_proxy() {
  cat <<T
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $CONF/proxy.kubeconfig}
mode: iptables
iptables: {minSyncPeriod: 100ms}
clusterCIDR: $POD_CIDR
hostnameOverride: $NODE
oomScoreAdj: 0
# The connection-tracking limits are the machine's, not the namespace's: leave them.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
T
}

config_node() {
  mkdir -p "$CONF/cni"
  config_containerd >"$CONF/containerd.toml"
  config_cni >"$CONF/cni/10-amas.conflist"
  config_kubelet >"$CONF/kubelet.yaml"
  config_proxy >"$CONF/proxy.yaml"
  printf 'nameserver %s\n' "$NODE_IP" >"$CONF/resolv.conf"
}
