"""Sends one TCP segment with ACK of a connection that does not exist.

stray.py ADDRESS PORT: IPv4; needs root (a raw socket).
"""

import socket
import struct
import sys

SOURCE_PORT, ACK = 45678, 0x10


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def main():
    target, port = sys.argv[1], int(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((target, port))
        source = probe.getsockname()[0]
    segment = struct.pack("!HHIIBBHHH", SOURCE_PORT, port, 1000, 2000, 5 << 4, ACK, 8192, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!HH", socket.IPPROTO_TCP, len(segment))
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.sendto(segment, (target, 0))


main()
