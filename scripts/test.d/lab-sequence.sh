#!/bin/bash
# lab-sequence.sh MODE: connections one after the other go to the servers that IPVS would choose
# (scripts/vm/fixtures, made by IPVS itself: scripts/vm/sequences.sh).
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
mode=$1

ask() {
  local n
  for ((n = 0; n < $2; n++)); do
    on client curl -gsS --max-time 10 "$(url "$1")/?sequence"
  done | sed 's/rs1/A/; s/rs2/B/; s/rs3/C/' | paste -sd' '
}

check() { # SCHEDULER WEIGHTS
  local expected got family
  expected=$(tail -n1 "$SCRIPTS/vm/fixtures/$1-${2//,/-}.txt")
  lab_with_director "$mode" --scheduler "$1" --weights "$2"
  for family in 4 6; do
    got=$(ask $family "$(wc -w <<<"$expected")")
    say "$1 $2, IPv$family: $got"
    [ "$got" = "$expected" ] || fail "$1 $2, IPv$family: IPVS gives $expected"
  done
}

check wrr 3,2,1
check wrr 4,2,2
check rr 1,1,1
