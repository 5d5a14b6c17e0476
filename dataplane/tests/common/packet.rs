//! Frames for tests, built and read by libraries other than ours.

#![allow(clippy::single_match_else)]

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpHeaders, IpNumber, Ipv4Header,
    Ipv6Header, LaxNetSlice, LaxSlicedPacket, PacketBuilder, TcpHeader, TransportSlice, UdpHeader,
    icmpv4::DestUnreachableHeader,
};
use smoltcp::wire;

/// The sequence and acknowledgement numbers of every segment.
pub const SEQUENCE: u32 = 1_000_000;
pub const ACKNOWLEDGED: u32 = 77_000_000;
/// The identification of every IPv4 packet.
pub const ID: u16 = 0x1234;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksum {
    Computed,
    Absent,
}

/// A TCP or UDP packet on Ethernet.
#[derive(Clone, Debug)]
pub struct Segment {
    macs: ([u8; 6], [u8; 6]),
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    /// Flags of TCP by their letters; `None`: UDP.
    flags: Option<String>,
    payload: Vec<u8>,
    ttl: u8,
    tos: u8,
    checksum: UdpChecksum,
    is_partial: bool,
    sequence: u32,
    acknowledged: u32,
    options: Vec<u8>,
}

/// A TCP segment between two Ethernet addresses and two endpoints.
pub fn tcp(
    from: [u8; 6],
    to: [u8; 6],
    source: (&str, u16),
    destination: (&str, u16),
    flags: &str,
    payload: &[u8],
) -> Segment {
    Segment {
        macs: (from, to),
        source: (source.0.parse().unwrap(), source.1),
        destination: (destination.0.parse().unwrap(), destination.1),
        flags: Some(flags.to_owned()),
        payload: payload.to_vec(),
        ttl: 64,
        tos: 0,
        checksum: UdpChecksum::Computed,
        is_partial: false,
        sequence: SEQUENCE,
        acknowledged: ACKNOWLEDGED,
        options: Vec::new(),
    }
}

/// A UDP datagram.
pub fn udp(from: [u8; 6], to: [u8; 6], source: (&str, u16), destination: (&str, u16), payload: &[u8]) -> Segment {
    Segment { flags: None, ..tcp(from, to, source, destination, "", payload) }
}

impl Segment {
    pub fn ttl(&self, ttl: u8) -> Self {
        Self { ttl, ..self.clone() }
    }

    pub fn tos(&self, tos: u8) -> Self {
        Self { tos, ..self.clone() }
    }

    pub fn checksum(&self, checksum: UdpChecksum) -> Self {
        Self { checksum, ..self.clone() }
    }

    /// As a local sender leaves it to the device: only the pseudo header's sum.
    pub fn partial_checksum(&self) -> Self {
        Self { is_partial: true, ..self.clone() }
    }

    /// Other numbers than those of every segment.
    pub fn numbers(&self, sequence: u32, acknowledged: u32) -> Self {
        Self { sequence, acknowledged, ..self.clone() }
    }

    /// TCP options as they stand in the header, a multiple of four bytes.
    pub fn options(&self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self.clone() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let ip = ip_header(self.source.0, self.destination.0, self.ttl, self.tos, self.number(), transport.len());
        let mut out = Vec::new();
        let ether_type = if self.source.0.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
        Ethernet2Header { source: self.macs.0, destination: self.macs.1, ether_type }.write(&mut out).unwrap();
        ip.write(&mut out).unwrap();
        out.extend(transport);
        out
    }

    fn number(&self) -> IpNumber {
        if self.flags.is_some() { IpNumber::TCP } else { IpNumber::UDP }
    }

    fn transport(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match &self.flags {
            Some(flags) => {
                let mut header = TcpHeader::new(self.source.1, self.destination.1, self.sequence, 8192);
                header.set_options_raw(&self.options).unwrap();
                header.syn = flags.contains('S');
                header.fin = flags.contains('F');
                header.rst = flags.contains('R');
                header.psh = flags.contains('P');
                header.ack = flags.contains('A');
                if header.ack {
                    header.acknowledgment_number = self.acknowledged;
                }
                header.checksum = match (self.source.0, self.destination.0) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => {
                        header.calc_checksum_ipv4_raw(s.octets(), d.octets(), &self.payload).unwrap()
                    }
                    (IpAddr::V6(s), IpAddr::V6(d)) => {
                        header.calc_checksum_ipv6_raw(s.octets(), d.octets(), &self.payload).unwrap()
                    }
                    _ => panic!("mixed families"),
                };
                header.write(&mut out).unwrap();
            }
            None => {
                let (from, to) = (self.source.1, self.destination.1);
                let header = match (self.source.0, self.destination.0) {
                    (IpAddr::V4(s), IpAddr::V4(d)) => {
                        let mut header = UdpHeader::without_ipv4_checksum(from, to, self.payload.len()).unwrap();
                        if self.checksum == UdpChecksum::Computed {
                            header.checksum =
                                header.calc_checksum_ipv4_raw(s.octets(), d.octets(), &self.payload).unwrap();
                        }
                        header
                    }
                    (IpAddr::V6(s), IpAddr::V6(d)) => {
                        let mut header = UdpHeader::without_ipv4_checksum(from, to, self.payload.len()).unwrap();
                        header.checksum = header.calc_checksum_ipv6_raw(s.octets(), d.octets(), &self.payload).unwrap();
                        header
                    }
                    _ => panic!("mixed families"),
                };
                header.write(&mut out).unwrap();
            }
        }
        out.extend(&self.payload);
        if self.is_partial {
            let at = if self.flags.is_some() { 16 } else { 6 };
            let sum = self.pseudo_sum(out.len());
            out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        out
    }

