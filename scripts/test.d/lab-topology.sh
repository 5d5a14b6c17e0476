#!/bin/bash
# The lab itself, without Sluice: the kernel forwards in the director's place, so that a failure of
# another test cannot be the lab's fault. NAT by nftables, DR by a route, TUN by hand-made packets.
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

hold_vips() {
  on director ip addr add $VIP4/32 dev eth0
  on director ip addr add $VIP6/128 dev eth0 nodad
}

kernel_nat() {
  on director nft -f - <<'NFT'
table inet lab {
  chain prerouting {
    type nat hook prerouting priority dstnat
    ip daddr 10.20.0.100 dnat ip to numgen inc mod 3 map { 0 : 10.30.0.11, 1 : 10.30.0.12, 2 : 10.30.0.13 }
    ip6 daddr fd00:20::100 dnat ip6 to numgen inc mod 3 map { 0 : fd00:30::11, 1 : fd00:30::12, 2 : fd00:30::13 }
  }
}
NFT
}

check_nat() {
  lab up nat
  hold_vips
  kernel_nat
  local family answered total
  for family in 4 6; do
    answered=$(http_load $family 1000 "nat$family")
    total=$(lab count "nat$family" | awk '{ n += $2 } END { print n }')
    lab count "nat$family" | tr '\n' ' '
    say "- client counts $answered, servers count $total"
    if [ "$answered" != 1000 ] || [ "$total" != 1000 ]; then fail "IPv$family: not every request was answered"; fi
    python_on client udp_sizes.py "$(vip $family)" 200
    python_on client upload.py "$(vip $family)" 8
  done
}

# The servers may have the VIP, but only the director may be found by asking for it.
check_silence() {
  local node=$1 answers
  on "$node" ip neigh flush dev dir0
  on "$node" ip addr show | grep -q "$VIP4" && fail "$node has the VIP itself"
  on director ip -o addr show dev eth0 | grep -q "$VIP4" && fail 'the director has the VIP already'
  on "$node" "$PYTHON" -S "$SCRIPTS/lab/who_has.py" dir0 $VIP4 $VIP6 >"$WORK/answers"
  answers=$(wc -l <"$WORK/answers")
  [ "$answers" = 0 ] || { cat "$WORK/answers" && fail 'a real server answers for the VIP'; }
  hold_vips
  on "$node" "$PYTHON" -S "$SCRIPTS/lab/who_has.py" dir0 $VIP4 $VIP6 >"$WORK/answers"
  [ "$(sort -u "$WORK/answers" | wc -l)" = 2 ] || { cat "$WORK/answers" && fail 'the director does not answer for the VIPs'; }
  say 'servers are silent about the VIP, the director is not'
}

# DR is next-hop forwarding: a route to the VIP by a server does the same.
check_dr() {
  lab up dr
  check_silence router
  on director ip addr del $VIP4/32 dev eth0
  on director ip addr del $VIP6/128 dev eth0
  on director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
    net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
  on router ip route add $VIP4/32 via 10.20.0.2
  on router ip route add $VIP6/128 via fd00:20::2
  on director ip route add $VIP4/32 via 10.20.0.12
  on director ip route add $VIP6/128 via fd00:20::12
  local family
  for family in 4 6; do
    [ "$(http_load $family 200 "dr$family")" = 200 ] || fail "IPv$family: a server with the VIP on lo does not answer"
    [ "$(lab count "dr$family" | awk '$1 == "rs2" { print $2 }')" = 200 ] || fail 'rs2 did not count its requests'
    python_on client udp_sizes.py "$(vip $family)" 200
  done
}

probe() {
  local client=$1 address=$2 server=$3 heard
  on client timeout 5 "$PYTHON" -S -c '
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 5000))
print("ready", flush=True)
data, peer = sock.recvfrom(2000)
print(data.decode(), "from", peer[0])' "$client" >"$WORK/heard" &
  local listener=$!
  wait_until 5 grep -q ready "$WORK/heard"
  python_on director tunnel_probe.py "$client" "$address" "$server"
  wait $listener || fail "$server: no echo out of the tunnel for $address"
  heard=$(tail -n1 "$WORK/heard")
  [ "$heard" = "through the tunnel from $address" ] || fail "$server: heard '$heard'"
  say "tunnel by $server, VIP $address: echo heard"
}

check_tun() {
  lab up tun
  local n
  for n in 1 2 3; do
    probe 10.10.0.2 $VIP4 10.30.0.1$n
    probe 10.10.0.2 $VIP4 fd00:30::1$n
    probe fd00:10::2 $VIP6 10.30.0.1$n
    probe fd00:10::2 $VIP6 fd00:30::1$n
  done
}

check_nothing_left() {
  lab down
  lab down
  local left
  left=$(ip netns list | grep -c "^${SLUICE_LAB_PREFIX:-sluice-}" || true) # none is what we want
  [ "$left" = 0 ] || fail "$left namespaces are left after down"
  [ ! -e "$LAB" ] || fail "$LAB is left after down"
  say 'nothing is left after down'
}

check_nat
check_dr
check_tun
check_nothing_left
