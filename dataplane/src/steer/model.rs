//! The steering program's decision in Rust: what the XDP program would say to a frame, without loading it.
//!
//! A line by line counterpart of bpf/parse.h and bpf/steer.bpf.c for replays and for comparing the two. It shares no
//! code with the worker's parser on purpose: it has to be as tolerant and as strict as the program is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plan::spans;
use super::{SteerPlan, TunnelEnd, Verdict};
use crate::ident::{Endpoint, MacAddr, NetPort, Protocol, ServiceKey};

const MAX_TAGS: usize = 2;
const MAX_EXTENSIONS: usize = 8;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_TAGS: [u16; 2] = [0x8100, 0x88a8];
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What the steering program decides about a frame under a plan: passed to the kernel, or caught. A caught frame goes
/// to a socket; that there is one is not the model's business.
pub fn decide(plan: &SteerPlan, frame: &[u8]) -> Verdict {
    let Some(ethernet) = frame.first_chunk::<14>() else { return Verdict::PassedMalformed };
    let [a, b, c, d, e, f, ..] = *ethernet;
    if !plan.macs.contains(&MacAddr([a, b, c, d, e, f])) {
        return Verdict::PassedNotOurs;
    }
    let Some((kind, at)) = skip_tags(frame) else { return Verdict::PassedMalformed };
    let packet = match parse_ip(&frame[at..], kind) {
        Ok(packet) => packet,
        Err(verdict) => return verdict,
    };
    let icmp = if packet.source.is_ipv6() { ICMPV6 } else { ICMP };
    if packet.protocol == icmp && packet.piece == Piece::WholeOrFirst {
        return steer_icmp(plan, &packet, kind);
    }
    steer_transport(plan, &packet)
}

impl Verdict {
    /// Whether the frame goes to a worker (or is dropped for want of a socket) instead of to the kernel.
    pub const fn is_hit(self) -> bool {
        matches!(self, Self::HitService | Self::HitReply | Self::HitFragment | Self::HitIcmpError)
    }
}

/// Whether a packet has its transport header.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    WholeOrFirst,
    LaterFragment,
}

/// A packet as far as steering reads it. Ports are zero where there are none.
struct Packet<'f> {
    source: IpAddr,
    destination: IpAddr,
    source_port: NetPort,
    destination_port: NetPort,
    protocol: u8,
    piece: Piece,
    payload: &'f [u8],
}

/// The first EtherType that is no tag's, and where its header begins. A third tag's type is given as it is.
fn skip_tags(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 14;
    let mut kind = word(frame, 12)?;
    for _ in 0..MAX_TAGS {
        if !ETHERTYPE_TAGS.contains(&kind) {
            break;
        }
        kind = word(frame, at + 2)?;
        at += 4;
    }
    Some((kind, at))
}

fn parse_ip(packet: &[u8], kind: u16) -> Result<Packet<'_>, Verdict> {
    let parsed = match kind {
        ETHERTYPE_IPV4 => parse_v4(packet),
        ETHERTYPE_IPV6 => parse_v6(packet),
        _ => return Err(Verdict::PassedNotIp),
    };
    let mut packet = parsed.ok_or(Verdict::PassedMalformed)?;
    if packet.piece == Piece::LaterFragment || Protocol::from_number(packet.protocol).is_none() {
        return Ok(packet);
    }
    let [a, b, c, d] = *packet.payload.first_chunk().ok_or(Verdict::PassedMalformed)?;
    (packet.source_port, packet.destination_port) = (NetPort::from_wire([a, b]), NetPort::from_wire([c, d]));
    Ok(packet)
}

fn parse_v4(packet: &[u8]) -> Option<Packet<'_>> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return None;
    }
    let is_later = u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0;
    Some(Packet {
        source: v4(packet, 12)?,
        destination: v4(packet, 16)?,
        source_port: NetPort::ANY,
        destination_port: NetPort::ANY,
        protocol: header[9],
        piece: if is_later { Piece::LaterFragment } else { Piece::WholeOrFirst },
        payload: packet.get(length..).unwrap_or_default(),
    })
}

