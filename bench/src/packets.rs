//! The packets of the benchmarks: a peer in, a frame out, from one template and a handful of additions.
//!
//! Ten million flows need no ten million frames: the client's address and port follow from the flow's number, and both
//! checksums from the template's sum (RFC 1071 lets parts be added in any order).

#![allow(clippy::inline_always, reason = "with offsets that the compiler knows a packet costs half as much to write")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::ident::{Endpoint, MacAddr, Protocol};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Opens a TCP connection, without options as floods have it.
    Syn,
    /// Opens a TCP connection, with the options of Linux.
    LinuxSyn,
    /// A server's answer to either.
    SynAck,
    /// Anything on an established TCP connection.
    Ack,
    /// A UDP datagram.
    Datagram,
}

/// How large frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// All of so many bytes without FCS, or as many as their headers need.
    Fixed(usize),
    /// The simple IMIX: of twelve frames seven of 64 bytes, four of 594 and one of 1514.
    Imix,
}

impl Size {
    /// The sizes of frames that come one after the other.
    pub(crate) fn sizes(&self) -> &[usize] {
        match self {
            Self::Fixed(size) => std::slice::from_ref(size),
            Self::Imix => &[64, 594, 64, 64, 594, 64, 1514, 64, 594, 64, 594, 64],
        }
    }
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// One of many clients, to the service.
    Client,
    /// One of the real servers, to one of many peers: the client, or a local address.
    Server,
}

/// What differs from packet to packet of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The last four bytes of the address of the many: the sender's, or of whom a server sends to.
    pub(crate) host: u32,
    /// Its port.
    pub(crate) port: u16,
    /// The last two bytes of the address of the real server that sends.
    pub(crate) server: u16,
}

impl Peer {
    /// The client of a flow.
    #[inline]
    pub(crate) const fn client(family: Family, flow: u32) -> Self {
        let first = match family {
            Family::V4 => CLIENTS_V4.to_bits(),
            Family::V6 => 0,
        };
        Self { host: first + flow / PORTS_PER_CLIENT, port: FIRST_PORT + (flow % PORTS_PER_CLIENT) as u16, server: 0 }
    }

    /// The flow that a client belongs to.
    pub(crate) fn flow(self, family: Family) -> u32 {
        let first = Self::client(family, 0);
        let [host, port] = [self.host.wrapping_sub(first.host), u32::from(self.port.wrapping_sub(first.port))];
        host.wrapping_mul(PORTS_PER_CLIENT).wrapping_add(port)
    }
}

/// The last four bytes of an address.
pub(crate) fn host(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(address) => address.to_bits(),
        IpAddr::V6(address) => address.to_bits() as u32,
    }
}

/// Clients on one address, each with a port of its own.
const PORTS_PER_CLIENT: u32 = 1 << 12;
const FIRST_PORT: u16 = 1024;
/// Bytes at the front of a frame that forwarding may change: they are written anew for each packet.
const HEADERS: usize = 128;
/// Bytes that are copied at once: of a number that the compiler knows, for that needs no call.
const PIECE: usize = 64;

/// The first client's address. All clients are within its /9.
pub(crate) const CLIENTS_V4: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// The first client's address. All clients are within its /64.
pub(crate) const CLIENTS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0);

/// Everything about the packets of a kind but what [`Peer`] says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketShape {
    /// Who sends, and with that which of the addresses the peer's takes the place of.
    pub(crate) sender: Sender,
    pub(crate) from: Endpoint,
    pub(crate) to: Endpoint,
    /// Source and destination on the wire.
    pub(crate) link: (MacAddr, MacAddr),
    /// Bytes of a frame without its FCS; headers that need more get more.
    pub(crate) size: usize,
}

/// What the places of fields in a frame depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    family: Family,
    is_tcp: bool,
    sender: Sender,
}

impl Kind {
    /// What clients send, most of all: for these the compiler may know the places.
    pub(crate) const TCP_V4: Self = Self { family: Family::V4, is_tcp: true, sender: Sender::Client };
    pub(crate) const TCP_V6: Self = Self { family: Family::V6, is_tcp: true, sender: Sender::Client };
    pub(crate) const UDP_V4: Self = Self { family: Family::V4, is_tcp: false, sender: Sender::Client };
    pub(crate) const UDP_V6: Self = Self { family: Family::V6, is_tcp: false, sender: Sender::Client };

