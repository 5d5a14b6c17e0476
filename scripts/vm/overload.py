"""At how many connections does IPVS give a server new ones again that was overloaded? overload.py UPPER LOWER

A service of that one server, with UDP flows that end when no datagram keeps them alive.
"""

import socket
import subprocess
import sys
import time

from namespace import within

VIP, SERVER, PORT = "10.1.0.100", "10.2.0.2", 7
# Seconds after which IPVS forgets a flow, and that are waited for it to.
IDLE, WAIT = 4, 6


def ipvsadm(*words):
    subprocess.run(["ipvsadm", *map(str, words)], check=True)


def connections():
    with open("/proc/net/ip_vs") as file:
        rows = [line.split() for line in file]
    return sum(int(row[4]) + int(row[5]) for row in rows if row[0] == "->" and len(row) == 6 and row[4].isdigit())


def flow():
    return within("client", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def keep(flows, seconds):
    """Keeps these flows alive; others end meanwhile."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for one in flows:
            one.sendto(b"x", (VIP, PORT))
        time.sleep(0.3)


def takes_one_more(flows):
    before = connections()
    flow().sendto(b"x", (VIP, PORT))
    keep(flows, 0.3)
    return connections() > before


def main():
    upper, lower = int(sys.argv[1]), int(sys.argv[2])
    ipvsadm("-C")
    ipvsadm("--set", 0, 0, IDLE)
    ipvsadm("-A", "-u", f"{VIP}:{PORT}", "-s", "rr")
    ipvsadm("-a", "-u", f"{VIP}:{PORT}", "-r", f"{SERVER}:{PORT}", "-m", "-x", upper, "-y", lower)
    flows = [flow() for _ in range(upper)]
    keep(flows, 1)
    if connections() != upper or takes_one_more(flows):
        sys.exit(f"{connections()} connections, not {upper}")
    while flows:
        flows.pop()
        keep(flows, WAIT)
        if connections() != len(flows):
            sys.exit(f"{connections()} connections are left, not {len(flows)}")
        if takes_one_more(flows):
            print(upper, lower, len(flows))
            break
    time.sleep(WAIT)


main()
