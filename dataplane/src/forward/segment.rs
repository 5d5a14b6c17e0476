//! Segments of the director's own: an IP packet with a TCP header, options and no data (RFC 9293 section 3.1).

#![allow(clippy::inline_always, reason = "answers stay in registers: what goes through memory in pieces waits there")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::plain::LINK;
use crate::ident::Endpoint;
use crate::wire::plain::{L3, L4_V4, L4_V6};
use crate::wire::{TcpFlags, checksum, ip, ipv4, ipv6, number, tcp};

/// Words of options that a SYN has at most.
pub const WORDS: usize = 5;
/// Length of a TCP header with these.
const SYN_HEADER: usize = tcp::LENGTH + 4 * WORDS;
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

/// A segment without data as [`over_v4`] and [`over_v6`] write it: words of options as they are read from a packet, lowest
/// byte first, zeros behind the last.
#[derive(Clone, Copy, Debug)]
pub struct Plain {
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges; zero without ACK.
    pub acknowledgement: u32,
    /// Its flags.
    pub flags: TcpFlags,
    /// Its window field.
    pub window: u16,
    /// Its options, and how many words they are.
    pub options: ([u32; WORDS], usize),
}

impl Plain {
    fn length(&self) -> u16 {
        (tcp::LENGTH + 4 * self.options.1.min(WORDS)) as u16
    }

    /// The TCP header with these ports, as they are packed in a key, below a pseudo header with this sum but for protocol
    /// and length; zeros behind it. In words throughout: what is written in bytes and read in words waits for itself.
    #[inline(always)]
    fn header(&self, ports: u32, addresses: u64) -> [u8; SYN_HEADER] {
        let Self { sequence, acknowledgement, flags, window, options: ([a, b, c, d, e], _) } = *self;
        let length = self.length();
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [high, low] = window.to_be_bytes();
        let control = u32::from_le_bytes([(length << 2) as u8, flags.byte(), high, low]);
        let mut words = [
            pair(ports, sequence.swap_bytes()),
            pair(acknowledgement.swap_bytes(), control),
            pair(0, a),
            pair(b, c),
            pair(d, e),
        ];
        let protocol = u64::from(u16::from(number::TCP).swap_bytes()) + u64::from(length.swap_bytes());
        let sum = words.iter().fold(addresses + protocol, |sum, word| sum + halves(*word));
        words[2] |= u64::from(!checksum::fold(sum));
        let mut bytes = [0; SYN_HEADER];
        for (place, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        bytes
    }
}

/// Writes a segment over a plain IPv4 packet, whose Ethernet type stays, with the addresses and ports of a packed key.
/// Gives the length of the frame; `None` when `frame` is too short.
#[inline(always)]
pub fn over_v4(frame: &mut [u8], link: &[u8; LINK], &[addresses, ports]: &[u64; 2], segment: &Plain) -> Option<usize> {
    let head: &mut [u8; L4_V4 + SYN_HEADER] = frame.first_chunk_mut()?;
    let total = ipv4::LENGTH as u16 + segment.length();
    let [high, low] = total.to_be_bytes();
    let first = u64::from_le_bytes([0x45, 0, high, low, 0, 0, (ipv4::DONT_FRAGMENT >> 8) as u8, 0]);
    let second = u32::from_le_bytes([ip::TTL, number::TCP, 0, 0]);
    let sum = halves(addresses);
    let field = !checksum::fold(halves(first) + u64::from(second) + sum);
    let second = second | u32::from(field) << 16;
    head[..LINK].copy_from_slice(link);
    head[L3..L3 + 8].copy_from_slice(&first.to_le_bytes());
    head[L3 + 8..L3 + ipv4::SOURCE].copy_from_slice(&second.to_le_bytes());
    head[L3 + ipv4::SOURCE..L4_V4].copy_from_slice(&addresses.to_le_bytes());
    head[L4_V4..].copy_from_slice(&segment.header(ports as u32, sum));
    Some(L3 + usize::from(total))
}

/// As [`over_v4`], over a plain IPv6 packet.
#[inline(always)]
pub fn over_v6(frame: &mut [u8], link: &[u8; LINK], words: &[u64; 5], segment: &Plain) -> Option<usize> {
    let head: &mut [u8; L4_V6 + SYN_HEADER] = frame.first_chunk_mut()?;
    let &[a, b, c, d, ports] = words;
    let [high, low] = segment.length().to_be_bytes();
    head[..LINK].copy_from_slice(link);
    head[L3..L3 + ipv6::SOURCE].copy_from_slice(&[0x60, 0, 0, 0, high, low, number::TCP, ip::TTL]);
    let addresses = head.get_mut(L3 + ipv6::SOURCE..L4_V6)?;
    for (place, word) in addresses.as_chunks_mut().0.iter_mut().zip([a, b, c, d]) {
        *place = word.to_le_bytes();
    }
    let sum = halves(a) + halves(b) + halves(c) + halves(d);
    head[L4_V6..].copy_from_slice(&segment.header(ports as u32, sum));
    Some(L4_V6 + usize::from(segment.length()))
}

/// The sum of a word's halves.
#[inline]
const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
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
    use proptest::prelude::*;

