# shellcheck shell=bash
# What the tests of the SYN proxy share.
# shellcheck source=lab.bash
. "$(dirname "${BASH_SOURCE[0]}")/lab.bash"

# proxied OPTION...: the lab's configuration, with syn_proxy for its TCP services.
proxied() { lab config nat "$@" | sed 's/^\( *\)protocol TCP$/&\n\1syn_proxy/'; }

# counted NAME: a counter of the director's, of its tables of drops and events.
counted() { "$SLUICE_BIN" status --state-dir "$LAB/sluice" | awk -v name="$1" '$1 == name { print $2 }' | head -n1 | grep . || say 0; }
flows() { "$SLUICE_BIN" status --state-dir "$LAB/sluice" | awk '$1 ~ /^IPv[46]$/ { n += $2 } END { print n + 0 }'; }
resident() { awk '/^VmRSS/ { print $2 }' "/proc/$(director_pid)/status"; }

# timed COMMAND...: runs it in silence and prints the milliseconds that it took.
timed() {
  local began
  began=$(date +%s%N)
  "$@" >"$WORK/timed" || fail "$*: $(tail -n1 "$WORK/timed")"
  say $((($(date +%s%N) - began) / 1000000))
}

download() { on client curl -gsS --max-time 500 -o /dev/null "$(url "$1")/big"; }
upload() { python_on client upload.py "$(vip "$1")" "$2"; }

# black_holes: where spoofed sources are, so that answers to them end at the router.
black_holes() {
  on router ip route add blackhole 198.18.0.0/15
  on router ip -6 route add blackhole 2001:db8:f::/48
}

# flood FAMILY RATE SECONDS: prints how many SYNs were sent, and how many a second.
flood() {
  local mac
  mac=$(on director cat /sys/class/net/eth0/address)
  python_on router syn_flood.py dir0 "$mac" "$(vip "$1")" 80 "$2" "$3"
}
