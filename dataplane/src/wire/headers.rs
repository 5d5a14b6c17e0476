//! The parser: one look at a frame's Ethernet, IP and transport headers says all that forwarding needs.
//!
//! Ethernet with 0 to 2 VLAN tags, IPv4 (RFC 791) with options, IPv6 (RFC 8200) with extension headers. What it
//! accepts has its whole transport header inside the frame, so later edits at these offsets stay inside too.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{EtherType, Plain, TcpFlags, checksum, ethernet, ip, ipv4, ipv6, number, sctp, tcp, udp};
use crate::counters::Drop;
use crate::ident::NetPort;

/// Which IP a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpVersion {
    /// Its EtherType.
    pub const fn ether_type(self) -> [u8; 2] {
        match self {
            Self::V4 => EtherType::IPV4,
            Self::V6 => EtherType::IPV6,
        }
    }

    /// Length of its header without options or extensions, in bytes.
    pub const fn header_length(self) -> usize {
        match self {
            Self::V4 => ipv4::LENGTH,
            Self::V6 => ipv6::LENGTH,
        }
    }
}

/// Whether a packet is a piece of a larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// The first piece: it has the ports.
    First {
        /// The identification.
        id: u32,
    },
    /// A later piece, without ports.
    Later {
        /// The identification.
        id: u32,
    },
}

/// Where things are in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Which IP.
    pub version: IpVersion,
    /// Offset of the IP header: the length of the link header, its tags and EtherType included.
    pub l3: u16,
    /// Offset of the transport header; of the payload in a later fragment.
    pub l4: u16,
    /// End of the IP packet; Ethernet padding may follow.
    pub end: u16,
    /// The transport's IANA number.
    pub protocol: u8,
    /// Whether this is a fragment.
    pub fragment: Fragment,
    /// Zero where there is none.
    pub source_port: NetPort,
    /// Zero where there is none.
    pub destination_port: NetPort,
    /// Empty unless this is TCP.
    pub tcp: TcpFlags,
    /// Time to live or hop limit.
    pub ttl: u8,
}

impl Headers {
    /// Whether the packet has the ports of a transport that services balance.
    #[inline]
    pub const fn has_ports(&self) -> bool {
        matches!(self.protocol, number::TCP | number::UDP | number::SCTP)
            && !matches!(self.fragment, Fragment::Later { .. })
    }

    /// Length of the IP packet in bytes.
    #[inline]
    pub const fn ip_length(&self) -> usize {
        (self.end - self.l3) as usize
    }

    /// Source and destination of an IPv4 packet; unspecified for any other.
    #[inline]
    pub fn addresses_v4(&self, frame: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
        let both = array::<8>(frame, self.l3 as usize + ipv4::SOURCE).unwrap_or_default();
        let [a, b, c, d, e, f, g, h] = both;
        (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h))
    }

    /// Source and destination of an IPv6 packet; unspecified for any other.
    #[inline]
    pub fn addresses_v6(&self, frame: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
        let at = |offset| array::<16>(frame, self.l3 as usize + offset).unwrap_or_default();
        (Ipv6Addr::from(at(ipv6::SOURCE)), Ipv6Addr::from(at(ipv6::DESTINATION)))
    }

    /// Whether source or destination is a loopback address.
    #[inline]
    pub fn is_loopback(&self, frame: &[u8]) -> bool {
        match self.version {
            IpVersion::V4 => {
                let (source, destination) = self.addresses_v4(frame);
                source.is_loopback() || destination.is_loopback()
            }
            IpVersion::V6 => {
                let (source, destination) = self.addresses_v6(frame);
                source.is_loopback() || destination.is_loopback()
            }
        }
    }

    /// Whether this is an ICMP or ICMPv6 error that holds a packet (RFC 792, RFC 4443).
    pub fn is_icmp_error(&self, frame: &[u8]) -> bool {
        if matches!(self.fragment, Fragment::Later { .. }) {
            return false;
        }
        match (self.version, self.protocol, frame.get(self.l4 as usize)) {
            // Destination unreachable, source quench, time exceeded, parameter problem.
            (IpVersion::V4, number::ICMP, Some(kind)) => [3, 4, 11, 12].contains(kind),
            (IpVersion::V6, number::ICMPV6, Some(kind)) => (1..=4).contains(kind),
            _ => false,
        }
    }
}

/// Parses an Ethernet frame.
///
/// # Errors
/// The reason for which a frame that cannot be understood is dropped.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Headers, Drop> {
    let Some(plain) = Plain::of(frame) else { return parse_any(frame) };
    let l4 = ethernet::LENGTH + plain.version().header_length();
    let port = |at| array::<2>(frame, at).map_or(NetPort::ANY, NetPort::from_wire);
    Ok(plain.headers(port(l4), port(l4 + 2)))
}

