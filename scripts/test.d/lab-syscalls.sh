#!/bin/bash
# What a worker asks of the kernel under load, as strace sees it: the wake-ups of its rings, and sleep in epoll
# when there is nothing to do. Any other call fails, and so does a trace without those.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
count=1000
# Sending, receiving, waiting: dataplane/src/port/xsk/kernel.rs has all three.
ALLOWED='sendto recvfrom epoll_pwait2'

command -v strace >/dev/null || fail 'strace is missing; scripts/test.sh installs it (Debian: apt install strace)'

workers() { grep -l '^worker ' "/proc/$(director_pid)"/task/*/comm | cut -d/ -f5; }

# traced NAME COMMAND...: the calls of all workers while the command runs, one a line with its thread, in $WORK/NAME.
traced() {
  local name=$1 thread tracer options=()
  shift
  for thread in $(workers); do options+=(-p "$thread"); done
  [ "${#options[@]}" -gt 0 ] || fail 'the director has no worker'
  strace -q -o "$WORK/$name" "${options[@]}" &
  tracer=$!
  wait_until 10 test -s "$WORK/$name" || fail 'strace saw no call of the workers in 10 s'
  "$@"
  kill -INT $tracer
  wait $tracer || true # it ends by the signal
}

# calls NAME: how often each call was made.
calls() { sed -nE 's/^[0-9]+ +([a-z0-9_]+)\(.*/\1/p' "$WORK/$1" | sort | uniq -c; }

load() {
  local answered family
  for family in 4 6; do
    answered=$(http_load $family $count syscalls$family 20)
    [ "$answered" = $count ] || fail "IPv$family: $((count - answered)) requests failed"
  done
  python_on client udp_sizes.py "$VIP4" 256
  sleep 1 # without traffic, a worker sleeps, looks after its flows, and tells that it lives
}

check() {
  local name=$1 number call others=''
  calls "$name" | tee "$WORK/$name.calls"
  while read -r number call; do
    [[ " $ALLOWED " == *" $call "* ]] || others+=" $call ($number)"
  done <"$WORK/$name.calls"
  [ -z "$others" ] || fail "workers called$others"
  for call in sendto epoll_pwait2; do
    grep -qw "$call" "$WORK/$name.calls" || fail "no $call: the trace missed the workers"
  done
}

for mode in nat fullnat; do
  lab_with_director $mode --queues 2
  traced $mode load
  say "$mode, $(workers | wc -l) workers, $((2 * count)) requests and UDP:"
  check $mode
done

# The same eyes on the thread that makes many other calls: they do see them.
strace -q -o "$WORK/control" -p "$(director_pid)" &
tracer=$!
wait_until 10 test -s "$WORK/control" || fail 'strace saw no call of the control thread in 10 s'
"$SLUICE_BIN" status --state-dir "$LAB/sluice" >/dev/null
kill -INT $tracer
wait $tracer || true
sed -E 's/^/0 /' "$WORK/control" >"$WORK/control.lines" && mv "$WORK/control.lines" "$WORK/control"
if (check control) >/dev/null 2>&1; then fail 'the check passes the control thread, which writes to sockets'; fi
say 'workers make no other call than those of their rings; the check is able to fail'
