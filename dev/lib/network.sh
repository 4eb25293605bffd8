# shellcheck shell=bash
# The cluster's network namespace: one bridge is the node's interface; nothing leads out of it.

network_up() {
  [ ! -e "$NETNS_FILE" ] || return 0
  ip netns add "$NETNS"
  ip -n "$NETNS" link set lo up
  ip -n "$NETNS" link add node0 type bridge
  ip -n "$NETNS" address add "$NODE_IP/24" dev node0
  ip -n "$NETNS" link set node0 up
  # kubelet and kube-proxy find the node's own address by the default route.
  ip -n "$NETNS" route add default dev node0
  nsenter --net="$NETNS_FILE" sysctl -qw net.ipv4.ip_forward=1
}

# Interfaces, routes and iptables rules are inside the namespace and go with it.
network_down() {
  [ -e "$NETNS_FILE" ] || return 0
  ip netns pids "$NETNS" 2>/dev/null | while read -r pid; do
    say "note: process $pid ($(cat "/proc/$pid/comm" 2>/dev/null)) still uses the network of '$NAME'"
  done
  ip netns delete "$NETNS"
}
