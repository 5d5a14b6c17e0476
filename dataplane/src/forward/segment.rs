//! Segments of the director's own: an IP packet with a TCP header, options and no data (RFC 9293 section 3.1).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ident::Endpoint;
use crate::wire::{TcpFlags, checksum, ip, ipv4, ipv6, number, tcp};

/// The longest TCP header, in bytes.
const LONGEST_HEADER: usize = 60;

/// A segment without data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment<'o> {
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges; zero without ACK.
    pub acknowledgement: u32,
    /// Its flags.
    pub flags: TcpFlags,
    /// Its window field.
    pub window: u16,
    /// Its options as they stand in the header: a multiple of 4 bytes, at most 40.
    pub options: &'o [u8],
}

/// Writes the IP packet of a segment from one endpoint to another, of one family, with all checksums. Addresses that
/// hold an IPv4 address (`::ffff:a.b.c.d`) make an IPv4 packet. Gives its length; `None` when `out` is too short, the
/// options are impossible or the families differ.
#[inline]
pub fn write(out: &mut [u8], from: Endpoint, to: Endpoint, segment: &Segment<'_>) -> Option<usize> {
    let (options, odd) = segment.options.as_chunks::<4>();
    let length = tcp::LENGTH + 4 * options.len();
    if length > LONGEST_HEADER || !odd.is_empty() {
        return None;
    }
    let (below, l4) = match (from.address.to_canonical(), to.address.to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header: &mut [u8; ipv4::LENGTH] = out.first_chunk_mut()?;
            (v4(header, source, destination, length as u16), ipv4::LENGTH)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header: &mut [u8; ipv6::LENGTH] = out.first_chunk_mut()?;
            (v6(header, source, destination, length as u16), ipv6::LENGTH)
        }
        _ => return None,
    };
    let mut header = [0; tcp::LENGTH];
    header[0..2].copy_from_slice(&from.port.to_wire());
    header[2..4].copy_from_slice(&to.port.to_wire());
    header[tcp::SEQUENCE..tcp::ACKNOWLEDGEMENT].copy_from_slice(&segment.sequence.to_be_bytes());
    header[tcp::ACKNOWLEDGEMENT..tcp::DATA_OFFSET].copy_from_slice(&segment.acknowledgement.to_be_bytes());
    header[tcp::DATA_OFFSET] = ((length / 4) << 4) as u8;
    header[tcp::FLAGS] = segment.flags.byte();
    header[tcp::WINDOW..tcp::CHECKSUM].copy_from_slice(&segment.window.to_be_bytes());
    let sum = below + checksum::sum_array(&header) + options.iter().map(checksum::sum_array).sum::<u64>();
    header[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&checksum::field(sum));
    let (place, rest) = out.get_mut(l4..l4 + length)?.split_first_chunk_mut()?;
    *place = header;
    for (place, option) in rest.as_chunks_mut().0.iter_mut().zip(options) {
        *place = *option;
    }
    Some(l4 + length)
}

/// Writes an IPv4 header for so many bytes of TCP. Gives the sum of the pseudo header.
#[inline]
fn v4(header: &mut [u8; ipv4::LENGTH], source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> u64 {
    *header = [0; ipv4::LENGTH];
    header[0] = 0x45;
    header[ipv4::TOTAL_LENGTH..ipv4::ID].copy_from_slice(&(ipv4::LENGTH as u16 + length).to_be_bytes());
    header[ipv4::FRAGMENT..ipv4::TTL].copy_from_slice(&ipv4::DONT_FRAGMENT.to_be_bytes());
    header[ipv4::TTL] = ip::TTL;
    header[ipv4::PROTOCOL] = number::TCP;
    header[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&source.octets());
    header[ipv4::DESTINATION..].copy_from_slice(&destination.octets());
    let sum = checksum::field(checksum::sum_array(header));
    header[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&sum);
    pseudo(checksum::sum_array(&source.octets()) + checksum::sum_array(&destination.octets()), length)
}

/// The same of IPv6.
#[inline]
fn v6(header: &mut [u8; ipv6::LENGTH], source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> u64 {
    *header = [0; ipv6::LENGTH];
    header[0] = 0x60;
    header[ipv6::PAYLOAD_LENGTH..ipv6::NEXT_HEADER].copy_from_slice(&length.to_be_bytes());
    header[ipv6::NEXT_HEADER] = number::TCP;
    header[ipv6::HOP_LIMIT] = ip::TTL;
    header[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&source.octets());
    header[ipv6::DESTINATION..].copy_from_slice(&destination.octets());
    pseudo(checksum::sum_array(&source.octets()) + checksum::sum_array(&destination.octets()), length)
}

#[inline]
fn pseudo(addresses: u64, length: u16) -> u64 {
    addresses + checksum::sum_array(&u16::from(number::TCP).to_be_bytes()) + checksum::sum_array(&length.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::ident::NetPort;

    #[test]
    fn it_is_what_another_library_writes() {
        let at = |address: &str, port| Endpoint { address: address.parse().unwrap(), port: NetPort::new(port) };
        let flags = TcpFlags::SYN.with(TcpFlags::ACK);
        let segment =
            Segment { sequence: 7, acknowledgement: 9, flags, window: 500, options: &[2, 4, 5, 0xb4, 1, 1, 4, 2] };
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2"), ("::ffff:10.0.0.1", "10.0.0.2")] {
            let mut ours = [0; 100];
            let length = write(&mut ours, at(from, 1000), at(to, 80), &segment).unwrap();
            let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let packet = match (from.to_canonical(), to) {
                (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
                (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
                _ => unreachable!(),
            };
            let mut theirs = Vec::new();
            let packet = packet.tcp(1000, 80, 7, 500).syn().ack(9).options_raw(segment.options).unwrap();
            packet.write(&mut theirs, b"").unwrap();
            assert_eq!(ours[..length], theirs);
        }
        let mixed = write(&mut [0; 100], at("10.0.0.1", 1), at("fd00::1", 2), &segment);
        assert_eq!((mixed, write(&mut [0; 40], at("10.0.0.1", 1), at("10.0.0.2", 2), &segment)), (None, None));
    }
}
