//! TUN: an outer IP header in front, of either version over either (RFC 2003, RFC 2473, RFC 4213), and what the tunnel's
//! form puts between (GRE, GUE).
//!
//! DSCP and ECN are copied outwards (RFC 6040, normal mode); DF is copied from IPv4 and set for IPv6 inside, so that
//! path MTU discovery goes on through the tunnel.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see worker::carry")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::gre;
use super::gue::{self, Gue};
use crate::service::GreChecksum;
use crate::wire::{IpVersion, checksum, ip, ipv4, ipv6, number};

/// Where a tunnel begins and ends; both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnds {
    /// Over IPv4: from, to.
    V4(Ipv4Addr, Ipv4Addr),
    /// Over IPv6: from, to.
    V6(Ipv6Addr, Ipv6Addr),
}

impl TunnelEnds {
    /// A tunnel, if both addresses are of one family.
    pub const fn new(from: IpAddr, to: IpAddr) -> Option<Self> {
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some(Self::V4(from, to)),
            (IpAddr::V6(from), IpAddr::V6(to)) => Some(Self::V6(from, to)),
            _ => None,
        }
    }

    /// The version of the outer header.
    pub const fn version(self) -> IpVersion {
        match self {
            Self::V4(..) => IpVersion::V4,
            Self::V6(..) => IpVersion::V6,
        }
    }

    /// Bytes that the outer IP header takes.
    pub const fn overhead(self) -> usize {
        self.version().header_length()
    }

    /// The sum of the pseudo header below a transport of so many bytes between the ends.
    pub(super) fn pseudo(self, protocol: u8, length: usize) -> u64 {
        match self {
            Self::V4(from, to) => checksum::pseudo([from.octets(), to.octets()].as_flattened(), protocol, length),
            Self::V6(from, to) => checksum::pseudo([from.octets(), to.octets()].as_flattened(), protocol, length),
        }
    }
}

/// What stands between the outer IP header and the packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shim {
    /// Nothing.
    None,
    /// A GRE header.
    Gre(GreChecksum),
    /// UDP and GUE headers.
    Gue(Gue),
}

impl Shim {
    /// Bytes that it takes.
    pub const fn length(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Gre(GreChecksum::Absent) => gre::LENGTH,
            Self::Gre(GreChecksum::Present) => gre::LENGTH_WITH_CHECKSUM,
            Self::Gue(gue) => gue.length(),
        }
    }
}

/// Writes the outer headers of `inner`, an IP packet, into `out`, which has [`TunnelEnds::overhead`] and
/// [`Shim::length`] bytes. `id` is the identification of an outer IPv4 header.
pub fn write_outer(out: &mut [u8], inner: &[u8], ends: TunnelEnds, shim: Shim, id: u16) {
    let Some((out, between)) = out.split_at_mut_checked(ends.overhead()) else { return };
    let Some(inside) = Inside::of(inner) else { return };
    let protocol = match shim {
        Shim::None => inside.protocol,
        Shim::Gre(checksum) => {
            gre::write(between, inner, checksum);
            number::GRE
        }
        Shim::Gue(ref gue) => {
            gue::write(between, inner, ends, gue);
            number::UDP
        }
    };
    write_ip(out, Inside { protocol, ..inside }, between.len() + inner.len(), ends, id);
}

/// The outer IP header in front of `length` bytes.
#[inline]
fn write_ip(out: &mut [u8], inside: Inside, length: usize, ends: TunnelEnds, id: u16) {
    match ends {
        TunnelEnds::V4(from, to) => {
            let Some(header) = out.first_chunk_mut::<{ ipv4::LENGTH }>() else { return };
            let total = (ipv4::LENGTH + length) as u16;
            header.fill(0);
            header[0] = 0x45;
            header[ipv4::TOS] = inside.traffic_class;
            put(header, ipv4::TOTAL_LENGTH, total.to_be_bytes());
            put(header, ipv4::ID, id.to_be_bytes());
            put(header, ipv4::FRAGMENT, inside.dont_fragment.to_be_bytes());
            header[ipv4::TTL] = ip::TTL;
            header[ipv4::PROTOCOL] = inside.protocol;
            put(header, ipv4::SOURCE, from.octets());
            put(header, ipv4::DESTINATION, to.octets());
            let sum = checksum::of(header);
            put(header, ipv4::CHECKSUM, sum);
        }
        TunnelEnds::V6(from, to) => {
            let Some(header) = out.first_chunk_mut::<{ ipv6::LENGTH }>() else { return };
            let class = inside.traffic_class;
            header.fill(0);
            header[0] = 0x60 | class >> 4;
            header[1] = class << 4;
            put(header, ipv6::PAYLOAD_LENGTH, (length as u16).to_be_bytes());
            header[ipv6::NEXT_HEADER] = inside.protocol;
            header[ipv6::HOP_LIMIT] = ip::TTL;
            put(header, ipv6::SOURCE, from.octets());
            put(header, ipv6::DESTINATION, to.octets());
        }
    }
}

/// The outer header of IP in IP between two ends, made once: what the packets have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Over IPv4, with the sum of its words.
    V4([u8; ipv4::LENGTH], u64),
    /// Over IPv6.
    V6([u8; ipv6::LENGTH]),
}

