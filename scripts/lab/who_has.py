"""Asks who has an address, by ARP or ND, and prints every answer in one second: who_has.py DEVICE ADDRESS...

The kernel would stop at the first answer; a real server that answers too must be seen.
"""

import socket
import struct
import sys
import time

ETH_P_ALL, ETH_P_ARP, ETH_P_IPV6 = 0x0003, 0x0806, 0x86DD
BROADCAST = b"\xff" * 6
SOLICITATION, ADVERTISEMENT = 135, 136


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp_request(mac, target):
    # An ARP probe (RFC 5227): no sender address, so nobody's table is changed.
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + b"\0" * 4 + b"\0" * 6 + target
    return BROADCAST + mac + struct.pack("!H", ETH_P_ARP) + body


def solicitation(mac, target):
    source = socket.inet_pton(socket.AF_INET6, "fd00:20::1")
    group = socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:0")[:13] + target[13:]
    icmp = struct.pack("!BBHI", SOLICITATION, 0, 0, 0) + target + b"\x01\x01" + mac
    pseudo = source + group + struct.pack("!II", len(icmp), 58)
    icmp = icmp[:2] + struct.pack("!H", checksum(pseudo + icmp)) + icmp[4:]
    header = struct.pack("!IHBB", 6 << 28, len(icmp), 58, 255) + source + group
    return b"\x33\x33" + group[12:] + mac + struct.pack("!H", ETH_P_IPV6) + header + icmp


def claimed(frame):
    """The address that this frame claims to have, or None."""
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind == ETH_P_ARP and frame[20:22] == b"\0\2":
        return socket.inet_ntop(socket.AF_INET, frame[28:32])
    if kind == ETH_P_IPV6 and frame[20] == 58 and frame[54] == ADVERTISEMENT:
        return socket.inet_ntop(socket.AF_INET6, frame[62:78])
    return None


def main():
    device, addresses = sys.argv[1], sys.argv[2:]
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((device, ETH_P_ALL))
    mac = sock.getsockname()[4]
    for address in addresses:
        if ":" in address:
            sock.send(solicitation(mac, socket.inet_pton(socket.AF_INET6, address)))
        else:
            sock.send(arp_request(mac, socket.inet_pton(socket.AF_INET, address)))
    end = time.monotonic() + 1
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            frame = sock.recv(2048)
        except TimeoutError:
            break
        if (address := claimed(frame)) in addresses:
            print(address, "is at", frame[6:12].hex(":"))


main()
