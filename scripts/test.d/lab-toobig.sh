#!/bin/bash
# Packets that do not fit behind the director: the client must be told the right MTU, by ICMP
# fragmentation needed (RFC 1191) or ICMPv6 packet too big (RFC 8201).
set -euo pipefail
# shellcheck source=lab.bash
. "$(dirname "$0")/lab.bash"

# Sends datagrams that fill the client's own MTU and must not be fragmented, until it has learnt.
send_full_datagrams() {
  on client "$PYTHON" -S -c '
import socket, sys, time
address, size = sys.argv[1], int(sys.argv[2])
six = ":" in address
sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(41 if six else 0, 23 if six else 10, 2)  # path MTU discovery: do
sock.connect((address, 7))
for _ in range(20):
    try:
        sock.send(bytes(size))
    except OSError:
        sys.exit(0)
    time.sleep(0.1)' "$1" "$2"
}

check_mtu() { # ADDRESS MTU
  local learnt
  learnt=$(on client ip -o route get "$1" | grep -o 'mtu [0-9]*' || true) # nothing learnt: said below
  [ "$learnt" = "mtu $2" ] || fail "$1: the client should have learnt mtu $2, it has '${learnt:-nothing}'"
  say "$1: the client has learnt $learnt"
}

lab_with_director nat --mtu 1400
send_full_datagrams "$VIP4" 1472
check_mtu "$VIP4" 1400
send_full_datagrams "$VIP6" 1452
check_mtu "$VIP6" 1400

# With outer headers (20 and 40 bytes) over a path of 1500; TCP must find its way by itself.
lab_with_director tun --mtu 1500
python_on client upload.py "$VIP4" 8
check_mtu "$VIP4" 1480
python_on client upload.py "$VIP6" 8
check_mtu "$VIP6" 1460
