#!/bin/bash
# lab-synproxy.sh QUEUES MIB LEAST ROUNDS: HTTP requests through the SYN proxy; downloads and uploads with and without it in
# turn, ROUNDS times, the best of which may be no slower than LEAST per cent of the rate without (workers, client and
# servers share the machine's cores, so that single ones scatter); and a flood of SYNs from spoofed sources, during which
# no request may fail and no memory be taken.
set -euo pipefail
# shellcheck source=synproxy.bash
. "$(dirname "$0")/synproxy.bash"
queues=$1 mebibytes=$2 least=$3 rounds=$4

# measure NAME: adds a line for each direction and family, in milliseconds.
measure() {
  local family
  for family in 4 6; do
    say "down$family $(timed download $family)"
    say "up$family $(timed upload $family "$mebibytes")"
  done >>"$WORK/times.$1"
}

# best NAME: the least of the times of each direction and family.
best() { sort -k1,1 -k2,2n "$WORK/times.$1" | awk '$1 != last { print } { last = $1 }'; }

check_http() {
  local family answered before joined
  for family in 4 6; do
    before=$(counted handshake_joined)
    answered=$(http_load $family 2000 "proxied$family")
    joined=$(($(counted handshake_joined) - before))
    say "IPv$family: $answered of 2000 answered, $joined handshakes"
    [ "$answered" = 2000 ] || fail "IPv$family: $((2000 - answered)) requests failed"
    [ "$joined" -ge 2000 ] || fail "IPv$family: only $joined connections were proxied"
  done
}

check_rates() {
  local what without with
  while read -r what without with; do
    say "$mebibytes MiB $what: $without ms without, $with ms with the proxy: $((without * 100 / with)) % of the rate"
    # A short transfer is mostly programs that start: a second is nothing, whatever the rates.
    [ $((without * 100 + 100000)) -ge $((with * least)) ] || fail "$what is slower than $least % through the proxy"
  done < <(join <(best without) <(best with))
  say "all times: without $(tr '\n' ' ' <"$WORK/times.without"); with $(tr '\n' ' ' <"$WORK/times.with")"
}

check_flood() {
  local family=$1 rate=$2 seconds=$3 requests=$4 memory answered before sent
  memory=$(resident) before=$(counted cookie_sent)
  flood "$family" "$rate" "$seconds" >"$WORK/flood" &
  sleep 1
  answered=$(http_load "$family" "$requests" "flood$family" 20)
  wait $!
  sent=$(cut -d' ' -f1 "$WORK/flood")
  say "IPv$family: $sent SYNs, $(cut -d' ' -f2 "$WORK/flood") a second, $(($(counted cookie_sent) - before)) answered;" \
    "$answered of $requests requests; flows $(flows); memory $memory kB before, $(resident) kB after"
  [ "$answered" = "$requests" ] || fail "IPv$family: requests failed in the flood"
  # Two keys and two handshakes a request, and what the requests before left behind.
  [ "$(flows)" -le $((requests + 10000)) ] || fail 'SYNs alone became flows'
  [ "$(resident)" -le $((memory + 4096)) ] || fail 'memory grew with the flood'
}

lab_with_director nat --queues "$queues"
lab bigfile "$mebibytes"
lab config nat --queues "$queues" >"$WORK/plain.conf"
proxied --queues "$queues" >"$WORK/proxied.conf"
for ((round = 1; round <= rounds; round++)); do
  [ "$round" = 1 ] || lab director start "$WORK/plain.conf"
  measure without
  lab director start "$WORK/proxied.conf"
  warm_up
  [ "$round" -gt 1 ] || check_http
  measure with
done
check_rates
black_holes
check_flood 4 20000 5 200
check_flood 6 20000 5 200
