"""A tunnel's end for a real server whose kernel has no tunnel devices: decap.py DEVICE [GUE-PORT].

Takes packets out of IP in IP (protocols 4 and 41), GRE (RFC 2784) and, given a port, GUE over outer
IPv4 or IPv6 to this machine, and gives them to the kernel by a TUN device. Packets of the other
direction do not exist: the real server answers the client directly. Checksums of GRE are verified,
those that GUE leaves to the receiver are completed; what is wrong is dropped with a message.
"""

import fcntl
import os
import selectors
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
IPIP, IPV6, GRE = 4, 41, 47
SO_RCVBUFFORCE = 33  # not named by Python 3.11
UDP_NO_CHECK6_RX = 102  # nor this: take a checksum of zero over IPv6 (RFC 6935)


def tun_device(name):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    os.system(f"ip link set {name} up mtu 1600")
    with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w") as setting:
        setting.write("0")  # the way back to the client is not this device
    return fd


def prepared(sock):
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    sock.setblocking(False)
    return sock


def outer_socket(family, protocol):
    return prepared(socket.socket(family, socket.SOCK_RAW, protocol))


def gue_socket(family, port):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
    sock.bind(("", port))
    return prepared(sock)


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def without_gre(packet):
    """The protocol in a GRE packet, as an IP number, and what it holds."""
    flags, kind = struct.unpack_from("!HH", packet)
    if flags & ~0x8000:
        raise ValueError(f"GRE with flags {flags:#06x}")
    if flags and checksum(packet):
        raise ValueError("GRE with a wrong checksum")
    return {0x0800: IPIP, 0x86DD: IPV6}[kind], packet[8 if flags else 4 :]


def without_gue(packet):
    """The same for GUE, with the checksum inside completed where it was left to us."""
    first, protocol, flags = struct.unpack_from("!BBH", packet)
    start = 4 + (first & 0x1F) * 4
    inside = bytearray(packet[start:])
    if first & 0xE0 or flags not in (0, 1):
        raise ValueError(f"GUE with {packet[:4].hex()}")
    if flags:
        private, begin, at = struct.unpack_from("!IHH", packet, 4)
        if private != 1 << 31:
            raise ValueError(f"GUE with private flags {private:#x}")
        struct.pack_into("!H", inside, at, checksum(bytes(inside[begin:])) or 0xFFFF)
    return protocol, bytes(inside)


def inner(packet, sock):
    """The protocol inside and the inner packet: a raw IPv4 socket gives the outer header too."""
    if sock.type == socket.SOCK_DGRAM:
        return without_gue(packet)
    if sock.family == socket.AF_INET:
        packet = packet[(packet[0] & 15) * 4 :]
    return without_gre(packet) if sock.proto == GRE else (sock.proto, packet)


def drain(sock, tun):
    while True:
        try:
            packet = sock.recv(65536)
        except BlockingIOError:
            return
        try:
            protocol, payload = inner(packet, sock)
            version = payload[0] >> 4 if payload else 0
            if version != {IPIP: 4, IPV6: 6}.get(protocol):
                raise ValueError(f"protocol {protocol} with version {version} inside")
            os.write(tun, payload)
        except (OSError, ValueError, KeyError, struct.error) as error:
            print(f"dropped: {error}", flush=True)


def main():
    tun = tun_device(sys.argv[1])
    selector = selectors.DefaultSelector()
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (IPIP, IPV6, GRE):
            selector.register(outer_socket(family, protocol), selectors.EVENT_READ)
        for port in sys.argv[2:]:
            selector.register(gue_socket(family, int(port)), selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            drain(key.fileobj, tun)


main()
