//! IP and ICMP translation between the families (SIIT, RFC 7915), for flows whose two ends are of different ones.
//!
//! Headers are made anew; transport checksums are updated by the difference of the addresses, or computed where UDP
//! over IPv4 left its own out. IPv4 options and IPv6 extension headers are left behind, as sections 4.1 and 5.1 say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use super::icmp_translate::Embedded;
use crate::ident::NetPort;
use crate::wire::checksum::{self, Delta};
use crate::wire::{Fragment, Headers, IpVersion, ipv4, ipv6, number, tcp, udp};

/// An IP header: of IPv4, or of IPv6 with a fragment header.
pub type IpHeader = ArrayVec<u8, { ipv6::LENGTH + FRAGMENT_HEADER }>;

/// Length of the IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;
/// Its number in the chain of headers.
const FRAGMENT: u8 = 44;
/// What the headers of the two families differ by, in bytes.
pub const DIFFERENCE: usize = ipv6::LENGTH - ipv4::LENGTH;
/// IPv4 packets up to this length, made of IPv6 ones, may be fragmented on their way (RFC 7915 section 5.1).
const MAY_BE_CUT: usize = 1260;
/// The smallest MTU of IPv6.
const MIN_V6: u32 = 1280;
/// Length of the ICMP header in front of the embedded packet.
const ICMP_HEADER: usize = 8;
/// The longest errors: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 c.
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

/// Addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// IPv4: source, destination.
    V4(Ipv4Addr, Ipv4Addr),
    /// IPv6: source, destination.
    V6(Ipv6Addr, Ipv6Addr),
}

impl Ends {
    /// `None` when the two are of different families.
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4(source, destination)),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6(source, destination)),
            _ => None,
        }
    }

    /// Their family.
    pub const fn version(self) -> IpVersion {
        match self {
            Self::V4(..) => IpVersion::V4,
            Self::V6(..) => IpVersion::V6,
        }
    }

    /// What they add to a checksum.
    fn added(self) -> Delta {
        match self {
            Self::V4(source, destination) => {
                Delta::default().replace([0; 4], source.octets()).replace([0; 4], destination.octets())
            }
            Self::V6(source, destination) => {
                Delta::default().replace([0; 16], source.octets()).replace([0; 16], destination.octets())
            }
        }
    }

    /// What a checksum is without them.
    fn removed(self) -> Delta {
        match self {
            Self::V4(source, destination) => {
                Delta::default().replace(source.octets(), [0; 4]).replace(destination.octets(), [0; 4])
            }
            Self::V6(source, destination) => {
                Delta::default().replace(source.octets(), [0; 16]).replace(destination.octets(), [0; 16])
            }
        }
    }
}

/// What a packet's IP header says that both families have.
#[derive(Clone, Copy, Debug)]
struct Common {
    /// Type of service, traffic class.
    class: u8,
    /// TTL, hop limit.
    ttl: u8,
    protocol: u8,
    /// Bytes behind the header.
    payload: usize,
    piece: Option<Piece>,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// In units of 8 bytes.
    offset: u16,
    more: u16,
    id: u32,
}

/// The header of the other family for a packet that was parsed into `headers`, with `to` as its addresses and one less
/// as its TTL or hop limit. `id` is the identification of an IPv4 packet that has none to inherit.
///
/// `None` for what RFC 7915 has no translation for: unexpired source routes, fragments with headers behind the fragment
/// header.
pub fn header(frame: &[u8], headers: &Headers, to: Ends, id: u16) -> Option<IpHeader> {
    let packet = frame.get(headers.l3 as usize..headers.end as usize)?;
    let payload = (headers.end - headers.l4) as usize;
    let common = match headers.version {
        IpVersion::V4 => of_v4(packet, (headers.l4 - headers.l3) as usize, payload)?,
        IpVersion::V6 => of_v6(packet, headers, payload)?,
    };
    let common = Common { ttl: headers.ttl.checked_sub(1)?, ..common };
    Some(write(common, to, id))
}

