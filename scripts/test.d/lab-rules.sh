#!/bin/bash
# Marks, groups, rules and limits with real clients: two ports of one mark are one service, a group of
# two addresses is one, what is denied hears nothing, a rate holds; and `sluice doctor` finds the rule of
# nftables that no longer meets the packets of a service.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

SECOND=10.20.0.101

servers() { # PORT
  local n
  for n in 11 12 13; do printf '    real_server 10.30.0.%s %s {\n    }\n' "$n" "$1"; done
  printf '}\n'
}

config() {
  cat <<CONFIG
dataplane {
    workers 1
    idle sleep
    interface eth0 { checksum full }
    interface eth1 { checksum full }
    rules {
        mark 7 to $VIP4 tcp port 80-81
        deny from 10.10.0.0/16 to $VIP4 tcp port 83
        rate 1 burst 2 to $VIP4 tcp port 84
    }
}
static_ipaddress {
    $VIP4/32 dev eth0
    $SECOND/32 dev eth0
}
virtual_server_group web {
    $VIP4 82
    $SECOND 80
}
CONFIG
  printf 'virtual_server fwmark 7 {\n    lb_algo rr\n    lb_kind NAT\n' && servers 80
  printf 'virtual_server group web {\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n' && servers 80
  for port in 83 84; do
    printf 'virtual_server %s %s {\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n' "$VIP4" $port && servers 80
  done
}

# get ADDRESS:PORT TAG [SECONDS]
get() { on client curl -gsS --max-time "${3:-20}" -o /dev/null "http://$1/?$2"; }

# spread TAG: how many requests of a tag each server had, such as "20 20 20".
spread() { lab count "$1" | grep -oE '[0-9]+$' | tr '\n' ' ' | sed 's/ $//'; }

dropped() { # REASON
  "$SLUICE_BIN" status --json --state-dir "$LAB/sluice" |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["counters"]["drops"][sys.argv[1]]["count"])' "$1"
}

need_root 'network namespaces and AF_XDP'
lab up nat
config >"$WORK/rules.conf"
lab director start "$WORK/rules.conf"
wait_until 20 get "$VIP4:80" warm 2 || fail 'no answer within 20 s'

for ((n = 0; n < 15; n++)); do
  get "$VIP4:80" mark-$n || fail "marked, port 80: request $n failed"
  get "$VIP4:81" mark-$n || fail "marked, port 81: request $n failed"
done
say "two ports of one mark: $(lab count mark | tr '\n' ' ')"
[ "$(spread mark)" = '10 10 10' ] || fail 'round robin did not go on from port to port'

for ((n = 0; n < 15; n++)); do
  get "$VIP4:82" group-$n || fail "group, first address: request $n failed"
  get "$SECOND:80" group-$n || fail "group, second address: request $n failed"
done
say "a group of two addresses: $(lab count group | tr '\n' ' ')"
[ "$(spread group)" = '10 10 10' ] || fail 'round robin did not go on from address to address'

status=0
get "$VIP4:83" denied 2 2>/dev/null || status=$?
[ "$status" = 28 ] || fail "a denied request ended with $status, not with silence (28)"
[ "$(dropped denied)" -ge 1 ] || fail 'nothing was counted as denied'
say "denied: silence, $(dropped denied) packets counted"

passed=0
for ((n = 0; n < 8; n++)); do
  if get "$VIP4:84" rate-$n 0.3 2>/dev/null; then passed=$((passed + 1)); fi
done
say "a rate of 1 a second, burst 2: $passed of 8 requests within some 2 s were answered"
if [ "$passed" -lt 2 ] || [ "$passed" -gt 6 ]; then fail 'the rate did not hold'; fi
[ "$(dropped rate_limited)" -ge 2 ] || fail 'nothing was counted as rate_limited'

say 'the status of rules and services:'
"$SLUICE_BIN" status --state-dir "$LAB/sluice" | grep -E '^(FWM|TCP) |^ +at |mark 7|deny from|rate 1' || fail 'status does not show them'

on director nft -f - <<NFT
table inet filter {
    chain input {
        type filter hook input priority 0; policy accept;
        ip saddr 10.66.0.0/16 ip daddr $VIP4 tcp dport 82 drop
        tcp dport 22 accept
    }
}
NFT
on director "$SLUICE_BIN" doctor -f "$WORK/rules.conf" >"$WORK/doctor" || fail "doctor: $(cat "$WORK/doctor")"
cat "$WORK/doctor"
grep -q 'no longer meets packets to TCP group web: what it drops is let through' "$WORK/doctor" || fail 'doctor missed the rule'
grep -qF "deny from 10.66.0.0/16 to $VIP4 tcp port 82" "$WORK/doctor" || fail 'doctor gave no replacement'
if grep -q 'dport 22' "$WORK/doctor"; then fail 'doctor told of a rule that meets no service'; fi
on director "$SLUICE_BIN" check --host "$WORK/rules.conf" 2>&1 | grep -q 'what it drops is let through' || fail 'check --host missed the rule'
on director "$SLUICE_BIN" doctor -f "$WORK/rules.conf" --json | "$PYTHON" -m json.tool >/dev/null || fail 'no JSON'
