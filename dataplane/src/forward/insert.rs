//! Bytes put into a packet: the headers move to the front, the payload stays where it is. Lengths and checksums are
//! kept right; a transport checksum that was wrong stays wrong.
//!
//! The frame has been grown at its front by as many bytes; `headers` say where things were before, and change.
//! `None`, with nothing changed, is given for what cannot take them: a fragment, a header or packet too long.

use crate::wire::{Fragment, Headers, IpVersion, checksum, ipv4, ipv6, number, tcp, udp};

/// The longest TCP header.
const LONGEST: usize = 60;

/// Puts TCP options (a multiple of 4 bytes) behind the fixed header, in front of the others.
pub fn options(frame: &mut [u8], headers: &mut Headers, bytes: &[u8]) -> Option<()> {
    let l4 = headers.l4 as usize;
    if headers.protocol != number::TCP || !has_room_for_options(frame.get(bytes.len()..)?, headers, bytes.len()) {
        return None;
    }
    insert(frame, headers, l4 + tcp::LENGTH, bytes, |header| {
        let offset = header.get_mut(tcp::DATA_OFFSET)?;
        *offset += ((bytes.len() / 4) << 4) as u8;
        Some(())
    })
}

/// Whether so many bytes of options more fit the TCP header of a packet (which has not been grown).
pub fn has_room_for_options(frame: &[u8], headers: &Headers, bytes: usize) -> bool {
    let length = data_start(frame, headers).map_or(LONGEST, |start| start - headers.l4 as usize);
    bytes.is_multiple_of(4) && length + bytes <= LONGEST
}

/// Puts data in front of the TCP or UDP payload.
pub fn data(frame: &mut [u8], headers: &mut Headers, bytes: &[u8]) -> Option<()> {
    let at = data_start(frame.get(bytes.len()..)?, headers)?;
    let length = (headers.end - headers.l4) as usize + bytes.len();
    let is_udp = headers.protocol == number::UDP;
    insert(frame, headers, at, bytes, |header| {
        if is_udp {
            *header.get_mut(udp::DATA_LENGTH..)?.first_chunk_mut()? = (length as u16).to_be_bytes();
        }
        Some(())
    })
}

/// Where the data of a TCP or UDP packet begins.
pub fn data_start(frame: &[u8], headers: &Headers) -> Option<usize> {
    let l4 = headers.l4 as usize;
    match headers.protocol {
        number::TCP => Some(l4 + usize::from(*frame.get(l4 + tcp::DATA_OFFSET)? >> 4) * 4),
        number::UDP => Some(l4 + udp::LENGTH),
        _ => None,
    }
}

