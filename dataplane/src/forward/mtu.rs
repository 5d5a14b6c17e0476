//! Packets that are too large for their way out.
//!
//! The director never fragments: what does not fit is answered by ICMP with the size that does (RFC 1191, RFC 8201)
//! and dropped. That differs from IPVS for IPv4 packets without DF, which Linux fragments on its way out.

use crate::wire::{Headers, IpVersion};

/// The smallest size that an IPv6 link may have (RFC 8200 section 5).
const MIN_V6: u32 = 1280;

/// The largest size that fits, when the packet does not: `mtu` of the way out less what goes in front.
#[inline]
pub fn exceeded(headers: &Headers, mtu: u16, overhead: usize) -> Option<u32> {
    let room = usize::from(mtu).saturating_sub(overhead);
    if headers.ip_length() <= room {
        return None;
    }
    Some(match headers.version {
        IpVersion::V4 => room as u32,
        IpVersion::V6 => (room as u32).max(MIN_V6),
    })
}