    /// The family of its addresses.
    #[inline]
    pub(crate) const fn family(self) -> Family {
        self.family
    }

    /// Offset of the source address, and the length of an address.
    const fn addresses(self) -> (usize, usize) {
        match self.family {
            Family::V4 => (ETHERNET + 12, 4),
            Family::V6 => (ETHERNET + 8, 16),
        }
    }

    /// Offset of the last four bytes of the peer's address.
    const fn host(self) -> usize {
        let (source, length) = self.addresses();
        match self.sender {
            Sender::Client => source + length - 4,
            Sender::Server => source + 2 * length - 4,
        }
    }

    /// Offset of the last two bytes of the server's address, when it sends.
    const fn server(self) -> Option<usize> {
        let (source, length) = self.addresses();
        match self.sender {
            Sender::Client => None,
            Sender::Server => Some(source + length - 2),
        }
    }

    /// Offset of the transport header.
    const fn transport(self) -> usize {
        let (source, length) = self.addresses();
        source + 2 * length
    }

    /// Offset of the peer's port.
    const fn port(self) -> usize {
        match self.sender {
            Sender::Client => self.transport(),
            Sender::Server => self.transport() + 2,
        }
    }

    /// Offset of the transport's checksum.
    const fn checksum(self) -> usize {
        self.transport() + if self.is_tcp { 16 } else { 6 }
    }

    /// The least bytes of such a frame.
    const fn least(self) -> usize {
        self.transport() + if self.is_tcp { 20 } else { 8 }
    }
}

/// A frame with the peer left out.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    headers: [u8; HEADERS],
    length: usize,
    /// How many of `headers` a frame has.
    used: usize,
    /// Sum of the IPv4 header without the peer; unused in IPv6.
    ip_sum: u32,
    /// Sum of pseudo-header and segment without the peer.
    transport_sum: u32,
    kind: Kind,
}

const ETHERNET: usize = 14;
const IPV4_CHECKSUM: usize = ETHERNET + 10;
const SEQUENCE: usize = 4;
const ACKNOWLEDGEMENT: usize = 8;
/// MSS 1460, selective acknowledgements, time stamps, window scale 7.
const LINUX_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];

impl Template {
    /// The template of a kind of packet.
    pub(crate) fn new(shape: PacketShape, segment: Segment) -> Self {
        let family = if shape.to.address.is_ipv4() { Family::V4 } else { Family::V6 };
        let protocol = if segment == Segment::Datagram { Protocol::Udp } else { Protocol::Tcp };
        let kind = Kind { family, is_tcp: protocol == Protocol::Tcp, sender: shape.sender };
        let transport = kind.transport();
        let header = if segment == Segment::LinuxSyn { LINUX_OPTIONS.len() } else { 0 } + kind.least() - transport;
        let length = shape.size.max(transport + header);
        let mut headers = [0; HEADERS];
        write_ethernet(&mut headers, shape);
        write_ip(&mut headers, shape, protocol, length - transport);
        write_transport(&mut headers[transport..], shape, segment, length - transport);
        // What the peer says comes in its place.
        headers[kind.host()..kind.host() + 4].fill(0);
        headers[kind.port()..kind.port() + 2].fill(0);
        if let Some(server) = kind.server() {
            headers[server..server + 2].fill(0);
        }
        let ip_sum = sum(&headers[ETHERNET..transport]);
        let (source, address) = kind.addresses();
        let addresses = &headers[source..source + 2 * address];
        let pseudo = sum(addresses) + u32::from(protocol.number()) + (length - transport) as u32;
        let transport_sum = pseudo + sum(&headers[transport..transport + header]);
        Self { headers, length, used: length.min(HEADERS), ip_sum, transport_sum, kind }
    }

