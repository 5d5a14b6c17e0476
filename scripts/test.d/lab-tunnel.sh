#!/bin/bash
# Every form of tunnel in both families, over both: requests by curl and echoes by UDP, none lost, and
# tshark finds nothing malformed and no wrong checksum in what reaches the servers. Then a link in the
# tunnel's way that carries less: the client must learn the MTU that is left for it.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

# check_form FORM OUTER [OPTION...]: OUTER is tshark's filter for what stands between the IP headers.
check_form() {
  local form=$1 outer=$2 family answered
  shift 2
  lab_with_director tun --tunnel "$form" "$@"
  capture_start
  for family in 4 6; do
    answered=$(http_load $family 60 "$form$family" 10)
    [ "$answered" = 60 ] || fail "$form IPv$family: $answered of 60 requests answered"
    python_on client udp_sizes.py "$(vip $family)" 100
  done
  capture_check "$form" "$outer"
  if grep dropped "$LAB"/rs?-decap.log; then fail "$form: a server could not take it out"; fi
}

capture_start() {
  rm -f "$WORK/rs1.pcapng"
  lab start capture rs1 tshark -q -i eth0 -s 0 -w "$WORK/rs1.pcapng"
  wait_until 20 grep -q 'Capturing on' "$LAB/capture.log" || fail "tshark does not start: $(cat "$LAB/capture.log")"
}

# None malformed, no wrong checksum. tshark does not know GUE, so of that it sees the outer headers only; what is
# inside the server's end of the tunnel looks at.
capture_check() { # FORM FILTER
  local wrong tunnelled
  sleep 1 # what is in tshark's buffers has to reach the file
  lab stop capture
  tunnelled=$(look -Y "$2" | wc -l)
  [ "$tunnelled" -gt 150 ] || fail "only $tunnelled packets by $1 reached rs1"
  wrong=$(look -o ip.check_checksum:TRUE -o udp.check_checksum:TRUE -Y "$2 && (_ws.malformed || \
    ip.checksum.status == Bad || udp.checksum.status == Bad || gre.checksum.status == Bad)")
  [ -z "$wrong" ] || { say "$wrong" | head -n 5 && fail 'tshark finds fault'; }
  say "$tunnelled packets by $1 at rs1, nothing wrong with them"
}

look() { tshark -n -r "$WORK/rs1.pcapng" "$@" 2>/dev/null; }

# What the client has learnt of the way to a VIP.
learnt() { on client ip -o route get "$1" | grep -o 'mtu [0-9]*' || true; }

# The router's way to the servers narrows: its ICMP error is about the outer packet and goes to the director.
check_narrow() { # SHIM: bytes between outer IP header and packet
  local family mtu expected
  on router ip link set srv0 mtu 1400
  for family in 4 6; do
    python_on client upload.py "$(vip $family)" 1
    mtu=$(learnt "$(vip $family)")
    expected=$((1400 - (family == 4 ? 20 : 40) - $1))
    [ "$mtu" = "mtu $expected" ] || fail "IPv$family: the client should have learnt mtu $expected, it has '${mtu:-nothing}'"
    say "IPv$family: the client has learnt $mtu of a link with 1400 in the tunnel's way"
  done
}

gue='udp.dstport == 6080'
check_form gre gre
check_narrow 4
check_form gre-csum gre --cross
check_form gue "$gue" --cross
check_form gue-csum "$gue"
check_narrow 12
check_form gue-remcsum "$gue"
