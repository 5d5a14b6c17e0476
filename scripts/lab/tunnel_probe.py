"""Proves a real server's end of a tunnel without a director.

tunnel_probe.py CLIENT VIP OUTER: run on the director. Sends one UDP datagram from CLIENT port 5000 to
VIP port 7 inside an outer packet to OUTER; a socket on the client then hears the echo.
"""

import socket
import struct
import sys

PAYLOAD = b"through the tunnel"


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(family, source, target):
    src, dst = socket.inet_pton(family, source), socket.inet_pton(family, target)
    length = 8 + len(PAYLOAD)
    pseudo = src + dst + struct.pack("!HH", 17, length)
    header = struct.pack("!HHHH", 5000, 7, length, 0)
    udp = header[:6] + struct.pack("!H", checksum(pseudo + header + PAYLOAD) or 0xFFFF) + PAYLOAD
    if family == socket.AF_INET6:
        return struct.pack("!IHBB", 6 << 28, length, 17, 64) + src + dst + udp
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, 17, 0) + src + dst
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + udp


def main():
    client, vip, outer = sys.argv[1:]
    inner = socket.AF_INET6 if ":" in vip else socket.AF_INET
    family = socket.AF_INET6 if ":" in outer else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_RAW, 41 if inner == socket.AF_INET6 else 4)
    sock.sendto(datagram(inner, client, vip), (outer, 0))


main()