/// Puts bytes at an offset, which is even from the transport header on. `adapt` gets the transport header where it is
/// then.
fn insert(
    frame: &mut [u8],
    headers: &mut Headers,
    at: usize,
    bytes: &[u8],
    adapt: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Option<()> {
    let (l4, added) = (headers.l4 as usize, bytes.len());
    let end = u16::try_from(headers.end as usize + added).ok().filter(|end| *end as usize <= frame.len())?;
    if headers.fragment != Fragment::Whole || at > headers.end as usize {
        return None;
    }
    let field = l4 + if headers.protocol == number::UDP { udp::CHECKSUM } else { tcp::CHECKSUM };
    let old = frame.get(added..)?;
    let stored: [u8; 2] = *old.get(field..)?.first_chunk()?;
    // The whole sums to nothing, so the bytes behind sum to what those in front lack, the field being one of them.
    let behind = !checksum::fold(front(old, headers, at)?);
    frame.copy_within(added..added + at, 0);
    frame.get_mut(at..at + added)?.copy_from_slice(bytes);
    headers.end = end;
    lengthen_ip(frame.get_mut(headers.l3 as usize..)?, headers, added)?;
    adapt(frame.get_mut(l4..)?)?;
    if headers.protocol == number::UDP && stored == [0, 0] {
        return Some(());
    }
    *frame.get_mut(field..)?.first_chunk_mut()? = [0, 0];
    // An odd number of bytes turns the words behind round.
    let behind = if added.is_multiple_of(2) { behind } else { behind.swap_bytes() };
    let total = self::front(frame, headers, at + added)? + u64::from(behind);
    let value = (!checksum::fold(total)).to_ne_bytes();
    let value = if headers.protocol == number::UDP && value == [0, 0] { [0xff, 0xff] } else { value };
    *frame.get_mut(field..)?.first_chunk_mut()? = value;
    Some(())
}

/// The sum of a packet's pseudo header and transport up to an offset.
fn front(frame: &[u8], headers: &Headers, to: usize) -> Option<u64> {
    let l4 = headers.l4 as usize;
    let below = checksum::pseudo_of(frame, headers, headers.end as usize - l4);
    Some(below + checksum::sum(frame.get(l4..to)?))
}

/// Adds to the length of an IP packet.
fn lengthen_ip(packet: &mut [u8], headers: &Headers, added: usize) -> Option<()> {
    match headers.version {
        IpVersion::V4 => {
            let length = usize::from(packet.first()? & 0xf) * 4;
            let header = packet.get_mut(..length)?;
            let total = headers.end - headers.l3;
            *header.get_mut(ipv4::TOTAL_LENGTH..)?.first_chunk_mut()? = total.to_be_bytes();
            *header.get_mut(ipv4::CHECKSUM..)?.first_chunk_mut()? = [0, 0];
            let sum = checksum::of(header);
            *header.get_mut(ipv4::CHECKSUM..)?.first_chunk_mut()? = sum;
        }
        IpVersion::V6 => {
            let field: &mut [u8; 2] = packet.get_mut(ipv6::PAYLOAD_LENGTH..)?.first_chunk_mut()?;
            *field = u16::from_be_bytes(*field).checked_add(added as u16)?.to_be_bytes();
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{self, Settled};

    fn packet(is_tcp: bool, is_v6: bool, options: usize, data: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if is_v6 { link.ipv6([1; 16], [2; 16], 64) } else { link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
        let mut frame = Vec::new();
        if is_tcp {
            let options = vec![TcpOptionElement::Noop; options * 4];
            ip.tcp(1, 80, 7, 100).ack(9).options(&options).unwrap().write(&mut frame, data).unwrap();
        } else {
            ip.udp(1, 80).write(&mut frame, data).unwrap();
        }
        frame
    }

    fn grown(frame: &[u8], by: usize) -> Vec<u8> {
        [vec![0xee; by], frame.to_vec()].concat()
    }

    proptest! {
        #[test]
        fn data_in_front_of_data_is_one_packet(
            is_tcp in any::<bool>(),
            is_v6 in any::<bool>(),
            length in 0..=10usize,
            more in prop::collection::vec(any::<u8>(), 0..60),
            data in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let before = packet(is_tcp, is_v6, length, &data);
            let mut headers = wire::parse(&before).unwrap();
            let mut frame = grown(&before, more.len());
            prop_assert!(self::super::data(&mut frame, &mut headers, &more).is_some());
            prop_assert_eq!(wire::checksum::settle(&mut frame.clone(), &headers), Ok(Settled::Valid));
            prop_assert_eq!(frame, packet(is_tcp, is_v6, length, &[more, data].concat()));
        }

        #[test]
        fn options_come_first(
            is_v6 in any::<bool>(),
            length in 0..=10usize,
            words in 0..=5usize,
            data in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let before = packet(true, is_v6, length, &data);
            let mut headers = wire::parse(&before).unwrap();
            let mut frame = grown(&before, words * 4);
            let done = options(&mut frame, &mut headers, &vec![1; words * 4]);
            prop_assert_eq!(done.is_some(), length + words <= 10);
            if done.is_some() {
                prop_assert_eq!(frame, packet(true, is_v6, length + words, &data));
            } else {
                prop_assert_eq!(frame, grown(&before, words * 4));
            }
        }

        #[test]
        fn a_wrong_checksum_stays_wrong(more in prop::collection::vec(any::<u8>(), 0..60), error in 1..0xffffu16) {
            let mut before = packet(true, false, 2, b"data");
            let mut headers = wire::parse(&before).unwrap();
            let at = headers.l4 as usize + tcp::CHECKSUM;
            let field = u16::from_be_bytes([before[at], before[at + 1]]);
            before[at..at + 2].copy_from_slice(&(field ^ error).to_be_bytes());
            prop_assume!(wire::checksum::settle(&mut before.clone(), &headers).is_err());
            let mut frame = grown(&before, more.len());
            prop_assert!(data(&mut frame, &mut headers, &more).is_some());
            prop_assert!(wire::checksum::settle(&mut frame, &headers).is_err());
        }
    }

    #[test]
    fn a_datagram_without_a_checksum_stays_without() {
        let mut before = packet(false, false, 0, b"data");
        let mut headers = wire::parse(&before).unwrap();
        let at = headers.l4 as usize + udp::CHECKSUM;
        before[at..at + 2].copy_from_slice(&[0, 0]);
        let mut frame = grown(&before, 5);
        data(&mut frame, &mut headers, b"hello").unwrap();
        assert_eq!(frame[at..], [&[0, 0], &b"hellodata"[..]].concat());
        assert_eq!(wire::parse(&frame).unwrap(), headers);
    }
}
