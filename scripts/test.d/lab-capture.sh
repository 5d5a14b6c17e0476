#!/bin/bash
# lab-capture.sh MODE [--cross]: tshark reads every frame that the director sent, where it arrives:
# none may be malformed and every checksum, outer and inner, must be right.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
mode=$1

# What is wrong with a frame. Checksum status 0 is tshark's word for bad.
BAD_SUM='ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0'
# FULLNAT's first local port is one that tshark takes for GSM over IP.
VERIFY=(-o ip.check_checksum:TRUE -o tcp.check_checksum:TRUE -o udp.check_checksum:TRUE --disable-protocol gsm_ipa)

captures=()
capture() { # NAME NODE DEVICE SOURCE-MAC
  lab start "capture-$1" "$2" tshark -q -n -i "$3" -s 0 -f "ether src $4" -w "$LAB/$1.pcap"
  wait_until 20 grep -q 'Capturing on' "$LAB/capture-$1.log" || fail "tshark does not start: $(cat "$LAB/capture-$1.log")"
  captures+=("$1")
}

mac() { on "$1" cat "/sys/class/net/$2/address"; }

# Each device of the director, seen from the other end of its cable.
capture_director() {
  case $mode in
    nat)
      capture to-clients router dir0 "$(mac director eth0)"
      capture to-servers lan dir1 "$(mac director eth1)"
      ;;
    dr) capture to-servers lan dir0 "$(mac director eth0)" ;;
    tun | fullnat) capture to-servers router dir0 "$(mac director eth0)" ;;
  esac
}

traffic() {
  local family
  for family in 4 6; do
    [ "$(http_load $family 200 "capture$family")" = 200 ] || fail "IPv$family: requests failed"
    python_on client udp_sizes.py "$(vip $family)" 300
    python_on client upload.py "$(vip $family)" 1
  done
}

matching() { tshark -n -r "$LAB/$1.pcap" "${VERIFY[@]}" -Y "$2" 2>"$WORK/tshark.err" | tee "$WORK/matching" | wc -l; }

check_capture() {
  local frames malformed sums
  frames=$(matching "$1" 'tcp || udp')
  [ "$frames" -gt 1000 ] || fail "$1: only $frames frames in the capture"
  malformed=$(matching "$1" _ws.malformed)
  [ "$malformed" = 0 ] || { head -n 20 "$WORK/matching" && fail "$1: $malformed malformed of $frames frames"; }
  sums=$(matching "$1" "$BAD_SUM")
  [ "$sums" = 0 ] || { head -n 20 "$WORK/matching" && fail "$1: bad checksums in $sums of $frames frames"; }
  say "$1: $frames frames, none malformed, every checksum right"
}

# The client leaves its checksums to the device: if tshark finds nothing there, it does not look.
check_the_check() {
  local sums
  sums=$(matching from-client "$BAD_SUM")
  [ "$sums" -gt 0 ] || fail 'tshark sees no bad checksum even in frames that have none'
  say "as a proof that tshark looks: $sums unfinished checksums in what the client sent"
}

lab_with_director "$@"
capture_director
capture from-client router cli0 "$(mac client eth0)"
traffic
sleep 1 # what is in tshark's buffers has to reach the file
for name in "${captures[@]}"; do lab stop "capture-$name"; done
for name in "${captures[@]}"; do [ "$name" = from-client ] || check_capture "$name"; done
check_the_check
