#!/bin/bash
# What is left behind: nothing after SIGTERM; after kill -9 of guard and director the program stays
# (it keeps the kernel from resetting clients) until `sluice run` takes it over or `sluice cleanup`
# takes it away.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

# Everything that Sluice might leave in the director's namespace.
traces() {
  on director ip -o link show | grep -E 'xdp' || true # none is what we hope for
  on director ip -o link show | awk -F': ' '{ sub(/@.*/, "", $2); print $2 }' | grep -vE '^(lo|eth0|eth1)$' || true
  on director ip -o addr show | grep -E "$VIP4/|$VIP6/" || true
}

kill_both() {
  local guard director
  guard=$(guard_pid) director=$(director_pid)
  kill -KILL "$guard"
  # The guard's death may take it along.
  kill -KILL "$director" 2>/dev/null || say 'the director went with its guard'
  wait_until 5 no_process "$guard" || fail 'the guard does not die'
  wait_until 5 no_process "$director" || fail 'the director does not die'
}

no_process() { ! kill -0 "$1" 2>/dev/null || grep -q '^State:.Z' "/proc/$1/status"; }

requests() {
  [ "$(http_load 4 100 "$1-4")" = 100 ] || fail "$1: IPv4 requests failed"
  [ "$(http_load 6 100 "$1-6")" = 100 ] || fail "$1: IPv6 requests failed"
}

lab_with_director nat --queues 2
requests first
lab director stop
[ -z "$(traces)" ] || { traces && fail 'SIGTERM leaves something behind'; }
say 'SIGTERM leaves nothing behind'

lab director start
requests second
kill_both
on director ip -o link show dev eth0 | grep -q xdp || fail 'the program went with the process: clients would be reset'
lab director start
requests third
say 'after kill -9 of both, sluice run takes over'

kill_both
on director "$SLUICE_BIN" cleanup --state-dir "$LAB/sluice"
[ -z "$(traces)" ] || { traces && fail 'sluice cleanup leaves something behind'; }
say 'sluice cleanup leaves nothing behind'
on director "$SLUICE_BIN" cleanup --state-dir "$LAB/sluice" || fail 'a second cleanup fails'
