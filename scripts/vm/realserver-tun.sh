#!/bin/bash
# Runs inside the VM, whose kernel has tunnel devices: does scripts/realserver/tun.sh make a real server
# of a machine? An outer packet of every kind (IP in IP, GRE, GUE, each with every checksum) is sent to it; the echo must reach the client.
#
#   scripts/ipvs-vm.sh scripts/vm/realserver-tun.sh SOURCE-DIRECTORY
set -euo pipefail
source_dir=$1
python=/usr/bin/python3
vip4=10.20.0.100 vip6=fd00:20::100

no_dad() { "$@" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; }

# We are the director and route between the client and the server.
network() {
  modprobe veth
  ip link set lo up
  no_dad env
  sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  node client 10.10.0 fd00:10::
  node server 10.30.0 fd00:30::
}

node() { # NAME IPV4 IPV6: a namespace with address 2 of each network, we have 1
  ip netns add "$1"
  no_dad ip netns exec "$1"
  ip link add "to-$1" type veth peer name eth0 netns "$1"
  ip addr add "$2.1/24" dev "to-$1"
  ip addr add "${3}1/64" dev "to-$1"
  ip link set "to-$1" up
  ip -n "$1" addr add "$2.2/24" dev eth0
  ip -n "$1" addr add "${3}2/64" dev eth0
  ip -n "$1" link set eth0 up
  ip -n "$1" link set lo up
  ip -n "$1" route add default via "$2.1"
  ip -n "$1" route add default via "${3}1"
}

listen() {
  ip netns exec client timeout 20 $python -S -c '
import socket, sys
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 5000))
open("/tmp/listening", "w").close()
data, peer = sock.recvfrom(2000)
print(data.decode(), "from", peer[0])' "$1"
}

probe() { # CLIENT VIP OUTER FORM
  local heard
  rm -f /tmp/listening
  listen "$1" >/tmp/heard &
  until [ -e /tmp/listening ]; do sleep 0.1; done
  $python -S "$source_dir/scripts/lab/tunnel_probe.py" "$@"
  wait $! || { echo "FAILED: no echo for $2 by $3, $4" && exit 1; }
  heard=$(cat /tmp/heard)
  [ "$heard" = "through the tunnel from $2" ] || { echo "FAILED: heard '$heard'" && exit 1; }
  echo "$4 tunnel to $3, VIP $2: echo heard"
}

probe_all() { # FORM: either family inside, over either
  probe 10.10.0.2 $vip4 10.30.0.2 "$1"
  probe fd00:10::2 $vip6 10.30.0.2 "$1"
  probe 10.10.0.2 $vip4 fd00:30::2 "$1"
  probe fd00:10::2 $vip6 fd00:30::2 "$1"
}

realserver() { ip netns exec server bash "$source_dir/scripts/realserver/tun.sh" "$@" $vip4 $vip6; }

network
realserver add
ip netns exec server $python -S "$source_dir/scripts/lab/services.py" >/tmp/services.log 2>&1 &
until grep -q ready /tmp/services.log; do sleep 0.2; done
probe_all ipip
realserver del
realserver add --gre --gue 6080 --any-source
for form in ipip gre gue gue-csum gue-remcsum; do probe_all $form; done
realserver del --gue 6080
realserver add --gre-csum
probe_all gre-csum
realserver del
if ip -n server -o addr show | grep -E "$vip4|$vip6"; then echo 'FAILED: a VIP is left' && exit 1; fi
if ip netns exec server ip fou show | grep .; then echo 'FAILED: a port of GUE is left' && exit 1; fi
echo 'del takes the VIPs away'
