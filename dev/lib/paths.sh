# shellcheck shell=bash
# Names, addresses and files of one cluster. Sourced after common.sh; sets only variables.
# shellcheck disable=SC2034  # read by the scripts that source this file

NAME=${AMAS_CLUSTER:-demo}
[[ $NAME =~ ^[a-z][a-z0-9-]{0,20}$ ]] || die "AMAS_CLUSTER: '$NAME' is not a short lower-case name"

STATE=$CLUSTERS/$NAME
CONF=$STATE/conf       # configuration of every component
PKI=$STATE/pki         # keys and certificates
LOG=$STATE/log         # one log a component, and audit.log
KUBECONFIG_ADMIN=$CONF/admin.kubeconfig
AUDIT_LOG=$LOG/audit.log

NETNS=amas-$NAME
NETNS_FILE=/run/netns/$NETNS
CGROUP=amas-$NAME

# Every cluster has a network of its own, so all of them use the same addresses.
NODE=node1
NODE_IP=10.250.0.1
POD_CIDR=10.244.0.0/16
SERVICE_CIDR=10.96.0.0/16
SERVICE_IP=10.96.0.1
API_URL=https://$NODE_IP:6443
