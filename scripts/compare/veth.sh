#!/bin/bash
# Packets a second over veth: Sluice by each of its modes beside a bare AF_XDP wire (l2fwd), dpdk-testpmd on the same
# kind of sockets and the kernel's nftables DNAT. One core generates, one forwards; UDP, 64 bytes with FCS.
#
#   scripts/compare/veth.sh [--rounds N] [--seconds N] [--flows N] [--quick] [PEER...]
#
#   --rounds N    how often each peer is measured, in turn; the figures are medians (5)
#   --seconds N   how long each measurement takes (3)
#   --flows N     flows that the packets belong to (1000)
#   --quick       one round of one second: does everything run?
#   PEER          wire, testpmd, nft, nat, dr, tun, fullnat (all)
#
# Needs root and two cores, installs dpdk (Debian) where it is missing, works in network namespaces of its own.
# About 4 minutes. docs/compare.md explains the figures.
set -euo pipefail
# shellcheck source=compare.bash
. "$(dirname "$0")/compare.bash"
# shellcheck source=network.bash
. "$COMPARE/network.bash"

GENERATOR_CORE=0 FORWARDER_CORE=1
ALL='wire testpmd nft nat dr tun fullnat'
rounds=5 seconds=3 flows=1000
peers=()
# Pids of what runs in the background.
forwarder='' generator=''

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit "${1:-2}"
}

# ---- the peers ---------------------------------------------------------------------------

# forward COMMAND...: in the middle, on the forwarders' core, until `halt`.
forward() {
  # Not by a function: the pid has to be the program's, not that of a shell around it.
  ip netns exec "${NET}dut" taskset -c $FORWARDER_CORE "$@" >"$WORK/forwarder.log" 2>&1 &
  forwarder=$!
}

# halt PID: ends a process that we started, if it still runs.
halt() {
  [ -n "$1" ] && kill -TERM "$1" 2>/dev/null || return 0
  # It ends in its own time; a forwarder that does not would be measured with the next.
  timeout 10 tail --pid="$1" -f /dev/null || { warn "process $1 does not end by SIGTERM: killing it" && kill -KILL "$1"; }
  wait "$1" 2>/dev/null || true # of SIGTERM
}

start_wire() { forward "$PKTGEN" wire eth0 eth1 --core $FORWARDER_CORE --idle busy --duration 60s; }

# mac: receive, set both MAC addresses, send: what a director does at least. One queue, one core.
start_testpmd() {
  # The EAL's other core only waits. The sockets spin on their rings, as all here: busy_budget 0 is faster than preferred
  # busy polling, for veth's packets come from the generator's core and not from the forwarder's polling.
  forward dpdk-testpmd -l $GENERATOR_CORE,$FORWARDER_CORE --main-lcore=$GENERATOR_CORE --no-huge -m 512 --no-pci --no-shconf \
    --no-telemetry --log-level=error --vdev net_af_xdp0,iface=eth0,busy_budget=0 --vdev net_af_xdp1,iface=eth1,busy_budget=0 -- \
    --forward-mode=mac --eth-peer=0,"$(mac gen g0)" --eth-peer=1,"$(mac sink s0)" --nb-cores=1 --burst=64 \
    --rxd=2048 --txd=2048 --total-num-mbufs=32768 --auto-start --stats-period=3600
}

# The kernel forwards where the packet arrives, which is in the generator's system call: RPS moves it to the other core.
start_nft() {
  in_net dut nft -f "$COMPARE/dnat.nft"
  in_net dut ip addr add $VIP_NAT/32 dev eth0
  printf '%x\n' $((1 << FORWARDER_CORE)) | in_net dut tee /sys/class/net/eth0/queues/rx-0/rps_cpus >/dev/null
}

stop_nft() {
  in_net dut nft delete table ip compare
  in_net dut ip addr del $VIP_NAT/32 dev eth0
  printf '0\n' | in_net dut tee /sys/class/net/eth0/queues/rx-0/rps_cpus >/dev/null
}

start_sluice() {
  mkdir -p "$WORK/state"
  ip netns exec "${NET}dut" "$SLUICE_BIN" run -f "$COMPARE/sluice-veth.conf" --state-dir "$WORK/state" >"$WORK/forwarder.log" 2>&1 &
  forwarder=$!
}