fn of_v4(packet: &[u8], length: usize, payload: usize) -> Option<Common> {
    let header: &[u8; ipv4::LENGTH] = packet.first_chunk()?;
    if is_source_routed(packet.get(ipv4::LENGTH..length)?) {
        return None;
    }
    let word = u16::from_be_bytes([header[ipv4::FRAGMENT], header[ipv4::FRAGMENT + 1]]);
    let (offset, more) = (word & ipv4::OFFSET_MASK, u16::from(word & ipv4::MORE_FRAGMENTS != 0));
    let id = u32::from(u16::from_be_bytes([header[ipv4::ID], header[ipv4::ID + 1]]));
    Some(Common {
        class: header[ipv4::TOS],
        ttl: header[ipv4::TTL],
        protocol: header[ipv4::PROTOCOL],
        payload,
        piece: (offset != 0 || more != 0).then_some(Piece { offset, more, id }),
    })
}

/// Whether options hold a source route that is not at its end (RFC 791: types 131 and 137).
fn is_source_routed(mut options: &[u8]) -> bool {
    const END: u8 = 0;
    const NOP: u8 = 1;
    while let [kind, rest @ ..] = options {
        if *kind == END {
            return false;
        }
        if *kind == NOP {
            options = rest;
            continue;
        }
        let Some(length) = rest.first().map(|length| usize::from(*length)) else { return false };
        if matches!(kind, 131 | 137) && rest.get(1).is_none_or(|pointer| usize::from(*pointer) <= length) {
            return true;
        }
        match options.get(length.max(2)..) {
            Some(next) => options = next,
            None => return false,
        }
    }
    false
}

fn of_v6(packet: &[u8], headers: &Headers, payload: usize) -> Option<Common> {
    let header: &[u8; ipv6::LENGTH] = packet.first_chunk()?;
    let behind = (headers.l4 - headers.l3) as usize;
    let piece = match headers.fragment {
        Fragment::Whole => None,
        Fragment::First { id } | Fragment::Later { id } => {
            let at = behind.checked_sub(FRAGMENT_HEADER).filter(|at| *at >= ipv6::LENGTH)?;
            let held: &[u8; FRAGMENT_HEADER] = packet.get(at..)?.first_chunk()?;
            let word = u16::from_be_bytes([held[2], held[3]]);
            // With another header behind the fragment header, what stands here is something else.
            if held[0] != headers.protocol || held[4..] != id.to_be_bytes() {
                return None;
            }
            Some(Piece { offset: word >> 3, more: word & 1, id })
        }
    };
    if is_routed(packet, header[ipv6::NEXT_HEADER], behind) {
        return None;
    }
    Some(Common {
        class: header[0] << 4 | header[1] >> 4,
        ttl: header[ipv6::HOP_LIMIT],
        protocol: headers.protocol,
        payload,
        piece,
    })
}

