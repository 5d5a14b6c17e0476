#!/bin/bash
# Real servers on the director itself, reached through the kernel port: by NAT (also at 127.0.0.1) and
# by DR, where the local program listens on the VIP. And the director's own web server as the sorry server, as with
# ldirectord's `fallback=127.0.0.1:80 gate`: it answers while no real server takes connections.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

# service VIP PORT KIND SERVER PORT
service() {
  printf 'virtual_server %s %s {\n    lb_algo rr\n    lb_kind %s\n    protocol TCP\n' "$1" "$2" "$3"
  printf '    real_server %s %s {\n        weight 1\n    }\n}\n' "$4" "$5"
}

# sorry VIP PORT WEIGHT REAL SORRY KIND: a service of one real server of this weight.
sorry() {
  printf 'virtual_server %s %s {\n    lb_algo rr\n    lb_kind NAT\n    protocol TCP\n' "$1" "$2"
  printf '    sorry_server %s %s\n    sorry_server_lvs_method %s\n' "$5" "$2" "$6"
  printf '    real_server %s 80 {\n        weight %s\n    }\n}\n' "$4" "$3"
}

config() { # WEIGHT: of the real servers of services with a sorry server
  printf 'dataplane {\n    workers 1\n    idle sleep\n    interface eth0 { checksum full }\n    interface eth1 { checksum full }\n}\n'
  printf 'static_ipaddress {\n    %s/32 dev eth0\n    %s/128 dev eth0 -nodad\n}\n' "$VIP4" "$VIP6"
  service "$VIP4" 81 NAT 10.30.0.1 8080
  service "$VIP4" 82 NAT 127.0.0.1 8080
  service "$VIP4" 83 DR 10.30.0.1 83
  service "$VIP6" 81 NAT fd00:30::1 8080
  service "$VIP6" 83 DR fd00:30::1 83
  sorry "$VIP4" 84 "$1" 10.30.0.11 127.0.0.1 DR
  sorry "$VIP4" 85 "$1" 10.30.0.11 127.0.0.1 NAT
  sorry "$VIP6" 84 "$1" fd00:30::11 fd00:30::1 DR
  sorry "$VIP6" 85 "$1" fd00:30::11 fd00:30::1 NAT
}

# says WHO: whose page the services with a sorry server show.
says() {
  local family port got
  for family in 4 6; do
    for port in 84 85; do
      got=$(on client curl -gsS --max-time 10 "$(url $family):$port/") || fail "IPv$family, port $port: no answer"
      [ "$got" = "$1" ] || fail "IPv$family, port $port: the page says '$got', not '$1'"
    done
  done
  say "ports 84 and 85: $1 answers"
}

# answers FAMILY PORT: ten connections in a row reach the director's own web server.
answers() {
  local n
  for n in 1 2 3 4 5 6 7 8 9 10; do
    on client curl -gsS --max-time 10 -o /dev/null "$(url "$1"):$2/" || fail "IPv$1, port $2: request $n failed"
  done
  say "IPv$1, port $2: 10 of 10 answered"
}

lab up nat
lab start web8080 director "$PYTHON" -m http.server 8080 --bind ::
mkdir "$WORK/sorry"
echo sorry >"$WORK/sorry/index.html"
for port in 84 85; do
  lab start web$port director "$PYTHON" -m http.server $port --bind :: --directory "$WORK/sorry"
done
lab start web83 director "$PYTHON" -m http.server 83 --bind ::
config 0 >"$WORK/local.conf"
lab director start "$WORK/local.conf"
for port in 81 82 83; do answers 4 $port; done
for port in 81 83; do answers 6 $port; done
says sorry
config 1 >"$WORK/local.conf"
"$SLUICE_BIN" reload --state-dir "$LAB/sluice"
says rs1
config 0 >"$WORK/local.conf"
"$SLUICE_BIN" reload --state-dir "$LAB/sluice"
says sorry
