//! The plain packet: no VLAN tag, whole, TCP or UDP right behind an IPv4 header without options or an IPv6 header.
//!
//! Nearly every packet is. Everything is at a fixed place then, so that few comparisons tell; [`super::parse`] reads
//! all others, and a plain packet's [`Headers`] are what it would give.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see worker::carry")]

use super::{EtherType, Fragment, Headers, IpVersion, TcpFlags, checksum, ethernet, ipv4, ipv6, number, tcp, udp};
use crate::ident::NetPort;

/// Offset of the IP header.
pub const L3: usize = ethernet::LENGTH;
/// Offset of the transport header behind IPv4.
pub const L4_V4: usize = L3 + ipv4::LENGTH;
/// Offset of the transport header behind IPv6.
pub const L4_V6: usize = L3 + ipv6::LENGTH;

/// What a plain packet says besides addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// End of the IP packet; Ethernet padding may follow.
    pub end: u16,
    /// The transport's IANA number: TCP or UDP.
    pub protocol: u8,
    /// Empty for UDP.
    pub tcp: TcpFlags,
    /// Time to live or hop limit.
    pub ttl: u8,
    /// Which IP.
    pub version: IpVersion,
}

impl Plain {
    /// Reads a frame. `None` says nothing but that it is not plain: it may be damaged, too.
    #[inline(always)]
    pub fn of(frame: &[u8]) -> Option<Self> {
        match frame.get(12..)?.first_chunk()? {
            [a, b, 0x45] if [*a, *b] == EtherType::IPV4 => v4(frame),
            [a, b, 0x60..=0x6f] if [*a, *b] == EtherType::IPV6 => v6(frame),
            _ => None,
        }
    }

    /// Length of the IP packet in bytes.
    #[inline]
    pub const fn ip_length(&self) -> usize {
        self.end as usize - L3
    }

    /// As [`super::parse`] gives them for this packet.
    #[inline]
    pub const fn headers(&self, source_port: NetPort, destination_port: NetPort) -> Headers {
        Headers {
            version: self.version,
            l3: L3 as u16,
            l4: match self.version {
                IpVersion::V4 => L4_V4 as u16,
                IpVersion::V6 => L4_V6 as u16,
            },
            end: self.end,
            protocol: self.protocol,
            fragment: Fragment::Whole,
            source_port,
            destination_port,
            tcp: self.tcp,
            ttl: self.ttl,
        }
    }
}

/// What a frame with IPv4 without options says, if all else is as it should be.
#[inline(always)]
fn v4(frame: &[u8]) -> Option<Plain> {
    let head: &[u8; L4_V4 + udp::LENGTH] = frame.first_chunk()?;
    let ip: &[u8; ipv4::LENGTH] = head.get(L3..)?.first_chunk()?;
    let total = u16::from_be_bytes([ip[ipv4::TOTAL_LENGTH], ip[ipv4::TOTAL_LENGTH + 1]]);
    let fragment = u16::from_be_bytes([ip[ipv4::FRAGMENT], ip[ipv4::FRAGMENT + 1]]);
    let is_whole = fragment & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) == 0;
    if !is_whole || checksum::fold(checksum::sum_array(ip)) != 0xffff {
        return None;
    }
    let end = L3 + usize::from(total);
    let transport = finish(frame, L4_V4, end, ip[ipv4::PROTOCOL])?;
    Some(Plain { ttl: ip[ipv4::TTL], version: IpVersion::V4, ..transport })
}

/// The same of IPv6.
#[inline(always)]
fn v6(frame: &[u8]) -> Option<Plain> {
    let head: &[u8; L4_V6 + udp::LENGTH] = frame.first_chunk()?;
    let payload = u16::from_be_bytes([head[L3 + ipv6::PAYLOAD_LENGTH], head[L3 + ipv6::PAYLOAD_LENGTH + 1]]);
    let end = L4_V6 + usize::from(payload);
    let transport = finish(frame, L4_V6, end, head[L3 + ipv6::NEXT_HEADER])?;
    Some(Plain { ttl: head[L3 + ipv6::HOP_LIMIT], version: IpVersion::V6, ..transport })
}

