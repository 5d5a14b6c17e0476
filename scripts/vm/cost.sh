#!/bin/bash
# Runs inside the VM, one CPU whose clock counts instructions (`ipvs-vm.sh -i`): what a packet costs by plain routing, by IPVS,
# over a bare AF_XDP wire and by Sluice. The kernel's pktgen sends UDP, some frames at once and then none for a while. Leaves
# /out/cost: a line for each measurement with the peer, the frames of a burst, the packets that arrived, those that were sent,
# and the nanoseconds, which are instructions, that the CPU was busy: meanwhile, and in as long a time without packets.
#
#   scripts/ipvs-vm.sh -i -o DIR scripts/vm/cost.sh SOURCE-DIRECTORY SLUICE PKTGEN ROUNDS PACKETS PAUSE-US BURSTS PEER...
set -euo pipefail
COMPARE=$1/scripts/compare SLUICE_BIN=$2 PKTGEN=$3
rounds=$4 packets=$5 pause_us=$6 bursts=$7
shift 7
WORK=/tmp
# shellcheck source=../compare/network.bash
. "$COMPARE/network.bash"
FLOWS=1024
forwarder=''

fail() {
  echo "FAILED: $*"
  if [ -e /tmp/forwarder.log ]; then tail -n 20 /tmp/forwarder.log; fi
  exit 1
}

# busy_ns: how long the CPU was busy until now, by the kernel's own clock and its account of idle time.
busy_ns() {
  awk '$1 == "now" { now = $3 } $1 == ".idle_sleeptime" { idle = $3 } END { printf "%.0f\n", now - idle }' /proc/timer_list
}

# What is in /proc/net/pktgen is the generator's namespace's own.
in_pktgen() { in_net gen bash -euc "cd /proc/net/pktgen; $1" pktgen "${@:2}"; }

# prepare VIP BURST PACKETS: as many senders as a burst has frames, all of which are due at once. Each has its part of the
# flows, one port each. Checksums are computed by the sender, for the device has none.
prepare() {
  in_net gen ethtool -K g0 tx off >/dev/null
  # shellcheck disable=SC2016 # expanded inside
  in_pktgen '
    burst=$1 flows=$2
    shift 2
    echo rem_device_all >kpktgend_0
    for ((number = 0; number < burst; number++)); do
      echo "add_device g0@$number" >kpktgend_0
      low=$((10000 + number * flows))
      for word in "$@" "udp_src_min $low" "udp_src_max $((low + flows))"; do echo "$word" >"g0@$number"; done
    done' "$2" $((FLOWS / $2)) \
    "dst_mac $(mac dut eth0)" "dst $1" "src_min $GEN_ADDRESS" "src_max $GEN_ADDRESS" 'pkt_size 60' 'flag UDPCSUM' \
    "udp_dst_min $UDP_PORT" "udp_dst_max $UDP_PORT" "delay $((pause_us * 1000))" "count $(($3 / $2))"
}

send() { in_pktgen 'echo start >pgctrl'; }

# spun_ns: how long senders that came too early span inside of bursts. One of them waits for the next burst, and sleeps.
spun_ns() {
  # shellcheck disable=SC2016 # expanded inside
  in_pktgen 'for result in g0@*; do grep Result: "$result"; done' |
    sed 's/.*+d\([0-9]*\)).*/\1/' | sort -n | awk '{ sum += last; last = $1 } END { print sum * 1000 }'
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

# Forwarders of userspace sleep when there is nothing to do.
start_wire() {
  # Not by a function: the pid has to be the program's, not that of a shell around it.
  ip netns exec "${NET}dut" "$PKTGEN" wire eth0 eth1 --idle sleep --duration 1h >/tmp/forwarder.log 2>&1 &
  forwarder=$!
}

start_sluice() {
  mkdir -p /tmp/state
  sed 's/idle busy/idle sleep/; s/cores 1/cores 0/' "$COMPARE/sluice-veth.conf" >/tmp/sluice.conf
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

# came: frames that reached the peer's end.
came() {
  case $peer in
    generator) in_net dut ethtool -S eth0 | awk '/xdp_packets/ { sum += $2 } END { print sum + 0 }' ;;
    *) arrived ;;
  esac
}

# Until every flow's first packet is over.
warm_up() { # BURST
  local before try
  prepare "$(vip_of "$peer")" "$1" $FLOWS
  for try in $(seq 20); do
    before=$(came)
    send
    if [ $(($(came) - before)) -ge $FLOWS ]; then return; fi
    sleep 1
  done
  fail "$peer: packets do not come out at the other end, after $try attempts"
}

measure() { # BURST
  local before begin rest busy count=$((packets / $1 * $1))
  warm_up "$1"
  prepare "$(vip_of "$peer")" "$1" $count
  # What is left of starting is over, too.
  sleep 2
  begin=$(busy_ns)
  sleep "$(awk "BEGIN { print $count / $1 * $pause_us / 1000000 }")"
  rest=$(($(busy_ns) - begin))
  before=$(came) begin=$(busy_ns)
  send
  busy=$(($(busy_ns) - begin))
  busy=$((busy - $(spun_ns)))
  echo "$peer $1 $(($(came) - before)) $count $busy $rest" | tee -a /out/cost
}

modprobe -a veth pktgen ip_vs ip_vs_rr ipip
[ "$(nproc)" = 1 ] || fail 'the VM is to have one CPU: two share the clock that counts'
network_up
# No forwarder comes between the frames of a burst. Each namespace has a thread of the generator, and all have one name.
pgrep -x kpktgend_0 | xargs -n 1 chrt -f -p 50
for _ in $(seq "$rounds"); do
  for peer in "$@"; do
    start
    for burst in $bursts; do measure "$burst"; done
    stop
  done
done
network_down
