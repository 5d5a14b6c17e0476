#!/bin/bash
# Runs inside the VM: in which states does IPVS count a TCP connection as active? One connection is
# brought to each state, then both counts of its server are read. Leaves /out/activity.txt.
#
#   scripts/ipvs-vm.sh -o DIR scripts/vm/activity.sh "$PWD"
set -euo pipefail
# shellcheck source=network.bash
. "$1/scripts/vm/network.bash"
# A server of its own for each case: IPVS remembers one that was removed while connections refer to it.
servers=(10.2.0.2 10.2.0.3 10.2.0.4)

# Connects, says so, and ends the connection when told by a line on its input.
client() {
  ip netns exec client timeout 60 /usr/bin/python3 -S -c '
import socket, sys
s = socket.socket()
s.settimeout(50)
s.connect((sys.argv[1], 80))
print("connected", flush=True)
sys.stdin.readline()
s.close()' $vip
}

# Method, state, active and inactive connections, as soon as the server has a connection in that state.
counts() { # METHOD STATE SERVER
  for _ in $(seq 100); do
    ! ipvsadm -Lnc | grep -q "$2.* $3:80" || break
    sleep 0.2
  done
  ipvsadm -Ln | awk -v m="$1" -v s="$2" '/->.*:80/ { print m, s, $5, $6 }'
}

begin() { # FLAG SERVER
  ipvsadm -C
  ipvsadm -A -t $vip:80 -s rr
  ipvsadm -a -t $vip:80 -r "$2:80" "$1"
}

half_open() { # METHOD FLAG SERVER
  local asking
  begin "$2" "$3"
  client </dev/null >/dev/null 2>&1 &
  asking=$!
  counts "$1" SYN_RECV "$3"
  kill $asking
  wait $asking || true
}

whole() { # SERVER
  begin -m "$1"
  ip -n server addr add "$1/24" dev eth0
  ip -n server route add default via 10.2.0.1
  ip netns exec server timeout 100 /usr/bin/python3 -S -c '
import socket
s = socket.create_server(("", 80))
c, _ = s.accept()
c.recv(1)' &
  for _ in $(seq 100); do
    ! ip netns exec server ss -Hltn | grep -q ':80 ' || break
    sleep 0.2
  done
  mkfifo /tmp/tell
  client </tmp/tell >/dev/null &
  exec 3>/tmp/tell
  counts nat ESTABLISHED "$1"
  echo >&3
  counts nat TIME_WAIT "$1"
  wait
}

client_side
modprobe ip_vs_rr
silent_servers "${servers[@]}"
{
  echo "# IPVS of Linux $(uname -r): method, state of the one connection, ActiveConn, InActConn"
  half_open nat -m "${servers[0]}"
  half_open dr -g "${servers[1]}"
  whole "${servers[2]}"
} | tee /out/activity.txt
