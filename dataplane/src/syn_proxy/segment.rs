//! Segments of the director's own: an IP packet with a TCP header, the options of a handshake and no data
//! (RFC 9293 section 3.1, RFC 7323, RFC 2018).

use std::net::IpAddr;

use crate::ident::Endpoint;
use crate::wire::{Headers, IpVersion, TcpFlags, TcpOption, TcpOptions, checksum, ip, ipv4, ipv6, number, tcp};

/// The longest packet that [`write`] writes, in bytes: IPv6, TCP and the options of a SYN.
pub const LONGEST: usize = ipv6::LENGTH + tcp::LENGTH + OPTIONS;
/// Room for all options of a SYN.
const OPTIONS: usize = 20;

/// The options of a handshake that one side has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest segment that it takes, in bytes.
    pub mss: Option<u16>,
    /// Shift of its window fields, 0 to 14.
    pub window_scale: Option<u8>,
    /// Whether it understands selective acknowledgements.
    pub sack: bool,
    /// `TSval` and `TSecr`.
    pub timestamps: Option<(u32, u32)>,
}

impl Options {
    /// Those of a segment that begins with its TCP header.
    pub fn of(segment: &[u8]) -> Self {
        let mut options = Self::default();
        for placed in TcpOptions::of(segment) {
            match placed.option {
                TcpOption::MaxSegment(mss) => options.mss = Some(mss),
                TcpOption::WindowScale(shift) => options.window_scale = Some(shift.min(14)),
                TcpOption::SackPermitted => options.sack = true,
                TcpOption::Timestamps { value, echo } => options.timestamps = Some((value, echo)),
                TcpOption::Sack { .. } | TcpOption::Other(_) => {}
            }
        }
        options
    }

    /// Writes them in the order and with the padding that Linux has. Gives their length.
    fn write(&self, out: &mut [u8; OPTIONS]) -> usize {
        const NOP: u8 = TcpOption::NO_OPERATION;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            for byte in bytes {
                if let Some(place) = out.get_mut(at) {
                    *place = *byte;
                    at += 1;
                }
            }
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            put(&[TcpOption::MAX_SEGMENT, 4, high, low]);
        }
        let sack = [TcpOption::SACK_PERMITTED, 2];
        match (self.timestamps, self.sack) {
            (Some((value, echo)), has_sack) => {
                put(if has_sack { &sack } else { &[NOP, NOP] });
                put(&[TcpOption::TIMESTAMPS, 10]);
                put(&value.to_be_bytes());
                put(&echo.to_be_bytes());
            }
            (None, true) => {
                put(&[NOP, NOP]);
                put(&sack);
            }
            (None, false) => {}
        }
        if let Some(shift) = self.window_scale {
            put(&[NOP, TcpOption::WINDOW_SCALE, 3, shift]);
        }
        at
    }
}

/// A segment without data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges; zero without ACK.
    pub acknowledgement: u32,
    /// Its flags.
    pub flags: TcpFlags,
    /// Its window field.
    pub window: u16,
    /// Its options.
    pub options: Options,
}

/// Sequence, acknowledgement and window field of a segment that begins with its TCP header.
pub fn numbers(segment: &[u8]) -> Option<(u32, u32, u16)> {
    let header: &[u8; tcp::LENGTH] = segment.first_chunk()?;
    let word = |at: usize| header.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let window = header.get(tcp::WINDOW..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))?;
    Some((word(tcp::SEQUENCE)?, word(tcp::ACKNOWLEDGEMENT)?, window))
}

/// Bytes of data behind the TCP header of a packet.
pub fn data_length(frame: &[u8], headers: &Headers) -> usize {
    let l4 = headers.l4 as usize;
    let header = frame.get(l4 + tcp::DATA_OFFSET).map_or(0, |offset| usize::from(offset >> 4) * 4);
    (headers.end as usize).saturating_sub(l4 + header)
}

/// Writes the IP packet of a segment from one endpoint to another, of one family, checksums included. Addresses that
/// hold an IPv4 address (`::ffff:a.b.c.d`) make an IPv4 packet. Gives its length; `None` when `out` is too short or
/// the families differ.
pub fn write(out: &mut [u8], from: Endpoint, to: Endpoint, segment: &Segment) -> Option<usize> {
    let mut options = [0; OPTIONS];
    let options_length = segment.options.write(&mut options);
    let length = tcp::LENGTH + options_length;
    let (source, destination) = (from.address.to_canonical(), to.address.to_canonical());
    let l4 = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ipv4::LENGTH,
        (IpAddr::V6(_), IpAddr::V6(_)) => ipv6::LENGTH,
        _ => return None,
    };
    let (header, rest) = out.split_at_mut_checked(l4)?;
    let body = rest.get_mut(..length)?;
    write_tcp(body.first_chunk_mut()?, from, to, segment, length);
    body.get_mut(tcp::LENGTH..)?.copy_from_slice(options.get(..options_length)?);
    let below = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header: &mut [u8; ipv4::LENGTH] = header.first_chunk_mut()?;
            header.fill(0);
            header[0] = 0x45;
            let total = (ipv4::LENGTH + length) as u16;
            header[ipv4::TOTAL_LENGTH..ipv4::ID].copy_from_slice(&total.to_be_bytes());
            header[ipv4::FRAGMENT..ipv4::TTL].copy_from_slice(&ipv4::DONT_FRAGMENT.to_be_bytes());
            header[ipv4::TTL] = ip::TTL;
            header[ipv4::PROTOCOL] = number::TCP;
            header[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&source.octets());
            header[ipv4::DESTINATION..].copy_from_slice(&destination.octets());
            let sum = checksum::of(header);
            header[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&sum);
            checksum::pseudo(&header[ipv4::SOURCE..], number::TCP, length)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header: &mut [u8; ipv6::LENGTH] = header.first_chunk_mut()?;
            header.fill(0);
            header[0] = 0x60;
            header[ipv6::PAYLOAD_LENGTH..ipv6::NEXT_HEADER].copy_from_slice(&(length as u16).to_be_bytes());
            header[ipv6::NEXT_HEADER] = number::TCP;
            header[ipv6::HOP_LIMIT] = ip::TTL;
            header[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&source.octets());
            header[ipv6::DESTINATION..].copy_from_slice(&destination.octets());
            checksum::pseudo(&header[ipv6::SOURCE..], number::TCP, length)
        }
        _ => return None,
    };
    let sum = checksum::transport(below, number::TCP, body);
    body.get_mut(tcp::CHECKSUM..)?.first_chunk_mut::<2>().map(|field| *field = sum)?;
    Some(l4 + length)
}