    fn pseudo_sum(&self, length: usize) -> u16 {
        let octets = |a: IpAddr| match a {
            IpAddr::V4(a) => a.octets().to_vec(),
            IpAddr::V6(a) => a.octets().to_vec(),
        };
        let mut bytes = [octets(self.source.0), octets(self.destination.0)].concat();
        bytes.extend([0, self.number().0]);
        bytes.extend((length as u16).to_be_bytes());
        let mut sum: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }
}

fn ip_header(source: IpAddr, destination: IpAddr, ttl: u8, tos: u8, protocol: IpNumber, length: usize) -> IpHeaders {
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let mut header = Ipv4Header::new(length as u16, ttl, protocol, s.octets(), d.octets()).unwrap();
            header.identification = ID;
            header.dscp = IpDscp::try_new(tos >> 2).unwrap();
            header.ecn = IpEcn::try_new(tos & 3).unwrap();
            header.header_checksum = header.calc_header_checksum();
            IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default())
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let header = Ipv6Header {
                traffic_class: tos,
                payload_length: length as u16,
                next_header: protocol,
                hop_limit: ttl,
                source: s.octets(),
                destination: d.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default())
        }
        _ => panic!("mixed families"),
    }
}

/// An ICMP error "too big" from `source` to `destination` about an IP packet.
pub fn too_big(from: [u8; 6], to: [u8; 6], source: &str, destination: &str, mtu: u16, about: &[u8]) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut out = Vec::new();
    let link = PacketBuilder::ethernet2(from, to);
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let kind =
                Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu });
            link.ipv4(s.octets(), d.octets(), 60).icmpv4(kind).write(&mut out, about).unwrap();
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let kind = Icmpv6Type::PacketTooBig { mtu: u32::from(mtu) };
            link.ipv6(s.octets(), d.octets(), 60).icmpv6(kind).write(&mut out, about).unwrap();
        }
        _ => panic!("mixed families"),
    }
    out
}

/// What a test asks of a packet that left.
#[derive(Debug)]
pub struct Parsed {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_port: u16,
    pub flags: String,
    pub sequence: u32,
    /// Type and code.
    pub icmp: Option<(u8, u8)>,
    /// The word behind the checksum of an ICMP message.
    pub icmp_word: u32,
    pub payload: Vec<u8>,
    pub ttl: u8,
    pub tos: u8,
    /// Destination and source.
    pub link: Vec<u8>,
}

/// Reads a frame with etherparse.
pub fn parse(frame: &[u8]) -> Parsed {
    let sliced = LaxSlicedPacket::from_ethernet(frame).unwrap();
    assert!(sliced.stop_err.is_none(), "{:?}", sliced.stop_err);
    let (source, destination, ttl, tos): (IpAddr, IpAddr, u8, u8) = match sliced.net.as_ref().unwrap() {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let tos = header.dcp().value() << 2 | header.ecn().value();
            (header.source_addr().into(), header.destination_addr().into(), header.ttl(), tos)
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), header.hop_limit(), header.traffic_class())
        }
        LaxNetSlice::Arp(_) => panic!("ARP"),
    };
    let mut parsed = Parsed {
        source,
        destination,
        source_port: 0,
        flags: String::new(),
        sequence: 0,
        icmp: None,
        icmp_word: 0,
        payload: Vec::new(),
        ttl,
        tos,
        link: frame[..12].to_vec(),
    };
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let letters = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), 'A')];
            parsed.flags = letters.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect();
            parsed.source_port = tcp.source_port();
            parsed.sequence = tcp.sequence_number();
            parsed.payload = tcp.payload().to_vec();
        }
        Some(TransportSlice::Udp(udp)) => {
            parsed.source_port = udp.source_port();
            parsed.payload = udp.payload().to_vec();
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            parsed.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            parsed.icmp_word = u32::from_be_bytes(icmp.bytes5to8());
            parsed.payload = icmp.payload().to_vec();
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            parsed.icmp = Some((icmp.type_u8(), icmp.code_u8()));
            parsed.icmp_word = u32::from_be_bytes(icmp.bytes5to8());
            parsed.payload = icmp.payload().to_vec();
        }
        Some(TransportSlice::Igmp(_)) | None => {}
    }
    parsed
}

