# shellcheck shell=bash
# A line of three namespaces for packets without a conversation: gen - dut - sink. The generator sends to virtual
# addresses of the device under test (dut), which sends on to the sink, where an XDP program drops and the interface counts.
# Sourced by veth.sh, and by the part of ipvs.sh that runs in the virtual machine.

NET=${COMPARE_NET:-compare-}
GEN_ADDRESS=10.40.0.2 DUT_FRONT=10.40.0.1 DUT_BACK=10.50.0.1 SINK_ADDRESS=10.50.0.2
# One virtual address for each mode, so that one configuration serves all; and FULLNAT's local address.
VIP_NAT=10.40.0.101 VIP_DR=10.40.0.102 VIP_TUN=10.40.0.103 VIP_FULLNAT=10.40.0.104
UDP_PORT=9
export GEN_ADDRESS VIP_NAT VIP_DR VIP_TUN VIP_FULLNAT UDP_PORT

in_net() { ip netns exec "$NET$1" "${@:2}"; }

network_up() {
  local name
  network_down
  for name in gen dut sink; do
    ip netns add "$NET$name"
    in_net $name sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1 \
      net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
    ip -n "$NET$name" link set lo up
  done
  in_net dut sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0
  cable gen g0 dut eth0
  cable dut eth1 sink s0
  ip -n "${NET}gen" addr add $GEN_ADDRESS/24 dev g0
  ip -n "${NET}dut" addr add $DUT_FRONT/24 dev eth0
  ip -n "${NET}dut" addr add $DUT_BACK/24 dev eth1
  ip -n "${NET}sink" addr add $SINK_ADDRESS/24 dev s0
  # The sink's program drops ARP, too.
  ip -n "${NET}dut" neigh replace $SINK_ADDRESS lladdr "$(mac sink s0)" dev eth1 nud permanent
  ip -n "${NET}dut" neigh replace $GEN_ADDRESS lladdr "$(mac gen g0)" dev eth0 nud permanent
  ip -n "${NET}gen" neigh replace $DUT_FRONT lladdr "$(mac dut eth0)" dev g0 nud permanent
  sink_drops
}

cable() { # NAME DEVICE NAME DEVICE
  ip -n "$NET$1" link add "$2" type veth peer name "$4" netns "$NET$3"
  ip -n "$NET$1" link set "$2" up
  ip -n "$NET$3" link set "$4" up
}

mac() { in_net "$1" cat "/sys/class/net/$2/address"; }

# The cheapest end of a line: the kernel drops each frame before it has made a packet of it.
sink_drops() {
  clang -O2 -target bpf -c "$COMPARE/drop.bpf.c" -o "$WORK/drop.o"
  ip -n "${NET}sink" link set dev s0 xdp obj "$WORK/drop.o" sec xdp
}

network_down() {
  local name
  for name in gen dut sink; do
    [ ! -e "/run/netns/$NET$name" ] || ip netns delete "$NET$name"
  done
}

# arrived: frames that the sink's program saw until now.
arrived() { in_net sink ethtool -S s0 | awk '/xdp_packets/ { sum += $2 } END { print sum + 0 }'; }

nanoseconds() { date +%s%N; }
