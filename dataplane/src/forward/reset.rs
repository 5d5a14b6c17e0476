//! The reset for a segment of no connection (RFC 9293 section 3.10.7.1).

use super::icmp::{is_host_v4, is_host_v6};
use crate::wire::{Fragment, Headers, IpVersion, TcpFlags, checksum, ip, ipv4, ipv6, number, parse_ip, tcp};

/// Writes an IP packet that resets the connection `offending` (an IP packet with TCP) takes itself to belong to, from
/// the address that it went to. `None` when there is nothing to reset: a reset itself, a fragment, another transport;
/// or when either address is no single host's (RFC 1122 section 4.2.3.10).
pub fn reply(out: &mut [u8], offending: &[u8]) -> Option<usize> {
    let headers = parse_ip(offending).ok()?;
    let is_reset = headers.tcp.contains(TcpFlags::RST);
    if headers.protocol != number::TCP || headers.fragment != Fragment::Whole || is_reset {
        return None;
    }
    let is_between_hosts = match headers.version {
        IpVersion::V4 => <[_; 2]>::from(headers.addresses_v4(offending)).into_iter().all(is_host_v4),
        IpVersion::V6 => <[_; 2]>::from(headers.addresses_v6(offending)).into_iter().all(is_host_v6),
    };
    if !is_between_hosts {
        return None;
    }
    let segment = offending.get(headers.l4 as usize..headers.end as usize)?;
    let l4 = headers.version.header_length();
    let length = l4 + tcp::LENGTH;
    let packet = out.get_mut(..length)?;
    packet.fill(0);
    write_ip(packet, offending, headers.version, tcp::LENGTH)?;
    write_tcp(packet.get_mut(l4..)?.first_chunk_mut()?, segment, headers.tcp)?;
    let written = Headers { l3: 0, l4: l4 as u16, end: length as u16, ..headers };
    let below = checksum::pseudo_of(packet, &written, tcp::LENGTH);
    let value = checksum::transport(below, number::TCP, packet.get(l4..)?);
    packet.get_mut(l4 + tcp::CHECKSUM..)?.first_chunk_mut::<2>().map(|field| *field = value)?;
    Some(length)
}

/// The IP header of an answer: addresses swapped, payload of `length` bytes of TCP.
fn write_ip(packet: &mut [u8], offending: &[u8], version: IpVersion, length: usize) -> Option<()> {
    match version {
        IpVersion::V4 => {
            let from: &[u8; ipv4::LENGTH] = offending.first_chunk()?;
            let header: &mut [u8; ipv4::LENGTH] = packet.first_chunk_mut()?;
            header[0] = 0x45;
            let total = (ipv4::LENGTH + length) as u16;
            header[ipv4::TOTAL_LENGTH..ipv4::ID].copy_from_slice(&total.to_be_bytes());
            header[ipv4::FRAGMENT..ipv4::TTL].copy_from_slice(&ipv4::DONT_FRAGMENT.to_be_bytes());
            header[ipv4::TTL] = ip::TTL;
            header[ipv4::PROTOCOL] = number::TCP;
            header[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&from[ipv4::DESTINATION..ipv4::LENGTH]);
            header[ipv4::DESTINATION..].copy_from_slice(&from[ipv4::SOURCE..ipv4::DESTINATION]);
            let sum = checksum::of(header);
            header[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&sum);
        }
        IpVersion::V6 => {
            let from: &[u8; ipv6::LENGTH] = offending.first_chunk()?;
            let header: &mut [u8; ipv6::LENGTH] = packet.first_chunk_mut()?;
            header[0] = 0x60;
            header[ipv6::PAYLOAD_LENGTH..ipv6::NEXT_HEADER].copy_from_slice(&(length as u16).to_be_bytes());
            header[ipv6::NEXT_HEADER] = number::TCP;
            header[ipv6::HOP_LIMIT] = ip::TTL;
            header[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&from[ipv6::DESTINATION..]);
            header[ipv6::DESTINATION..].copy_from_slice(&from[ipv6::SOURCE..ipv6::DESTINATION]);
        }
    }
    Some(())
}

/// Ports swapped; the sequence number that the peer waits for, or zero with an acknowledgement of all it sent.
fn write_tcp(header: &mut [u8; tcp::LENGTH], segment: &[u8], flags: TcpFlags) -> Option<()> {
    let from: &[u8; tcp::LENGTH] = segment.first_chunk()?;
    header[0..2].copy_from_slice(&from[2..4]);
    header[2..4].copy_from_slice(&from[0..2]);
    header[tcp::DATA_OFFSET] = ((tcp::LENGTH / 4) << 4) as u8;
    if flags.contains(TcpFlags::ACK) {
        header[tcp::SEQUENCE..tcp::ACKNOWLEDGEMENT].copy_from_slice(&from[tcp::ACKNOWLEDGEMENT..tcp::DATA_OFFSET]);
        header[tcp::FLAGS] = TcpFlags::RST.byte();
        return Some(());
    }
    let data = segment.len().saturating_sub(usize::from(from[tcp::DATA_OFFSET] >> 4) * 4) as u32;
    let control = u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
    let sequence = u32::from_be_bytes(*from[tcp::SEQUENCE..].first_chunk()?);
    let all = sequence.wrapping_add(data).wrapping_add(control);
    header[tcp::ACKNOWLEDGEMENT..tcp::DATA_OFFSET].copy_from_slice(&all.to_be_bytes());
    header[tcp::FLAGS] = TcpFlags::RST.with(TcpFlags::ACK).byte();
    Some(())
}
