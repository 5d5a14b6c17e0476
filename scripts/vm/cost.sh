#!/bin/bash
# Runs inside the VM: the CPU time that a packet costs by plain routing, by IPVS, over a bare AF_XDP wire and by Sluice.
# The kernel's pktgen sends UDP at a fixed rate that all keep up with. Leaves /out/cost: a line for each measurement with the
# peer, the packets that arrived, those that were sent, and the CPU time in milliseconds that all of the VM spent: meanwhile, and
# in as long a time without packets.
#
#   scripts/ipvs-vm.sh -o DIR scripts/vm/cost.sh SOURCE-DIRECTORY SLUICE PKTGEN ROUNDS SECONDS RATE PEER...
set -euo pipefail
COMPARE=$1/scripts/compare SLUICE_BIN=$2 PKTGEN=$3
rounds=$4 seconds=$5 rate=$6
shift 6
WORK=/tmp
# shellcheck source=../compare/network.bash
. "$COMPARE/network.bash"
# shellcheck source=../compare/cpu.bash
. "$COMPARE/cpu.bash"
FLOWS=1000
forwarder=''

fail() {
  echo "FAILED: $*"
  if [ -e /tmp/forwarder.log ]; then tail -n 20 /tmp/forwarder.log; fi
  exit 1
}

# The kernel's generator works on the first CPU; so does the kernel's own forwarding, in its softirqs.
# UDP from as many ports as there are flows; checksums are computed by the sender, for the device has none.
generator() { # VIP PACKETS
  in_net gen ethtool -K g0 tx off >/dev/null
  # shellcheck disable=SC2016 # expanded inside
  in_net gen bash -c '
    set -e
    echo rem_device_all >/proc/net/pktgen/kpktgend_0
    echo add_device g0 >/proc/net/pktgen/kpktgend_0
    for word in "$@"; do echo "$word" >/proc/net/pktgen/g0; done
    echo start >/proc/net/pktgen/pgctrl' pktgen \
    "dst_mac $(mac dut eth0)" "dst $1" "src_min $GEN_ADDRESS" "src_max $GEN_ADDRESS" 'pkt_size 60' 'flag UDPCSUM' \
    'flag UDPSRC_RND' 'udp_src_min 10000' "udp_src_max $((10000 + FLOWS))" "udp_dst_min $UDP_PORT" "udp_dst_max $UDP_PORT" \
    "delay $((1000000000 / rate))" "count $2"
}

# What sends the packets, alone: they end at the dut's door, as the sink's end at its own.
start_generator() { ip -n "${NET}dut" link set dev eth0 xdp obj $WORK/drop.o sec xdp; }
stop_generator() { ip -n "${NET}dut" link set dev eth0 xdp off; }

start_routing() { in_net dut ip route replace $VIP_NAT/32 via $SINK_ADDRESS; }
stop_routing() { in_net dut ip route del $VIP_NAT/32; }

# ipvs METHOD: as ipvsadm writes it; no connection tracking by netfilter beside it, which is the default.
ipvs() {
  in_net dut ip addr add "$(vip_of "$peer")/32" dev eth0
  in_net dut ipvsadm -A -u "$(vip_of "$peer"):$UDP_PORT" -s rr
  in_net dut ipvsadm -a -u "$(vip_of "$peer"):$UDP_PORT" -r "$SINK_ADDRESS:$UDP_PORT" "$@"
}
stop_ipvs() {
  in_net dut ipvsadm -C
  in_net dut ip addr del "$(vip_of "$peer")/32" dev eth0
}

# Forwarders of userspace sleep when there is nothing to do, on the second CPU.
start_wire() {
  # Not by a function: the pid has to be the program's, not that of a shell around it.
  ip netns exec "${NET}dut" taskset -c 1 "$PKTGEN" wire eth0 eth1 --idle sleep --duration 10m >/tmp/forwarder.log 2>&1 &
  forwarder=$!
}

start_sluice() {
  mkdir -p /tmp/state
  sed 's/idle busy/idle sleep/' "$COMPARE/sluice-veth.conf" >/tmp/sluice.conf
  ip netns exec "${NET}dut" "$SLUICE_BIN" run -f /tmp/sluice.conf --state-dir /tmp/state >/tmp/forwarder.log 2>&1 &
  forwarder=$!
}

stop_forwarder() {
  kill -TERM "$forwarder" || fail "$peer ended by itself"
  wait "$forwarder" || true # of SIGTERM
}

start() {
  case $peer in
    ipvs-nat) ipvs -m ;;
    ipvs-dr) ipvs -g ;;
    ipvs-tun) ipvs -i ;;
    sluice-*) start_sluice ;;
    *) "start_$peer" ;;
  esac
}

stop() {
  case $peer in
    ipvs-*) stop_ipvs ;;
    wire | sluice-*) stop_forwarder ;;
    *) "stop_$peer" ;;
  esac
}

vip_of() {
  case $1 in
    *-dr) echo $VIP_DR ;;
    *-tun) echo $VIP_TUN ;;
    *) echo $VIP_NAT ;;
  esac
}

# came PEER: frames that reached the peer's end.
came() {
  case $peer in
    generator) in_net dut ethtool -S eth0 | awk '/xdp_packets/ { sum += $2 } END { print sum + 0 }' ;;
    *) arrived ;;
  esac
}

warm_up() {
  local before try
  for try in $(seq 20); do
    before=$(came)
    generator "$(vip_of "$peer")" $((FLOWS / 2))
    if [ $(($(came) - before)) -ge $((FLOWS / 2)) ]; then return; fi
    sleep 1
  done
  fail "$peer: packets do not come out at the other end, after $try attempts"
}

measure() {
  local packets=$((rate * seconds)) before begin rest
  start
  warm_up
  # The flows' first packets are over by now; what is left of starting is, too.
  sleep 1
  begin=$(busy_ms)
  sleep "$seconds"
  rest=$(($(busy_ms) - begin))
  before=$(came) begin=$(busy_ms)
  generator "$(vip_of "$peer")" $packets
  echo "$peer $(($(came) - before)) $packets $(($(busy_ms) - begin)) $rest" | tee -a /out/cost
  stop
}

modprobe -a veth pktgen ip_vs ip_vs_rr ipip
[ "$(nproc)" -ge 2 ] || fail 'the VM needs two CPUs'
network_up
for _ in $(seq "$rounds"); do
  for peer in "$@"; do measure; done
done
network_down
