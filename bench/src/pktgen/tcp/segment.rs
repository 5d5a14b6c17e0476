//! Segments, as they arrive and as they are sent.

use std::net::IpAddr;

use dataplane::ident::{Endpoint, MacAddr};
use dataplane::wire::{Headers, IpVersion, TcpFlags, checksum, number, parse, tcp};

use crate::stream::Link;

/// What is to be sent of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'p> {
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    /// A SYN carries an MSS and no payload.
    pub(crate) flags: TcpFlags,
    pub(crate) payload: &'p [u8],
}

/// A segment that arrived, its checksum verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) link: Link,
    pub(crate) from: Endpoint,
    pub(crate) to: Endpoint,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: TcpFlags,
    /// Bytes of data.
    pub(crate) length: u32,
}

impl Arrived {
    /// Reads a frame; `None` for what is no whole segment. A checksum that was left to a device is completed.
    pub(crate) fn read(frame: &mut [u8]) -> Option<Self> {
        let headers = parse(frame).ok().filter(|headers| headers.protocol == number::TCP)?;
        checksum::settle(frame, &headers).ok()?;
        let (l4, end) = (headers.l4 as usize, headers.end as usize);
        let segment = frame.get(l4..end)?;
        let word = |at: usize| Some(u32::from_be_bytes(*segment.get(at..)?.first_chunk()?));
        let data = usize::from(segment.get(tcp::DATA_OFFSET)? >> 4) * 4;
        let (source, destination) = addresses(frame, &headers);
        let mac = |at: usize| Some(MacAddr(*frame.get(at..)?.first_chunk()?));
        Some(Self {
            link: Link { from: mac(6)?, to: mac(0)? },
            from: Endpoint { address: source, port: headers.source_port },
            to: Endpoint { address: destination, port: headers.destination_port },
            sequence: word(tcp::SEQUENCE)?,
            acknowledgement: word(tcp::ACKNOWLEDGEMENT)?,
            flags: headers.tcp,
            length: segment.len().checked_sub(data)? as u32,
        })
    }

    /// The sequence number after this segment.
    pub(crate) const fn end(&self) -> u32 {
        let syn = self.flags.contains(TcpFlags::SYN) as u32;
        let fin = self.flags.contains(TcpFlags::FIN) as u32;
        self.sequence.wrapping_add(self.length).wrapping_add(syn).wrapping_add(fin)
    }
}

fn addresses(frame: &[u8], headers: &Headers) -> (IpAddr, IpAddr) {
    match headers.version {
        IpVersion::V4 => {
            let (source, destination) = headers.addresses_v4(frame);
            (source.into(), destination.into())
        }
        IpVersion::V6 => {
            let (source, destination) = headers.addresses_v6(frame);
            (source.into(), destination.into())
        }
    }
}
