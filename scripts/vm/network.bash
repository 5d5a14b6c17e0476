# shellcheck shell=bash
# What the scripts inside the VM share: IPVS's machine with a client on one side. Sourced by scripts/vm/*.sh.

vip=10.1.0.100

# client_side: a client, 10.1.0.9, in a namespace of its own on a link to this machine, 10.1.0.1.
client_side() {
  modprobe -a veth ip_vs
  ip link set lo up
  ip netns add client
  ip link add c0 type veth peer name c1 netns client
  ip addr add 10.1.0.1/24 dev c0
  ip addr add $vip/32 dev c0
  ip link set c0 up
  ip -n client addr add 10.1.0.9/24 dev c1
  ip -n client link set c1 up
  ip -n client link set lo up
  sysctl -qw net.ipv4.ip_forward=1
}

# silent_servers ADDRESS...: one namespace that takes every frame to them, on a link to this machine, 10.2.0.1. While
# it has no address it answers none.
silent_servers() {
  local mac server
  ip netns add server
  ip link add s0 type veth peer name eth0 netns server
  ip addr add 10.2.0.1/24 dev s0
  ip link set s0 up
  ip -n server link set eth0 up
  # It was inherited, and would send back what it has no address for.
  ip netns exec server sysctl -qw net.ipv4.ip_forward=0
  mac=$(ip -n server -br link show eth0 | awk '{ print $3 }')
  for server in "$@"; do
    ip neigh replace "$server" lladdr "$mac" dev s0 nud permanent
  done
}
