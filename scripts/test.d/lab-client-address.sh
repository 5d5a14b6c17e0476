#!/bin/bash
# lab-client-address.sh QUEUES: FULLNAT in both families. Servers see a local address of the director; a reader of
# raw frames learns the client's from the TOA option of every connection, nginx logs it from PROXY headers of both
# versions, tshark finds the option where the rule puts it, and 64 MiB pass both ways with option and header.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"
queues=$1 count=${2:-300} mebibytes=${3:-64}
LOCAL4=10.30.0.201 LOCAL6=fd00:30::201

# virtual_server VIP PORT SERVERS SERVER-PORT KEYWORDS...
service() {
  local n
  printf 'virtual_server %s %s {\n    lb_algo rr\n    lb_kind FNAT\n    protocol TCP\n    laddr_group_name locals\n' "$1" "$2"
  printf '    %s\n' "${@:5}"
  for n in 1 2 3; do printf '    real_server %s1%s %s { }\n' "$3" $n "$4"; done
  printf '}\n'
}

# Port 80 tells by the option, 81 by version 1, 82 by version 2 and the option, 83 removes time stamps; 84 and 85 are as
# 80 and 82, behind the SYN proxy.
director_config() {
  local device family
  printf 'dataplane {\n    workers %s\n    idle sleep\n' "$queues"
  for device in eth0 eth1; do printf '    interface %s {\n        queues all\n        checksum full\n    }\n' $device; done
  printf '}\nstatic_ipaddress {\n    %s/32 dev eth0\n    %s/128 dev eth0\n}\n' $VIP4 $VIP6
  printf 'local_address_group locals {\n    %s eth1\n    %s eth1\n}\n' $LOCAL4 $LOCAL6
  for family in 4 6; do
    local net=10.30.0.
    [ $family = 4 ] || net=fd00:30::
    service "$(vip $family)" 80 $net 80
    service "$(vip $family)" 81 $net 81 'proxy_protocol v1'
    service "$(vip $family)" 82 $net 81 'proxy_protocol v2' 'toa on'
    service "$(vip $family)" 83 $net 80 'tcp_timestamps remove'
    service "$(vip $family)" 84 $net 80 syn_proxy
    service "$(vip $family)" 85 $net 81 syn_proxy 'proxy_protocol v2' 'toa on'
  done
}

readers() {
  local n
  for n in 1 2 3; do
    lab start "reader$n" "rs$n" "$PYTHON" -S "$SCRIPTS/lab/toa_reader.py" eth0 "$LAB/toa$n"
  done
  for n in 1 2 3; do wait_until 10 grep -q ready "$LAB/reader$n.log" || fail "reader $n does not start"; done
}

client() { if [ "$1" = 6 ]; then say fd00:10::2; else say 10.10.0.2; fi; }
local_address() { if [ "$1" = 6 ]; then say $LOCAL6; else say $LOCAL4; fi; }

# requests FAMILY PORT TAG: that many connections; the number that were answered.
requests() {
  local n results=$WORK/http.$3 base
  base=$(url "$1"):$2
  for ((n = 1; n <= count; n++)); do printf 'url="%s/?%s-%d"\noutput="/dev/null"\n' "$base" "$3" "$n"; done >"$WORK/urls.$3"
  on client curl -gs --no-progress-meter --parallel --parallel-max 30 --connect-timeout 20 --max-time 60 \
    -w '%{http_code}\n' -K "$WORK/urls.$3" >"$results" 2>"$results.err" || true
  grep -c '^200' "$results" || true
}

# logged FILE TAG PATTERN: lines of the servers' logs of this tag that match.
logged() { cat "$LAB"/rs?/"$1" | grep "/?$2-" | grep -c "$3" || true; }

check_option() {
  local family=$1 port=$2 tag=toa$2$1 answered seen told n
  for n in 1 2 3; do wc -l <"$LAB/toa$n" >"$WORK/before$n"; done
  answered=$(requests "$family" "$port" "$tag")
  [ "$answered" = "$count" ] || fail "IPv$family, port $port: $answered of $count answered"
  seen=$(logged access.log "$tag" "^$(local_address "$family") ")
  [ "$seen" = "$count" ] || fail "IPv$family: the servers saw the local address $seen times, not $count"
  # Each connection has a local address, port and client of its own; all say who the client is.
  told=$(for n in 1 2 3; do tail -n +$(($(cat "$WORK/before$n") + 1)) "$LAB/toa$n"; done | awk -v peer="$(local_address "$family")" -v client="$(client "$family")" \
    '$1 == peer && $3 == client { seen[$4] = 1 } END { print length(seen) }')
  [ "$told" -ge "$count" ] || fail "IPv$family: port $port: the option told $told clients' ports, not $count"
  if cat "$LAB"/toa? | awk -v peer="$(local_address "$family")" -v client="$(client "$family")" \
    '$1 == peer && ($3 != client || $6 != 0)' | grep .; then
    fail "IPv$family: an option tells another client, or does not stand first"
  fi
  say "IPv$family, TOA on port $port: $answered answered; the servers learnt $told clients' ports of $(client "$family")"
}

