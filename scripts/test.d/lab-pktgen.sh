#!/bin/bash
# lab-pktgen.sh: the load generator on both sides of a director. What it counts must be what the kernel, the XDP programs and
# the director count; a line that loses one frame of a hundred must be measured so.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

PKTGEN=${SLUICE_PKTGEN:-$SLUICE_TARGET/lab/sluice-pktgen}
CLIENT=${SLUICE_LAB_PREFIX:-sluice-}client/eth0
SERVER=${SLUICE_LAB_PREFIX:-sluice-}rs1/eth0

# pktgen FILE COMMAND...: its result as JSON in a file of $WORK.
pktgen() {
  local file=$WORK/$1
  shift
  "$PKTGEN" "$@" --format json >"$file"
}

# value FILE FILTER: one figure of a result.
value() { jq -er "$2" "$WORK/$1"; }

# same WHAT A B
same() {
  say "$1: $2 and $3"
  [ "$2" = "$3" ] || fail "$1: $2 and $3 differ"
}

sent_by_kernel() { on client cat /sys/class/net/eth0/statistics/tx_packets; }

# forwarded ADDRESS: packets that the director says it forwarded for the UDP service.
forwarded() {
  "$SLUICE_BIN" status --state-dir "$LAB/sluice" --json | jq --arg address "$1" \
    '[.services[] | select(.protocol == "UDP" and .address == $address and .port == 7).destinations[].inbound.packets] | add'
}

# Frames that the director or a veth pair's queue had no room for, so far: on a busy machine that happens, and is known.
overrun() {
  local node
  {
    "$SLUICE_BIN" status --state-dir "$LAB/sluice" --json | jq '[.workers[].sockets[].lost] | add'
    for node in client router director rs1; do on "$node" sh -c 'cat /sys/class/net/*/statistics/tx_dropped'; done
  } | awk '{ n += $1 } END { print n }'
}

# lost FILE BEFORE: packets that are missing for another reason.
lost() {
  sleep 0.3 # until the director's counters are published
  say $(($(value "$1" .received.lost) - $(overrun) + $2))
}

forwarded_at_least() { [ "$(forwarded "$1")" -ge "$2" ]; }

# counts FAMILY: from client to server through the director, each packet counted five times.
counts() {
  local family=$1 to before_kernel before_director before_overrun lost received by_director
  to=$(vip "$family"):7
  [ "$family" = 4 ] || to="[$VIP6]:7"
  before_kernel=$(sent_by_kernel)
  before_overrun=$(overrun)
  before_director=$(forwarded "$(vip "$family")")
  # A generator that moves to another core while the kernel still has packets on the last one reorders them itself.
  pktgen "one-way.$family" send "$CLIENT" --to "$to" --receive "$SERVER" --rate 10k --count 20000 --size imix \
    --core $(($(nproc --all) - 1))
  received=$(value "one-way.$family" .received.packets)
  lost=$(value "one-way.$family" .received.lost)
  same "IPv$family: sent, and received with lost" "$(value "one-way.$family" .sent.packets)" $((received + lost))
  same "IPv$family: received, and taken by XDP" "$received" \
    "$(value "one-way.$family" '.link[1].programs[0].taken - .link[1].sockets[0].rx_ring_full - .link[1].sockets[0].rx_dropped - .received.foreign')"
  # Its counters are published once in a while.
  wait_until 5 forwarded_at_least "$(vip "$family")" $((before_director + received)) || fail 'the director counted fewer than came'
  by_director=$(($(forwarded "$(vip "$family")") - before_director))
  say "IPv$family: forwarded, by the director's count: $by_director"
  [ "$by_director" -le 20000 ] || fail 'the director counted more than were sent'
  # The kernel's own few (ND, ARP) come on top.
  [ $(($(sent_by_kernel) - before_kernel)) -ge 20000 ] || fail 'the kernel sent fewer'
  [ $(($(sent_by_kernel) - before_kernel)) -le 20050 ] || fail 'the kernel sent more'
  same "IPv$family: wrong checksums, reordered, twice" 0,0,0 \
    "$(value "one-way.$family" '.received | "\(.bad_checksum),\(.reordered),\(.duplicates)"')"
  lost=$(lost "one-way.$family" "$before_overrun")
  say "IPv$family: lost where nobody knows: $lost"
  [ "$lost" -le 20 ] || fail "$lost of 20000 lost where nobody knows"
  value "one-way.$family" '.received.latency | .impossible == 0 and .corrected_ns.p50 > 0' >/dev/null || fail 'no latency'
}