/// Whether a routing header has segments left.
fn is_routed(packet: &[u8], mut next: u8, end: usize) -> bool {
    const ROUTING: u8 = 43;
    const AUTHENTICATION: u8 = 51;
    let mut at = ipv6::LENGTH;
    while at < end {
        let Some(header) = packet.get(at..).and_then(<[u8]>::first_chunk::<4>) else { return false };
        if next == ROUTING && header[3] != 0 {
            return true;
        }
        at += match next {
            FRAGMENT => FRAGMENT_HEADER,
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        next = header[0];
    }
    false
}

fn write(common: Common, to: Ends, id: u16) -> IpHeader {
    let mut out = IpHeader::new();
    match to {
        Ends::V4(source, destination) => {
            let mut header = [0; ipv4::LENGTH];
            let total = common.payload + ipv4::LENGTH;
            let (id, word) = match common.piece {
                Some(Piece { offset, more, id }) => (id as u16, more << 13 | offset & ipv4::OFFSET_MASK),
                None if total <= MAY_BE_CUT => (id, 0),
                None => (0, ipv4::DONT_FRAGMENT),
            };
            header[0] = 0x45;
            header[ipv4::TOS] = common.class;
            header[ipv4::TOTAL_LENGTH..ipv4::ID].copy_from_slice(&(total as u16).to_be_bytes());
            header[ipv4::ID..ipv4::FRAGMENT].copy_from_slice(&id.to_be_bytes());
            header[ipv4::FRAGMENT..ipv4::TTL].copy_from_slice(&word.to_be_bytes());
            header[ipv4::TTL] = common.ttl;
            header[ipv4::PROTOCOL] = if common.protocol == number::ICMPV6 { number::ICMP } else { common.protocol };
            header[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&source.octets());
            header[ipv4::DESTINATION..].copy_from_slice(&destination.octets());
            let sum = checksum::of(&header);
            header[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&sum);
            out.extend(header);
        }
        Ends::V6(source, destination) => {
            let mut header = [0; ipv6::LENGTH];
            let protocol = if common.protocol == number::ICMP { number::ICMPV6 } else { common.protocol };
            let before = if common.piece.is_some() { FRAGMENT_HEADER } else { 0 };
            header[0] = 0x60 | common.class >> 4;
            header[1] = common.class << 4;
            let length = (common.payload + before) as u16;
            header[ipv6::PAYLOAD_LENGTH..ipv6::NEXT_HEADER].copy_from_slice(&length.to_be_bytes());
            header[ipv6::NEXT_HEADER] = if common.piece.is_some() { FRAGMENT } else { protocol };
            header[ipv6::HOP_LIMIT] = common.ttl;
            header[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&source.octets());
            header[ipv6::DESTINATION..].copy_from_slice(&destination.octets());
            out.extend(header);
            if let Some(Piece { offset, more, id }) = common.piece {
                let [a, b] = (offset << 3 | more).to_be_bytes();
                out.extend([protocol, 0, a, b]);
                out.extend(id.to_be_bytes());
            }
        }
    }
    out
}

/// Gives the transport new ports and the checksum for new addresses; a later fragment has neither. False when there is
/// no right checksum to be had: UDP without one in a fragment (RFC 7915 section 4.5).
#[must_use]
pub fn transport(frame: &mut [u8], headers: &Headers, from: Ends, to: Ends, ports: (NetPort, NetPort)) -> bool {
    if matches!(headers.fragment, Fragment::Later { .. }) {
        return true;
    }
    let Some(segment) = frame.get_mut(headers.l4 as usize..headers.end as usize) else { return false };
    let Some(at) = checksum_at(headers.protocol) else { return false };
    let moved = from.removed().and(to.added()).and(set_ports(segment, ports));
    let Some(field) = segment.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return false };
    let is_udp = headers.protocol == number::UDP;
    if is_udp && *field == [0, 0] && to.version() == IpVersion::V6 {
        return headers.fragment == Fragment::Whole && compute_udp(segment, to);
    }
    *field = if is_udp { moved.apply_udp(*field) } else { moved.apply(*field) };
    true
}

const fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        number::TCP => Some(tcp::CHECKSUM),
        number::UDP => Some(udp::CHECKSUM),
        _ => None,
    }
}

fn set_ports(segment: &mut [u8], (source, destination): (NetPort, NetPort)) -> Delta {
    let Some(field) = segment.first_chunk_mut::<4>() else { return Delta::default() };
    let ([a, b], [c, d]) = (source.to_wire(), destination.to_wire());
    let old = std::mem::replace(field, [a, b, c, d]);
    Delta::default().replace(old, *field)
}

