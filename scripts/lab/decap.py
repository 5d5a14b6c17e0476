"""A tunnel's end for a real server whose kernel has no tunnel devices: decap.py DEVICE.

Takes IP in IP (protocol 4) and IPv6 in IP (protocol 41) out of outer IPv4 or IPv6 packets to this
machine and gives the inner packets to the kernel by a TUN device. Packets of the other direction do
not exist: the real server answers the client directly (RFC 2003, RFC 2473).
"""

import fcntl
import os
import selectors
import socket
import struct
import sys

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
IPIP, IPV6 = 4, 41
SO_RCVBUFFORCE = 33  # not named by Python 3.11


def tun_device(name):
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    os.system(f"ip link set {name} up mtu 1600")
    with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w") as setting:
        setting.write("0")  # the way back to the client is not this device
    return fd


def outer_socket(family, protocol):
    sock = socket.socket(family, socket.SOCK_RAW, protocol)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 32 << 20)
    sock.setblocking(False)
    return sock


def inner(packet, family):
    """The inner packet: a raw IPv4 socket gives the outer header too, an IPv6 one does not."""
    return packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet


def drain(sock, tun):
    while True:
        try:
            packet = sock.recv(65536)
        except BlockingIOError:
            return
        payload = inner(packet, sock.family)
        version = payload[0] >> 4 if payload else 0
        if version != (4 if sock.proto == IPIP else 6):
            print(f"dropped: protocol {sock.proto} with version {version} inside", flush=True)
            continue
        try:
            os.write(tun, payload)
        except OSError as error:
            print(f"dropped: {error}", flush=True)


def main():
    tun = tun_device(sys.argv[1])
    selector = selectors.DefaultSelector()
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (IPIP, IPV6):
            selector.register(outer_socket(family, protocol), selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            drain(key.fileobj, tun)


main()
