"""Sends UDP datagrams above the MTU to an echo, in fragments, and compares what comes back.

udp_pieces.py ADDRESS COUNT: random sizes from 1500 to 20000 bytes, a new socket for each. Exit status 0
when every one came back intact; two may need more tries (the director may just ask for a neighbour, and each of the
three servers learns by itself, from an answer that is lost, that the way back has a smaller MTU than its own).
"""

import os
import random
import socket
import sys

IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT = 10, 23, 0


def fault(address, size):
    """What went wrong with one datagram, or None."""
    family, kind, _, _, target = socket.getaddrinfo(address, 7, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as sock:
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
        sock.settimeout(3)
        sock.connect(target)
        sent = os.urandom(size)
        try:
            sock.send(sent)
            answer = sock.recv(65536)
        except OSError as error:
            return f"{size} bytes: {error}"
    return None if answer == sent else f"{size} bytes: came back as {len(answer)} other bytes"


def lasting_fault(address, size):
    """What goes wrong with a datagram whichever server gets it, or None."""
    return next((None for _ in range(3) if not fault(address, size)), f"{size} bytes: no answer from any server")


def main():
    address, count = sys.argv[1], int(sys.argv[2])
    random.seed(1)
    sizes = [random.randint(1500, 20000) for _ in range(count)]
    again = [size for size in sizes if fault(address, size)]
    faults = [found for size in again if (found := lasting_fault(address, size))]
    if len(again) > 2:
        faults.append(f"{len(again)} needed more than one try")
    for line in faults[:20]:
        print(line)
    print(f"{address}: {count} datagrams in fragments, {len(faults)} failed")
    sys.exit(1 if faults else 0)


main()
