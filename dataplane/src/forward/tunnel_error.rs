//! ICMP errors about outer packets of tunnels: what they say of the tunnel, and the packet inside (RFC 2003 section 4,
//! RFC 2473 section 8).
//!
//! The outer packet's sender is the director, so the error ends here; the sender of the packet inside is to hear of it in
//! its own terms. What concerns the tunnel alone does not concern it.

use std::net::IpAddr;
use std::ops::Range;

use super::icmp::ErrorKind;
use super::icmp_translate::{Quoted, original, quoted};
use super::{gre, gue};
use crate::counters::Drop;
use crate::ident::{NetPort, Protocol};
use crate::wire::{Headers, IpVersion, number};

/// Length of the ICMP header in front of the quoted packet.
const HEADER: usize = 8;
/// The least MTU that an IPv4 packet may be told (RFC 791).
const LEAST_V4: u32 = 68;
/// The least MTU of an IPv6 link (RFC 8200 section 5).
const LEAST_V6: u32 = 1280;

/// An error about an outer packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelError {
    /// The tunnel's end: where the outer packet went.
    pub end: IpAddr,
    /// The outer packet's protocol: an IANA number.
    pub protocol: u8,
    /// The port that it went to, under UDP.
    pub port: NetPort,
    /// Source of the packet inside.
    pub source: IpAddr,
    /// Destination of the packet inside.
    pub destination: IpAddr,
    /// Source port of the packet inside.
    pub source_port: NetPort,
    /// Destination port of the packet inside.
    pub destination_port: NetPort,
    /// Transport of the packet inside.
    pub transport: Protocol,
    /// Where the packet inside is in the frame, as far as the error holds it.
    pub inner: Range<usize>,
    /// What its sender is to be told.
    pub kind: ErrorKind,
}

/// Reads an ICMP error about an outer packet.
///
/// # Errors
/// [`Drop::IcmpUnrelated`] when it is about no tunnel, or says nothing that the sender of the packet inside can use;
/// [`Drop::IcmpTruncated`] when it does not hold the ports of the packet inside.
pub fn parse(frame: &[u8], headers: &Headers) -> Result<TunnelError, Drop> {
    let packet = original(frame, headers).ok_or(Drop::IcmpTruncated)?;
    let outer = quoted(packet)?;
    let body = packet.get(outer.l4..).ok_or(Drop::IcmpTruncated)?;
    let (shim, port) = match outer.protocol {
        number::IPV4 | number::IPV6 => (Some(0), NetPort::ANY),
        number::GRE => (gre::payload(body), NetPort::ANY),
        number::UDP => (gue::payload(body), port(body, 2)?),
        _ => (None, NetPort::ANY),
    };
    let start = outer.l4 + shim.ok_or(Drop::IcmpUnrelated)?;
    let inside = packet.get(start..).filter(|inside| !inside.is_empty()).ok_or(Drop::IcmpTruncated)?;
    let inner = quoted(inside)?;
    let transport = Protocol::from_number(inner.protocol).ok_or(Drop::IcmpUnrelated)?;
    let segment = inside.get(inner.l4..).ok_or(Drop::IcmpTruncated)?;
    let at = headers.l4 as usize + HEADER + start;
    Ok(TunnelError {
        end: outer.destination,
        protocol: outer.protocol,
        port,
        source: inner.source,
        destination: inner.destination,
        source_port: self::port(segment, 0)?,
        destination_port: self::port(segment, 2)?,
        transport,
        inner: at..at + inside.len(),
        kind: kind(frame, headers, &outer, start, inner.source.is_ipv6()).ok_or(Drop::IcmpUnrelated)?,
    })
}

fn port(transport: &[u8], at: usize) -> Result<NetPort, Drop> {
    let bytes: &[u8; 2] = transport.get(at..).and_then(<[u8]>::first_chunk).ok_or(Drop::IcmpTruncated)?;
    Ok(NetPort::from_wire(*bytes))
}

/// What the sender of the packet inside is to be told, when the tunnel puts `overhead` bytes in front.
fn kind(frame: &[u8], headers: &Headers, outer: &Quoted, overhead: usize, is_v6: bool) -> Option<ErrorKind> {
    let message: &[u8; HEADER] = frame.get(headers.l4 as usize..)?.first_chunk()?;
    let [kind, code, _, _, a, b, c, d] = *message;
    let mtu = match (headers.version, kind, code) {
        (IpVersion::V4, 3, 4) => u32::from(u16::from_be_bytes([c, d])),
        (IpVersion::V6, 2, _) => u32::from_be_bytes([a, b, c, d]),
        // The end is not to be reached, takes no tunnel, or is farther than our TTL: the VIP is not to be reached.
        (IpVersion::V4, 3 | 11, _) | (IpVersion::V6, 1 | 3, _) | (IpVersion::V6, 4, 1) => {
            return Some(ErrorKind::HostUnreachable);
        }
        _ => return None,
    };
    // A router older than RFC 1191 names none.
    let mtu = if mtu == 0 { plateau(outer.length) } else { mtu };
    // An error that asks for no less than what was sent is a mistake, or an attack (RFC 5927 section 7).
    if mtu as usize >= outer.length {
        return None;
    }
    let least = if is_v6 { LEAST_V6 } else { LEAST_V4 };
    Some(ErrorKind::TooBig { mtu: mtu.saturating_sub(overhead as u32).max(least) })
}

/// The next smaller MTU that is usual (RFC 1191 section 7).
fn plateau(length: usize) -> u32 {
    const USUAL: [u32; 9] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296];
    USUAL.into_iter().find(|mtu| (*mtu as usize) < length).unwrap_or(LEAST_V4)
}
