//! Segments of the director's own: an IP packet with a TCP header, the options of a handshake and no data
//! (RFC 9293 section 3.1, RFC 7323, RFC 2018).

#![allow(clippy::inline_always, reason = "answers stay in registers: what goes through memory in pieces waits there")]

use std::net::IpAddr;

use crate::forward::segment::{self, WORDS};
use crate::ident::Endpoint;
use crate::wire::{Headers, IpVersion, TcpFlags, TcpOption, TcpOptions, ipv6, tcp};

/// The longest packet that [`write()`] writes, in bytes: IPv6, TCP and the options of a SYN.
pub const LONGEST: usize = ipv6::LENGTH + tcp::LENGTH + OPTIONS;
/// Room for all options of a SYN.
const OPTIONS: usize = 4 * WORDS;

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
    /// Those of a segment that begins with its TCP header, if they are as in most SYNs: none, or as Linux has them.
    #[inline(always)]
    pub fn usual(segment: &[u8]) -> Option<Self> {
        const HEADER: usize = tcp::LENGTH + OPTIONS;
        if segment.len() <= tcp::LENGTH {
            return Some(Self::default());
        }
        let header: &[u8; HEADER] = segment.first_chunk()?;
        let (words, _) = header.last_chunk::<OPTIONS>()?.as_chunks::<4>();
        let &[[2, 4, mss @ ..], [4, 2, 8, 10], value, echo, [1, 3, 3, shift]] = words.first_chunk()? else {
            return None;
        };
        (usize::from(header[tcp::DATA_OFFSET] >> 4) * 4 == HEADER).then(|| Self {
            mss: Some(u16::from_be_bytes(mss)),
            window_scale: Some(shift.min(14)),
            sack: true,
            timestamps: Some((u32::from_be_bytes(value), u32::from_be_bytes(echo))),
        })
    }

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

    /// As words of a packet in the order and with the padding that Linux has, and how many there are; zeros behind them.
    #[inline(always)]
    pub fn words(&self) -> ([u32; WORDS], usize) {
        const NOP: u8 = TcpOption::NO_OPERATION;
        let word = |is_there: bool, bytes: [u8; 4]| if is_there { u32::from_le_bytes(bytes) } else { 0 };
        let [high, low] = self.mss.unwrap_or(0).to_be_bytes();
        let mss = word(self.mss.is_some(), [TcpOption::MAX_SEGMENT, 4, high, low]);
        let shift = self.window_scale.unwrap_or(0);
        let scale = word(self.window_scale.is_some(), [NOP, TcpOption::WINDOW_SCALE, 3, shift]);
        let sack = [TcpOption::SACK_PERMITTED, 2];
        let mut count = usize::from(self.window_scale.is_some());
        let tail = match (self.timestamps, self.sack) {
            (Some((value, echo)), has_sack) => {
                count += 3;
                let [a, b] = if has_sack { sack } else { [NOP, NOP] };
                [u32::from_le_bytes([a, b, TcpOption::TIMESTAMPS, 10]), value.swap_bytes(), echo.swap_bytes(), scale]
            }
            (None, true) => {
                count += 1;
                [u32::from_le_bytes([NOP, NOP, sack[0], sack[1]]), scale, 0, 0]
            }
            (None, false) => [scale, 0, 0, 0],
        };
        let [a, b, c, d] = tail;
        if self.mss.is_some() { ([mss, a, b, c, d], count + 1) } else { ([a, b, c, d, 0], count) }
    }

    /// Writes them as [`Options::words`] says. Gives their length.
    fn write(&self, out: &mut [u8; OPTIONS]) -> usize {
        let (words, count) = self.words();
        for (place, word) in out.as_chunks_mut().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        4 * count
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

impl Segment {
    /// As it is written over another packet.
    #[inline(always)]
    pub fn plain(&self) -> segment::Plain {
        let Self { sequence, acknowledgement, flags, window, .. } = *self;
        segment::Plain { sequence, acknowledgement, flags, window, options: self.options.words() }
    }
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
    let length = segment.options.write(&mut options);
    let Segment { sequence, acknowledgement, flags, window, .. } = *segment;
    let options = options.get(..length)?;
    segment::write(out, from, to, &segment::Segment { sequence, acknowledgement, flags, window, options })
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