# One frame of a hundred goes lost at the router: as many as that, within four standard deviations.
known_loss() {
  local lost before
  before=$(overrun)
  clang -O2 -target bpf -c "$SCRIPTS/lab/loss.bpf.c" -o "$WORK/loss.o"
  on router ip link set dev cli0 xdp obj "$WORK/loss.o" sec xdp
  pktgen loss send "$CLIENT" --to "$VIP4:7" --receive "$SERVER" --rate 10k --count 40000
  on router ip link set dev cli0 xdp off
  lost=$(lost loss "$before")
  say "a loss of 1 %: $lost of 40000 packets lost"
  if [ "$lost" -lt 320 ] || [ "$lost" -gt 480 ]; then fail "$lost of 40000 lost, 400 expected"; fi
}

# The server's end sends everything back, through the director both ways.
round_trip() {
  local before
  lab start reflect rs1 "$PKTGEN" reflect eth0 --ports 7 --duration 60s
  wait_until 10 grep -q 'reflect: ready' "$LAB/reflect.log"
  before=$(overrun)
  pktgen round-trip send "$CLIENT" --to "$VIP4:7" --receive "$CLIENT" --rate 2k --count 4000 --latency-log "$WORK/latency.hlog"
  same 'round trips, and those without loss' "$(value round-trip .received.packets)" $((4000 - $(value round-trip .received.lost)))
  [ "$(lost round-trip "$before")" -le 40 ] || fail 'round trips were lost'
  grep -q '^Tag=corrected,' "$WORK/latency.hlog" || fail 'no HdrHistogram log'
  pktgen search search "$CLIENT" --to "$VIP4:7" --receive "$CLIENT" --ceiling 2k --precision 0.5 --trial 500ms --loss 0.05
  [ "$(value search '.packets_per_second >= 900')" = true ] || fail 'no rate found'
}

# Against real servers, which log each request.
connections() {
  pktgen connect connect "$CLIENT" --to "$VIP4:80" --get '/?pktgen-1' --rate 500 --count 1000
  same 'connections begun and completed' 1000,1000 "$(value connect '"\(.begun),\(.completed)"')"
  same 'requests by the servers' 1000 "$(lab count pktgen | awk '{ n += $NF } END { print n }')"
  pktgen bare connect "$CLIENT" --to "[$VIP6]:80" --rate 500 --count 500
  same 'connections without a request' 500 "$(value bare .completed)"
}

floods() {
  pktgen flood send "$CLIENT" --protocol syn --from 10.99.0.0/16:1024-65535 --to "$VIP4:80" --order random --rate 5k --duration 1s
  [ "$(value flood .sent.packets)" -gt 4500 ] || fail 'no flood'
}

errors() {
  local message
  message=$("$PKTGEN" send "${CLIENT%eth0}none" --to "$VIP4:7" --to-mac 02:00:00:00:00:01 --from 10.0.0.1 2>&1) && fail 'no interface, and no error'
  [[ $message == *none* ]] || fail "an error that does not name the interface: $message"
}

[ -x "$PKTGEN" ] || die "no $PKTGEN: build it first (cargo build --profile lab -p sluice-bench)"
lab_with_director nat --queues 1 --weights 1,0,0
counts 4
counts 6
known_loss
round_trip
connections
floods
errors