impl Outer {
    /// The header of a tunnel between these ends.
    pub fn new(ends: TunnelEnds) -> Self {
        // Of a packet of no bytes, so that what is put in later has been zero.
        let nothing = Inside { protocol: 0, traffic_class: 0, dont_fragment: 0 };
        match ends {
            TunnelEnds::V4(..) => {
                let mut header = [0; ipv4::LENGTH];
                write_ip(&mut header, nothing, 0, ends, 0);
                put(&mut header, ipv4::TOTAL_LENGTH, [0, 0]);
                put(&mut header, ipv4::CHECKSUM, [0, 0]);
                Self::V4(header, checksum::sum(&header))
            }
            TunnelEnds::V6(..) => {
                let mut header = [0; ipv6::LENGTH];
                write_ip(&mut header, nothing, 0, ends, 0);
                Self::V6(header)
            }
        }
    }

    /// Bytes that it takes.
    #[inline]
    pub const fn length(&self) -> usize {
        self.version().header_length()
    }

    /// Its own version.
    #[inline]
    pub const fn version(&self) -> IpVersion {
        match self {
            Self::V4(..) => IpVersion::V4,
            Self::V6(_) => IpVersion::V6,
        }
    }

    /// As [`write_outer`] with nothing between, in front of `length` bytes.
    #[inline(always)]
    pub fn write(&self, out: &mut [u8], inside: Inside, length: usize, id: u16) {
        match self {
            Self::V4(header, sum) => {
                let Some(out) = out.first_chunk_mut::<{ ipv4::LENGTH }>() else { return };
                *out = *header;
                let length = ((ipv4::LENGTH + length) as u16).to_be_bytes();
                let (id, fragment) = (id.to_be_bytes(), inside.dont_fragment.to_be_bytes());
                let word = |bytes| u64::from(u16::from_ne_bytes(bytes));
                let class_and_protocol = word([0, inside.traffic_class]) + word([0, inside.protocol]);
                let sum = sum + class_and_protocol + word(length) + word(id) + word(fragment);
                out[ipv4::TOS] = inside.traffic_class;
                put(out, ipv4::TOTAL_LENGTH, length);
                put(out, ipv4::ID, id);
                put(out, ipv4::FRAGMENT, fragment);
                out[ipv4::PROTOCOL] = inside.protocol;
                put(out, ipv4::CHECKSUM, checksum::field(sum));
            }
            Self::V6(header) => {
                let Some(out) = out.first_chunk_mut::<{ ipv6::LENGTH }>() else { return };
                *out = *header;
                out[0] |= inside.traffic_class >> 4;
                out[1] |= inside.traffic_class << 4;
                put(out, ipv6::PAYLOAD_LENGTH, (length as u16).to_be_bytes());
                out[ipv6::NEXT_HEADER] = inside.protocol;
            }
        }
    }
}

/// What the outer header takes over from the inner one.
#[derive(Clone, Copy, Debug)]
pub struct Inside {
    protocol: u8,
    traffic_class: u8,
    dont_fragment: u16,
}

impl Inside {
    /// Of an IPv4 header.
    #[inline(always)]
    pub fn of_v4(header: &[u8; ipv4::LENGTH]) -> Self {
        let word = u16::from_be_bytes([header[ipv4::FRAGMENT], header[ipv4::FRAGMENT + 1]]);
        let dont_fragment = word & ipv4::DONT_FRAGMENT;
        Self { protocol: number::IPV4, traffic_class: header[ipv4::TOS], dont_fragment }
    }

    /// Of an IPv6 header.
    #[inline(always)]
    pub fn of_v6(header: &[u8; ipv6::LENGTH]) -> Self {
        let traffic_class = header[0] << 4 | header[1] >> 4;
        Self { protocol: number::IPV6, traffic_class, dont_fragment: ipv4::DONT_FRAGMENT }
    }

    #[inline]
    fn of(inner: &[u8]) -> Option<Self> {
        match inner.first()? >> 4 {
            6 => inner.first_chunk().map(Self::of_v6),
            _ => inner.first_chunk().map(Self::of_v4),
        }
    }
}

#[inline]
fn put<const N: usize, const L: usize>(header: &mut [u8; L], at: usize, bytes: [u8; N]) {
    if let Some(place) = header.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) {
        *place = bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_header_made_once_is_the_one_made_for_the_packet(
            is_v4: bool, ends_v4: bool, from: u128, to: u128, id: u16, rest in prop::collection::vec(any::<u8>(), 40..200),
        ) {
            let mut inner = rest;
            inner[0] = if is_v4 { 0x45 } else { 0x60 | inner[0] & 0xf };
            let ends = if ends_v4 {
                TunnelEnds::V4((from as u32).into(), (to as u32).into())
            } else {
                TunnelEnds::V6(from.into(), to.into())
            };
            let (mut one, mut two) = (vec![9; ends.overhead()], vec![7; ends.overhead()]);
            write_outer(&mut one, &inner, ends, Shim::None, id);
            let outer = Outer::new(ends);
            prop_assert_eq!((outer.length(), outer.version()), (ends.overhead(), ends.version()));
            outer.write(&mut two, Inside::of(&inner).unwrap(), inner.len(), id);
            prop_assert_eq!(one, two);
        }
    }
}
