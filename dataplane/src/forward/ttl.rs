//! TTL (RFC 791, RFC 1812 section 5.3.1) and hop limit (RFC 8200 section 3): one less on each hop.

use crate::wire::checksum::Delta;
use crate::wire::{Headers, IpVersion, ipv4, ipv6};

/// The packet may not go any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired;

/// Takes one off, and keeps an IPv4 header's checksum right.
///
/// # Errors
/// [`Expired`], with the frame unchanged, when one or none is left.
#[inline]
pub fn decrement(frame: &mut [u8], headers: &Headers) -> Result<(), Expired> {
    let header = frame.get_mut(headers.l3 as usize..).ok_or(Expired)?;
    if headers.ttl <= 1 {
        return Err(Expired);
    }
    match headers.version {
        IpVersion::V4 => {
            let header: &mut [u8; ipv4::LENGTH] = header.first_chunk_mut().ok_or(Expired)?;
            let old = [header[ipv4::TTL], header[ipv4::PROTOCOL]];
            header[ipv4::TTL] = old[0] - 1;
            let delta = Delta::default().replace(old, [old[0] - 1, old[1]]);
            let new = delta.apply([header[ipv4::CHECKSUM], header[ipv4::CHECKSUM + 1]]);
            header[ipv4::CHECKSUM..ipv4::CHECKSUM + 2].copy_from_slice(&new);
        }
        IpVersion::V6 => *header.get_mut(ipv6::HOP_LIMIT).ok_or(Expired)? = headers.ttl - 1,
    }
    Ok(())
}