/// Computes the whole checksum of a datagram whose field is zero.
fn compute_udp(segment: &mut [u8], to: Ends) -> bool {
    let Some(length) = segment.get(udp::DATA_LENGTH..).and_then(<[u8]>::first_chunk) else { return false };
    let Some(datagram) = segment.get_mut(..usize::from(u16::from_be_bytes(*length))) else { return false };
    let below = pseudo(to, number::UDP, datagram.len());
    let value = checksum::transport(below, number::UDP, datagram);
    let Some(field) = datagram.get_mut(udp::CHECKSUM..).and_then(<[u8]>::first_chunk_mut::<2>) else { return false };
    *field = value;
    true
}

fn pseudo(ends: Ends, protocol: u8, length: usize) -> u64 {
    match ends {
        Ends::V4(source, destination) => {
            checksum::pseudo(&source.octets(), protocol, length) + checksum::sum(&destination.octets())
        }
        Ends::V6(source, destination) => {
            checksum::pseudo(&source.octets(), protocol, length) + checksum::sum(&destination.octets())
        }
    }
}

/// Type, code and the word behind the checksum of an ICMP error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Report {
    kind: u8,
    code: u8,
    word: u32,
}

/// Sizes that fit the ways of both families, for "too big".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// MTU on the side of the packet's receiver, where the error comes from.
    pub there: Option<u16>,
    /// MTU on the side of its sender.
    pub here: Option<u16>,
}

/// Writes an ICMP error of the other family: from and to `outer`, about the packet as its sender knows it, with `inner` as
/// its addresses and `ports`. `embedded` is the packet inside the error in `frame`. Gives the length.
///
/// `None` for what has no translation (RFC 7915 sections 4.2 and 5.2).
pub fn error(
    out: &mut [u8],
    frame: &[u8],
    headers: &Headers,
    embedded: &Embedded,
    (outer, inner, ports): (Ends, Ends, (NetPort, NetPort)),
    sizes: Sizes,
) -> Option<usize> {
    let message = frame.get(headers.l4 as usize..headers.end as usize)?;
    let [kind, code, _, _, a, b, c, d] = *message.first_chunk::<ICMP_HEADER>()?;
    let report = Report { kind, code, word: u32::from_be_bytes([a, b, c, d]) };
    let about = about(frame, headers, embedded)?;
    let (report, longest, icmp) = match outer.version() {
        IpVersion::V6 => (report_v6(report, about.total(IpVersion::V4), sizes)?, LONGEST_V6, number::ICMPV6),
        IpVersion::V4 => (report_v4(report, sizes)?, LONGEST_V4, number::ICMP),
    };
    let inside = write(about, inner, 0);
    let start = outer.version().header_length();
    let body = start + ICMP_HEADER;
    let held = embedded.transport(frame);
    let held = held.get(..held.len().min(longest - body - inside.len()))?;
    let length = body + inside.len() + held.len();
    let packet = out.get_mut(..length)?;
    let class = if outer.version() == IpVersion::V4 { 0xc0 } else { 0 };
    let common =
        Common { class, ttl: headers.ttl.checked_sub(1)?, protocol: icmp, payload: length - start, piece: None };
    packet.get_mut(..start)?.copy_from_slice(&write(common, outer, 0));
    let message = packet.get_mut(start..)?;
    message.get_mut(..ICMP_HEADER)?.copy_from_slice(&{
        let [a, b, c, d] = report.word.to_be_bytes();
        [report.kind, report.code, 0, 0, a, b, c, d]
    });
    let (header, rest) = message.get_mut(ICMP_HEADER..)?.split_at_mut_checked(inside.len())?;
    header.copy_from_slice(&inside);
    rest.copy_from_slice(held);
    restore(rest, embedded, inner, ports);
    let below = if outer.version() == IpVersion::V6 { pseudo(outer, icmp, message.len()) } else { 0 };
    let sum = checksum::transport(below, icmp, message);
    message.get_mut(2..4)?.copy_from_slice(&sum);
    Some(length)
}

