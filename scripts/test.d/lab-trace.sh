#!/bin/bash
# A request traced from end to end and a stray segment to its drop reason; the same captured, and read by tshark.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

sluice() { "$SLUICE_BIN" "$@" --state-dir "$LAB/sluice"; }

# begin NAME COMMAND...: a trace or capture in the background; its messages in $WORK/NAME.err. Sets $looking.
begin() {
  local name=$1
  shift
  "$SLUICE_BIN" "$@" --state-dir "$LAB/sluice" >"$WORK/$name" 2>"$WORK/$name.err" &
  looking=$!
  sleep 1 # until workers have the watch
}

stop_looking() {
  kill -INT $looking
  wait $looking || fail "a capture that was interrupted ended with $?: $(cat "$WORK"/*.err)"
}

expect() { # FILE PATTERN
  grep -qE "$2" "$WORK/$1" || { cat "$WORK/$1" >&2; fail "$1 has no line like '$2'"; }
}

get() { on client curl -gsS --max-time 10 -o /dev/null "$(url "$1")/?trace"; }
frames() { tshark -r "$1" -T fields -E separator=' ' -e frame.interface_name -e frame.comment -Y "$2" 2>/dev/null; }

lab_with_director nat --queues 2

for family in 4 6; do
  begin trace trace host "$(vip $family)" and port 80 -c 4
  get $family
  wait $looking
  expect trace '^  arrived   eth0: .*TCP SYN, '
  expect trace '^  lookup    no flow'
  expect trace '^  schedule  a new flow'
  expect trace '^  service   TCP .*:80 by rr to .*10.30.0.1[123]:80|^  service   TCP .*:80 by rr to \[fd00:30::1[123]\]:80'
  expect trace '^  rewrite   destination .* to .*, ttl 63 to 62'
  expect trace '^  left      eth1 .*TCP SYN, '
  expect trace '^  arrived   eth1: .*TCP SYN ACK'
  expect trace '^  lookup    a flow, from the server, in state SynRecv'
  expect trace '^  left      eth0 .*TCP SYN ACK'
  say "IPv$family: a request was traced"
done
cat "$WORK/trace"

begin stray trace drop no_flow -c 1
get 4
python_on client stray.py "$VIP4" 80
wait $looking
expect stray '^  arrived   eth0: .*:45678 > 10.20.0.100:80 TCP ACK'
expect stray '^  dropped   no_flow: '
expect stray '^  counted   reset_sent: '
say 'a stray segment was traced to its drop'

begin all capture tcp and host "$VIP4" -w "$WORK/all.pcapng"
if sluice trace -c 1 2>"$WORK/busy"; then fail 'two looked at once'; fi
expect busy 'one at a time'
for _ in 1 2 3; do get 4; done
sleep 1
stop_looking
for line in 'eth0 ingress' 'eth1 egress'; do
  got=$(frames "$WORK/all.pcapng" 'tcp.flags.syn == 1 && tcp.flags.ack == 0' | grep -c "^$line" || true)
  [ "$got" = 3 ] || fail "tshark finds $got SYN with '$line' instead of 3: $(frames "$WORK/all.pcapng" tcp | head)"
done
say "tshark read $(frames "$WORK/all.pcapng" tcp | wc -l) frames of three requests"

begin dropped capture drop --at drop -w "$WORK/dropped.pcapng" -c 1
python_on client stray.py "$VIP4" 80
wait $looking
got=$(frames "$WORK/dropped.pcapng" 'tcp.srcport == 45678')
[[ $got == 'dropped drop no_flow: '* ]] || fail "the dropped frame says '$got'"

if sluice trace tcp host "$VIP4" 2>"$WORK/wrong"; then fail 'a wrong filter was taken'; fi
expect wrong 'expected .and., .or. or the end'

# Who looks may be killed, and the director may go: neither leaves anything behind.
begin killed trace
kill -KILL $looking
wait $looking || true
sleep 1
begin last trace
lab director stop
wait $looking || fail "a trace ended with $? when the director went: $(cat "$WORK/last.err")"
say 'a killed trace leaves room for the next, and that ends with the director'
