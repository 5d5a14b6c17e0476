#!/bin/bash
# Real servers on the director itself, reached through the kernel port: by NAT (also at 127.0.0.1) and
# by DR, where the local program listens on the VIP.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

# service VIP PORT KIND SERVER PORT
service() {
  printf 'virtual_server %s %s {\n    lb_algo rr\n    lb_kind %s\n    protocol TCP\n' "$1" "$2" "$3"
  printf '    real_server %s %s {\n        weight 1\n    }\n}\n' "$4" "$5"
}

config() {
  printf 'dataplane {\n    workers 1\n    idle sleep\n    interface eth0 { checksum full }\n}\n'
  printf 'static_ipaddress {\n    %s/32 dev eth0\n    %s/128 dev eth0 -nodad\n}\n' "$VIP4" "$VIP6"
  service "$VIP4" 81 NAT 10.30.0.1 8080
  service "$VIP4" 82 NAT 127.0.0.1 8080
  service "$VIP4" 83 DR 10.30.0.1 83
  service "$VIP6" 81 NAT fd00:30::1 8080
  service "$VIP6" 83 DR fd00:30::1 83
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
lab start web83 director "$PYTHON" -m http.server 83 --bind ::
config >"$WORK/local.conf"
lab director start "$WORK/local.conf"
for port in 81 82 83; do answers 4 $port; done
for port in 81 83; do answers 6 $port; done