    /// Bytes of a frame.
    #[inline]
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// What its packets are.
    #[inline]
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Writes the packet of a peer over a frame's bytes: its headers; what follows stays as it is (zero, for the sums).
    /// A segment gets the sequence number. `kind` is the template's own: the compiler may know it where it is called.
    #[inline(always)]
    pub(crate) fn write(&self, kind: Kind, peer: Peer, sequence: u32, frame: &mut [u8]) {
        // Once, so that nothing below looks at the frame's length again.
        if frame.len() < kind.least() {
            return;
        }
        self.write_headers(frame);
        let host_sum = halves(peer.host);
        let mut rest = host_sum + u32::from(peer.port);
        put(frame, kind.host(), peer.host.to_be_bytes());
        put(frame, kind.port(), peer.port.to_be_bytes());
        let mut ip_rest = host_sum;
        if let Some(server) = kind.server() {
            put(frame, server, peer.server.to_be_bytes());
            rest += u32::from(peer.server);
            ip_rest += u32::from(peer.server);
        }
        if kind.is_tcp {
            put(frame, kind.transport() + SEQUENCE, sequence.to_be_bytes());
            rest += halves(sequence);
        }
        put(frame, kind.checksum(), finish(self.transport_sum + rest));
        if kind.family == Family::V4 {
            put(frame, IPV4_CHECKSUM, finish(self.ip_sum + ip_rest));
        }
    }

    /// Lets a segment that was written acknowledge a number.
    #[inline]
    pub(crate) fn acknowledge(&self, frame: &mut [u8], number: u32) {
        let sum = !u16::from_be_bytes(take(frame, self.kind.checksum()));
        put(frame, self.kind.transport() + ACKNOWLEDGEMENT, number.to_be_bytes());
        put(frame, self.kind.checksum(), finish(u32::from(sum) + halves(number)));
    }

    #[inline(always)]
    fn write_headers(&self, frame: &mut [u8]) {
        let used = self.used;
        let Some(frame) = frame.get_mut(..used) else { return };
        let Some(first) = frame.first_chunk_mut::<PIECE>() else {
            frame.copy_from_slice(&self.headers[..used]);
            return;
        };
        first.copy_from_slice(&self.headers[..PIECE]);
        // The two pieces overlap where both do not fill the frame.
        if used > PIECE
            && let Some(last) = frame.last_chunk_mut::<PIECE>()
        {
            last.copy_from_slice(&self.headers[used - PIECE..used]);
        }
    }
}

/// The four bytes of a frame from `at` on, zero beyond its end.
#[inline]
pub(crate) fn take<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    frame.get(at..).and_then(|rest| rest.first_chunk().copied()).unwrap_or([0; N])
}

#[inline]
fn put<const N: usize>(frame: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(field) = frame.get_mut(at..at + N) {
        field.copy_from_slice(&bytes);
    }
}

fn write_ethernet(frame: &mut [u8], shape: PacketShape) {
    frame[..6].copy_from_slice(&shape.link.1.0);
    frame[6..12].copy_from_slice(&shape.link.0.0);
    let kind: [u8; 2] = if shape.to.address.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
    frame[12..14].copy_from_slice(&kind);
}

fn write_ip(frame: &mut [u8], shape: PacketShape, protocol: Protocol, payload: usize) {
    let ip = &mut frame[ETHERNET..];
    match (shape.from.address, shape.to.address) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(payload as u16 + 20).to_be_bytes());
            ip[6] = 0x40; // Don't fragment, as TCP sends.
            ip[8] = 64;
            ip[9] = protocol.number();
            ip[12..16].copy_from_slice(&from.octets());
            ip[16..20].copy_from_slice(&to.octets());
        }
        (from, to) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            ip[6] = protocol.number();
            ip[7] = 64;
            ip[8..24].copy_from_slice(&octets(from));
            ip[24..40].copy_from_slice(&octets(to));
        }
    }
}

