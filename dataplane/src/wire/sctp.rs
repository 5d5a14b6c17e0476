//! The SCTP packet (RFC 9260 section 3): its checksum, and the chunk that says where an association stands.

use super::crc32c::{Crc32c, updated};
use super::{Fragment, Settled};
use crate::counters::Drop;
use crate::ident::NetPort;

/// Length of the common header.
pub const LENGTH: usize = 12;
/// Verification tag.
pub const TAG: usize = 4;
/// Checksum.
pub const CHECKSUM: usize = 8;
/// Length of a chunk's header.
const CHUNK: usize = 4;

/// What the first chunks of a packet mean for an association, as IPVS sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SctpEvent {
    /// DATA, SACK, HEARTBEAT and everything else.
    Data,
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT.
    Abort,
}

impl SctpEvent {
    /// Number of events.
    pub const COUNT: usize = 10;

    /// What a packet that begins with its SCTP header means; `None` where it holds no chunk. An ABORT that stands behind
    /// a COOKIE ECHO or a COOKIE ACK counts.
    pub fn of(packet: &[u8]) -> Option<Self> {
        let chunk = |at: usize| packet.get(at..).and_then(<[u8]>::first_chunk::<CHUNK>);
        let [kind, _, length @ ..] = *chunk(LENGTH)?;
        let event = Self::of_chunk(kind);
        let length = usize::from(u16::from_be_bytes(length));
        if matches!(event, Self::CookieEcho | Self::CookieAck) && length >= CHUNK {
            let second = chunk(LENGTH + length.next_multiple_of(4)).map(|[kind, ..]| Self::of_chunk(*kind));
            return Some(if second == Some(Self::Abort) { Self::Abort } else { event });
        }
        Some(event)
    }

    const fn of_chunk(kind: u8) -> Self {
        match kind {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

/// The checksum that a packet, which begins with its SCTP header, should have.
pub fn checksum(packet: &[u8]) -> [u8; 4] {
    let (before, rest) = packet.split_at(CHECKSUM.min(packet.len()));
    Crc32c::default().with(before).with(&[0; 4]).with(rest.get(4..).unwrap_or_default()).field()
}

/// Verifies the checksum of a whole packet, and computes one of zero, as a local sender leaves it to the device.
///
/// # Errors
/// [`Drop::BadChecksum`] when it is wrong.
pub fn settle(packet: &mut [u8]) -> Result<Settled, Drop> {
    let right = checksum(packet);
    let field: &mut [u8; 4] = packet.get_mut(CHECKSUM..).and_then(<[u8]>::first_chunk_mut).ok_or(Drop::BadTransport)?;
    if *field == right {
        return Ok(Settled::Valid);
    }
    if *field != [0; 4] {
        return Err(Drop::BadChecksum);
    }
    *field = right;
    Ok(Settled::Completed)
}

/// Gives a packet other ports. A checksum of zero, as a local sender leaves it to the device, is computed; any other is
/// updated. In a first fragment it stays: it covers what is not here.
pub fn rewrite_ports(packet: &mut [u8], fragment: Fragment, (source, destination): (NetPort, NetPort)) {
    let ([a, b], [c, d]) = (source.to_wire(), destination.to_wire());
    let new = [a, b, c, d];
    let length = packet.len();
    let Some(header) = packet.first_chunk_mut::<LENGTH>() else { return };
    let (old, sum) = ([header[0], header[1], header[2], header[3]], [header[8], header[9], header[10], header[11]]);
    header[..4].copy_from_slice(&new);
    if fragment != Fragment::Whole {
        return;
    }
    let sum = if sum == [0; 4] {
        checksum(packet)
    } else if old == new {
        return;
    } else {
        updated(sum, old, new, length - 4)
    };
    if let Some(field) = packet.get_mut(CHECKSUM..).and_then(<[u8]>::first_chunk_mut) {
        *field = sum;
    }
}
