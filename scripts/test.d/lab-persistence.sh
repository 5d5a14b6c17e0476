#!/bin/bash
# lab-persistence.sh: by configs/persistence.conf, a client's connections all go to one server and those of other
# networks spread; when that server is drained its client stays; when all are, the sorry server answers others.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
need_root 'network namespaces and AF_XDP'

# ask ADDRESS: which server answers a client of that address.
ask() { on client curl -gs --max-time 5 --interface "$1" "http://$VIP4/"; }

# drained SERVER...: the configuration with these servers at weight 0.
drained() {
  local text server
  text=$(cat "$SLUICE_ROOT/configs/persistence.conf")
  for server in "$@"; do
    text=$(printf '%s\n' "$text" | sed "/real_server 10.30.0.$server 80 {/,/}/s/weight 1/weight 0/")
  done
  printf '%s\n' "$text" >"$WORK/now.conf"
  "$SLUICE_BIN" reload --state-dir "$LAB/sluice"
}

lab up nat
for net in 1 2 3 4; do
  on client ip addr add 10.11.$net.2/32 dev eth0
  on client ip addr add 10.11.$net.3/32 dev eth0
  on router ip route add 10.11.$net.0/24 via 10.10.0.2
done
cp "$SLUICE_ROOT/configs/persistence.conf" "$WORK/now.conf"
lab director start "$WORK/now.conf"
first=$(ask 10.11.1.2)
for _ in $(seq 20); do
  [ "$(ask 10.11.1.2)" = "$first" ] || fail 'a client changed its server'
  [ "$(ask 10.11.1.3)" = "$first" ] || fail 'another client of the same network got another server'
done
second=$(ask 10.11.2.2)
[ "$second" != "$first" ] || fail 'clients do not spread'
say "10.11.1.0/24 stays with $first, 10.11.2.0/24 with $second"
"$SLUICE_BIN" status --state-dir "$LAB/sluice" | grep -F 'persistent 360 mask 255.255.255.0' ||
  fail 'status does not show it'
drained "1${first#rs}"
[ "$(ask 10.11.1.2)" = "$first" ] || fail 'a client of a drained server lost it'
[ "$(ask 10.11.3.2)" = "$second" ] || fail 'a new client got a drained server'
drained 11 12
[ "$(ask 10.11.4.2)" = rs3 ] || fail 'the sorry server does not answer'
[ "$(ask 10.11.1.2)" = "$first" ] || fail 'a client of a drained server lost it to the sorry server'
drained
[ "$(ask 10.11.4.2)" != rs3 ] || fail 'the sorry server still answers'
say 'drained servers keep their clients, the sorry server comes and goes'
