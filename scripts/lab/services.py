"""Services of a real server in the lab: UDP echo on 7, and on TCP 9000 the SHA-256 of what was sent.

Both speak IPv4 and IPv6. The echo answers from the address that was asked (in DR and TUN that is the
VIP, which the routing table would not choose), so it reads and writes packet information.
"""

import hashlib
import socket
import struct
import threading

IP_PKTINFO = 8  # not named by Python 3.11


def echo4():
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.bind(("0.0.0.0", 7))
    while True:
        data, ancillary, _, peer = sock.recvmsg(65536, 256)
        # in_pktinfo: interface, local address of the route, destination address of the packet
        _, _, asked = struct.unpack("=I4s4s", ancillary[0][2][:12])
        info = struct.pack("=I4s4s", 0, asked, b"\0" * 4)
        sock.sendmsg([data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, peer)


def echo6():
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    sock.bind(("::", 7))
    while True:
        data, ancillary, _, peer = sock.recvmsg(65536, 256)
        info = ancillary[0][2][:16] + struct.pack("=I", 0)
        sock.sendmsg([data], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)], 0, peer)


def digest(conn):
    total = hashlib.sha256()
    with conn:
        while data := conn.recv(262144):
            total.update(data)
        conn.sendall(total.hexdigest().encode() + b"\n")


def digests():
    listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=digest, args=(conn,), daemon=True).start()


threading.Thread(target=echo4, daemon=True).start()
threading.Thread(target=echo6, daemon=True).start()
digests()
