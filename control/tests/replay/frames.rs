//! Frames as clients and servers send them, built and read back by etherparse, which shares no code with Sluice.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket, TransportSlice,
};

pub(crate) const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
pub(crate) const ETH0: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
pub(crate) const ETH1: [u8; 6] = [2, 0, 0, 0, 0, 0x11];

/// The Ethernet address of a real server.
pub(crate) const fn server_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

/// The flags of a segment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flags {
    Syn,
    SynAck,
    Ack,
    Reset,
}

/// A segment on the wire from `link.0` to `link.1`. Payload: its own flags' name, so that no two look alike.
pub(crate) fn tcp(link: ([u8; 6], [u8; 6]), from: &str, to: &str, ttl: u8, flags: Flags) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let builder = PacketBuilder::ethernet2(link.0, link.1);
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), ttl),
        (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), ttl),
        _ => panic!("mixed families"),
    };
    let builder = builder.tcp(from.port(), to.port(), 1000, 512);
    let (builder, payload) = match flags {
        Flags::Syn => (builder.syn(), ""),
        Flags::SynAck => (builder.syn().ack(1001), ""),
        Flags::Ack => (builder.ack(2001), "GET / HTTP/1.0\r\n\r\n"),
        Flags::Reset => (builder.rst(), ""),
    };
    let mut frame = Vec::new();
    builder.write(&mut frame, payload.as_bytes()).unwrap();
    frame
}

/// A datagram.
pub(crate) fn udp(link: ([u8; 6], [u8; 6]), from: &str, to: &str, ttl: u8) -> Vec<u8> {
    let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let builder = PacketBuilder::ethernet2(link.0, link.1);
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(s), IpAddr::V4(d)) => builder.ipv4(s.octets(), d.octets(), ttl),
        (IpAddr::V6(s), IpAddr::V6(d)) => builder.ipv6(s.octets(), d.octets(), ttl),
        _ => panic!("mixed families"),
    };
    let mut frame = Vec::new();
    builder.udp(from.port(), to.port()).write(&mut frame, b"question").unwrap();
    frame
}

/// The IP packet of `frame` inside a tunnel, as a frame. `id`: the identification of an IPv4 tunnel header.
pub(crate) fn tunnelled(link: ([u8; 6], [u8; 6]), from: &str, to: &str, id: u16, frame: &[u8]) -> Vec<u8> {
    let inner = &frame[14..];
    let protocol = if inner[0] >> 4 == 6 { IpNumber(41) } else { IpNumber(4) };
    let mut out = Vec::new();
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let ether_type = if from.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    Ethernet2Header { source: link.0, destination: link.1, ether_type }.write(&mut out).unwrap();
    match (from, to) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            let mut header = Ipv4Header::new(inner.len() as u16, 64, protocol, s.octets(), d.octets()).unwrap();
            header.identification = id;
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut out).unwrap();
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            let header = Ipv6Header {
                traffic_class: 0,
                payload_length: inner.len() as u16,
                next_header: protocol,
                hop_limit: 64,
                source: s.octets(),
                destination: d.octets(),
                ..Ipv6Header::default()
            };
            header.write(&mut out).unwrap();
        }
        _ => panic!("mixed families"),
    }
    out.extend_from_slice(inner);
    out
}

/// Panics unless a frame parses whole and every checksum in it is right, of a packet in a tunnel too.
pub(crate) fn assert_sound(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    sound(&packet);
}

fn sound(packet: &SlicedPacket<'_>) {
    let (addresses, payload) = match packet.net.as_ref().expect("an IP header") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header checksum");
            (IpPair::V4(header.source, header.destination), ip.payload())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (IpPair::V6(header.source, header.destination), ip.payload())
        }
        other @ NetSlice::Arp(_) => panic!("{other:?}"),
    };
    if [4, 41].contains(&payload.ip_number.0) {
        return sound(&SlicedPacket::from_ip(payload.payload).unwrap());
    }
    match packet.transport.as_ref().expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            let header = tcp.to_header();
            let right = match addresses {
                IpPair::V4(s, d) => header.calc_checksum_ipv4_raw(s, d, tcp.payload()),
                IpPair::V6(s, d) => header.calc_checksum_ipv6_raw(s, d, tcp.payload()),
            };
            assert_eq!(tcp.checksum(), right.unwrap(), "TCP checksum");
        }
        TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            let right = match addresses {
                IpPair::V4(s, d) => header.calc_checksum_ipv4_raw(s, d, udp.payload()),
                IpPair::V6(s, d) => header.calc_checksum_ipv6_raw(s, d, udp.payload()),
            };
            assert_eq!(udp.checksum(), right.unwrap(), "UDP checksum");
        }
        TransportSlice::Icmpv4(icmp) => {
            let right = icmp.header().icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), right, "ICMP checksum");
        }
        TransportSlice::Icmpv6(icmp) => {
            let IpPair::V6(s, d) = addresses else { panic!("ICMPv6 over IPv4") };
            let right = icmp.header().icmp_type.calc_checksum(s, d, icmp.payload());
            assert_eq!(icmp.checksum(), right.unwrap(), "ICMPv6 checksum");
        }
        other @ TransportSlice::Igmp(_) => panic!("{other:?}"),
    }
}

enum IpPair {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}