/// Splits a tunnelled frame: its outer header, and the packet inside.
pub fn decapsulate(frame: &[u8]) -> (Parsed, Vec<u8>) {
    let outer = parse(frame);
    let length = if outer.source.is_ipv4() { 20 } else { 40 };
    if outer.source.is_ipv4() {
        assert!(wire::Ipv4Packet::new_checked(&frame[14..]).unwrap().verify_checksum());
    } else {
        wire::Ipv6Packet::new_checked(&frame[14..]).unwrap();
    }
    let inner = frame[14 + length..].to_vec();
    verify(&[&frame[..12], if inner[0] >> 4 == 4 { &[8, 0] } else { &[0x86, 0xdd] }, &inner].concat());
    (outer, inner)
}

/// Checks every length and checksum of a frame with smoltcp.
pub fn verify(frame: &[u8]) {
    let link = wire::EthernetFrame::new_checked(frame).unwrap();
    let (source, destination, protocol, payload): (wire::IpAddress, wire::IpAddress, _, _) = match link.ethertype() {
        wire::EthernetProtocol::Ipv4 => {
            let ip = wire::Ipv4Packet::new_checked(&frame[14..]).unwrap();
            assert!(ip.verify_checksum(), "IPv4 header checksum");
            let start = 14 + usize::from(ip.header_len());
            (
                ip.src_addr().into(),
                ip.dst_addr().into(),
                ip.next_header(),
                &frame[start..14 + usize::from(ip.total_len())],
            )
        }
        wire::EthernetProtocol::Ipv6 => {
            let ip = wire::Ipv6Packet::new_checked(&frame[14..]).unwrap();
            (ip.src_addr().into(), ip.dst_addr().into(), ip.next_header(), &frame[54..14 + ip.total_len()])
        }
        other => panic!("{other}"),
    };
    let is_right = match protocol {
        wire::IpProtocol::Tcp => wire::TcpPacket::new_checked(payload).unwrap().verify_checksum(&source, &destination),
        wire::IpProtocol::Udp => wire::UdpPacket::new_checked(payload).unwrap().verify_checksum(&source, &destination),
        wire::IpProtocol::Icmp => wire::Icmpv4Packet::new_checked(payload).unwrap().verify_checksum(),
        wire::IpProtocol::Icmpv6 => {
            let (wire::IpAddress::Ipv6(s), wire::IpAddress::Ipv6(d)) = (source, destination) else { panic!() };
            wire::Icmpv6Packet::new_checked(payload).unwrap().verify_checksum(&s, &d)
        }
        other => panic!("{other}"),
    };
    assert!(is_right, "{protocol} checksum");
}

/// The transport header and payload of a frame without IP options.
pub fn transport(frame: &[u8]) -> Vec<u8> {
    frame[if frame[12] == 8 { 34 } else { 54 }..].to_vec()
}

/// Cuts a datagram in two: the first with `at` bytes (a multiple of 8) of transport.
pub fn fragment(frame: &[u8], at: usize) -> Vec<Vec<u8>> {
    vec![piece(frame, 0..at), piece(frame, at..transport(frame).len())]
}

/// The fragment of a datagram with these bytes of its transport; the last when it has the end of it.
pub fn piece(frame: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let body = transport(frame);
    one_fragment(frame, &body[range.clone()], range.start, range.end < body.len())
}

fn one_fragment(frame: &[u8], piece: &[u8], offset: usize, is_more: bool) -> Vec<u8> {
    let mut out = frame[..14].to_vec();
    if frame[12] == 8 {
        let (mut header, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
        header.total_len = 20 + piece.len() as u16;
        header.dont_fragment = false;
        header.more_fragments = is_more;
        header.fragment_offset = IpFragOffset::try_new((offset / 8) as u16).unwrap();
        header.header_checksum = header.calc_header_checksum();
        header.write(&mut out).unwrap();
    } else {
        let (mut header, _) = Ipv6Header::from_slice(&frame[14..]).unwrap();
        let transport = header.next_header.0;
        header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
        header.payload_length = 8 + piece.len() as u16;
        header.write(&mut out).unwrap();
        let place = (offset as u16) | u16::from(is_more);
        out.extend([transport, 0]);
        out.extend(place.to_be_bytes());
        out.extend([0, 0, 0x12, 0x34]);
    }
    out.extend(piece);
    out
}

/// The transport header and payload that two fragments make.
pub fn reassemble(fragments: &[Vec<u8>]) -> Vec<u8> {
    fragments.iter().flat_map(|f| if f[12] == 8 { f[34..].to_vec() } else { f[62..].to_vec() }).collect()
}

/// Sets the checksum of an IPv4 header without options that was edited.
pub fn fix_ip(frame: &mut [u8]) {
    let (header, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
    let sum = header.calc_header_checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}