/// Ports and checksum of the embedded transport, as far as the error holds them.
fn restore(held: &mut [u8], embedded: &Embedded, inner: Ends, ports: (NetPort, NetPort)) {
    let Some(from) = Ends::new(embedded.source, embedded.destination) else { return };
    let moved = from.removed().and(inner.added()).and(set_ports(held, ports));
    let Some(at) = checksum_at(embedded.protocol) else { return };
    let Some(field) = held.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return };
    *field = if embedded.protocol == number::UDP { moved.apply_udp(*field) } else { moved.apply(*field) };
}

/// What the header of an embedded packet says. Its payload is what the packet had, not what the error holds.
fn about(frame: &[u8], headers: &Headers, embedded: &Embedded) -> Option<Common> {
    let packet = embedded.packet(frame);
    let behind = embedded.header_length();
    match headers.version {
        IpVersion::V4 => {
            let header: &[u8; ipv4::LENGTH] = packet.first_chunk()?;
            let total = u16::from_be_bytes([header[ipv4::TOTAL_LENGTH], header[ipv4::TOTAL_LENGTH + 1]]);
            of_v4(packet, behind, usize::from(total).saturating_sub(behind))
        }
        IpVersion::V6 => {
            let header: &[u8; ipv6::LENGTH] = packet.first_chunk()?;
            let length = u16::from_be_bytes([header[ipv6::PAYLOAD_LENGTH], header[ipv6::PAYLOAD_LENGTH + 1]]);
            Some(Common {
                class: header[0] << 4 | header[1] >> 4,
                ttl: header[ipv6::HOP_LIMIT],
                protocol: embedded.protocol,
                payload: (usize::from(length) + ipv6::LENGTH).saturating_sub(behind),
                piece: None,
            })
        }
    }
}

impl Common {
    const fn total(&self, version: IpVersion) -> usize {
        self.payload + version.header_length()
    }
}

/// RFC 7915 section 4.2.
fn report_v6(report: Report, total: usize, sizes: Sizes) -> Option<Report> {
    const UNREACHABLE: u8 = 1;
    const TOO_BIG: u8 = 2;
    const TIME_EXCEEDED: u8 = 3;
    const PARAMETER: u8 = 4;
    /// Where "next header" stands, of which an IPv4 host knows nothing.
    const NEXT_HEADER: u32 = ipv6::NEXT_HEADER as u32;
    let unreachable = |code| Some(Report { kind: UNREACHABLE, code, word: 0 });
    match (report.kind, report.code) {
        (3, 0 | 1 | 5..=8 | 11 | 12) => unreachable(0),
        (3, 2) => Some(Report { kind: PARAMETER, code: 1, word: NEXT_HEADER }),
        (3, 3) => unreachable(4),
        (3, 4) => {
            let said = match report.word & 0xffff {
                0 => plateau(total),
                mtu => mtu,
            };
            let there = sizes.there.map_or(u32::MAX, |mtu| u32::from(mtu) + DIFFERENCE as u32);
            let here = sizes.here.map_or(u32::MAX, u32::from);
            let word = (said + DIFFERENCE as u32).min(there).min(here).max(MIN_V6);
            Some(Report { kind: TOO_BIG, code: 0, word })
        }
        (3, 9 | 10 | 13 | 15) => unreachable(1),
        (11, code) => Some(Report { kind: TIME_EXCEEDED, code, word: 0 }),
        (12, 0 | 2) => {
            let word = match report.word >> 24 {
                at @ (0 | 1) => at,
                2 | 3 => 4,
                8 => 7,
                9 => 6,
                12..=15 => 8,
                16..=19 => 24,
                _ => return None,
            };
            Some(Report { kind: PARAMETER, code: 0, word })
        }
        _ => None,
    }
}

