# shellcheck shell=bash
# The cluster's certificate authority, and a client certificate and kubeconfig for each component.

pki_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1"; }

pki_authority() {
  pki_key "$PKI/ca.key"
  openssl req -x509 -new -key "$PKI/ca.key" -out "$PKI/ca.crt" -subj "/CN=amas-$NAME-ca" -days 3650
  # Service-account tokens are signed with a key of their own; RSA is what every client accepts.
  openssl genrsa -out "$PKI/sa.key" 2048 2>/dev/null
  openssl rsa -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
}

# pki_certificate FILE SUBJECT EXTENSION...: key and certificate signed by the cluster's authority.
pki_certificate() {
  local file=$1 subject=$2
  shift 2
  pki_key "$PKI/$file.key"
  openssl req -new -key "$PKI/$file.key" -subj "$subject" \
    | openssl x509 -req -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -days 3650 -out "$PKI/$file.crt" \
      -set_serial "0x$(openssl rand -hex 8)" -extfile <(printf '%s\n' "$@") 2>/dev/null
}

kubeconfig() { # COMPONENT: a self-contained kubeconfig with its client certificate
  cat <<Y
apiVersion: v1
kind: Config
clusters:
- name: $NAME
  cluster: {server: "$API_URL", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}
contexts:
- name: amas-$NAME
  context: {cluster: $NAME, user: $1}
current-context: amas-$NAME
Y
}

pki_client() { # COMPONENT SUBJECT
  pki_certificate "$1" "$2" extendedKeyUsage=clientAuth
  (umask 077 && kubeconfig "$1" >"$CONF/$1.kubeconfig")
}

pki_up() {
  local svc=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
  [ ! -e "$PKI/.done" ] || return 0
  mkdir -p "$PKI" && chmod 700 "$PKI"
  pki_authority
  pki_certificate apiserver /CN=kube-apiserver extendedKeyUsage=serverAuth \
    "subjectAltName=$svc,DNS:localhost,IP:127.0.0.1,IP:$SERVICE_IP,IP:$NODE_IP"
  pki_certificate kubelet-server "/CN=$NODE" extendedKeyUsage=serverAuth "subjectAltName=DNS:$NODE,IP:$NODE_IP"
  pki_certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client extendedKeyUsage=clientAuth
  pki_client admin /O=system:masters/CN=admin
  pki_client controller-manager /CN=system:kube-controller-manager
  pki_client scheduler /CN=system:kube-scheduler
  pki_client kubelet "/O=system:nodes/CN=system:node:$NODE"
  pki_client proxy /CN=system:kube-proxy
  pki_client coredns /CN=amas:coredns
  pki_client provisioner /CN=amas:provisioner
  touch "$PKI/.done"
}
