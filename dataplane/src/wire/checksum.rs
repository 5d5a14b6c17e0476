//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are taken in the machine's byte order, which the ones' complement sum permits (RFC 1071 section 2 B): what is
//! folded is stored in the machine's order too.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see worker::carry")]

use super::{Fragment, Headers, IpVersion, ipv4, ipv6, number, sctp, tcp, udp};
use crate::counters::Drop;

/// The ones' complement sum of bytes, not folded. An odd last byte counts as the upper half of a word.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut total: u64 = 0;
    for word in words.by_ref() {
        // A chunk of four has four bytes.
        total += u64::from(u32::from_ne_bytes(word.first_chunk().copied().unwrap_or_default()));
    }
    let mut rest = [0; 4];
    for (to, from) in rest.iter_mut().zip(words.remainder()) {
        *to = *from;
    }
    total + u64::from(u32::from_ne_bytes(rest))
}

/// The sum of a few bytes whose number is known, unrolled. An odd number is not summed right: there is none.
#[inline]
pub fn sum_array<const N: usize>(bytes: &[u8; N]) -> u64 {
    const { assert!(N.is_multiple_of(2), "headers and fields have whole words") };
    let (words, rest) = bytes.as_chunks::<4>();
    let total = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
    match rest {
        [a, b] => total + u64::from(u16::from_ne_bytes([*a, *b])),
        _ => total,
    }
}

/// Whether a few bytes that contain their checksum, as an IPv4 header does, are whole.
#[inline(always)]
pub fn is_right<const N: usize>(bytes: &[u8; N]) -> bool {
    fold(words(bytes).fold(0, add)) == 0xffff
}

/// Bytes as words of 64 bits in the machine's order, with zeros behind the last.
#[inline]
fn words<const N: usize>(bytes: &[u8; N]) -> impl Iterator<Item = u64> {
    const { assert!(N.is_multiple_of(2), "headers and fields have whole words") };
    let (words, rest) = bytes.as_chunks::<8>();
    let last = match rest {
        [a, b] => Some([*a, *b, 0, 0, 0, 0, 0, 0]),
        [a, b, c, d] => Some([*a, *b, *c, *d, 0, 0, 0, 0]),
        [a, b, c, d, e, f, ..] => Some([*a, *b, *c, *d, *e, *f, 0, 0]),
        _ => None,
    };
    words.iter().copied().chain(last).map(u64::from_ne_bytes)
}

/// The ones' complement sum of two, whose carry comes round (RFC 1071 section 2 B).
#[inline]
const fn add(a: u64, b: u64) -> u64 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u64
}

/// Folds a sum into 16 bits.
#[inline]
pub const fn fold(total: u64) -> u16 {
    let (low, carry) = (total as u32).overflowing_add((total >> 32) as u32);
    let words = low + carry as u32;
    // The halves added to each other; what they carry comes out of the upper one.
    (words.wrapping_add(words.rotate_right(16)) >> 16) as u16
}

/// The checksum field for a folded sum.
#[inline]
pub(crate) const fn field(total: u64) -> [u8; 2] {
    (!fold(total)).to_ne_bytes()
}

/// The checksum of an IPv4 header (or an ICMP message) whose field is zero.
#[inline]
pub fn of(bytes: &[u8]) -> [u8; 2] {
    field(sum(bytes))
}

/// The sum of a pseudo header: addresses (8 or 32 bytes), protocol and length of the transport.
#[inline]
pub fn pseudo(addresses: &[u8], protocol: u8, length: usize) -> u64 {
    let word = |n: u16| u64::from(u16::from_ne_bytes(n.to_be_bytes()));
    sum(addresses) + word(u16::from(protocol)) + word(length as u16) + word((length >> 16) as u16)
}

/// The checksum of a transport packet (its field zero) below a pseudo header. UDP sends 0xffff for 0 (RFC 768).
#[inline]
pub fn transport(pseudo: u64, protocol: u8, bytes: &[u8]) -> [u8; 2] {
    let value = field(pseudo + sum(bytes));
    if protocol == number::UDP && value == [0, 0] { [0xff, 0xff] } else { value }
}

/// What changed below a checksum: a ones' complement sum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delta(u64);

impl Delta {
    /// Bytes that were replaced by others; both start at an even offset and have the same even length.
    #[inline]
    #[must_use]
    pub fn replace<const N: usize>(self, old: [u8; N], new: [u8; N]) -> Self {
        let difference = |(old, new): (u64, u64)| {
            let (difference, borrow) = new.overflowing_sub(old);
            difference.wrapping_sub(u64::from(borrow))
        };
        Self(words(&old).zip(words(&new)).map(difference).fold(self.0, add))
    }

    /// Two changes together.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The change in 16 bits.
    #[inline]
    #[must_use]
    pub const fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The change that was folded.
    #[inline]
    #[must_use]
    pub const fn of_folded(folded: u16) -> Self {
        Self(folded as u64)
    }

    /// The change back of one that was folded.
    #[inline]
    #[must_use]
    pub const fn back_of_folded(folded: u16) -> Self {
        Self(!folded as u64)
    }