/// Parses a frame of any shape.
///
/// # Errors
/// As [`parse`].
pub fn parse_any(frame: &[u8]) -> Result<Headers, Drop> {
    let mut l3 = 14;
    let mut ether_type = array::<2>(frame, 12).ok_or(Drop::Truncated)?;
    while ether_type == EtherType::VLAN || ether_type == EtherType::QINQ {
        if l3 == 22 {
            return Err(Drop::BadEthernet);
        }
        ether_type = array::<2>(frame, l3 + 2).ok_or(Drop::Truncated)?;
        l3 += 4;
    }
    match ether_type {
        EtherType::IPV4 => parse_v4(frame, l3),
        EtherType::IPV6 => parse_v6(frame, l3),
        _ => Err(Drop::BadEthernet),
    }
}

/// Parses an IP packet without a link header.
///
/// # Errors
/// As [`parse`].
pub fn parse_ip(packet: &[u8]) -> Result<Headers, Drop> {
    match packet.first().ok_or(Drop::Truncated)? >> 4 {
        4 => parse_v4(packet, 0),
        6 => parse_v6(packet, 0),
        _ => Err(Drop::BadIpHeader),
    }
}

#[inline]
fn parse_v4(frame: &[u8], l3: usize) -> Result<Headers, Drop> {
    let header: &[u8; ipv4::LENGTH] = frame.get(l3..).and_then(<[u8]>::first_chunk).ok_or(Drop::Truncated)?;
    let header_length = usize::from(header[0] & 0xf) * 4;
    let total = usize::from(u16_at(header, ipv4::TOTAL_LENGTH));
    if header[0] >> 4 != 4 || header_length < ipv4::LENGTH || total < header_length {
        return Err(Drop::BadIpHeader);
    }
    let (l4, end) = (l3 + header_length, l3 + total);
    if end > frame.len() || end > usize::from(u16::MAX) {
        return Err(Drop::Truncated);
    }
    if checksum::fold(checksum::sum(frame.get(l3..l4).ok_or(Drop::Truncated)?)) != 0xffff {
        return Err(Drop::BadIpHeader);
    }
    if header_length > ipv4::LENGTH {
        check_options(frame.get(l3 + ipv4::LENGTH..l4).ok_or(Drop::Truncated)?)?;
    }
    let word = u16_at(header, ipv4::FRAGMENT);
    let id = u32::from(u16_at(header, ipv4::ID));
    let fragment = match (word & ipv4::OFFSET_MASK, word & ipv4::MORE_FRAGMENTS) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First { id },
        _ => Fragment::Later { id },
    };
    let ip = (IpVersion::V4, l3 as u16, header[ipv4::TTL]);
    finish(frame, ip, (l4, end), header[ipv4::PROTOCOL], fragment)
}

/// Refuses source routes (RFC 7126 sections 4.3 and 4.4; Linux does unless `accept_source_route` is set), for the packet
/// is not at its destination yet and its checksum does not cover the address that it goes to; and options that do not
/// end. Others, record route and time stamps among them, pass as they are.
#[cold]
fn check_options(mut options: &[u8]) -> Result<(), Drop> {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    while let Some((kind, rest)) = options.split_first() {
        options = match *kind {
            END => return Ok(()),
            NO_OPERATION => rest,
            LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => return Err(Drop::SourceRoute),
            _ => {
                let length = rest.first().map_or(0, |length| usize::from(*length));
                // Kind and length themselves count.
                if length < 2 {
                    return Err(Drop::BadIpHeader);
                }
                options.get(length..).ok_or(Drop::BadIpHeader)?
            }
        };
    }
    Ok(())
}

#[inline]
fn parse_v6(frame: &[u8], l3: usize) -> Result<Headers, Drop> {
    let header: &[u8; ipv6::LENGTH] = frame.get(l3..).and_then(<[u8]>::first_chunk).ok_or(Drop::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Drop::BadIpHeader);
    }
    let l4 = l3 + ipv6::LENGTH;
    let end = l4 + usize::from(u16_at(header, ipv6::PAYLOAD_LENGTH));
    if end > frame.len() || end > usize::from(u16::MAX) {
        return Err(Drop::Truncated);
    }
    let ip = (IpVersion::V6, l3 as u16, header[ipv6::HOP_LIMIT]);
    let (protocol, l4, fragment) = match header[ipv6::NEXT_HEADER] {
        plain @ (number::TCP | number::UDP | number::ICMPV6) => (plain, l4, Fragment::Whole),
        first => skip_extensions(frame.get(..end).ok_or(Drop::Truncated)?, first, l4)?,
    };
    finish(frame, ip, (l4, end), protocol, fragment)
}

