//! GRE (RFC 2784): four bytes between the outer IP header and the packet inside, eight with a checksum.

use crate::service::GreChecksum;
use crate::wire::{EtherType, checksum};

/// Length without checksum.
pub const LENGTH: usize = 4;
/// Length with checksum.
pub const LENGTH_WITH_CHECKSUM: usize = 8;
/// In the first byte: a checksum and four more bytes follow.
pub const CHECKSUM_PRESENT: u8 = 0x80;
/// In the first byte: a key follows (RFC 2890), which only others send.
const KEY_PRESENT: u8 = 0x20;
/// In the first byte: a sequence number follows (RFC 2890).
const SEQUENCE_PRESENT: u8 = 0x10;

/// Writes the header of `inner`, an IP packet, into `out`, which has its length.
pub fn write(out: &mut [u8], inner: &[u8], with: GreChecksum) {
    let is_v6 = inner.first().is_some_and(|first| first >> 4 == 6);
    let kind = if is_v6 { EtherType::IPV6 } else { EtherType::IPV4 };
    out.fill(0);
    if let Some(header) = out.first_chunk_mut::<LENGTH>() {
        [header[2], header[3]] = kind;
    }
    if with == GreChecksum::Present {
        let Some(header) = out.first_chunk_mut::<LENGTH_WITH_CHECKSUM>() else { return };
        header[0] = CHECKSUM_PRESENT;
        let sum = checksum::sum_array(header) + checksum::sum(inner);
        [header[4], header[5]] = (!checksum::fold(sum)).to_ne_bytes();
    }
}

/// Where the packet inside begins in a packet that begins with a GRE header; `None` if that is none that holds IP.
pub fn payload(packet: &[u8]) -> Option<usize> {
    let [flags, version, kind @ ..] = *packet.first_chunk::<LENGTH>()?;
    let is_ip = kind == EtherType::IPV4 || kind == EtherType::IPV6;
    let fields = [CHECKSUM_PRESENT, KEY_PRESENT, SEQUENCE_PRESENT].into_iter().filter(|field| flags & field != 0);
    (is_ip && version.trailing_zeros() >= 3).then(|| LENGTH + 4 * fields.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_covers_header_and_packet() {
        let inner = [0x60, 1, 2, 3, 4];
        let mut packet = [0xff; 13];
        packet[8..].copy_from_slice(&inner);
        let (header, rest) = packet.split_at_mut(8);
        write(header, rest, GreChecksum::Present);
        assert_eq!(packet[..4], [0x80, 0, 0x86, 0xdd]);
        assert_eq!(packet[6..8], [0, 0]);
        assert_eq!(checksum::fold(checksum::sum(&packet)), 0xffff);
        assert_eq!(payload(&packet), Some(8));
    }

    #[test]
    fn without_checksum_it_is_the_type_alone() {
        let mut header = [0xff; 4];
        write(&mut header, &[0x45], GreChecksum::Absent);
        assert_eq!(header, [0, 0, 8, 0]);
        assert_eq!(payload(&header), Some(4));
        assert_eq!(payload(&[0x30, 0, 8, 0]), Some(12));
        assert_eq!(payload(&[0, 0, 0x65, 0x58]), None, "Ethernet inside");
        assert_eq!(payload(&[0, 1, 8, 0]), None, "version 1 is PPTP's");
    }
}