fn write_tcp(header: &mut [u8; tcp::LENGTH], from: Endpoint, to: Endpoint, segment: &Segment, length: usize) {
    header.fill(0);
    header[0..2].copy_from_slice(&from.port.to_wire());
    header[2..4].copy_from_slice(&to.port.to_wire());
    header[tcp::SEQUENCE..tcp::ACKNOWLEDGEMENT].copy_from_slice(&segment.sequence.to_be_bytes());
    header[tcp::ACKNOWLEDGEMENT..tcp::DATA_OFFSET].copy_from_slice(&segment.acknowledgement.to_be_bytes());
    header[tcp::DATA_OFFSET] = ((length / 4) << 4) as u8;
    header[tcp::FLAGS] = segment.flags.byte();
    header[tcp::WINDOW..tcp::CHECKSUM].copy_from_slice(&segment.window.to_be_bytes());
}

/// The IP version of a packet between these.
pub fn version(from: Endpoint) -> IpVersion {
    match from.address.to_canonical() {
        IpAddr::V4(_) => IpVersion::V4,
        IpAddr::V6(_) => IpVersion::V6,
    }
}

#[cfg(test)]
mod tests {
    use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket};

    use super::*;
    use crate::ident::NetPort;
    use crate::wire;

    fn at(address: &str, port: u16) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port: NetPort::new(port) }
    }

    fn all() -> Segment {
        Segment {
            sequence: 0x0102_0304,
            acknowledgement: 0x0506_0708,
            flags: TcpFlags::SYN.with(TcpFlags::ACK),
            window: 5840,
            options: Options { mss: Some(1460), window_scale: Some(7), sack: true, timestamps: Some((9, 8)) },
        }
    }

    #[test]
    fn another_library_reads_what_was_written() {
        for (from, to) in
            [("192.0.2.1", "198.51.100.2"), ("2001:db8::1", "2001:db8::2"), ("::ffff:1.2.3.4", "::ffff:5.6.7.8")]
        {
            let mut out = [0xff; LONGEST];
            let length = write(&mut out, at(from, 80), at(to, 4000), &all()).unwrap();
            let packet = &out[..length];
            let (source, destination, l4): (IpAddress, IpAddress, usize) = if packet[0] >> 4 == 4 {
                let ip = Ipv4Packet::new_checked(packet).unwrap();
                assert!(ip.verify_checksum() && ip.dont_frag());
                (ip.src_addr().into(), ip.dst_addr().into(), 20)
            } else {
                let ip = Ipv6Packet::new_checked(packet).unwrap();
                (ip.src_addr().into(), ip.dst_addr().into(), 40)
            };
            assert_eq!(IpAddr::from(source), from.parse::<IpAddr>().unwrap().to_canonical());
            let tcp = TcpPacket::new_checked(&packet[l4..]).unwrap();
            assert!(tcp.verify_checksum(&source, &destination));
            assert_eq!((tcp.src_port(), tcp.dst_port(), tcp.window_len()), (80, 4000, 5840));
            assert!(tcp.syn() && tcp.ack() && !tcp.rst());
            assert_eq!((tcp.seq_number().0, tcp.ack_number().0), (0x0102_0304, 0x0506_0708));
            assert_eq!(Options::of(&packet[l4..]), all().options);
            assert_eq!(numbers(&packet[l4..]), Some((0x0102_0304, 0x0506_0708, 5840)));
            assert_eq!(data_length(packet, &wire::parse_ip(packet).unwrap()), 0);
        }
        assert_eq!(write(&mut [0; LONGEST], at("1.2.3.4", 1), at("::1", 2), &all()), None);
        assert_eq!(write(&mut [0; 30], at("1.2.3.4", 1), at("1.2.3.5", 2), &all()), None);
    }

    #[test]
    fn every_choice_of_options_is_padded_to_words() {
        for n in 0..16u8 {
            let has = |bit: u8| n & 1 << bit != 0;
            let options = Options {
                mss: has(0).then_some(536),
                window_scale: has(1).then_some(14),
                sack: has(2),
                timestamps: has(3).then_some((1, 2)),
            };
            let mut out = [0; LONGEST];
            let segment = Segment { options, ..all() };
            let length = write(&mut out, at("1.2.3.4", 1), at("5.6.7.8", 2), &segment).unwrap();
            assert_eq!(length % 4, 0);
            assert_eq!(Options::of(&out[20..length]), options);
        }
    }
}
