//! The data of a TCP segment: where it is, and other text in its place, with lengths and checksums made anew.

use std::ops::Range;

use crate::port::{Frame, Ports};
use crate::wire::{Headers, IpVersion, checksum, ipv4, ipv6, number, tcp};

/// Where the data of a TCP segment begins.
pub fn start(frame: &[u8], headers: &Headers) -> Option<usize> {
    if headers.protocol != number::TCP {
        return None;
    }
    let l4 = headers.l4 as usize;
    let start = l4 + usize::from(frame.get(l4 + tcp::DATA_OFFSET)? >> 4) * 4;
    (start <= headers.end as usize).then_some(start)
}

/// The sequence number of a segment.
pub fn sequence(frame: &[u8], headers: &Headers) -> Option<u32> {
    let bytes = frame.get(headers.l4 as usize + tcp::SEQUENCE..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Puts other bytes in the place of some. False, and nothing changed, where the frame has no room for them.
pub fn replace<P: Ports>(
    ports: &mut P,
    frame: &mut Frame,
    headers: &mut Headers,
    at: Range<usize>,
    new: &[u8],
) -> bool {
    let (length, old_end) = (frame.len(), headers.end as usize);
    let Some(end) = (old_end + new.len()).checked_sub(at.len()) else { return false };
    let (Ok(end_field), true) = (u16::try_from(end), at.end <= old_end) else { return false };
    frame.set_len(end.max(old_end));
    let bytes = ports.bytes_mut(frame);
    if bytes.len() < end.max(old_end) {
        frame.set_len(length);
        return false;
    }
    bytes.copy_within(at.end..old_end, at.start + new.len());
    if let Some(place) = bytes.get_mut(at.start..at.start + new.len()) {
        place.copy_from_slice(new);
    }
    headers.end = end_field;
    frame.set_len(end);
    settle(ports.bytes_mut(frame), headers);
    true
}

/// Writes the length of the IP packet and all checksums.
fn settle(frame: &mut [u8], headers: &Headers) {
    let (l3, l4, end) = (headers.l3 as usize, headers.l4 as usize, headers.end as usize);
    match headers.version {
        IpVersion::V4 => {
            let Some(header) = frame.get_mut(l3..l4) else { return };
            put(header, ipv4::TOTAL_LENGTH, ((end - l3) as u16).to_be_bytes());
            put(header, ipv4::CHECKSUM, [0, 0]);
            let sum = checksum::of(header);
            put(header, ipv4::CHECKSUM, sum);
        }
        IpVersion::V6 => {
            let Some(header) = frame.get_mut(l3..l4) else { return };
            put(header, ipv6::PAYLOAD_LENGTH, ((end - l3 - ipv6::LENGTH) as u16).to_be_bytes());
        }
    }
    let below = checksum::pseudo_of(frame, headers, end - l4);
    let Some(segment) = frame.get_mut(l4..end) else { return };
    put(segment, tcp::CHECKSUM, [0, 0]);
    let sum = checksum::transport(below, number::TCP, segment);
    put(segment, tcp::CHECKSUM, sum);
}

fn put(bytes: &mut [u8], at: usize, value: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value);
    }
}
