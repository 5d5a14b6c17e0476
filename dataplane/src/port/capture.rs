//! Capture files: pcap and pcapng in, nanosecond pcap out.
//!
//! A capture is read whole and checked whole before its first packet is used: a file that is cut or is no capture is
//! an error with its place, never a shorter replay. Times are since the epoch, as captured.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapParser, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use pcap_file::pcapng::blocks::{ENHANCED_PACKET_BLOCK, PACKET_BLOCK, SIMPLE_PACKET_BLOCK};
use pcap_file::pcapng::{Block, PcapNgParser};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

/// One packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedPacket {
    /// When it was captured, since the epoch; since the start of the file where the format holds no time.
    pub time: Duration,
    /// Its bytes from the Ethernet header on: fewer than were on the wire when the capture had a snap length.
    pub bytes: Vec<u8>,
}

/// A capture file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct CaptureError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub problem: BadCapture,
}

/// What can be wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum BadCapture {
    /// The file cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// No magic number of a capture.
    #[error("is neither a pcap nor a pcapng file")]
    NotACapture,
    /// Frames of another link layer.
    #[error("has link type {0}; only Ethernet (link type 1) can be replayed: capture on one interface, not on 'any'")]
    NotEthernet(u32),
    /// The file ends within a packet or block.
    #[error(
        "ends in the middle of a packet, {after} whole packets before it (byte {offset}); was the capture cut off?"
    )]
    Cut {
        /// Packets before the cut.
        after: usize,
        /// Where in the file the incomplete packet or block begins.
        offset: usize,
    },
    /// A field with an impossible value.
    #[error("is damaged behind packet {after} (byte {offset}): {what}")]
    Damaged {
        /// Packets before the damage.
        after: usize,
        /// Where in the file the damaged packet or block begins.
        offset: usize,
        /// What is impossible.
        what: Cow<'static, str>,
    },
}

/// Reads a capture file whole. Memory: the file's size twice while it is read, once afterwards.
///
/// # Errors
/// [`CaptureError`] with the file's name when it cannot be read or is no whole capture of Ethernet frames.
pub fn read(path: &Path) -> Result<Vec<CapturedPacket>, CaptureError> {
    let contents = std::fs::read(path).map_err(BadCapture::from);
    contents.and_then(|c| parse(&c)).map_err(|problem| CaptureError { path: path.to_owned(), problem })
}

/// Parses the contents of a capture file, pcap or pcapng by its magic number.
///
/// # Errors
/// [`BadCapture`]; no input panics.
pub fn parse(contents: &[u8]) -> Result<Vec<CapturedPacket>, BadCapture> {
    match contents.first_chunk() {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => parse_pcapng(contents),
        Some(
            [0xa1, 0xb2, 0xc3, 0xd4] | [0xa1, 0xb2, 0x3c, 0x4d] | [0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1],
        ) => parse_pcap(contents),
        _ => Err(BadCapture::NotACapture),
    }
}

fn parse_pcap(contents: &[u8]) -> Result<Vec<CapturedPacket>, BadCapture> {
    let mut place = Place { length: contents.len(), after: 0, offset: 0 };
    let (mut rest, parser) = PcapParser::new(contents).map_err(|e| place.error(e))?;
    let header = parser.header();
    only_ethernet(header.datalink)?;
    let fraction = match header.ts_resolution {
        TsResolution::MicroSecond => 1_000_000,
        TsResolution::NanoSecond => 1_000_000_000,
    };
    let mut packets = Vec::new();
    while !rest.is_empty() {
        place.reach(rest, packets.len());
        // Raw: the library's checked packet refuses what a snap length cut off.
        let (next, raw) = parser.next_raw_packet(rest).map_err(|e| place.error(e))?;
        if raw.ts_frac >= fraction {
            return Err(place.damaged("a time with a fraction of a second or more"));
        }
        if raw.incl_len > raw.orig_len {
            return Err(place.damaged("a packet longer than it was on the wire"));
        }
        let time = Duration::new(u64::from(raw.ts_sec), raw.ts_frac * (1_000_000_000 / fraction));
        packets.push(CapturedPacket { time, bytes: raw.data.into_owned() });
        rest = next;
    }
    Ok(packets)
}

