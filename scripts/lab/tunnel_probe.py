"""Proves a real server's end of a tunnel without a director.

tunnel_probe.py CLIENT VIP OUTER [FORM]: run on the director. Sends one UDP datagram from CLIENT port
5000 to VIP port 7 inside an outer packet to OUTER; a socket on the client then hears the echo. FORM is
ipip (default), gre, gre-csum, gue, gue-csum or gue-remcsum; GUE goes to port 6080.
"""

import socket
import struct
import sys

PAYLOAD = b"through the tunnel"
GUE_PORT = 6080
SO_NO_CHECK, UDP_NO_CHECK6_TX = 11, 101  # not named by Python 3.11


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


def gre(inner, with_checksum):
    kind = 0x86DD if inner[0] >> 4 == 6 else 0x0800
    if not with_checksum:
        return struct.pack("!HH", 0, kind) + inner
    header = struct.pack("!HHI", 0x8000, kind, 0)
    return header[:4] + struct.pack("!HH", checksum(header + inner), 0) + inner


def gue(inner, remote):
    protocol, start = (41, 40) if inner[0] >> 4 == 6 else (4, 20)
    if not remote:
        return struct.pack("!BBH", 0, protocol, 0) + inner
    # The checksum field holds the pseudo header's sum; the receiver does the rest.
    addresses = inner[8:40] if protocol == 41 else inner[12:20]
    partial = ~checksum(addresses + struct.pack("!HH", 17, len(inner) - start)) & 0xFFFF
    inner = inner[: start + 6] + struct.pack("!H", partial) + inner[start + 8 :]
    return struct.pack("!BBHIHH", 2, protocol, 1, 1 << 31, start, start + 6) + inner


def send_gue(family, packet, outer, with_checksum):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if not with_checksum and family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_TX, 1)
    elif not with_checksum:
        sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    sock.sendto(packet, (outer, GUE_PORT))


def main():
    client, vip, outer = sys.argv[1:4]
    form = sys.argv[4] if len(sys.argv) > 4 else "ipip"
    inner = socket.AF_INET6 if ":" in vip else socket.AF_INET
    family = socket.AF_INET6 if ":" in outer else socket.AF_INET
    packet = datagram(inner, client, vip)
    if form.startswith("gue"):
        send_gue(family, gue(packet, form == "gue-remcsum"), outer, form != "gue")
        return
    protocol = 41 if inner == socket.AF_INET6 else 4
    if form.startswith("gre"):
        protocol, packet = 47, gre(packet, form == "gre-csum")
    socket.socket(family, socket.SOCK_RAW, protocol).sendto(packet, (outer, 0))


main()
