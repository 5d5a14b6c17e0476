//! What a TCP segment says of itself, as far as flows with moved numbers want to know it.

use crate::wire::{Fragment, Headers, TcpFlags, number, tcp};

/// A segment as its sender made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) sequence: u32,
    /// Means nothing without the flag ACK.
    pub(super) acknowledgement: u32,
    pub(super) flags: TcpFlags,
    /// Bytes of data.
    pub(super) data: u32,
}

impl Seen {
    /// `None` for other packets and later fragments.
    pub(super) fn of(frame: &[u8], headers: &Headers) -> Option<Self> {
        if headers.protocol != number::TCP || matches!(headers.fragment, Fragment::Later { .. }) {
            return None;
        }
        Self::in_segment(frame.get(headers.l4 as usize..headers.end as usize)?, headers.tcp)
    }

    /// Of a segment alone. `None` for one that is too short for its header.
    pub(super) fn in_segment(segment: &[u8], flags: TcpFlags) -> Option<Self> {
        let header: &[u8; tcp::LENGTH] = segment.first_chunk()?;
        let word = |at: usize| header.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let data = segment.len().checked_sub(usize::from(header[tcp::DATA_OFFSET] >> 4) * 4)?;
        Some(Self {
            sequence: word(tcp::SEQUENCE)?,
            acknowledgement: word(tcp::ACKNOWLEDGEMENT)?,
            flags,
            data: data as u32,
        })
    }

    /// How many sequence numbers it takes.
    pub(super) fn length(&self) -> u32 {
        self.data + u32::from(self.flags.contains(TcpFlags::SYN)) + u32::from(self.flags.contains(TcpFlags::FIN))
    }
}
