"""Runs inside the VM: what does IPVS make of given packets?

For each case it sets IPVS up by ipvsadm, sends frames one by one as clients, servers and routers would, and
records what leaves. A case's directory below /out then has what `sluice replay` needs to answer the same
question: director.conf, machine.txt, the frames that went in (in-eth0.pcap: from clients, in-eth1.pcap: from
servers) and those that IPVS sent (out-….pcap). The frames of a server go where IPVS sent the client's, so a
director that chooses another server fails.

    scripts/ipvs-vm.sh -o DIR scripts/vm/packets.sh SOURCE-DIRECTORY
"""

import os
import socket
import struct
import subprocess
import time

CLIENT_SIDE, SERVER_SIDE = "eth0", "eth1"
MACS = {
    "eth0": "02:00:00:00:00:10",
    "eth1": "02:00:00:00:00:11",
    "gateway": "02:00:00:00:00:fe",
}
SERVERS = (11, 12, 13)
MTU = 1400  # of the servers' side
EPOCH = 1_700_000_000
STEP = 0.01  # seconds between two frames that go in, as replays see them
QUIET = 0.25  # seconds after which no more frames are expected

TCP, UDP = 6, 17
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


class Net:
    """The addresses of one family."""

    def __init__(self, version):
        self.version = version
        six = version == 6
        self.family = socket.AF_INET6 if six else socket.AF_INET
        self.vip = "2001:db8::80" if six else "192.0.2.80"
        self.front = "2001:db8:f::1" if six else "10.1.0.1"
        self.gateway = "2001:db8:f::fe" if six else "10.1.0.254"
        self.back = "fd02::1" if six else "10.2.0.1"
        self.host, self.length = (128, 64) if six else (32, 24)
        self.icmp = 58 if six else 1

    def client(self, n):
        return f"2001:db8:c::{n}" if self.version == 6 else f"198.51.100.{n}"

    def server(self, n):
        return f"fd02::{n}" if self.version == 6 else f"10.2.0.{n}"

    def pack(self, address):
        return socket.inet_pton(self.family, address)

    def bracketed(self, address):
        return f"[{address}]" if self.version == 6 else address


def server_mac(n):
    return f"02:00:00:00:02:{n:02x}"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


# ---- frames ----------------------------------------------------------------------------------


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo(net, source, destination, protocol, length):
    return net.pack(source) + net.pack(destination) + struct.pack("!II", length, protocol)