    use super::*;
    use crate::flow::{Family, FlowKey, V4, V6};
    use crate::ident::{NetPort, Protocol};

    proptest! {
        #[test]
        fn over_a_plain_packet_it_is_the_same(
            sequence: u32,
            acknowledgement: u32,
            window: u16,
            count in 0..=WORDS,
            words: [u32; WORDS],
            v4: [[u8; 4]; 2],
            v6: [[u8; 16]; 2],
            ports: [u16; 2],
        ) {
            let mut options = [0; WORDS];
            options[..count].copy_from_slice(&words[..count]);
            let flags = TcpFlags::SYN.with(TcpFlags::ACK);
            let plain = Plain { sequence, acknowledgement, flags, window, options: (options, count) };
            let bytes = options.map(u32::to_le_bytes);
            let general = Segment { sequence, acknowledgement, flags, window, options: bytes[..count].as_flattened() };
            let [source_port, destination_port] = ports.map(NetPort::new);
            let link = [7; LINK];

            let [source, destination] = v4.map(Ipv4Addr::from);
            let key = FlowKey { source, destination, source_port, destination_port, protocol: Protocol::Tcp };
            let (mut ours, mut theirs) = ([0xff; 100], [0; 100]);
            let length = over_v4(&mut ours, &link, &V4::pack(&key), &plain).unwrap();
            let from = Endpoint { address: source.into(), port: source_port };
            let to = Endpoint { address: destination.into(), port: destination_port };
            prop_assert_eq!(write(&mut theirs, from, to, &general), Some(length - L3));
            prop_assert_eq!(&ours[L3..length], &theirs[..length - L3]);
            prop_assert_eq!((&ours[..LINK], &ours[LINK..L3]), (&link[..], &[0xff; 2][..]));

            let [source, destination] = v6.map(Ipv6Addr::from);
            let key = FlowKey { source, destination, source_port, destination_port, protocol: Protocol::Tcp };
            let (mut ours, mut theirs) = ([0xff; 100], [0; 100]);
            let length = over_v6(&mut ours, &link, &V6::pack(&key), &plain).unwrap();
            let from = Endpoint { address: source.into(), port: source_port };
            let to = Endpoint { address: destination.into(), port: destination_port };
            if let Some(general) = write(&mut theirs, from, to, &general) {
                prop_assert_eq!(general, length - L3);
                prop_assert_eq!(&ours[L3..length], &theirs[..length - L3]);
            }
            prop_assert_eq!(over_v6(&mut ours[..90], &link, &V6::pack(&key), &plain), None);
        }
    }

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
