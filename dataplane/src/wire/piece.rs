//! Which part of its datagram a fragment holds, and the parts that no honest sender makes.
//!
//! IPv4: RFC 791, with the first eight bytes of TCP kept from being overwritten (RFC 1858, RFC 3128). IPv6: RFC 8200
//! section 4.5. That a first fragment has its whole transport header, the parser sees to.

use super::{Headers, IpVersion, ipv4, ipv6, number};
use crate::counters::Drop;

/// A part of a datagram's payload, in units of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first unit: the fragment offset, at most 8191.
    pub start: u16,
    /// The unit after the last one, at most 8192. Of a datagram's last unit there may be only a part.
    pub end: u16,
    /// Whether the datagram ends here.
    pub is_last: bool,
}

/// The piece that a fragment holds.
///
/// # Errors
/// [`Drop::BadFragment`] for one that is empty, reaches beyond 65535 bytes, is not whole units long though others
/// follow, or begins inside the fixed part of a TCP header.
pub fn piece(frame: &[u8], headers: &Headers) -> Result<Piece, Drop> {
    let (l3, end) = (headers.l3 as usize, headers.end as usize);
    let packet = frame.get(l3..end).ok_or(Drop::Truncated)?;
    let (word, begin) = match headers.version {
        IpVersion::V4 => {
            let word = word(packet, ipv4::FRAGMENT).ok_or(Drop::Truncated)?;
            ((word & ipv4::OFFSET_MASK) << 3 | u16::from(word & ipv4::MORE_FRAGMENTS != 0), headers.l4 as usize - l3)
        }
        IpVersion::V6 => v6(packet).ok_or(Drop::BadExtension)?,
    };
    let (offset, length) = (usize::from(word & !7), packet.len().saturating_sub(begin));
    let is_last = word & 1 == 0;
    let is_torn = !is_last && length % 8 != 0;
    let is_in_header = headers.protocol == number::TCP && offset == 8;
    if length == 0 || offset + length > usize::from(u16::MAX) || is_torn || is_in_header {
        return Err(Drop::BadFragment);
    }
    Ok(Piece { start: word >> 3, end: (offset + length).div_ceil(8) as u16, is_last })
}

/// The offset and flags of an IPv6 fragment, and where what was fragmented begins.
fn v6(packet: &[u8]) -> Option<(u16, usize)> {
    let (mut next, mut at) = (*packet.get(ipv6::NEXT_HEADER)?, ipv6::LENGTH);
    // Each header takes eight bytes at least, so this ends.
    loop {
        let length = match next {
            number::HOP_BY_HOP | number::ROUTING | number::DESTINATION_OPTIONS => {
                (usize::from(*packet.get(at + 1)?) + 1) * 8
            }
            number::AUTHENTICATION => (usize::from(*packet.get(at + 1)?) + 2) * 4,
            number::FRAGMENT => 8,
            _ => return None,
        };
        let word = word(packet, at + 2)?;
        // One that makes a whole packet of it is passed over.
        if next == number::FRAGMENT && word & !6 != 0 {
            return Some((word & !6, at + 8));
        }
        next = *packet.get(at)?;
        at += length;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|word| u16::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{checksum, parse_ip};

    fn v4_fragment(protocol: u8, word: u16, length: usize) -> Result<Piece, Drop> {
        let mut packet = [&[0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0][..], &[10, 0, 0, 1, 10, 0, 0, 2]].concat();
        packet.resize(20 + length, 0);
        let total = packet.len() as u16;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[6..8].copy_from_slice(&word.to_be_bytes());
        let sum = checksum::of(&packet[..20]);
        packet[10..12].copy_from_slice(&sum);
        piece(&packet, &parse_ip(&packet).unwrap())
    }

    #[test]
    fn pieces_of_ipv4_are_units_of_eight_bytes() {
        assert_eq!(v4_fragment(17, 0x2001, 16), Ok(Piece { start: 1, end: 3, is_last: false }));
        assert_eq!(v4_fragment(17, 2, 17), Ok(Piece { start: 2, end: 5, is_last: true }));
        assert_eq!(v4_fragment(17, 8191, 7), Ok(Piece { start: 8191, end: 8192, is_last: true }));
    }

    #[test]
    fn what_no_honest_sender_makes_is_refused() {
        for (protocol, word, length) in [(17, 0x2001, 12), (17, 1, 0), (17, 8191, 8), (17, 8100, 1000), (6, 0x2001, 16)]
        {
            assert_eq!(v4_fragment(protocol, word, length), Err(Drop::BadFragment), "{word:x} {length}");
        }
    }

    #[test]
    fn pieces_of_ipv6_begin_behind_their_own_header() {
        // Hop-by-hop, a fragment header that makes it whole, another that does not, destination options, UDP.
        let chain = [&[44, 0, 1, 4, 0, 0, 0, 0][..], &[44, 0, 0, 0, 0, 0, 0, 1], &[60, 0, 0, 1, 0, 0, 0, 2]].concat();
        let rest = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &[0, 9, 0, 80, 0, 40, 0, 0]].concat();
        let mut packet = [&[0x60, 0, 0, 0, 0, 0, 0, 64][..], &[1; 32], &chain, &rest].concat();
        let length = packet.len() as u16 - 40;
        packet[4..6].copy_from_slice(&length.to_be_bytes());
        let headers = parse_ip(&packet).unwrap();
        assert_eq!(piece(&packet, &headers), Ok(Piece { start: 0, end: 2, is_last: false }));
        packet[58..60].copy_from_slice(&(8u16 << 3).to_be_bytes());
        let headers = parse_ip(&packet).unwrap();
        assert_eq!(piece(&packet, &headers), Ok(Piece { start: 8, end: 10, is_last: true }));
    }
}
