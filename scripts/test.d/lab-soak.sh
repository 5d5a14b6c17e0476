#!/bin/bash
# lab-soak.sh MINUTES: requests, datagrams and transfers in turn, in both families, while the director's
# memory is watched. Nothing may fail, and it must not grow.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
end=$((SECONDS + $1 * 60))

resident() { awk '/^VmRSS/ { print $2 }' "/proc/$(director_pid)/status"; }

round() {
  local family
  for family in 4 6; do
    [ "$(http_load $family 2000 "soak$1-$family")" = 2000 ] || fail "round $1: IPv$family requests failed"
    python_on client udp_sizes.py "$(vip $family)" 1400
    python_on client upload.py "$(vip $family)" 16
  done
}

lab_with_director nat --queues 2
round 0
first=$(resident)
number=0
while [ $SECONDS -lt $end ]; do
  number=$((number + 1))
  round $number
done
last=$(resident)
say "$number rounds; the director's memory: $first kB after the first, $last kB after the last"
[ "$last" -le $((first + first / 10 + 4096)) ] || fail 'the director grows'
