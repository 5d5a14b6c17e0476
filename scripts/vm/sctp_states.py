"""Finds every state that IPVS has for SCTP and what each packet makes of it: sctp_states.py m|g (NAT or DR).

A case is a way to a state and one packet more. Each has a client's port of its own, all cases of a round are played
side by side, and the states stand in /proc/net/ip_vs_conn then.
"""

import socket
import struct
import sys

from namespace import within

CHUNKS = {
    "Data": 0, "Init": 1, "InitAck": 2, "CookieEcho": 10, "CookieAck": 11, "Shutdown": 7, "ShutdownAck": 8,
    "ShutdownComplete": 14, "Error": 9, "Abort": 6,
}
CLIENT, VIP, SERVER = "10.1.0.9", "10.1.0.100", "10.2.0.2"
# Rounds of so many: the shortest time of a state is 4 s.
SIDE_BY_SIDE = 40


def table():
    """The polynomial of CRC-32C, byte by byte."""
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


TABLE = list(table())


def packet(source, destination, chunk):
    header = struct.pack(">HHI", source, destination, 7)
    body = struct.pack(">BBHIIHHI", chunk, 0, 20, 1, 65535, 1, 1, 1)
    crc = 0xFFFFFFFF
    for byte in header + bytes(4) + body:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return header + struct.pack("<I", crc ^ 0xFFFFFFFF) + body


def sender(name):
    """A raw socket of a namespace."""
    return within(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 132))


def states():
    """State by client's port."""
    with open("/proc/net/ip_vs_conn") as file:
        rows = [line.split() for line in file][1:]
    return {int(row[2], 16): row[7] for row in rows if row[0] == "SCTP"}


class Machine:
    def __init__(self, is_nat):
        self.raw = {"client": sender("client"), "server": sender("server")}
        self.sides = ["client", "server"] if is_nat else ["client"]
        self.port = 20000 if is_nat else 40000

    def send(self, side, chunk, port):
        if side == "client":
            self.raw[side].sendto(packet(port, 80, CHUNKS[chunk]), (VIP, 0))
        else:
            self.raw[side].sendto(packet(80, port, CHUNKS[chunk]), (CLIENT, 0))

    def play(self, cases):
        """The state after each case; a state that is not there is NONE."""
        after = []
        for start in range(0, len(cases), SIDE_BY_SIDE):
            part = cases[start : start + SIDE_BY_SIDE]
            first, self.port = self.port, self.port + len(part)
            for n, steps in enumerate(part):
                for side, chunk in steps:
                    self.send(side, chunk, first + n)
            seen = states()
            after += [seen.get(first + n, "NONE") for n in range(len(part))]
        return after


def main():
    is_nat = sys.argv[1] == "m"
    machine = Machine(is_nat)
    ways = {"NONE": ()}
    rows = {}
    new = ["NONE"]
    while new:
        # Nobody but a client opens an association, and not by an ABORT.
        cases = [
            (state, (side, chunk))
            for state in new
            for side in (machine.sides if state != "NONE" else ["client"])
            for chunk in CHUNKS
            if (state, chunk) != ("NONE", "Abort")
        ]
        after = machine.play([ways[state] + (step,) for state, step in cases])
        new = []
        for (state, step), then in zip(cases, after):
            rows[state, step] = then
            if then not in ways:
                ways[then] = ways[state] + (step,)
                new.append(then)
    for (state, (side, chunk)), then in rows.items():
        view = side if is_nat else "alone"
        print(view, state, chunk, then)


main()