/// RFC 7915 section 5.2.
fn report_v4(report: Report, sizes: Sizes) -> Option<Report> {
    let unreachable = |code| Some(Report { kind: 3, code, word: 0 });
    match (report.kind, report.code) {
        (1, 0 | 2 | 3) => unreachable(1),
        (1, 1) => unreachable(10),
        (1, 4) => unreachable(3),
        (2, _) => {
            let there = sizes.there.map_or(u32::MAX, u32::from);
            let here = sizes.here.map_or(u32::MAX, u32::from);
            let mtu = report.word.min(there).saturating_sub(DIFFERENCE as u32).min(here);
            Some(Report { kind: 3, code: 4, word: mtu.min(0xffff) })
        }
        (3, code) => Some(Report { kind: 11, code, word: 0 }),
        (4, 0) => {
            let pointer: u32 = match report.word {
                at @ (0 | 1) => at,
                4 | 5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return None,
            };
            Some(Report { kind: 12, code: 0, word: pointer << 24 })
        }
        (4, 1) => unreachable(2),
        _ => None,
    }
}

/// The next smaller usual MTU, for routers that do not tell theirs (RFC 1191 section 7.1).
fn plateau(total: usize) -> u32 {
    const PLATEAUS: [u32; 9] = [65_535, 32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508];
    PLATEAUS.into_iter().find(|size| (*size as usize) < total).unwrap_or(68)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Sizes = Sizes { there: None, here: None };

    fn report(kind: u8, code: u8, word: u32) -> Report {
        Report { kind, code, word }
    }

    #[test]
    fn errors_have_their_counterparts() {
        for (four, six) in [
            (report(3, 1, 0), Some(report(1, 0, 0))),
            (report(3, 2, 0), Some(report(4, 1, 6))),
            (report(3, 3, 0), Some(report(1, 4, 0))),
            (report(3, 4, 1400), Some(report(2, 0, 1420))),
            (report(3, 4, 576), Some(report(2, 0, 1280))),
            (report(3, 4, 0), Some(report(2, 0, 1512))),
            (report(3, 10, 0), Some(report(1, 1, 0))),
            (report(3, 14, 0), None),
            (report(4, 0, 0), None),
            (report(11, 1, 0), Some(report(3, 1, 0))),
            (report(12, 0, 9 << 24), Some(report(4, 0, 6))),
            (report(12, 0, 5 << 24), None),
            (report(12, 1, 0), None),
        ] {
            assert_eq!(report_v6(four, 1500, NONE), six, "{four:?}");
        }
        for (six, four) in [
            (report(1, 0, 0), Some(report(3, 1, 0))),
            (report(1, 1, 0), Some(report(3, 10, 0))),
            (report(1, 4, 0), Some(report(3, 3, 0))),
            (report(1, 5, 0), None),
            (report(2, 0, 1280), Some(report(3, 4, 1260))),
            (report(3, 0, 0), Some(report(11, 0, 0))),
            (report(4, 0, 7), Some(report(12, 0, 8 << 24))),
            (report(4, 0, 40), None),
            (report(4, 1, 0), Some(report(3, 2, 0))),
            (report(4, 2, 0), None),
        ] {
            assert_eq!(report_v4(six, NONE), four, "{six:?}");
        }
        let sizes = Sizes { there: Some(1400), here: Some(1380) };
        assert_eq!(report_v4(report(2, 0, 9000), sizes), Some(report(3, 4, 1380)));
        assert_eq!(report_v6(report(3, 4, 9000), 9000, sizes), Some(report(2, 0, 1380)));
    }

    #[test]
    fn an_unexpired_source_route_is_seen_between_other_options() {
        assert!(is_source_routed(&[1, 1, 131, 7, 4, 10, 0, 0, 1]));
        assert!(!is_source_routed(&[1, 1, 131, 7, 8, 10, 0, 0, 1]));
        assert!(!is_source_routed(&[148, 4, 0, 0]));
        assert!(!is_source_routed(&[0, 131, 7, 4]));
        assert!(!is_source_routed(&[7, 0, 0, 0]));
        assert!(!is_source_routed(&[7]));
    }
}