fn parse_pcapng(contents: &[u8]) -> Result<Vec<CapturedPacket>, BadCapture> {
    let mut place = Place { length: contents.len(), after: 0, offset: 0 };
    let (mut rest, mut parser) = PcapNgParser::new(contents).map_err(|e| place.error(e))?;
    let mut packets: Vec<CapturedPacket> = Vec::new();
    while !rest.is_empty() {
        place.reach(rest, packets.len());
        let (next, raw) = parser.next_raw_block(rest).map_err(|e| place.error(e))?;
        if matches!(raw.type_, ENHANCED_PACKET_BLOCK | PACKET_BLOCK | SIMPLE_PACKET_BLOCK) {
            let (_, block) = parser.next_block(rest).map_err(|e| place.error(e))?;
            let previous = packets.last().map_or(Duration::ZERO, |p| p.time);
            packets.extend(packet_of(&block, parser.interfaces(), previous, &place)?);
        }
        rest = next;
    }
    Ok(packets)
}

/// The packet in a block. `previous` is the time of the packet before it, for blocks that hold no time.
fn packet_of(
    block: &Block<'_>,
    interfaces: &[InterfaceDescriptionBlock<'_>],
    previous: Duration,
    place: &Place,
) -> Result<Option<CapturedPacket>, BadCapture> {
    let (interface, units, data) = match block {
        // The library takes the count of units for nanoseconds, whatever the interface's unit.
        Block::EnhancedPacket(b) => (b.interface_id as usize, Some(b.timestamp.as_nanos()), &b.data[..]),
        Block::Packet(b) => (usize::from(b.interface_id), Some(u128::from(b.timestamp)), &b.data[..]),
        Block::SimplePacket(b) => {
            let captured = (b.original_len as usize).min(b.data.len());
            (0, None, &b.data[..captured])
        }
        _ => return Ok(None),
    };
    let Some(interface) = interfaces.get(interface) else {
        return Err(place.damaged("a packet of an interface that the file does not describe"));
    };
    only_ethernet(interface.linktype)?;
    let limit = if units.is_none() && interface.snaplen != 0 { interface.snaplen as usize } else { data.len() };
    let time = match units {
        Some(units) => time_of(units, interface).ok_or_else(|| place.damaged("a time out of range"))?,
        None => previous,
    };
    Ok(Some(CapturedPacket { time, bytes: data[..limit.min(data.len())].to_vec() }))
}

/// The time that `units` of an interface's resolution (microseconds, unless `if_tsresol` says otherwise) mean.
fn time_of(units: u128, interface: &InterfaceDescriptionBlock<'_>) -> Option<Duration> {
    let (mut resolution, mut offset) = (6, 0);
    for option in &interface.options {
        match option {
            InterfaceDescriptionOption::IfTsResol(r) => resolution = *r,
            InterfaceDescriptionOption::IfTsOffset(o) => offset = *o,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let per_second =
        if resolution & 0x80 == 0 { 10u128.checked_pow(exponent)? } else { 1u128.checked_shl(exponent)? };
    let seconds = u64::try_from(units / per_second).ok()?.checked_add(offset)?;
    let nanos = (units % per_second).checked_mul(1_000_000_000)? / per_second;
    // What a nanosecond pcap can hold, and far from where a Duration overflows.
    u32::try_from(seconds).ok()?;
    Some(Duration::new(seconds, nanos as u32))
}

fn only_ethernet(link: DataLink) -> Result<(), BadCapture> {
    if link == DataLink::ETHERNET { Ok(()) } else { Err(BadCapture::NotEthernet(link.into())) }
}

/// Where in a file the parser is.
struct Place {
    length: usize,
    after: usize,
    offset: usize,
}

impl Place {
    fn reach(&mut self, rest: &[u8], after: usize) {
        self.offset = self.length - rest.len();
        self.after = after;
    }

    fn damaged(&self, what: impl Into<Cow<'static, str>>) -> BadCapture {
        BadCapture::Damaged { after: self.after, offset: self.offset, what: what.into() }
    }

    fn error(&self, error: PcapError) -> BadCapture {
        match error {
            PcapError::IncompleteBuffer => BadCapture::Cut { after: self.after, offset: self.offset },
            PcapError::IoError(e) => BadCapture::Io(e),
            PcapError::InvalidField(what) => self.damaged(what),
            other => self.damaged(other.to_string()),
        }
    }
}

/// Writes a nanosecond pcap of Ethernet frames, readable by tcpdump and Wireshark.
#[derive(Debug)]
pub struct CaptureWriter<W: Write> {
    writer: PcapWriter<W>,
}

impl<W: Write> CaptureWriter<W> {
    /// Begins a capture.
    ///
    /// # Errors
    /// [`BadCapture::Io`] when the header cannot be written.
    pub fn new(to: W) -> Result<Self, BadCapture> {
        let header = PcapHeader {
            snaplen: 0x4_0000,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        Ok(Self { writer: PcapWriter::with_header(to, header).map_err(write_error)? })
    }

    /// Adds a frame. Times beyond the year 2106, which the format cannot hold, are written as its last moment.
    ///
    /// # Errors
    /// [`BadCapture::Io`] when it cannot be written.
    pub fn write(&mut self, time: Duration, frame: &[u8]) -> Result<(), BadCapture> {
        let length = frame.len() as u32;
        let raw = RawPcapPacket {
            ts_sec: u32::try_from(time.as_secs()).unwrap_or(u32::MAX),
            ts_frac: time.subsec_nanos(),
            incl_len: length,
            orig_len: length,
            data: Cow::Borrowed(frame),
        };
        self.writer.write_raw_packet(&raw).map_err(write_error)?;
        Ok(())
    }

    /// Ends the capture: what was written has reached the writer below.
    ///
    /// # Errors
    /// [`BadCapture::Io`] when it cannot be flushed.
    pub fn finish(self) -> Result<W, BadCapture> {
        let mut inner = self.writer.into_writer();
        inner.flush()?;
        Ok(inner)
    }
}

fn write_error(error: PcapError) -> BadCapture {
    match error {
        PcapError::IoError(e) => BadCapture::Io(e),
        other => BadCapture::Io(std::io::Error::other(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcapng::PcapNgWriter;
    use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketBlock;
    use proptest::prelude::*;

    fn pcap(packets: &[(Duration, &[u8])]) -> Vec<u8> {
        let mut writer = CaptureWriter::new(Vec::new()).unwrap();
        for (time, bytes) in packets {
            writer.write(*time, bytes).unwrap();
        }
        writer.finish().unwrap()
    }

    fn pcapng(link: DataLink, resolution: u8, units: u64, data: &[u8]) -> Vec<u8> {
        let mut writer = PcapNgWriter::new(Vec::new()).unwrap();
        let mut interface = InterfaceDescriptionBlock::new(link, 0);
        interface.options.push(InterfaceDescriptionOption::IfTsResol(resolution));
        writer.write_pcapng_block(interface).unwrap();
        let packet = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::from_nanos(units),
            original_len: 1500,
            data: Cow::Borrowed(data),
            options: Vec::new(),
        };
        writer.write_pcapng_block(packet).unwrap();
        writer.into_inner()
    }

    #[test]
    fn what_is_written_is_read_to_the_nanosecond() {
        let times = [Duration::new(1, 999_999_999), Duration::new(7, 1)];
        let packets = parse(&pcap(&[(times[0], &[1; 60]), (times[1], &[2; 1514])])).unwrap();
        assert_eq!(packets[0], CapturedPacket { time: times[0], bytes: vec![1; 60] });
        assert_eq!(packets[1], CapturedPacket { time: times[1], bytes: vec![2; 1514] });
    }

    #[test]
    fn a_snap_length_keeps_the_bytes_that_there_are() {
        let header = PcapHeader {
            snaplen: 4,
            endianness: Endianness::Big,
            ts_resolution: TsResolution::MicroSecond,
            ..PcapHeader::default()
        };
        let mut writer = PcapWriter::with_header(Vec::new(), header).unwrap();
        let raw = RawPcapPacket { ts_sec: 3, ts_frac: 5, incl_len: 4, orig_len: 60, data: Cow::Borrowed(&[9; 4]) };
        writer.write_raw_packet(&raw).unwrap();
        let packets = parse(&writer.into_writer()).unwrap();
        assert_eq!(packets, [CapturedPacket { time: Duration::new(3, 5_000), bytes: vec![9; 4] }]);
    }

    #[test]
    fn pcapng_times_follow_the_resolution_of_the_interface() {
        let nanoseconds = parse(&pcapng(DataLink::ETHERNET, 9, 5_000_000_007, &[1; 60])).unwrap();
        assert_eq!(nanoseconds[0].time, Duration::new(5, 7));
        let microseconds = parse(&pcapng(DataLink::ETHERNET, 6, 5_000_007, &[1; 60])).unwrap();
        assert_eq!(microseconds[0].time, Duration::new(5, 7_000));
        let halves = parse(&pcapng(DataLink::ETHERNET, 0x81, 11, &[1; 60])).unwrap();
        assert_eq!(halves[0].time, Duration::new(5, 500_000_000));
        assert_eq!(halves[0].bytes, [1; 60]);
    }

    #[test]
    fn what_is_no_capture_of_ethernet_says_so() {
        assert!(matches!(parse(b""), Err(BadCapture::NotACapture)));
        assert!(matches!(parse(b"virtual_server 10.0.0.1 80 {"), Err(BadCapture::NotACapture)));
        let cooked = pcapng(DataLink::LINUX_SLL, 6, 0, &[1; 60]);
        assert!(matches!(parse(&cooked), Err(BadCapture::NotEthernet(113))));
        let error = read(Path::new("/nonexistent.pcap")).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent.pcap: "), "{error}");
    }

    #[test]
    fn a_cut_file_says_where() {
        let whole = pcap(&[(Duration::ZERO, &[1; 60]), (Duration::ZERO, &[2; 60])]);
        let Err(BadCapture::Cut { after: 1, offset: 100 }) = parse(&whole[..whole.len() - 1]) else {
            panic!("24 bytes of header, 76 of the first packet");
        };
        assert!(matches!(parse(&whole[..20]), Err(BadCapture::Cut { after: 0, offset: 0 })));
        let whole = pcapng(DataLink::ETHERNET, 9, 1, &[1; 60]);
        assert!(matches!(parse(&whole[..whole.len() - 2]), Err(BadCapture::Cut { after: 0, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0..5usize, mut bytes in proptest::collection::vec(any::<u8>(), 4..400)) {
            let magic = [[0x0a, 0x0d, 0x0d, 0x0a], [0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d], [0x4d, 0x3c, 0xb2, 0xa1]];
            if let Some(magic) = magic.get(kind) {
                bytes[..4].copy_from_slice(magic);
            }
            let _ = parse(&bytes);
        }

        #[test]
        fn no_flipped_byte_panics(at in 0..300usize, value in any::<u8>(), big in any::<bool>()) {
            let mut file = if big { pcapng(DataLink::ETHERNET, 9, 1, &[1; 60]) } else { pcap(&[(Duration::ZERO, &[1; 60])]) };
            let at = at % file.len();
            file[at] = value;
            let _ = parse(&file);
        }
    }
}
