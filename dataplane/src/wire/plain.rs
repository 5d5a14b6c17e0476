//! The plain packet: no VLAN tag, whole, TCP or UDP right behind an IPv4 header without options or an IPv6 header.
//!
//! Nearly every packet is. Everything is at a fixed place then, so that few comparisons tell; [`super::parse`] reads
//! all others, and a plain packet's [`Headers`] are what it would give.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see worker::carry")]

use std::fmt;
use std::num::NonZeroU64;

use super::{EtherType, Fragment, Headers, IpVersion, TcpFlags, checksum, ethernet, ipv4, ipv6, number, tcp, udp};
use crate::ident::NetPort;

/// Offset of the IP header.
pub const L3: usize = ethernet::LENGTH;
/// Offset of the transport header behind IPv4.
pub const L4_V4: usize = L3 + ipv4::LENGTH;
/// Offset of the transport header behind IPv6.
pub const L4_V6: usize = L3 + ipv6::LENGTH;

/// What a plain packet says besides addresses and ports, in one word: what a pass over a burst leaves for the next goes
/// through memory, and a word is written and read at once.
///
/// From the lowest bit on: the end of the packet (16), its transport (8), its TCP flags (8), its TTL (8), its IP
/// version (8).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Plain(NonZeroU64);

/// A plain packet's transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// Its IANA number.
    #[inline]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => number::TCP,
            Self::Udp => number::UDP,
        }
    }
}

impl Plain {
    const TRANSPORT: u32 = 16;
    const FLAGS: u32 = 24;
    const TTL: u32 = 32;
    const VERSION: u32 = 40;

    /// Reads a frame. `None` says nothing but that it is not plain: it may be damaged, too.
    #[inline(always)]
    pub fn of(frame: &[u8]) -> Option<Self> {
        Self::of_v4(frame).or_else(|| Self::of_v6(frame))
    }

    /// As [`Plain::of`], if it is IPv4 without options.
    #[inline(always)]
    pub fn of_v4(frame: &[u8]) -> Option<Self> {
        let head: &[u8; L4_V4 + udp::LENGTH] = frame.first_chunk()?;
        let ip: &[u8; ipv4::LENGTH] = head.get(L3..)?.first_chunk()?;
        let fragment = u16::from_be_bytes([ip[ipv4::FRAGMENT], ip[ipv4::FRAGMENT + 1]]);
        let is_whole = fragment & (ipv4::MORE_FRAGMENTS | ipv4::OFFSET_MASK) == 0;
        if head[ethernet::TYPE..L3] != EtherType::IPV4 || ip[0] != 0x45 || !is_whole || !checksum::is_right(ip) {
            return None;
        }
        let total = u16::from_be_bytes([ip[ipv4::TOTAL_LENGTH], ip[ipv4::TOTAL_LENGTH + 1]]);
        let end = L3 + usize::from(total);
        let (transport, flags) = transport(frame, L4_V4, end, ip[ipv4::PROTOCOL])?;
        Self::new(end, transport, flags, ip[ipv4::TTL], IpVersion::V4)
    }

    /// As [`Plain::of`], if it is IPv6.
    #[inline(always)]
    pub fn of_v6(frame: &[u8]) -> Option<Self> {
        let head: &[u8; L4_V6 + udp::LENGTH] = frame.first_chunk()?;
        let ip: &[u8; ipv6::LENGTH] = head.get(L3..)?.first_chunk()?;
        if head[ethernet::TYPE..L3] != EtherType::IPV6 || ip[0] >> 4 != 6 {
            return None;
        }
        let payload = u16::from_be_bytes([ip[ipv6::PAYLOAD_LENGTH], ip[ipv6::PAYLOAD_LENGTH + 1]]);
        let end = L4_V6 + usize::from(payload);
        let (transport, flags) = transport(frame, L4_V6, end, ip[ipv6::NEXT_HEADER])?;
        Self::new(end, transport, flags, ip[ipv6::HOP_LIMIT], IpVersion::V6)
    }