def ip(net, source, destination, protocol, payload, ttl=64, tos=0, df=True, options=b"", ident=0x1234):
    if net.version == 6:
        head = struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), protocol, ttl)
        return head + net.pack(source) + net.pack(destination) + payload
    words = 5 + len(options) // 4
    total = 4 * words + len(payload)
    head = struct.pack("!BBHHHBBH", 4 << 4 | words, tos, total, ident, 0x4000 if df else 0, ttl, protocol, 0)
    head += net.pack(source) + net.pack(destination) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def tcp(net, source, destination, flags, seq, ack, payload=b"", options=b"", **rest):
    (saddr, sport), (daddr, dport) = source, destination
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, (5 + len(options) // 4) << 4, flags, 29200, 0, 0) + options
    whole = head + payload
    value = checksum(pseudo(net, saddr, daddr, TCP, len(whole)) + whole)
    return ip(net, saddr, daddr, TCP, whole[:16] + struct.pack("!H", value) + whole[18:], **rest)


def udp(net, source, destination, payload, **rest):
    (saddr, sport), (daddr, dport) = source, destination
    whole = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    value = checksum(pseudo(net, saddr, daddr, UDP, len(whole)) + whole) or 0xFFFF
    return ip(net, saddr, daddr, UDP, whole[:6] + struct.pack("!H", value) + whole[8:], **rest)


def icmp_error(net, source, destination, kind, code, word, about):
    body = struct.pack("!BBHI", kind, code, 0, word) + about[: 548 if net.version == 4 else 1000]
    below = pseudo(net, source, destination, 58, len(body)) if net.version == 6 else b""
    value = checksum(below + body)
    return ip(net, source, destination, net.icmp, body[:2] + struct.pack("!H", value) + body[4:], df=False)


def ethernet(net, source, destination, packet):
    return mac(destination) + mac(source) + (b"\x86\xdd" if net.version == 6 else b"\x08\0") + packet


# ---- the machine -----------------------------------------------------------------------------


def run(*words):
    subprocess.run(words, check=True)


def sysctl(**values):
    for name, value in values.items():
        run("sysctl", "-qw", f"{name.replace('__', '.')}={value}")


def make_machine():
    """The director's two interfaces; their other ends are ours, without addresses, so the kernel answers nothing there."""
    run("ip", "link", "set", "lo", "up")
    for device in (CLIENT_SIDE, SERVER_SIDE):
        run("ip", "link", "add", device, "address", MACS[device], "type", "veth", "peer", "name", f"{device}-far")
        run("sysctl", "-qw", f"net.ipv6.conf.{device}-far.disable_ipv6=1", f"net.ipv6.conf.{device}.accept_dad=0")
        for end in (device, f"{device}-far"):
            run("ethtool", "-K", end, "tx", "off", "gro", "off", "tso", "off", "gso", "off")
            run("ip", "link", "set", end, "arp", "off" if end.endswith("far") else "on", "up")
    run("ip", "link", "set", SERVER_SIDE, "mtu", str(MTU))
    run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.rp_filter=0")
    run("sysctl", "-qw", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    for device in (CLIENT_SIDE, SERVER_SIDE):
        run("sysctl", "-qw", f"net.ipv4.conf.{device}.rp_filter=0", f"net.ipv4.conf.{device}.send_redirects=0")


def address_lines(net):
    """The same machine in the words of `ip -batch`."""
    lines = [
        f"addr add {net.front}/{net.length} dev {CLIENT_SIDE}",
        f"addr add {net.back}/{net.length} dev {SERVER_SIDE}",
        f"{'-6 ' if net.version == 6 else ''}route add default via {net.gateway} dev {CLIENT_SIDE}",
        f"neigh add {net.gateway} lladdr {MACS['gateway']} dev {CLIENT_SIDE}",
    ]
    return lines + [f"neigh add {net.server(n)} lladdr {server_mac(n)} dev {SERVER_SIDE}" for n in SERVERS]


def set_addresses(net):
    for line in address_lines(net):
        words = line.split()
        if "addr" in words and net.version == 6:
            words.append("nodad")
        if "neigh" in words:
            words += ["nud", "permanent"]
        run("ip", *words)
    run("ip", "addr", "add", f"{net.vip}/{net.host}", "dev", CLIENT_SIDE, *(["nodad"] if net.version == 6 else []))


class Wire:
    """The far ends of both cables."""

    def __init__(self):
        self.sockets = {}
        for device in (CLIENT_SIDE, SERVER_SIDE):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            sock.bind((f"{device}-far", 0))
            sock.setblocking(False)
            self.sockets[device] = sock

    def send(self, device, frame):
        self.sockets[device].send(frame)

    def received(self):
        """What the director has sent, as (device, frame), once it sends no more."""
        frames, last = [], time.monotonic()
        while time.monotonic() - last < QUIET:
            for device, sock in self.sockets.items():
                try:
                    frame, (_, _, kind, _, _) = sock.recvfrom(65536)
                except BlockingIOError:
                    continue
                if kind != socket.PACKET_OUTGOING and is_ours(frame):
                    frames.append((device, frame))
                    last = time.monotonic()
            time.sleep(0.005)
        return frames


def is_ours(frame):
    """Not ARP, nor the multicasts of an IPv6 host."""
    return frame[12:14] in (b"\x08\0", b"\x86\xdd") and not frame[0] & 1


class Capture:
    """A pcap file of Ethernet frames."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65536, 1))

    def write(self, at, frame):
        self.file.write(struct.pack("<IIII", EPOCH + int(at), round(at % 1 * 1_000_000), len(frame), len(frame)) + frame)


class Case:
    """One set-up of IPVS and the frames that it gets."""

    def __init__(self, wire, name, net, flag, kind, port):
        # Ports of its own: IPVS still has the connections of the case before.
        self.wire, self.net, self.kind, self.port, self.sent = wire, net, kind, port, 0
        self.directory = f"/out/packets/{name}"
        os.makedirs(self.directory)
        self.files = {
            (way, device): Capture(f"{self.directory}/{way}-{device}.pcap")
            for way in ("in", "out")
            for device in (CLIENT_SIDE, SERVER_SIDE)
        }
        self.server_port = 8080 if kind == "NAT" else 80
        self.configure(flag)

    def configure(self, flag):
        net, conf = self.net, [f"static_ipaddress {{\n    {self.net.vip}/{self.net.host} dev {CLIENT_SIDE}\n}}"]
        run("ipvsadm", "-C")
        for word, protocol, port, scheduler, weights in (("-t", "TCP", 80, "wrr", (2, 1, 1)), ("-u", "UDP", 53, "rr", (1, 1, 1))):
            at = f"{net.bracketed(net.vip)}:{port}"
            to = self.server_port if protocol == "TCP" else port
            run("ipvsadm", "-A", word, at, "-s", scheduler)
            conf.append(f"virtual_server {net.vip} {port} {{\n    lb_algo {scheduler}\n    lb_kind {self.kind}\n    protocol {protocol}")
            for n, weight in zip(SERVERS, weights):
                run("ipvsadm", "-a", word, at, "-r", f"{net.bracketed(net.server(n))}:{to}", flag, "-w", str(weight))
                conf.append(f"    real_server {net.server(n)} {to} {{\n        weight {weight}\n    }}")
            conf.append("}")
        with open(f"{self.directory}/director.conf", "w") as file:
            file.write("\n".join(conf) + "\n")
        links = [f"link add {device} address {MACS[device]} mtu {mtu}" for device, mtu in ((CLIENT_SIDE, 1500), (SERVER_SIDE, MTU))]
        with open(f"{self.directory}/machine.txt", "w") as file:
            file.write("\n".join(links + address_lines(net)) + "\n")

    def give(self, device, source, packet):
        """Sends a packet into the director; gives what left, as (device, frame)."""
        at = self.sent * STEP
        self.sent += 1
        frame = ethernet(self.net, source, MACS[device], packet)
        self.files["in", device].write(at, frame)
        self.wire.send(device, frame)
        out = self.wire.received()
        for place, left in out:
            self.files["out", place].write(at, left)
        return out

    def from_client(self, packet):
        return self.give(CLIENT_SIDE, MACS["gateway"], packet)

    def to_server(self, packet):
        """As from_client; gives the number of the server that got the packet."""
        out = [frame for device, frame in self.from_client(packet) if device == SERVER_SIDE]
        assert len(out) == 1, f"{self.directory}: {len(out)} frames left for a server"
        return out[0][5]

    def from_server(self, n, packet):
        if self.kind == "NAT":
            self.give(SERVER_SIDE, server_mac(n), packet)

    # ---- what is sent

    def connection(self, client, port, tos=0, **first):
        """A whole connection, with the server's side where the director sees it."""
        net, c, v = self.net, (self.net.client(client), port), (self.net.vip, 80)
        options = bytes.fromhex("020405b40402080a000000010000000001030307")
        n = self.to_server(tcp(net, c, v, SYN, 1000, 0, options=options, tos=tos, **first))
        s = (net.server(n), self.server_port)
        self.from_server(n, tcp(net, s, c, SYN | ACK, 5000, 1001, options=options))
        assert self.to_server(tcp(net, c, v, ACK, 1001, 5001, tos=tos)) == n
        assert self.to_server(tcp(net, c, v, PSH | ACK, 1001, 5001, b"GET / HTTP/1.1\r\n\r\n", tos=tos)) == n
        self.from_server(n, tcp(net, s, c, PSH | ACK, 5001, 1019, b"hello, world!", tos=0x28))
        self.from_server(n, tcp(net, s, c, FIN | ACK, 5014, 1019))
        self.to_server(tcp(net, c, v, FIN | ACK, 1019, 5015))
        self.from_server(n, tcp(net, s, c, ACK, 5015, 1020))
        return n

    def datagrams(self, client):
        net, c, v = self.net, (self.net.client(client), self.port + 500), (self.net.vip, 53)
        n = self.to_server(udp(net, c, v, b"question"))
        s = (net.server(n), 53)
        self.from_server(n, udp(net, s, c, b"an answer"))
        # The server's port is closed: it tells the client, whom it knows.
        asked = udp(net, c, s if self.kind == "NAT" else v, b"question", ttl=63)
        kind, code = (1, 4) if net.version == 6 else (3, 3)
        self.from_server(n, icmp_error(net, net.server(n), c[0], kind, code, 0, asked))

    def too_big(self):
        net, c, v = self.net, (self.net.client(7), self.port + 600), (self.net.vip, 80)
        n = self.to_server(tcp(net, c, v, SYN, 1, 0))
        s = (net.server(n), self.server_port)
        self.from_server(n, tcp(net, s, c, SYN | ACK, 9, 2))
        self.to_server(tcp(net, c, v, ACK, 2, 10))
        # A router on the client's side: the reply is too big.
        reply = tcp(net, v, c, PSH | ACK, 10, 2, b"x" * 600, ttl=60)
        kind, code = (2, 0) if net.version == 6 else (3, 4)
        self.from_client(icmp_error(net, self.net.client(254), net.vip, kind, code, 1300, reply))
        # The client's own segment does not fit the servers' side.
        self.from_client(tcp(net, c, v, PSH | ACK, 2, 10, b"y" * 1430))

    def odds(self):
        net, v = self.net, (self.net.vip, 80)
        client = lambda n: (net.client(n), self.port + 700)
        self.from_client(tcp(net, client(20), v, SYN, 1, 0, ttl=1))
        self.from_client(tcp(net, client(21), v, ACK, 77, 88))
        self.from_client(tcp(net, client(22), v, PSH | ACK, 77, 88, b"late"))
        self.from_client(tcp(net, client(23), v, RST, 77, 0))
        self.from_client(tcp(net, client(24), v, SYN | ACK, 77, 88))
        if net.version == 4:
            self.to_server(tcp(net, client(25), v, SYN, 1, 0, options=b"", df=False))

    def all(self):
        for n in range(1, 7):
            self.connection(n, self.port + n)
        self.connection(1, self.port + 1)  # the port of a connection that is over
        self.connection(8, self.port + 8, tos=0xB9)
        for n in range(1, 5):
            self.datagrams(n)
        self.too_big()
        self.odds()
        for file in self.files.values():
            file.file.close()


def main():
    make_machine()
    nets = {version: Net(version) for version in (4, 6)}
    for net in nets.values():
        set_addresses(net)
    wire = Wire()
    wire.received()
    port = 20000
    for kind, flag in (("NAT", "-m"), ("DR", "-g"), ("TUN", "-i")):
        for version, net in nets.items():
            case = Case(wire, f"{kind.lower()}{version}", net, flag, kind, port)
            port += 1000
            case.all()
            print(f"{kind} over IPv{version}: {case.sent} packets given", flush=True)


main()
