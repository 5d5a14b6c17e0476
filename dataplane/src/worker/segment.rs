//! What a TCP segment says of itself, as far as flows with moved numbers want to know it.

use crate::forward::insert;
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
        let header: &[u8; tcp::LENGTH] = frame.get(headers.l4 as usize..)?.first_chunk()?;
        let word = |at: usize| header.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
        let data = (headers.end as usize).checked_sub(insert::data_start(frame, headers)?)?;
        Some(Self {
            sequence: word(tcp::SEQUENCE)?,
            acknowledgement: word(tcp::ACKNOWLEDGEMENT)?,
            flags: headers.tcp,
            data: data as u32,
        })
    }

    /// How many sequence numbers it takes.
    pub(super) fn length(&self) -> u32 {
        self.data + u32::from(self.flags.contains(TcpFlags::SYN)) + u32::from(self.flags.contains(TcpFlags::FIN))
    }
}