    /// The field after the change: `~(~HC + (m' - m))`, equation 3 of RFC 1624. It is 0xffff only if it was.
    #[inline]
    pub fn apply(self, old: [u8; 2]) -> [u8; 2] {
        field(add(self.0, u64::from(!u16::from_ne_bytes(old))))
    }

    /// The field of a UDP header after the change: zero, "no checksum", stays (RFC 768); a sum of zero is sent as 0xffff.
    #[inline]
    pub fn apply_udp(self, old: [u8; 2]) -> [u8; 2] {
        match old {
            [0, 0] => old,
            _ => match self.apply(old) {
                [0, 0] => [0xff, 0xff],
                new => new,
            },
        }
    }
}

/// How a transport checksum was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was right (or the packet has none).
    Valid,
    /// It held only the pseudo header's sum, as a local sender leaves it to the device; now it is whole.
    Completed,
    /// It covers more than this frame holds, or is of a transport that is not looked into.
    Unknown,
}

/// Verifies the transport checksum of a frame, and completes one that holds only the pseudo header's sum.
///
/// # Errors
/// [`Drop::BadChecksum`] when it is wrong.
pub fn settle(frame: &mut [u8], headers: &Headers) -> Result<Settled, Drop> {
    if headers.fragment != Fragment::Whole {
        return Ok(Settled::Unknown);
    }
    let (l4, end) = (headers.l4 as usize, headers.end as usize);
    if headers.protocol == number::SCTP {
        return sctp::settle(frame.get_mut(l4..end).ok_or(Drop::BadTransport)?);
    }
    let (at, length) = match (headers.protocol, headers.version) {
        (number::TCP, _) => (tcp::CHECKSUM, end - l4),
        (number::UDP, _) => {
            let length = frame.get(l4 + udp::DATA_LENGTH..).and_then(<[u8]>::first_chunk);
            (udp::CHECKSUM, length.map_or(0, |n| usize::from(u16::from_be_bytes(*n))))
        }
        (number::ICMP, IpVersion::V4) | (number::ICMPV6, IpVersion::V6) => (2, end - l4),
        _ => return Ok(Settled::Unknown),
    };
    let below = pseudo_of(frame, headers, length);
    let Some(packet) = frame.get_mut(l4..l4 + length) else { return Err(Drop::BadTransport) };
    let total = sum(packet);
    let Some(stored) = packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else {
        return Err(Drop::BadTransport);
    };
    if headers.protocol == number::UDP && *stored == [0, 0] {
        // Optional in IPv4, forbidden in IPv6 (RFC 8200 section 8.1).
        return if headers.version == IpVersion::V4 { Ok(Settled::Valid) } else { Err(Drop::BadChecksum) };
    }
    if fold(below + total) == 0xffff {
        return Ok(Settled::Valid);
    }
    let has_ports = matches!(headers.protocol, number::TCP | number::UDP);
    if !has_ports || u16::from_ne_bytes(*stored) != fold(below) {
        return Err(Drop::BadChecksum);
    }
    *stored = [0, 0];
    let value = transport(below, headers.protocol, packet);
    if let Some(stored) = packet.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *stored = value;
    }
    Ok(Settled::Completed)
}

/// The sum of the pseudo header that a packet's transport checksum covers; ICMP has none.
pub(crate) fn pseudo_of(frame: &[u8], headers: &Headers, length: usize) -> u64 {
    let l3 = headers.l3 as usize;
    let addresses = match headers.version {
        IpVersion::V4 if headers.protocol == number::ICMP => return 0,
        IpVersion::V4 => frame.get(l3 + ipv4::SOURCE..l3 + ipv4::LENGTH),
        IpVersion::V6 => frame.get(l3 + ipv6::SOURCE..l3 + ipv6::LENGTH),
    };
    pseudo(addresses.unwrap_or_default(), headers.protocol, length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word by word.
    fn naive(bytes: &[u8]) -> u16 {
        let mut total: u32 = 0;
        for word in bytes.chunks(2) {
            total += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_definition(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            let ours = fold(sum(&bytes)).to_ne_bytes();
            prop_assert_eq!(u16::from_be_bytes(ours), naive(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(
            mut bytes in prop::collection::vec(any::<u8>(), 40..80),
            new in any::<[u8; 16]>(),
            at in 0usize..12,
        ) {
            let before = of(&bytes);
            let place = at * 2;
            let old: [u8; 16] = bytes[place..place + 16].try_into().unwrap();
            bytes[place..place + 16].copy_from_slice(&new);
            let after = Delta::default().replace(old, new).apply(before);
            // 0 and 0xffff are the same number; only all zero bytes sum to the first.
            let same = |a: [u8; 2], b: [u8; 2]| a == b || (a == [0, 0] && b == [0xff; 2]) || (b == [0, 0] && a == [0xff; 2]);
            prop_assert!(same(after, of(&bytes)), "{:?} {:?}", after, of(&bytes));
        }
    }

    #[test]
    fn large_sums_fold() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0x1_0000_0000), 1);
        assert_eq!(fold(0xffff_ffff_0000_0001), 1);
    }
}
