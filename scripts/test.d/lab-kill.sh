#!/bin/bash
# lab-kill.sh MODE: kill -9 of the director during a download. The guard brings it back: the download
# ends intact, no client sees a reset, a new connection works within a second.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
mode=$1

count_resets() {
  on client nft -f - <<'NFT'
table inet watch {
  counter resets { }
  chain input { type filter hook input priority 0; tcp flags & rst == rst counter name resets; }
}
NFT
}

resets() { on client nft -j list counter inet watch resets | jq '.nftables[] | select(.counter) | .counter.packets'; }

now() { date +%s%3N; }

# Milliseconds until a new connection is answered.
until_answered() {
  local began
  began=$(now)
  until on client curl -gsf --connect-timeout 0.2 --max-time 0.4 -o /dev/null "$1/?new"; do
    [ $(($(now) - began)) -lt 10000 ] || fail 'no new connection within 10 s'
  done
  echo $(($(now) - began))
}

check_family() {
  local family=$1 base guard before took got
  base=$(url "$family")
  guard=$(guard_pid) before=$(director_pid)
  [ -n "$before" ] || fail 'there is no director below the guard'
  on client curl -gsS --max-time 120 --limit-rate 16M "$base/big" | sha256sum >"$WORK/got" &
  local download=$!
  sleep 1.5
  kill -KILL "$before"
  took=$(until_answered "$base")
  wait $download || fail "IPv$family: the download broke off"
  got=$(cat "$WORK/got")
  [ "$got" = "$expected" ] || fail "IPv$family: the download is not intact"
  [ "$(resets)" = 0 ] || fail "IPv$family: the client has seen $(resets) resets"
  kill -0 "$guard" || fail 'the guard is gone'
  [ "$(director_pid)" != "$before" ] || fail 'the director was not replaced'
  say "IPv$family: director killed during a download: intact, no reset, new connections after $took ms"
  [ "$took" -le 1000 ] || fail "IPv$family: new connections only after $took ms"
}

lab_with_director "$mode" --queues 2
lab bigfile 64
expected=$(sha256sum <"$LAB/www/big")
count_resets
check_family 4
check_family 6
