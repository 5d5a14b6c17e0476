#!/bin/bash
# What a packet costs in CPU time: IPVS beside plain routing, Sluice beside a bare AF_XDP wire, all under the same kernel
# (Debian's, which has IPVS, in a virtual machine without hardware support) with the same generator (the kernel's pktgen).
#
#   scripts/compare/ipvs.sh [--rounds N] [--seconds N] [--rate N] [--quick] [PEER...]
#
#   --rounds N    how often each peer is measured, in turn; the figures are medians (3)
#   --seconds N   how long each measurement takes (3)
#   --rate N      packets a second, which all must keep up with (2000)
#   --quick       one round of one second: does everything run?
#   PEER          generator, routing, ipvs-nat, ipvs-dr, ipvs-tun, wire, sluice-nat, sluice-dr, sluice-tun (all)
#
# Needs root; installs qemu and what else scripts/ipvs-vm.sh wants. About 5 minutes. docs/compare.md explains the figures.
set -euo pipefail
# shellcheck source=compare.bash
. "$(dirname "$0")/compare.bash"

ALL='generator routing ipvs-nat ipvs-dr ipvs-tun wire sluice-nat sluice-dr sluice-tun'
rounds=3 seconds=3 rate=2000
peers=()

usage() {
  sed -n '2,/^set -/s/^# \{0,1\}//p' "$0" | sed '/^set -/d'
  exit "${1:-2}"
}

run_vm() {
  step "the virtual machine: $rounds rounds of ${#peers[@]} peers"
  "$SLUICE_ROOT/scripts/ipvs-vm.sh" -o "$WORK/out" -t $((120 + rounds * ${#peers[@]} * (2 * seconds + 20))) \
    "$SLUICE_ROOT/scripts/vm/cost.sh" "$SLUICE_ROOT" "$SLUICE_BIN" "$PKTGEN" "$rounds" "$seconds" "$rate" "${peers[@]}"
}

read_costs() {
  local peer came packets busy rest
  while read -r peer came packets busy rest; do
    # Of packets that are lost on the way, what is measured is half a way.
    [ $((came * 100)) -ge $((packets * 99)) ] || die "$peer: $came of $packets packets arrived: lower --rate"
    note "$peer" cost "$(calc "($busy - $rest) * 1000 / $came")"
    note "$peer" rest "$(calc "$rest / $seconds")"
  done <"$WORK/out/cost"
}

# net PEER: what a packet costs without what its sender costs, in microseconds.
net() { calc "$(noted "$1" cost) - $(noted generator cost)"; }

report() {
  local peer
  for peer in "${peers[@]}"; do
    row "peer=$peer" "cpu_us/packet=$(round "$(noted "$peer" cost)" 1)" "without_generator_us=$(round "$(net "$peer")" 1)" \
      "packets/cpu-s=$(per_second "$(net "$peer")")" "added_us=$(added "$peer")" \
      "at_rest_ms/s=$(round "$(noted "$peer" rest)" 1)"
  done
}

per_second() { [ "$(calc "$1 > 0")" = 0 ] || round "$(calc "1000000 / $1")" 0; }

# added PEER: over plain routing, or over a wire: what the balancing costs.
added() {
  case $1 in
    ipvs-*) round "$(calc "$(noted "$1" cost) - $(noted routing cost)")" 1 ;;
    sluice-*) round "$(calc "$(noted "$1" cost) - $(noted wire cost)")" 1 ;;
  esac
}

judge() {
  local mode
  for mode in nat dr tun; do
    if [ -e "$WORK/ipvs-$mode.cost" ] && [ -e "$WORK/sluice-$mode.cost" ]; then
      target "CPU us added to a packet by Sluice over the wire, limit: by IPVS over routing; $mode" \
        "$(added sluice-$mode)" at-most "$(added ipvs-$mode)"
    fi
  done
}

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?a number} && shift ;;
    --seconds) seconds=${2:?a number} && shift ;;
    --rate) rate=${2:?a number} && shift ;;
    --quick) rounds=1 seconds=1 ;;
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
need_quiet
run_vm
read_costs
report
judge
compare_end