# start PEER, stop PEER: Sluice serves all modes with one configuration.
start() {
  case $1 in
    wire | testpmd | nft) "start_$1" ;;
    *) start_sluice ;;
  esac
}

stop() {
  case $1 in nft) stop_nft ;; *) halt "$forwarder" ;; esac
  forwarder=''
}

vip_of() {
  case $1 in
    dr) say $VIP_DR ;;
    tun) say $VIP_TUN ;;
    fullnat) say $VIP_FULLNAT ;;
    *) say $VIP_NAT ;;
  esac
}

# ---- measuring ---------------------------------------------------------------------------

generate() { # VIP DURATION RATE
  ip netns exec "${NET}gen" "$PKTGEN" send g0 --core $GENERATOR_CORE --idle busy --duration "$2" --rate "$3" --size 60 \
    --from "$GEN_ADDRESS:10000-$((9999 + flows))" --to "$1:$UDP_PORT" --to-mac "$(mac dut eth0)" \
    --format json >"$WORK/generator.json" 2>"$WORK/generator.log" &
  generator=$!
}

# Whether a slow trickle comes out at the other end: the peer is up and its flows are made.
passes() {
  local before
  before=$(arrived)
  generate "$(vip_of "$1")" 500ms $((flows * 4))
  wait "$generator" || return 1
  [ $(($(arrived) - before)) -ge "$flows" ]
}

measure() { # PEER
  local peer=$1 before after begin end
  start "$peer"
  # Twenty attempts, of half a second each.
  if ! wait_until 1 passes "$peer"; then
    tail -n 20 "$WORK/forwarder.log" "$WORK/generator.log" >&2
    die "$peer: nothing comes out at the other end"
  fi
  generate "$(vip_of "$peer")" $((seconds + 2))s max
  sleep 1
  begin=$(nanoseconds) before=$(arrived)
  sleep "$seconds"
  after=$(arrived) end=$(nanoseconds)
  wait "$generator" || { cat "$WORK/generator.log" >&2; die 'the generator failed'; }
  generator=''
  stop "$peer"
  note "$peer" rate "$(calc "($after - $before) * 1000 / ($end - $begin)")"
  note "$peer" offered "$(jq '.sent.packets / .seconds / 1000000' "$WORK/generator.json")"
}

clean_up() {
  halt "$generator"
  halt "$forwarder"
  network_down
}

report() {
  local peer
  for peer in "${peers[@]}"; do
    row "peer=$peer" "mpps=$(round "$(noted "$peer" rate)" 3)" "least=$(round "$(sort -g "$WORK/$peer.rate" | head -n1)" 3)" \
      "most=$(round "$(sort -g "$WORK/$peer.rate" | tail -n1)" 3)" "offered_mpps=$(round "$(noted "$peer" offered)" 3)" \
      "of_wire=$(of "$peer" wire)" "of_testpmd=$(of "$peer" testpmd)"
  done
}

# of PEER PEER: the ratio of their rates, or nothing where the second was not measured.
of() {
  [ ! -e "$WORK/$2.rate" ] || round "$(ratio "$1" "$2" rate)" 3
}

judge() {
  local peer base
  for peer in nat dr tun fullnat; do
    for base in wire testpmd; do
      if [ -e "$WORK/$peer.rate" ] && [ -e "$WORK/$base.rate" ]; then
        target "packets/s, Sluice $peer over $base" "$(ratio "$peer" "$base" rate)" at-least 0.95
      fi
    done
  done
}

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?a number} && shift ;;
    --seconds) seconds=${2:?a number} && shift ;;
    --flows) flows=${2:?a number} && shift ;;
    --quick) rounds=1 seconds=1 ;;
    -h | --help) usage 0 ;;
    *)
      [[ " $ALL " == *" $1 "* ]] || usage
      peers+=("$1")
      ;;
  esac
  shift
done
# shellcheck disable=SC2206 # one word a peer
[ "${#peers[@]}" -gt 0 ] || peers=($ALL)

compare_begin veth
need_programs
need_quiet
[ "$(nproc)" -ge 2 ] || die 'two cores are needed: one generates, one forwards'
network_up
for ((turn = 1; turn <= rounds; turn++)); do
  step "round $turn of $rounds"
  for peer in "${peers[@]}"; do measure "$peer"; done
done
report
judge
compare_end
