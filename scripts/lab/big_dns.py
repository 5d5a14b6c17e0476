"""A DNS server whose answers fill what the client takes: TXT records up to the size in its EDNS0 option.

Answers from the address that was asked, IPv4 and IPv6, UDP only: an answer above the MTU leaves in
fragments. big_dns.py PORT SIZE: SIZE is the length of an answer when the client takes as much.
"""

import socket
import struct
import sys
import threading

IP_PKTINFO, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT = 8, 10, 23, 0
TXT, IN, OPT = 16, 1, 41


def question_end(query):
    at = 12
    while query[at]:
        at += 1 + query[at]
    return at + 5


def answer(query, size):
    end = question_end(query)
    question = query[12:end]
    extra = b"\0" + struct.pack("!HHIH", OPT, 4096, 0, 0)
    records, length = [], 12 + len(question) + len(extra)
    while length < size:
        # A name by reference (2), type, class, lifetime, length (10), and a text with its own length (1).
        text = min(255, max(1, size - length - 13))
        data = bytes([text]) + b"x" * text
        records.append(b"\xc0\x0c" + struct.pack("!HHIH", TXT, IN, 60, len(data)) + data)
        length += len(records[-1])
    header = query[:2] + struct.pack("!HHHHH", 0x8400, 1, len(records), 0, 1)
    return header + question + b"".join(records) + extra


def serve(family, port, size):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT)
        sock.bind(("0.0.0.0", port))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.bind(("::", port))
    while True:
        query, ancillary, _, peer = sock.recvmsg(65536, 256)
        about = ancillary[0][2]
        if family == socket.AF_INET:
            info = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, about[4:8], b"\0" * 4))
        else:
            info = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, about[:16] + struct.pack("=I", 0))
        sock.sendmsg([answer(query, size)], [info], 0, peer)


def main():
    port, size = int(sys.argv[1]), int(sys.argv[2])
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=serve, args=(family, port, size), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


main()
