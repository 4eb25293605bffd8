# shellcheck shell=bash
# The control plane: etcd, API server, controllers, scheduler, and the DNS server and volume
# provisioner, which stay up while the node is stopped.

config_control() {
  cat >"$CONF/audit-policy.yaml" <<T
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
T
  # Answers are kept for one second, so that a Service resolves as soon as it exists.
  cat >"$CONF/Corefile" <<T
.:53 {
  bind $NODE_IP
  errors
  ready $NODE_IP:8181
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $CONF/coredns.kubeconfig
    ttl 1
  }
  cache {
    success 4096 1
    denial 1024 1
  }
}
T
  # For programs outside of pods (dev/cluster exec): Services by their short names.
  cat >"$CONF/resolv-exec.conf" <<T
nameserver $NODE_IP
search default.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
T
}

start_etcd() {
  daemon control etcd etcd --data-dir "$STATE/etcd" --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
}

start_apiserver() {
  daemon control apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --secure-port=6443 --advertise-address="$NODE_IP" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --client-ca-file="$PKI/ca.crt" --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file="$PKI/sa.key" --service-account-key-file="$PKI/sa.pub" \
    --service-cluster-ip-range="$SERVICE_CIDR" --allow-privileged=true \
    --audit-policy-file="$CONF/audit-policy.yaml" --audit-log-path="$AUDIT_LOG" --audit-log-mode=blocking \
    --audit-log-maxsize=10000 --v=1
}

start_controllers() {
  daemon control controller-manager kube-controller-manager --kubeconfig="$CONF/controller-manager.kubeconfig" \
    --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" \
    --use-service-account-credentials --cluster-cidr="$POD_CIDR" --leader-elect=false \
    --kube-api-qps=100 --kube-api-burst=200 --v=1
  daemon control scheduler kube-scheduler --kubeconfig="$CONF/scheduler.kubeconfig" --leader-elect=false \
    --kube-api-qps=100 --kube-api-burst=200 --v=1
}

start_addons() {
  daemon control coredns coredns -conf "$CONF/Corefile"
  daemon control provisioner provisioner --kubeconfig "$CONF/provisioner.kubeconfig" \
    --root "$STATE/volumes" --node "$NODE"
}

api_ready() { "$DEV/kubectl" get --raw /readyz; }

control_up() {
  machine_start control -- "$BIN/amas-init" "control-$NAME"
  start_etcd
  start_apiserver
  wait_until 240 "the API server's readiness" api_ready
  progress "API server ready"
  start_controllers
  "$DEV/kubectl" apply -f "$DEV/lib/addons.yaml" >/dev/null
  start_addons
}