fn write_transport(header: &mut [u8], shape: PacketShape, segment: Segment, length: usize) {
    header[..2].copy_from_slice(&shape.from.port.to_wire());
    header[2..4].copy_from_slice(&shape.to.port.to_wire());
    let (words, flags) = match segment {
        Segment::Datagram => return header[4..6].copy_from_slice(&(length as u16).to_be_bytes()),
        Segment::Syn => (5, 0x02),
        Segment::LinuxSyn => (10, 0x02),
        Segment::SynAck => (5, 0x12),
        Segment::Ack => (5, 0x10),
    };
    header[12] = words << 4;
    header[13] = flags;
    header[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
    if segment == Segment::LinuxSyn {
        header[20..20 + LINUX_OPTIONS.len()].copy_from_slice(&LINUX_OPTIONS);
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

#[inline]
const fn halves(number: u32) -> u32 {
    (number >> 16) + (number & 0xffff)
}

/// The checksum field of a sum. Never zero: all that is summed here has a bit set.
#[inline]
fn finish(sum: u32) -> [u8; 2] {
    (!(halves(halves(sum)) as u16)).to_be_bytes()
}

#[cfg(test)]
pub(crate) mod tests {
    use dataplane::ident::NetPort;

    use super::*;
    use crate::verify;

    pub(crate) fn shape(family: Family, sender: Sender, size: usize) -> PacketShape {
        let at = |v4: &str, v6: &str, port| {
            let text = if family == Family::V4 { v4 } else { v6 };
            Endpoint { address: text.parse().unwrap(), port: NetPort::new(port) }
        };
        let link = (MacAddr([2, 0, 0, 0, 0, 0x10]), MacAddr([2, 0, 0, 0, 0, 1]));
        let many = at("10.128.0.0", "2001:db8:c::", 0);
        let (from, to) = match sender {
            Sender::Client => (many, at("192.0.2.1", "2001:db8:f::1", 80)),
            Sender::Server => (at("10.1.0.10", "2001:db8:1::a", 8080), many),
        };
        PacketShape { sender, from, to, link, size }
    }

    fn client(family: Family, flow: u32) -> Endpoint {
        let peer = Peer::client(family, flow);
        let address = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(peer.host)),
            Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(CLIENTS_V6.to_bits() + u128::from(peer.host))),
        };
        Endpoint { address, port: NetPort::new(peer.port) }
    }

    #[test]
    fn every_packet_parses_with_right_checksums_and_is_its_flows() {
        for family in [Family::V4, Family::V6] {
            for segment in [Segment::Syn, Segment::LinuxSyn, Segment::SynAck, Segment::Ack, Segment::Datagram] {
                for size in [0, 64, 100, 128, 1514] {
                    let requests = Template::new(shape(family, Sender::Client, size), segment);
                    let replies = Template::new(shape(family, Sender::Server, size), segment);
                    for flow in [0, 1, 4095, 4096, 9_999_999] {
                        let peer = Peer { server: 10 + 7, ..Peer::client(family, flow) };
                        assert_eq!(peer.flow(family), flow);
                        let mut frame = vec![0; requests.length()];
                        requests.write(requests.kind(), peer, flow * 3, &mut frame);
                        let packet = verify::parse(&frame).unwrap();
                        assert_eq!(packet.source, client(family, flow));
                        assert_eq!(packet.destination, shape(family, Sender::Client, size).to);
                        replies.write(replies.kind(), peer, flow, &mut frame);
                        if segment != Segment::Datagram {
                            replies.acknowledge(&mut frame, u32::MAX - flow);
                        }
                        let packet = verify::parse(&frame).unwrap();
                        assert_eq!(packet.destination, client(family, flow));
                        let server: IpAddr =
                            if family == Family::V4 { "10.1.0.17" } else { "2001:db8:1::11" }.parse().unwrap();
                        assert_eq!(packet.source, Endpoint { address: server, port: NetPort::new(8080) });
                    }
                }
            }
        }
    }

    #[test]
    fn sixty_four_bytes_hold_tcp_over_ipv4_and_ipv6_gets_what_it_needs() {
        let length = |family, segment| Template::new(shape(family, Sender::Client, 64), segment).length();
        assert_eq!(length(Family::V4, Segment::Ack), 64);
        assert_eq!(length(Family::V6, Segment::Ack), 74);
        assert_eq!(length(Family::V6, Segment::Datagram), 64);
        assert_eq!(length(Family::V4, Segment::LinuxSyn), 74);
    }
}
