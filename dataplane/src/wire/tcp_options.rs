//! The options of a TCP header (RFC 9293 section 3.1, RFC 2018, RFC 7323): what they say and where they stand.
//!
//! Reading stops at the end of the list, or at an option whose length is impossible; nothing here panics.

use super::tcp;

/// What one option says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption {
    /// Largest segment that the sender takes, in bytes (kind 2, in segments with SYN).
    MaxSegment(u16),
    /// Shift of the sender's window fields (kind 3, in segments with SYN; above 14 counts as 14).
    WindowScale(u8),
    /// The sender understands selective acknowledgements (kind 4, in segments with SYN).
    SackPermitted,
    /// Selective acknowledgements: so many blocks of two sequence numbers (kind 5).
    Sack {
        /// 1 to 4.
        blocks: usize,
    },
    /// Time stamps (kind 8).
    Timestamps {
        /// `TSval`.
        value: u32,
        /// `TSecr`.
        echo: u32,
    },
    /// Any other kind.
    Other(u8),
}

impl TcpOption {
    /// Kind of "end of option list".
    pub const END: u8 = 0;
    /// Kind of "no operation".
    pub const NO_OPERATION: u8 = 1;
    /// Kind of [`TcpOption::MaxSegment`]; its length is 4.
    pub const MAX_SEGMENT: u8 = 2;
    /// Kind of [`TcpOption::WindowScale`]; its length is 3.
    pub const WINDOW_SCALE: u8 = 3;
    /// Kind of [`TcpOption::SackPermitted`]; its length is 2.
    pub const SACK_PERMITTED: u8 = 4;
    /// Kind of [`TcpOption::Sack`]; its length is 2 and 8 for each block.
    pub const SACK: u8 = 5;
    /// Kind of [`TcpOption::Timestamps`]; its length is 10.
    pub const TIMESTAMPS: u8 = 8;

    fn read(kind: u8, value: &[u8]) -> Self {
        match (kind, value) {
            (Self::MAX_SEGMENT, [a, b]) => Self::MaxSegment(u16::from_be_bytes([*a, *b])),
            (Self::WINDOW_SCALE, [shift]) => Self::WindowScale(*shift),
            (Self::SACK_PERMITTED, []) => Self::SackPermitted,
            (Self::SACK, blocks) if !blocks.is_empty() && blocks.len().is_multiple_of(8) => {
                Self::Sack { blocks: blocks.len() / 8 }
            }
            (Self::TIMESTAMPS, [a, b, c, d, e, f, g, h]) => Self::Timestamps {
                value: u32::from_be_bytes([*a, *b, *c, *d]),
                echo: u32::from_be_bytes([*e, *f, *g, *h]),
            },
            _ => Self::Other(kind),
        }
    }
}

/// An option and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedOption {
    /// What it says.
    pub option: TcpOption,
    /// Offset of its kind from the start of the TCP header, in bytes.
    pub at: usize,
    /// Its length with kind and length, in bytes.
    pub length: usize,
}

/// The options of one segment, in their order, without paddings.
#[derive(Clone, Debug)]
pub struct TcpOptions<'s> {
    header: &'s [u8],
    at: usize,
}

impl<'s> TcpOptions<'s> {
    /// Of a segment that begins with its TCP header; none where the header is not whole.
    pub fn of(segment: &'s [u8]) -> Self {
        let length = segment.get(tcp::DATA_OFFSET).map_or(0, |offset| usize::from(offset >> 4) * 4);
        Self { header: segment.get(..length).unwrap_or_default(), at: tcp::LENGTH }
    }
}

impl Iterator for TcpOptions<'_> {
    type Item = PlacedOption;

    fn next(&mut self) -> Option<PlacedOption> {
        loop {
            let at = self.at;
            match *self.header.get(at)? {
                TcpOption::END => return None,
                TcpOption::NO_OPERATION => self.at += 1,
                kind => {
                    let length = usize::from(*self.header.get(at + 1)?);
                    let value = self.header.get(at + 2..at + length)?;
                    self.at += length;
                    return Some(PlacedOption { option: TcpOption::read(kind, value), at, length });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; tcp::LENGTH];
        segment[tcp::DATA_OFFSET] = (((tcp::LENGTH + options.len()) / 4) << 4) as u8;
        segment.extend(options);
        segment
    }

    #[test]
    fn the_options_of_a_linux_syn() {
        let bytes = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 7];
        let read: Vec<_> = TcpOptions::of(&segment(&bytes)).map(|placed| (placed.at, placed.option)).collect();
        let expected = [
            (20, TcpOption::MaxSegment(1460)),
            (24, TcpOption::SackPermitted),
            (26, TcpOption::Timestamps { value: 7, echo: 0 }),
            (37, TcpOption::WindowScale(7)),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn reading_stops_at_the_end_and_at_nonsense() {
        let count = |bytes: &[u8]| TcpOptions::of(&segment(bytes)).count();
        assert_eq!(count(&[4, 2, 0, 4, 2, 4, 2, 0]), 1, "behind the end of the list");
        assert_eq!(count(&[4, 2, 254, 1]), 1, "a length that does not hold itself");
        assert_eq!(count(&[4, 2, 254, 9]), 1, "a length beyond the header");
        let sack = [1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
        let read = TcpOptions::of(&segment(&sack)).next();
        assert_eq!(read, Some(PlacedOption { option: TcpOption::Sack { blocks: 2 }, at: 22, length: 18 }));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for placed in TcpOptions::of(&bytes) {
                prop_assert!(placed.length >= 2 && placed.at + placed.length <= bytes.len());
            }
        }
    }
}
