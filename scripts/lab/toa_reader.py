"""toa_reader.py DEVICE FILE: what the TCP option of Alibaba's LVS says in the frames that a real server gets.

A line of FILE for each frame with the option: peer's address and port as the server sees them, the client's
as the option tells, the flags, and the option's place behind the fixed TCP header. "ready" when it listens.
"""

import ipaddress
import socket
import struct
import sys

ETH_P_ALL = 3
KIND_V4, KIND_V6 = 254, 253


def options(header):
    at = 20
    while at < len(header) and header[at] != 0:
        if header[at] == 1:
            at += 1
            continue
        if at + 1 >= len(header) or header[at + 1] < 2:
            return
        yield at - 20, header[at], header[at + 2 : at + header[at + 1]]
        at += header[at + 1]


def segment(frame):
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind == 0x0800 and frame[23] == 6:
        length = (frame[14] & 15) * 4
        return ipaddress.ip_address(frame[26:30]), frame[14 + length :]
    if kind == 0x86DD and frame[20] == 6:
        return ipaddress.ip_address(frame[22:38]), frame[54:]
    return None, b""


def main():
    device, path = sys.argv[1:]
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((device, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
    print("ready", flush=True)
    with open(path, "w", buffering=1) as out:
        while True:
            frame, (_, _, direction, _, _) = sock.recvfrom(65536)
            peer, tcp = segment(frame)
            if direction == socket.PACKET_OUTGOING or len(tcp) < 20:
                continue
            header = tcp[: (tcp[12] >> 4) * 4]
            for place, kind, value in options(header):
                if kind in (KIND_V4, KIND_V6):
                    port = struct.unpack("!H", value[:2])[0]
                    client = ipaddress.ip_address(value[2:])
                    local = struct.unpack("!H", tcp[:2])[0]
                    out.write(f"{peer} {local} {client} {port} {tcp[13]:02x} {place}\n")


main()