/// Looks into a transport header that begins at `l4` and whose packet ends at `end`.
#[inline(always)]
fn finish(frame: &[u8], l4: usize, end: usize, protocol: u8) -> Option<Plain> {
    // No frame of a port is longer than what its length is told in.
    if end > frame.len().min(usize::from(u16::MAX)) {
        return None;
    }
    let flags = match protocol {
        number::TCP => {
            let header: &[u8; tcp::LENGTH] = frame.get(l4..)?.first_chunk()?;
            let length = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
            (length >= tcp::LENGTH && l4 + length <= end).then_some(header[tcp::FLAGS])?
        }
        number::UDP => {
            let header: &[u8; udp::LENGTH] = frame.get(l4..)?.first_chunk()?;
            let length = u16::from_be_bytes([header[udp::DATA_LENGTH], header[udp::DATA_LENGTH + 1]]);
            (usize::from(length) >= udp::LENGTH && l4 + usize::from(length) <= end).then_some(0)?
        }
        _ => return None,
    };
    // The caller knows the rest.
    Some(Plain { end: end as u16, protocol, tcp: TcpFlags::new(flags), ttl: 0, version: IpVersion::V4 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{parse, parse_any};
    use super::*;

    /// A frame that is plain but for what was changed in it.
    fn frame(version: IpVersion, protocol: u8, payload: usize) -> Vec<u8> {
        let header = if protocol == number::TCP { tcp::LENGTH } else { udp::LENGTH };
        let length = header + payload;
        let mut frame = vec![2; 12];
        match version {
            IpVersion::V4 => {
                let total = (ipv4::LENGTH + length) as u16;
                frame.extend([8, 0, 0x45, 0, (total >> 8) as u8, total as u8, 1, 2, 0x40, 0, 64, protocol, 0, 0]);
                frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
                let sum = checksum::of(&frame[L3..]);
                frame[L3 + ipv4::CHECKSUM..L3 + ipv4::SOURCE].copy_from_slice(&sum);
            }
            IpVersion::V6 => {
                frame.extend([0x86, 0xdd, 0x60, 1, 2, 3, (length >> 8) as u8, length as u8, protocol, 64]);
                frame.extend([0x20; 32]);
            }
        }
        let at = frame.len();
        frame.resize(at + length, 0);
        frame[at..at + 4].copy_from_slice(&[1, 2, 3, 4]);
        if protocol == number::TCP {
            frame[at + tcp::DATA_OFFSET] = 0x50;
            frame[at + tcp::FLAGS] = 0x18;
        } else {
            frame[at + udp::DATA_LENGTH..at + udp::CHECKSUM].copy_from_slice(&(length as u16).to_be_bytes());
        }
        frame
    }

    proptest! {
        /// A plain packet is what the general parser says, and what is damaged or of another shape is not plain.
        #[test]
        fn it_is_what_the_general_parser_gives(
            is_v4: bool,
            is_tcp: bool,
            payload in 0usize..40,
            padding in 0usize..20,
            cut in 0usize..80,
            changes in prop::collection::vec((0usize..90, any::<u8>()), 0..3),
        ) {
            let version = if is_v4 { IpVersion::V4 } else { IpVersion::V6 };
            let mut frame = frame(version, if is_tcp { number::TCP } else { number::UDP }, payload);
            frame.resize(frame.len() + padding, 0);
            if changes.len() == 2 {
                frame.truncate(frame.len().saturating_sub(cut));
            }
            for (at, byte) in &changes {
                if let Some(place) = frame.get_mut(*at) {
                    *place = *byte;
                }
            }
            let general = parse_any(&frame);
            prop_assert_eq!(parse(&frame), general);
            prop_assert!(!changes.is_empty() || Plain::of(&frame).is_some());
            if let Some(plain) = Plain::of(&frame) {
                let headers = general.unwrap();
                prop_assert_eq!(plain.headers(headers.source_port, headers.destination_port), headers);
                prop_assert_eq!(plain.ip_length(), headers.ip_length());
            }
        }
    }
}
