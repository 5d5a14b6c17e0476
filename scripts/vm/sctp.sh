#!/bin/bash
# Runs inside the VM, whose kernel has SCTP: an association by real sockets through our own director, as NAT with
# another port and as DR, in both families. The server echoes; what it saw of the client must be the client.
#
#   scripts/ipvs-vm.sh scripts/vm/sctp.sh SLUICE
set -euo pipefail
sluice=$1
python=/usr/bin/python3
vip4=10.1.0.100 vip6=fd00:1::100
director=''

fail() {
  echo "FAILED: $*"
  tail -n 30 /tmp/director.log
  "$sluice" status --state-dir /run/sluice || true # it may be dead: its messages must do
  exit 1
}

# client - director - server for NAT; for DR the server answers by a link of its own.
node() { # NAME
  ip netns add "$1"
  ip netns exec "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 \
    net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
  ip -n "$1" link set lo up
}

cable() { # NODE DEVICE NODE DEVICE
  ip link add "$2" netns "$1" type veth peer name "$4" netns "$3"
  ip -n "$1" link set "$2" up
  ip -n "$3" link set "$4" up
}

addresses() { # NODE DEVICE IPV4 IPV6
  ip -n "$1" addr add "$3/24" dev "$2"
  ip -n "$1" addr add "$4/64" dev "$2"
}

network() {
  modprobe -a veth sctp
  ip link set lo up
  for name in client director server; do node $name; done
  cable client eth0 director front
  cable director back server eth0
  cable client eth1 server eth1
  addresses client eth0 10.1.0.2 fd00:1::2
  addresses director front 10.1.0.1 fd00:1::1
  addresses director back 10.2.0.1 fd00:2::1
  addresses server eth0 10.2.0.2 fd00:2::2
  ip netns exec director sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
}

# Answers by the director (NAT), or by the second link (DR).
answers_by() {
  case $1 in
    nat)
      ip -n server route replace 10.1.0.0/24 via 10.2.0.1
      ip -n server -6 route replace fd00:1::/64 via fd00:2::1
      ;;
    dr)
      ip -n server addr add $vip4/32 dev lo
      ip -n server addr add $vip6/128 dev lo
      ip -n server route replace 10.1.0.0/24 dev eth1
      ip -n server -6 route replace fd00:1::/64 dev eth1
      ip -n server neigh replace 10.1.0.2 lladdr "$(ip netns exec client cat /sys/class/net/eth1/address)" dev eth1
      ip -n server -6 neigh replace fd00:1::2 lladdr "$(ip netns exec client cat /sys/class/net/eth1/address)" dev eth1
      ;;
  esac
}

configuration() { # KIND PORT
  local vip server
  printf 'dataplane {\n workers 1\n idle sleep\n interface front { checksum full }\n interface back { checksum full }\n}\n'
  printf 'static_ipaddress {\n %s/32 dev front\n %s/128 dev front\n}\n' $vip4 $vip6
  for pair in "$vip4 10.2.0.2" "$vip6 fd00:2::2"; do
    read -r vip server <<<"$pair"
    printf 'virtual_server %s 7000 {\n lb_algo rr\n lb_kind %s\n protocol SCTP\n real_server %s %s {\n }\n}\n' "$vip" "$1" "$server" "$2"
  done
}

start_director() {
  ip netns exec director "$sluice" run -f /tmp/director.conf --state-dir /run/sluice >/tmp/director.log 2>&1 &
  director=$!
  for _ in $(seq 600); do
    if ip netns exec director "$sluice" status --state-dir /run/sluice >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail 'the director does not come up'
}

stop_director() {
  kill "$director"
  wait "$director" || true # of SIGTERM
}

# serve PORT ADDRESS...: echoes messages, with the client's address in front.
serve() {
  ip netns exec server $python -S -c '
import socket, sys, threading

def echo(address):
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 132)
    sock.bind((address, int(sys.argv[1])))
    sock.listen(5)
    while True:
        conn, peer = sock.accept()
        while data := conn.recv(65536):
            conn.sendall(peer[0].encode() + b" " + data)
        conn.close()

threads = [threading.Thread(target=echo, args=(address,)) for address in sys.argv[2:]]
for thread in threads:
    thread.start()
open("/tmp/serving", "w").close()' "$@" &
  server=$!
  until [ -e /tmp/serving ]; do sleep 0.1; done
  rm /tmp/serving
}

ask() { # VIP CLIENT
  local heard
  heard=$(ip netns exec client timeout 60 $python -S -c '
import socket, sys
vip, client = sys.argv[1:]
sock = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_STREAM, 132)
sock.settimeout(15)
sock.bind((client, 0))
sock.connect((vip, 7000))
for size in (1, 999, 1400, 5000):
    message = bytes(65 + n % 26 for n in range(size))
    sock.sendall(message)
    heard = b""
    while len(heard.replace(heard.split(b" ")[0] + b" ", b"")) < size:
        part = sock.recv(65536)
        if not part:
            sys.exit("closed early")
        heard += part
    who = heard.split(b" ")[0].decode()
    if heard.replace(who.encode() + b" ", b"") != message:
        sys.exit("not what was sent")
sock.close()
print(who)' "$1" "$2") || fail "$kind: no answers of $1"
  [ "$heard" = "$2" ] || fail "$kind: the server saw $heard, not $2"
  echo "$kind $1: messages of 1 to 5000 bytes answered, the server saw $heard"
}

check() { # KIND PORT ADDRESS...: where the servers listen
  kind=$1
  configuration "$1" "$2" >/tmp/director.conf
  answers_by "${1,,}"
  serve "${@:2}"
  start_director
  sleep 1
  ask $vip4 10.1.0.2
  ask $vip6 fd00:1::2
  ip netns exec director "$sluice" status --state-dir /run/sluice | grep -E 'SCTP|->|sctp' || fail 'status does not show the services'
  stop_director
  kill $server
}

network
check NAT 7001 10.2.0.2 fd00:2::2
check DR 7000 $vip4 $vip6
echo 'SCTP goes through the director'
