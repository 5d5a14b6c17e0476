#!/bin/bash
# lab-limits.sh: with real clients and servers in NAT: wlc and uthreshold spread connections that are held
# open, sh keeps a client with its server, a removed server of a service with `drain` carries its download to
# the end, and without it the download stops until the server is back.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
conf=$LAB/director.conf

# set_up AWK: changes the lab's configuration and reloads.
set_up() {
  awk "$1" "$WORK/original" >"$conf"
  "$SLUICE_BIN" reload --state-dir "$LAB/sluice"
}

# Holds as many connections to port 9000 open as are asked for, then prints the servers' numbers, as status
# counts their active connections: "A=2 B=2 C=2".
held() {
  local family=$1 count=$2
  cat >"$WORK/hold.py" <<'PY'
import os, socket, sys, time
held = []
for _ in range(int(sys.argv[2])):
    try:
        held.append(socket.create_connection((sys.argv[1], 9000), timeout=3))
    except OSError:
        print("refused", flush=True)
print("held", len(held), flush=True)
while os.path.exists(sys.argv[3]):
    time.sleep(0.1)
PY
  rm -f "$WORK/held"
  touch "$WORK/holding"
  on client "$PYTHON" -S "$WORK/hold.py" "$(vip "$family")" "$count" "$WORK/holding" >"$WORK/held" &
  holder=$!
  wait_until 20 grep -q ^held "$WORK/held" || fail 'the client did not get through its connections'
  "$SLUICE_BIN" status --json --state-dir "$LAB/sluice" |
    jq -r --arg vip "$(vip "$family")" '.services[] | select(.address == $vip and .port == 9000)
      | [.destinations[] | select(.standing != "draining") | .active] | reverse | join(" ")'
  rm "$WORK/holding"
  wait "$holder"
  # Until the servers have closed, too.
  sleep 1
}

check_held() { # WHAT AWK COUNT EXPECTED
  local family got
  set_up "$2"
  for family in 4 6; do
    got=$(held $family "$3")
    say "$1, IPv$family: $3 connections are held by $got"
    [ "$got" = "$4" ] || fail "$1, IPv$family: expected $4"
  done
}

check_sh() {
  local family first n
  set_up '{ sub(/lb_algo .*/, "lb_algo sh") } 1'
  for family in 4 6; do
    first=$(on client curl -gsS --max-time 10 "$(url $family)/?sh")
    for n in 1 2 3 4 5; do
      [ "$(on client curl -gsS --max-time 10 "$(url $family)/?sh")" = "$first" ] || fail "sh, IPv$family: try $n went elsewhere"
    done
    say "sh, IPv$family: $first each time"
  done
}

# download FAMILY: starts one that takes some seconds as $transfer, and finds the $server that has it.
download() {
  on client curl -gsS --max-time 60 --limit-rate 8M "$(url "$1")/big" >"$WORK/got" &
  transfer=$!
  sleep 1
  server=$("$SLUICE_BIN" status --json --state-dir "$LAB/sluice" |
    jq -r --arg vip "$(vip "$1")" '.services[] | select(.address == $vip and .port == 80)
      | .destinations[] | select(.active > 0) | .address')
  [ -n "$server" ] || fail "IPv$1: no server has the download"
}

# Configuration with DRAIN in each service and without the server of that address.
without() {
  awk -v gone="$1" -v drain="$2" '
    /real_server/ && $2 == gone { skip = 3 }
    skip > 0 { skip--; next }
    /lb_algo/ { print; if (drain) print "    drain"; next }
    1' "$WORK/original"
}

check_drain() {
  local family=$1
  set_up '/lb_algo/ { print; print "    drain"; next } 1'
  download "$family"
  without "$server" yes >"$conf"
  "$SLUICE_BIN" reload --state-dir "$LAB/sluice"
  "$SLUICE_BIN" status --state-dir "$LAB/sluice" | grep -q 'draining' || fail "$server does not drain"
  wait "$transfer" || fail "IPv$family: the download broke off although $server drains"
  [ "$(sha256sum <"$WORK/got")" = "$expected" ] || fail "IPv$family: the download is not intact"
  say "IPv$family: $server was removed and drained: its download is intact"
}

check_silence() {
  local family=$1 before
  set_up 1
  download "$family"
  without "$server" '' >"$conf"
  "$SLUICE_BIN" reload --state-dir "$LAB/sluice"
  sleep 2
  before=$(stat -c %s "$WORK/got")
  sleep 1
  [ "$(stat -c %s "$WORK/got")" = "$before" ] || fail "IPv$family: $server was removed and still serves"
  set_up 1
  wait "$transfer" || fail "IPv$family: $server is back and the download is not"
  [ "$(sha256sum <"$WORK/got")" = "$expected" ] || fail "IPv$family: the download is not intact"
  say "IPv$family: $server was removed and silent; its download went on when it was back"
}

lab_with_director nat --scheduler wlc
cp "$conf" "$WORK/original"
lab bigfile 48
# What the client's kernel holds for curl, which takes 8 MiB a second, has to be gone within the two seconds of silence:
# since Linux 6.16 that may be 32 MiB.
on client sysctl -qw net.ipv4.tcp_rmem='4096 131072 2097152'
expected=$(sha256sum <"$LAB/www/big")
# First the bound, which counts connections that are over, too.
check_held 'fo with uthreshold 2' '{ sub(/lb_algo .*/, "lb_algo fo") } /weight/ { print "        uthreshold 2" } 1' 5 '1 2 2'
check_held wlc 1 6 '2 2 2'
check_held 'wlc of weights 1, 2, 3' '/weight/ { sub(/[0-9]+/, n++ % 3 + 1) } 1' 6 '1 2 3'
check_sh
for family in 4 6; do
  check_drain $family
  check_silence $family
done