/// RFC 8200 section 4: walks to the transport header; a later fragment ends the walk, for what follows is data.
fn parse_v6(packet: &[u8]) -> Option<Packet<'_>> {
    let header: &[u8; 40] = packet.first_chunk()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let (source, destination) = (v6(packet, 8)?, v6(packet, 24)?);
    let whole = |protocol, piece, at: usize| Packet {
        source,
        destination,
        source_port: NetPort::ANY,
        destination_port: NetPort::ANY,
        protocol,
        piece,
        payload: packet.get(at..).unwrap_or_default(),
    };
    let (mut next, mut at) = (header[6], 40);
    for _ in 0..=MAX_EXTENSIONS {
        if ![HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION].contains(&next) {
            return Some(whole(next, Piece::WholeOrFirst, at));
        }
        let extension: &[u8; 4] = packet.get(at..)?.first_chunk()?;
        let length = usize::from(extension[1]);
        match next {
            FRAGMENT => {
                at += 8;
                if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
                    return Some(whole(extension[0], Piece::LaterFragment, at));
                }
            }
            AUTHENTICATION => at += (length + 2) * 4,
            _ => at += (length + 1) * 8,
        }
        next = extension[0];
    }
    None
}

fn steer_transport(plan: &SteerPlan, packet: &Packet<'_>) -> Verdict {
    if Protocol::from_number(packet.protocol).is_none() {
        return Verdict::PassedMiss;
    }
    if is_service(plan, packet, packet.destination, packet.destination_port) {
        return if packet.piece == Piece::LaterFragment { Verdict::HitFragment } else { Verdict::HitService };
    }
    if is_local(plan, packet, packet.destination, packet.destination_port) {
        return if packet.piece == Piece::LaterFragment { Verdict::HitFragment } else { Verdict::HitReply };
    }
    if !has(&plan.replies, packet, packet.source, packet.source_port) {
        return Verdict::PassedMiss;
    }
    if plan.own.contains(&packet.destination) {
        return Verdict::PassedOwn;
    }
    if packet.piece == Piece::LaterFragment { Verdict::HitFragment } else { Verdict::HitReply }
}

/// See `steer_icmp` of the program: an error goes to whom the packet in it came from.
fn steer_icmp(plan: &SteerPlan, packet: &Packet<'_>, kind: u16) -> Verdict {
    let Some((header, inner)) = packet.payload.split_at_checked(8) else { return Verdict::PassedMalformed };
    let is_error =
        if packet.source.is_ipv6() { (1..=4).contains(&header[0]) } else { [3, 4, 11, 12].contains(&header[0]) };
    if !is_error {
        return Verdict::PassedMiss;
    }
    let Ok(about) = parse_ip(inner, kind) else { return Verdict::PassedMalformed };
    if packet.destination != about.source {
        return Verdict::PassedMiss;
    }
    let end = TunnelEnd { address: about.destination, protocol: about.protocol, port: about.destination_port };
    if plan.tunnels.contains(&end) {
        return Verdict::HitIcmpError;
    }
    if Protocol::from_number(about.protocol).is_none() {
        return Verdict::PassedMiss;
    }
    if is_service(plan, &about, about.source, about.source_port)
        || is_local(plan, &about, about.source, about.source_port)
    {
        return Verdict::HitIcmpError;
    }
    if !has(&plan.replies, &about, about.destination, about.destination_port) {
        return Verdict::PassedMiss;
    }
    if plan.own.contains(&packet.destination) { Verdict::PassedOwn } else { Verdict::HitIcmpError }
}

fn is_service(plan: &SteerPlan, packet: &Packet<'_>, address: IpAddr, port: NetPort) -> bool {
    has(&plan.services, packet, address, port) || in_prefix(plan, packet, address, port)
}

/// Whether the longest prefix that holds the address has the port, as the program's trie says.
fn in_prefix(plan: &SteerPlan, packet: &Packet<'_>, address: IpAddr, port: NetPort) -> bool {
    if plan.prefixes.is_empty() {
        return false;
    }
    let spans = spans(&plan.prefixes);
    let of_packet = spans.iter().filter(|((protocol, prefix), _)| {
        Protocol::from_number(packet.protocol) == Some(*protocol) && prefix.contains(&address)
    });
    let longest = of_packet.max_by_key(|((_, prefix), _)| prefix.prefix_len()).map(|(_, span)| span);
    longest.is_some_and(|span| packet.piece == Piece::LaterFragment || (span.low..=span.high).contains(&port.host()))
}

