#!/bin/bash
# What a packet costs in instructions: IPVS beside plain routing, Sluice beside a bare AF_XDP wire, all under the same kernel
# (Debian's, which has IPVS, in a virtual machine that counts instructions) with the same generator (the kernel's pktgen).
#
#   scripts/compare/ipvs.sh [--rounds N] [--packets N] [--pause US] [--bursts "N..."] [--quick] [PEER...]
#
#   --rounds N      how often each peer is measured, in turn; the figures are the least (5)
#   --packets N     packets of each measurement, after those that open the flows (4096)
#   --pause US      microseconds from one burst to the next, by the VM's clock (2000)
#   --bursts "N..." frames that come at once (1 32)
#   --quick         one round of few packets: does everything run?
#   PEER            generator, routing, ipvs-nat, ipvs-dr, ipvs-tun, wire, sluice-nat, sluice-dr, sluice-tun (all)
#
# Needs root; installs qemu and what else scripts/ipvs-vm.sh wants. About 10 minutes. docs/compare.md explains the figures.
set -euo pipefail
# shellcheck source=compare.bash
. "$(dirname "$0")/compare.bash"

ALL='generator routing ipvs-nat ipvs-dr ipvs-tun wire sluice-nat sluice-dr sluice-tun'
rounds=5 packets=4096 pause=2000 bursts='1 32'
peers=()

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit "${1:-2}"
}

run_vm() {
  local count
  count=$(wc -w <<<"$bursts")
  step "the virtual machine: $rounds rounds of ${#peers[@]} peers"
  "$SLUICE_ROOT/scripts/ipvs-vm.sh" -i -o "$WORK/out" -t $((300 + rounds * ${#peers[@]} * count * (20 + packets / 200))) \
    "$SLUICE_ROOT/scripts/vm/cost.sh" "$SLUICE_ROOT" "$SLUICE_BIN" "$PKTGEN" "$rounds" "$packets" "$pause" "$bursts" "${peers[@]}"
}

# What is noted of a peer has the burst in its name.
read_costs() {
  local peer burst came sent busy rest
  while read -r peer burst came sent busy rest; do
    # Of packets that are lost on the way, what is measured is half a way.
    [ $((came * 100)) -ge $((sent * 99)) ] || die "$peer: $came of $sent packets arrived: raise --pause"
    note "$peer" "busy-$burst" "$(calc "$busy / $came")"
    note "$peer" "rest-$burst" "$(calc "$rest / $sent")"
  done <"$WORK/out/cost"
}

# least PEER busy|rest BURST, most...: of all rounds. The kernel, and what else runs, have fits now and then: least has none.
least() { sort -g "$WORK/$1.$2-$3" | head -n1; }
most() { sort -g "$WORK/$1.$2-$3" | tail -n1; }

# cost PEER BURST: of a packet, in instructions.
cost() { calc "$(least "$1" busy "$2") - $(least "$1" rest "$2")"; }

# over PEER PEER BURST: how much more a packet costs by the first than by the second.
over() { calc "$(cost "$1" "$3") - $(cost "$2" "$3")"; }

report() {
  local peer burst
  for burst in $bursts; do
    for peer in "${peers[@]}"; do
      row "peer=$peer" "at_once=$burst" "instructions/packet=$(round "$(cost "$peer" "$burst")" 0)" \
        "most=$(round "$(calc "$(most "$peer" busy "$burst") - $(least "$peer" rest "$burst")")" 0)" \
        "without_generator=$(round "$(over "$peer" generator "$burst")" 0)" "added=$(added "$peer" "$burst")" \
        "at_rest=$(round "$(least "$peer" rest "$burst")" 0)" "at_rest_most=$(round "$(most "$peer" rest "$burst")" 0)"
    done
  done
}

# added PEER BURST: over plain routing, or over a wire: what the balancing costs.
added() {
  case $1 in
    ipvs-*) round "$(over "$1" routing "$2")" 0 ;;
    sluice-*) round "$(over "$1" wire "$2")" 0 ;;
  esac
}

judge() {
  local mode burst
  for burst in $bursts; do
    for mode in nat dr tun; do
      if [ -e "$WORK/ipvs-$mode.busy-$burst" ] && [ -e "$WORK/sluice-$mode.busy-$burst" ]; then
        target "instructions added to a packet by Sluice over the wire, limit: by IPVS over routing; $mode, $burst at once" \
          "$(added sluice-$mode "$burst")" at-most "$(added ipvs-$mode "$burst")"
      fi
    done
  done
}

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?a number} && shift ;;
    --packets) packets=${2:?a number} && shift ;;
    --pause) pause=${2:?a number} && shift ;;
    --bursts) bursts=${2:?numbers} && shift ;;
    --quick) rounds=1 packets=256 ;;
    -h | --help) usage 0 ;;
    *)
      [[ " $ALL " == *" $1 "* ]] || usage
      peers+=("$1")
      ;;
  esac
  shift
done
# What others are held against is always measured.
if [ "${#peers[@]}" -gt 0 ]; then
  mapfile -t peers < <(printf '%s\n' generator routing wire "${peers[@]}" | awk '!seen[$0]++')
else
  read -r -a peers <<<"$ALL"
fi

compare_begin ipvs
need_programs
run_vm
read_costs
report
judge
compare_end