/// Follows the chain of extension headers to the transport (RFC 8200 section 4; AH by RFC 4302).
///
/// A packet with routing segments left is not at its destination yet, and its checksum does not cover the address it
/// goes to (RFC 8200 section 8.1): it is refused, as a hop-by-hop header is that does not come first.
pub(crate) fn skip_extensions(packet: &[u8], first: u8, at: usize) -> Result<(u8, usize, Fragment), Drop> {
    let (start, mut next, mut at, mut fragment) = (at, first, at, Fragment::Whole);
    for _ in 0..=ip::MAX_EXTENSIONS {
        let units = |at| packet.get(at + 1).map(|n| usize::from(*n)).ok_or(Drop::BadExtension);
        let segments_left = packet.get(at + 3).copied().unwrap_or_default();
        let length = match next {
            number::HOP_BY_HOP if at != start => return Err(Drop::BadExtension),
            number::ROUTING if segments_left != 0 => return Err(Drop::BadExtension),
            number::HOP_BY_HOP | number::ROUTING | number::DESTINATION_OPTIONS => (units(at)? + 1) * 8,
            number::AUTHENTICATION => (units(at)? + 2) * 4,
            number::FRAGMENT => 8,
            _ => return Ok((next, at, fragment)),
        };
        let header = packet.get(at..at + length).ok_or(Drop::BadExtension)?;
        if next == number::FRAGMENT {
            let id = u32::from_be_bytes(array(header, 4).ok_or(Drop::BadExtension)?);
            let offset_and_more = u16_at(header, 2);
            fragment = match (offset_and_more >> 3, offset_and_more & 1) {
                (0, 0) => fragment,
                (0, _) => Fragment::First { id },
                // What follows is payload, not another header.
                _ => return Ok((header[0], at + length, Fragment::Later { id })),
            };
        }
        next = header[0];
        at += length;
    }
    Err(Drop::BadExtension)
}

/// Looks into the transport header, which has to lie inside the packet.
#[inline]
fn finish(
    frame: &[u8],
    (version, l3, ttl): (IpVersion, u16, u8),
    (l4, end): (usize, usize),
    protocol: u8,
    fragment: Fragment,
) -> Result<Headers, Drop> {
    let mut headers = Headers {
        version,
        l3,
        l4: l4 as u16,
        end: end as u16,
        protocol,
        fragment,
        source_port: NetPort::ANY,
        destination_port: NetPort::ANY,
        tcp: TcpFlags::default(),
        ttl,
    };
    if matches!(fragment, Fragment::Later { .. }) {
        return Ok(headers);
    }
    let transport = frame.get(l4..end).ok_or(Drop::Truncated)?;
    match protocol {
        number::TCP => {
            let header: &[u8; tcp::LENGTH] = transport.first_chunk().ok_or(Drop::BadTransport)?;
            let length = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
            if length < tcp::LENGTH || length > transport.len() {
                return Err(Drop::BadTransport);
            }
            headers.tcp = TcpFlags::new(header[tcp::FLAGS]);
            headers.source_port = NetPort::from_wire([header[0], header[1]]);
            headers.destination_port = NetPort::from_wire([header[2], header[3]]);
        }
        number::UDP => {
            let header: &[u8; udp::LENGTH] = transport.first_chunk().ok_or(Drop::BadTransport)?;
            let length = usize::from(u16_at(header, udp::DATA_LENGTH));
            if length < udp::LENGTH || (fragment == Fragment::Whole && length > transport.len()) {
                return Err(Drop::BadTransport);
            }
            headers.source_port = NetPort::from_wire([header[0], header[1]]);
            headers.destination_port = NetPort::from_wire([header[2], header[3]]);
        }
        number::SCTP => {
            let header: &[u8; sctp::LENGTH] = transport.first_chunk().ok_or(Drop::BadTransport)?;
            headers.source_port = NetPort::from_wire([header[0], header[1]]);
            headers.destination_port = NetPort::from_wire([header[2], header[3]]);
        }
        number::ICMP | number::ICMPV6 if transport.len() < 8 => return Err(Drop::BadTransport),
        _ => {}
    }
    Ok(headers)
}

#[inline]
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// A big-endian word; zero outside, which callers rule out before.
#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_pass_but_for_source_routes_and_those_that_do_not_end() {
        for (options, expected) in [
            (&[1, 1, 1, 0][..], Ok(())),
            (&[7, 7, 4, 0, 0, 0, 0, 0], Ok(())),
            (&[148, 4, 0, 0], Ok(())),
            (&[0, 131, 3, 4], Ok(())),
            (&[1, 131, 3, 4], Err(Drop::SourceRoute)),
            (&[137, 3, 4, 0], Err(Drop::SourceRoute)),
            (&[7, 0, 0, 0], Err(Drop::BadIpHeader)),
            (&[7, 5, 0, 0], Err(Drop::BadIpHeader)),
            (&[1, 1, 1, 7], Err(Drop::BadIpHeader)),
        ] {
            assert_eq!(check_options(options), expected, "{options:?}");
        }
    }
}