/// Whether keys hold an endpoint, exactly or as every port of it. A later fragment has no port: its address suffices.
fn has(keys: &std::collections::BTreeSet<ServiceKey>, packet: &Packet<'_>, address: IpAddr, port: NetPort) -> bool {
    let Some(protocol) = Protocol::from_number(packet.protocol) else { return false };
    let key = |port| ServiceKey { protocol, at: Endpoint { address, port } };
    if packet.piece == Piece::LaterFragment {
        return keys.iter().any(|k| k.protocol == protocol && k.at.address == address);
    }
    keys.contains(&key(port)) || keys.contains(&key(NetPort::ANY))
}

/// Whether an address and port are FULLNAT's own. A later fragment has no port: its address suffices.
fn is_local(plan: &SteerPlan, packet: &Packet<'_>, address: IpAddr, port: NetPort) -> bool {
    let ports = plan.locals.get(&address);
    ports.is_some_and(|ports| packet.piece == Piece::LaterFragment || ports.contains(port.host()))
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

fn v4(packet: &[u8], at: usize) -> Option<IpAddr> {
    packet.get(at..)?.first_chunk::<4>().map(|b| Ipv4Addr::from(*b).into())
}

fn v6(packet: &[u8], at: usize) -> Option<IpAddr> {
    packet.get(at..)?.first_chunk::<16>().map(|b| Ipv6Addr::from(*b).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::LocalPorts;
    use etherparse::{EtherType, PacketBuilder};
    use proptest::prelude::*;

    const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const VIP: [u8; 4] = [192, 0, 2, 1];
    const SERVER: [u8; 4] = [10, 1, 0, 10];
    const CLIENT: [u8; 4] = [203, 0, 113, 5];
    const LOCAL: [u8; 4] = [10, 1, 0, 200];

    fn key(address: [u8; 4], port: u16) -> ServiceKey {
        ServiceKey { protocol: Protocol::Tcp, at: Endpoint { address: address.into(), port: NetPort::new(port) } }
    }

    fn plan() -> SteerPlan {
        SteerPlan {
            macs: [MacAddr(US)].into(),
            services: [key(VIP, 80)].into(),
            replies: [key(SERVER, 8080)].into(),
            own: [IpAddr::from([10, 1, 0, 1]), IpAddr::from(LOCAL)].into(),
            locals: [(IpAddr::from(LOCAL), LocalPorts::new(5000, 5999).unwrap())].into(),
            tunnels: [(47, 0), (17, 6080)].map(|(protocol, port)| tunnel_end(protocol, port)).into(),
            ..SteerPlan::default()
        }
    }

    fn tunnel_end(protocol: u8, port: u16) -> TunnelEnd {
        TunnelEnd { address: SERVER.into(), protocol, port: NetPort::new(port) }
    }

    fn tcp(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], US).ipv4(from.0, to.0, 64).tcp(from.1, to.1, 0, 1000);
        builder.write(&mut frame, b"payload").unwrap();
        frame
    }

    #[test]
    fn services_and_replies_are_caught_and_the_rest_passes() {
        let of = |frame: &[u8]| decide(&plan(), frame);
        assert_eq!(of(&tcp((CLIENT, 1), (VIP, 80))), Verdict::HitService);
        assert_eq!(of(&tcp((CLIENT, 1), (VIP, 22))), Verdict::PassedMiss);
        assert_eq!(of(&tcp((SERVER, 8080), (CLIENT, 1))), Verdict::HitReply);
        assert_eq!(of(&tcp((SERVER, 8080), ([10, 1, 0, 1], 1))), Verdict::PassedOwn);
        assert_eq!(of(&tcp((SERVER, 22), (CLIENT, 1))), Verdict::PassedMiss);
        for (port, verdict) in [
            (4999, Verdict::PassedOwn),
            (5000, Verdict::HitReply),
            (5999, Verdict::HitReply),
            (6000, Verdict::PassedOwn),
        ] {
            assert_eq!(of(&tcp((SERVER, 8080), (LOCAL, port))), verdict, "{port}");
        }
        assert_eq!(of(&tcp((CLIENT, 1), (LOCAL, 22))), Verdict::PassedMiss);
        let mut other = tcp((CLIENT, 1), (VIP, 80));
        other[5] = 9;
        assert_eq!(of(&other), Verdict::PassedNotOurs);
        let mut arp = tcp((CLIENT, 1), (VIP, 80));
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert_eq!(of(&arp), Verdict::PassedNotIp);
        assert_eq!(of(&[0; 13]), Verdict::PassedMalformed);
    }

    #[test]
    fn two_tags_are_looked_through_and_a_third_is_not_ip() {
        let tagged = |tags: usize| {
            let mut frame = tcp((CLIENT, 1), (VIP, 80));
            for _ in 0..tags {
                frame.splice(12..12, [0x81, 0, 0, 7]);
            }
            decide(&plan(), &frame)
        };
        assert_eq!(tagged(2), Verdict::HitService);
        assert_eq!(tagged(3), Verdict::PassedNotIp);
    }

    #[test]
    fn later_fragments_go_by_address_alone() {
        let mut frame = tcp((CLIENT, 1), (VIP, 22));
        frame[14 + 7] = 1;
        assert_eq!(decide(&plan(), &frame), Verdict::HitFragment);
        let mut frame = tcp((SERVER, 22), (CLIENT, 22));
        frame[14 + 7] = 1;
        assert_eq!(decide(&plan(), &frame), Verdict::HitFragment);
    }

    #[test]
    fn icmp_errors_follow_the_packet_in_them_and_pings_pass() {
        let error = |inner: Vec<u8>, to: [u8; 4]| {
            let builder = PacketBuilder::ethernet2([2; 6], US).ipv4([10, 1, 0, 77], to, 64);
            let kind = etherparse::Icmpv4Type::TimeExceeded(etherparse::icmpv4::TimeExceededCode::TtlExceededInTransit);
            let mut frame = Vec::new();
            builder.icmpv4(kind).write(&mut frame, &inner[14..]).unwrap();
            decide(&plan(), &frame)
        };
        assert_eq!(error(tcp((VIP, 80), (CLIENT, 1)), VIP), Verdict::HitIcmpError);
        assert_eq!(error(tcp((CLIENT, 1), (SERVER, 8080)), CLIENT), Verdict::HitIcmpError);
        assert_eq!(error(tcp(([10, 1, 0, 1], 1), (SERVER, 8080)), [10, 1, 0, 1]), Verdict::PassedOwn);
        assert_eq!(error(tcp((LOCAL, 5001), (SERVER, 80)), LOCAL), Verdict::HitIcmpError);
        assert_eq!(error(tcp((LOCAL, 22), (SERVER, 80)), LOCAL), Verdict::PassedMiss);
        assert_eq!(error(tcp((VIP, 80), (CLIENT, 1)), CLIENT), Verdict::PassedMiss);
        let outer = |protocol: u8, port: u16| {
            let mut frame = tcp(([10, 1, 0, 1], 50_000), (SERVER, port));
            frame[14 + 9] = protocol;
            frame
        };
        assert_eq!(error(outer(47, 0), [10, 1, 0, 1]), Verdict::HitIcmpError);
        assert_eq!(error(outer(17, 6080), [10, 1, 0, 1]), Verdict::HitIcmpError);
        assert_eq!(error(outer(17, 6081), [10, 1, 0, 1]), Verdict::PassedMiss);
        assert_eq!(error(outer(4, 0), [10, 1, 0, 1]), Verdict::PassedMiss);
        assert_eq!(error(outer(47, 0), [10, 1, 0, 2]), Verdict::PassedMiss, "not to whom sent it");
        let mut ping = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], US).ipv4(CLIENT, VIP, 64).icmpv4_echo_request(1, 1);
        builder.write(&mut ping, &[]).unwrap();
        assert_eq!(decide(&plan(), &ping), Verdict::PassedMiss);
    }

    proptest! {
        #[test]
        fn no_frame_panics(kind in 0..4u8, mut frame in proptest::collection::vec(any::<u8>(), 14..200)) {
            frame[..6].copy_from_slice(&US);
            let types = [EtherType::IPV4, EtherType::IPV6, EtherType::VLAN_TAGGED_FRAME, EtherType::ARP];
            frame[12..14].copy_from_slice(&types[kind as usize].0.to_be_bytes());
            decide(&plan(), &frame);
        }
    }
}