    #[inline(always)]
    fn new(end: usize, transport: Transport, flags: u8, ttl: u8, version: IpVersion) -> Option<Self> {
        let number = match version {
            IpVersion::V4 => 4,
            IpVersion::V6 => 6u64,
        };
        // No frame of a port is longer than what its length is told in.
        let word = u64::from(u16::try_from(end).ok()?)
            | u64::from(transport.number()) << Self::TRANSPORT
            | u64::from(flags) << Self::FLAGS
            | u64::from(ttl) << Self::TTL
            | number << Self::VERSION;
        NonZeroU64::new(word).map(Self)
    }

    /// End of the IP packet in the frame; Ethernet padding may follow.
    #[inline]
    pub const fn end(self) -> usize {
        self.0.get() as u16 as usize
    }

    /// Length of the IP packet in bytes.
    #[inline]
    pub const fn ip_length(self) -> usize {
        self.end() - L3
    }

    /// Its transport's IANA number.
    #[inline]
    pub const fn protocol(self) -> u8 {
        self.byte(Self::TRANSPORT)
    }

    /// Its transport.
    #[inline]
    pub const fn transport(self) -> Transport {
        match self.protocol() {
            number::TCP => Transport::Tcp,
            _ => Transport::Udp,
        }
    }

    /// Its TCP flags; none of UDP.
    #[inline]
    pub const fn tcp(self) -> TcpFlags {
        TcpFlags::new(self.byte(Self::FLAGS))
    }

    /// Whether it is a segment of TCP with these flags out of `among`.
    #[inline]
    pub fn is_segment(self, flags: TcpFlags, among: TcpFlags) -> bool {
        let word = |transport: u8, flags: u8| (transport as u64) << Self::TRANSPORT | (flags as u64) << Self::FLAGS;
        self.0.get() & word(0xff, among.byte()) == word(number::TCP, flags.byte())
    }

    /// Time to live or hop limit.
    #[inline]
    pub const fn ttl(self) -> u8 {
        self.byte(Self::TTL)
    }

    /// Which IP.
    #[inline]
    pub const fn version(self) -> IpVersion {
        if self.byte(Self::VERSION) == 6 { IpVersion::V6 } else { IpVersion::V4 }
    }

    /// As [`super::parse`] gives them for this packet.
    #[inline]
    pub const fn headers(self, source_port: NetPort, destination_port: NetPort) -> Headers {
        Headers {
            version: self.version(),
            l3: L3 as u16,
            l4: match self.version() {
                IpVersion::V4 => L4_V4 as u16,
                IpVersion::V6 => L4_V6 as u16,
            },
            end: self.end() as u16,
            protocol: self.protocol(),
            fragment: Fragment::Whole,
            source_port,
            destination_port,
            tcp: self.tcp(),
            ttl: self.ttl(),
        }
    }

    const fn byte(self, at: u32) -> u8 {
        (self.0.get() >> at) as u8
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plain")
            .field("version", &self.version())
            .field("end", &self.end())
            .field("transport", &self.transport())
            .field("tcp", &self.tcp())
            .field("ttl", &self.ttl())
            .finish()
    }
}

/// Which transport begins at `l4` in a packet that ends at `end`, and its flags.
#[inline(always)]
fn transport(frame: &[u8], l4: usize, end: usize, protocol: u8) -> Option<(Transport, u8)> {
    if end > frame.len() {
        return None;
    }
    match protocol {
        number::TCP => {
            let header: &[u8; tcp::LENGTH] = frame.get(l4..)?.first_chunk()?;
            let length = usize::from(header[tcp::DATA_OFFSET] >> 4) * 4;
            (length >= tcp::LENGTH && l4 + length <= end).then_some((Transport::Tcp, header[tcp::FLAGS]))
        }
        number::UDP => {
            let header: &[u8; udp::LENGTH] = frame.get(l4..)?.first_chunk()?;
            let length = u16::from_be_bytes([header[udp::DATA_LENGTH], header[udp::DATA_LENGTH + 1]]);
            (usize::from(length) >= udp::LENGTH && l4 + usize::from(length) <= end).then_some((Transport::Udp, 0))
        }
        _ => None,
    }
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