check_header() {
  local family=$1 port=$2 tag=proxy$2$1 answered told
  answered=$(requests "$family" "$port" "$tag")
  [ "$answered" = "$count" ] || fail "IPv$family, port $port: $answered of $count answered"
  told=$(logged proxy.log "$tag" "^$(client "$family") [0-9]* $(vip "$family") $port $(local_address "$family") 200 ")
  [ "$told" = "$count" ] || fail "IPv$family, port $port: nginx logged the client $told times, not $count"
  say "IPv$family, PROXY on port $port: $answered answered, nginx logged $(client "$family") as often"
}

check_transfer() {
  local family=$1 port=$2 expected got began=$SECONDS
  expected=$(sha256sum <"$LAB/www/big")
  got=$(on client curl -gsS --max-time 100 "$(url "$family"):$port/big" | sha256sum)
  [ "$got" = "$expected" ] || fail "IPv$family: $mebibytes MiB came down as something else"
  on client curl -gsS -f --max-time 100 -H 'Expect:' -T "$LAB/www/big" "$(url "$family"):$port/up/file$port$family" || fail 'no upload'
  got=$(cat "$LAB"/rs?/up/file"$port$family" | sha256sum)
  [ "$got" = "$expected" ] || fail "IPv$family: $mebibytes MiB went up as something else"
  say "IPv$family, PROXY v2 and TOA on port $port: $mebibytes MiB down and up, intact, $((SECONDS - began)) s"
}

# Local port 5253 would be read as netsync's, as which a PROXY header is malformed.
frames() {
  tshark -n --disable-protocol netsync -o tcp.check_checksum:TRUE -r "$LAB/to-servers.pcap" -Y "$1" \
    -T fields -e tcp.options 2>"$WORK/tshark.err"
}

# tshark's reading: the option on every SYN of port 80 and first of all, never on a segment with FIN or RST, and in
# few of all segments.
check_capture() {
  local syn tagged all with
  syn=$(frames 'tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.dstport == 80' | wc -l)
  tagged=$(frames 'tcp.flags.syn == 1 && tcp.flags.ack == 0 && tcp.dstport == 80' | grep -Ec '^(fe:?08|fd:?14)' || true)
  [ "$syn" -ge "$count" ] || fail "only $syn SYNs in the capture"
  [ "$syn" = "$tagged" ] || fail "the option stands first in $tagged of $syn SYNs"
  [ "$(frames '(tcp.flags.fin == 1 || tcp.flags.reset == 1) && (tcp.option_kind == 254 || tcp.option_kind == 253)' | wc -l)" = 0 ] ||
    fail 'the option stands in a segment with FIN or RST'
  all=$(frames 'tcp' | wc -l)
  with=$(frames 'tcp.option_kind == 254 || tcp.option_kind == 253' | wc -l)
  [ "$(frames '_ws.malformed || tcp.checksum.status == 0' | wc -l)" = 0 ] || fail 'tshark finds malformed frames'
  [ "$(frames 'tcp.dstport == 80 && tcp.flags.syn == 1 && tcp.options.timestamp.tsval' | wc -l)" -gt 0 ] || fail 'no time stamps at all'
  say "tshark: the option first in all $syn SYNs, in $with of $all segments, in none with FIN or RST"
}

need_root 'network namespaces and AF_XDP'
lab up nat --queues "$queues"
director_config >"$WORK/director.conf"
lab director start "$WORK/director.conf"
for family in 4 6; do
  wait_until 20 on client curl -gfs -o /dev/null --max-time 1 "$(url $family)/" || fail "IPv$family: no answer"
  for n in 1 2 3; do on client curl -gfs -o /dev/null --max-time 2 "$(url $family)/" || true; done
done
lab bigfile "$mebibytes"
readers
lab start capture lan tshark -q -n -i dir1 -s 0 -f "tcp and ether src $(on director cat /sys/class/net/eth1/address)" -w "$LAB/to-servers.pcap"
wait_until 20 grep -q 'Capturing on' "$LAB/capture.log" || fail 'tshark does not start'
for family in 4 6; do
  for port in 80 84; do check_option $family $port; done
  for port in 81 82 85; do check_header $family $port; done
  [ "$(requests $family 83 bare$family)" = "$count" ] || fail "IPv$family: without time stamps requests fail"
done
lab stop capture
check_capture
for family in 4 6; do
  for port in 82 85; do check_transfer $family $port; done
done
