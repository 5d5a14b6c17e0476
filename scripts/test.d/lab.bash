# shellcheck shell=bash
# What the lab's tests share. Sourced by scripts/test.d/lab-*.sh, each of which builds its own lab,
# and takes it away whatever happens.

# shellcheck source=../lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

SCRIPTS=$SLUICE_ROOT/scripts
LAB=${SLUICE_LAB_DIR:-/run/sluice-lab}
VIP4=10.20.0.100 VIP6=fd00:20::100
PYTHON=/usr/bin/python3
export VIP4 VIP6 PYTHON
WORK=$(mktemp -d)

lab() { "$SCRIPTS/lab.sh" "$@"; }
on() { "$SCRIPTS/lab.sh" exec "$@"; }
python_on() { on "$1" "$PYTHON" -S "$SCRIPTS/lab/$2" "${@:3}"; }

# vip FAMILY; url FAMILY: the address as programs want it, and as a URL wants it.
vip() { if [ "$1" = 6 ]; then say $VIP6; else say $VIP4; fi; }
url() { if [ "$1" = 6 ]; then say "http://[$VIP6]"; else say "http://$VIP4"; fi; }

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

# On the way out: what helps to understand a failure, then everything goes.
finish() {
  local status=$?
  trap - EXIT
  if [ "$status" != 0 ]; then explain >&2; fi
  lab down
  rm -rf "$WORK"
  exit "$status"
}

explain() {
  [ -e "$LAB/director.log" ] || return 0
  say "---- the director's last messages"
  tail -n 40 "$LAB/director.log"
  say '---- its status'
  # It may be dead; then its messages must do.
  timeout 5 "$SLUICE_BIN" status --state-dir "$LAB/sluice" 2>&1 | head -n 80 || say '(no answer)'
}

trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# lab_with_director TOPOLOGY [OPTION...]
lab_with_director() {
  need_root 'network namespaces and AF_XDP'
  say "lab: $*"
  lab up "$@"
  lab director start
  warm_up
}

# Just started, the director may not know every neighbour's MAC address yet, and the first packets to
# one are lost: TCP sends again, a test that counts datagrams does not. The port is one that no test of
# a scheduler's sequence uses.
warm_up() {
  local family
  for family in 4 6; do
    wait_until 1 timeout 1 "$SCRIPTS/lab.sh" exec client "$PYTHON" -S "$SCRIPTS/lab/udp_sizes.py" "$(vip $family)" 96 ||
      say "IPv$family: no UDP echo yet, 20 s after the start"
  done
}

guard_pid() { awk '$3 == "director" { print $1 }' "$LAB/processes"; }
director_pid() { pgrep -P "$(guard_pid)" | head -n1; }

# http_load FAMILY COUNT TAG [PARALLEL]: that many requests, each a connection of its own. Prints the
# number of answers with status 200; what was not, by curl's own words, goes to stderr. The times are long
# because curl counts them from when it lines a request up: on a busy machine, long before it sends.
http_load() {
  local results=$WORK/http.$3 status=0
  on client curl -gs --no-progress-meter --parallel --parallel-max "${4:-50}" --connect-timeout 60 --max-time 300 -o /dev/null \
    -w '%{http_code} %{errormsg}\n' -K <(http_urls "$@") >"$results" 2>"$results.err" || status=$?
  grep -v '^200 ' "$results" | sort | uniq -c | head -n 20 >&2 || true # none is what we want
  [ "$status" = 0 ] || say "curl ended with $status" >&2
  grep -c '^200 ' "$results" || true # it prints 0 then
}

http_urls() {
  local n base
  base=$(url "$1")
  for ((n = 1; n <= $2; n++)); do printf 'url="%s/?%s-%d"\noutput="/dev/null"\n' "$base" "$3" $n; done
}
