"""Sends UDP datagrams of 1..MAX random bytes to an echo and compares what comes back.

udp_sizes.py ADDRESS MAX: exit status 0 when every size came back intact. Datagrams are not to be
fragmented; every 16 sizes a new socket, so that all real servers have their turn.
"""

import os
import socket
import sys

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DO = 10, 23, 2
SIZES_A_SOCKET = 16


def echo_socket(address):
    family, kind, _, _, target = socket.getaddrinfo(address, 7, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DO)
    sock.settimeout(2)
    sock.connect(target)
    return sock


def fault(sock, size):
    """What went wrong with one size, or None."""
    sent = os.urandom(size)
    try:
        sock.send(sent)
        answer = sock.recv(65536)
    except OSError as error:
        return f"{size} bytes: {error}"
    return None if answer == sent else f"{size} bytes: came back as {len(answer)} other bytes"


def main():
    address, most = sys.argv[1], int(sys.argv[2])
    faults = []
    for first in range(1, most + 1, SIZES_A_SOCKET):
        with echo_socket(address) as sock:
            sizes = range(first, min(first + SIZES_A_SOCKET, most + 1))
            faults += [found for size in sizes if (found := fault(sock, size))]
        if len(faults) > 20:
            break
    for line in faults:
        print(line)
    print(f"{address}: sizes 1 to {most}, {len(faults)} failed")
    sys.exit(1 if faults else 0)


main()
