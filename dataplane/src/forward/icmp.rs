//! ICMP and ICMPv6 errors that the director sends itself (RFC 792, RFC 1191, RFC 4443).
//!
//! An error is never sent about what could make a storm of it: errors and redirects, later fragments, packets to a
//! group or from no single host (RFC 1122 section 3.2.2, RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ident::NetPort;
use crate::wire::{Fragment, Headers, IpVersion, TcpFlags, checksum, ip, ipv4, ipv6, number, parse_ip};

/// Length of the ICMP header in front of the embedded packet.
const HEADER: usize = 8;
/// The longest ICMP packet: RFC 1812 section 4.3.2.3.
const LONGEST_V4: usize = 576;
/// The longest ICMPv6 packet: the smallest MTU, RFC 4443 section 2.4 c.
const LONGEST_V6: usize = 1280;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The packet does not fit; `mtu` does, in bytes.
    TooBig {
        /// The largest IP packet that fits.
        mtu: u32,
    },
    /// TTL or hop limit ran out.
    TimeExceeded,
    /// Nobody serves that port now.
    PortUnreachable,
    /// The host, as far as its sender knows it, cannot be reached now.
    HostUnreachable,
}

impl ErrorKind {
    /// Type, code and the word behind the checksum.
    const fn fields(self, version: IpVersion) -> (u8, u8, u32) {
        match (self, version) {
            (Self::TooBig { mtu }, IpVersion::V4) => (3, 4, if mtu > 0xffff { 0xffff } else { mtu }),
            (Self::TooBig { mtu }, IpVersion::V6) => (2, 0, mtu),
            (Self::TimeExceeded, IpVersion::V4) => (11, 0, 0),
            (Self::TimeExceeded, IpVersion::V6) => (3, 0, 0),
            (Self::PortUnreachable, IpVersion::V4) => (3, 3, 0),
            (Self::PortUnreachable, IpVersion::V6) => (1, 4, 0),
            (Self::HostUnreachable, IpVersion::V4) => (3, 1, 0),
            (Self::HostUnreachable, IpVersion::V6) => (1, 3, 0),
        }
    }
}

/// Writes an error about `offending` (an IP packet as it was received) from `speaker` to its sender; gives the length.
/// `None` when no error may be sent about it, or `speaker` is of another family.
pub fn error(out: &mut [u8], offending: &[u8], kind: ErrorKind, speaker: IpAddr) -> Option<usize> {
    let headers = parse_ip(offending).ok()?;
    if matches!(headers.fragment, Fragment::Later { .. }) || is_report(offending, &headers) {
        return None;
    }
    write(out, offending.get(..headers.end as usize)?, &headers, kind, speaker)
}

/// As [`error`], about a packet of which only the beginning is known: what an error of somebody else holds of it.
pub fn error_about_quoted(out: &mut [u8], quoted: &[u8], kind: ErrorKind, speaker: IpAddr) -> Option<usize> {
    let version = match quoted.first()? >> 4 {
        4 => IpVersion::V4,
        6 => IpVersion::V6,
        _ => return None,
    };
    let headers = Headers {
        version,
        l3: 0,
        l4: version.header_length() as u16,
        end: u16::try_from(quoted.len()).ok()?,
        protocol: 0,
        fragment: Fragment::Whole,
        source_port: NetPort::ANY,
        destination_port: NetPort::ANY,
        tcp: TcpFlags::default(),
        ttl: ip::TTL,
    };
    write(out, quoted, &headers, kind, speaker)
}

/// Writes an error that holds as much of `offending` as it may.
fn write(out: &mut [u8], offending: &[u8], headers: &Headers, kind: ErrorKind, speaker: IpAddr) -> Option<usize> {
    let (start, longest, protocol) = match headers.version {
        IpVersion::V4 => (ipv4::LENGTH, LONGEST_V4, number::ICMP),
        IpVersion::V6 => (ipv6::LENGTH, LONGEST_V6, number::ICMPV6),
    };
    let held = offending.len().min(longest - start - HEADER);
    let length = start + HEADER + held;
    let packet = out.get_mut(..length)?;
    packet.fill(0);
    match speaker {
        IpAddr::V4(from) => write_v4(packet, offending, headers, from.octets())?,
        IpAddr::V6(from) => write_v6(packet, offending, headers, from.octets())?,
    }
    let (kind, code, word) = kind.fields(headers.version);
    let message = packet.get_mut(start..)?;
    let fields: &mut [u8; HEADER] = message.first_chunk_mut()?;
    [fields[0], fields[1]] = [kind, code];
    fields[4..].copy_from_slice(&word.to_be_bytes());
    message.get_mut(HEADER..)?.copy_from_slice(offending.get(..held)?);
    let written = Headers { l3: 0, l4: start as u16, end: length as u16, protocol, ..*headers };
    let below = checksum::pseudo_of(packet, &written, HEADER + held);
    let value = checksum::transport(below, protocol, packet.get(start..)?);
    packet.get_mut(start + 2..)?.first_chunk_mut::<2>().map(|field| *field = value)?;
    Some(length)
}

/// Whether a packet is an ICMP message that reports something, rather than asks: no error may follow on it.
fn is_report(packet: &[u8], headers: &Headers) -> bool {
    /// The ICMPv6 redirect, the one report among the informational types.
    const REDIRECT_V6: u8 = 137;
    match (headers.version, headers.protocol, packet.get(headers.l4 as usize)) {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        (IpVersion::V4, number::ICMP, Some(kind)) => [3, 4, 5, 11, 12].contains(kind),
        (IpVersion::V6, number::ICMPV6, Some(kind)) => *kind < 128 || *kind == REDIRECT_V6,
        _ => false,
    }
}

/// Whether an address can be that of a single host elsewhere.
pub(super) fn is_host_v4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    // "This network", loopback, and everything from multicast upwards.
    first != 0 && first != 127 && first < 224
}

/// As [`is_host_v4`].
pub(super) fn is_host_v6(address: Ipv6Addr) -> bool {
    !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

fn write_v4(packet: &mut [u8], offending: &[u8], headers: &Headers, from: [u8; 4]) -> Option<()> {
    let (sender, to) = headers.addresses_v4(offending);
    if headers.version != IpVersion::V4 || !is_host_v4(sender) || to.is_multicast() || to.is_broadcast() {
        return None;
    }
    let total = packet.len() as u16;
    let header: &mut [u8; ipv4::LENGTH] = packet.first_chunk_mut()?;
    header[0] = 0x45;
    // Internetwork control, as routers mark their errors (RFC 1812 section 4.3.2.5).
    header[ipv4::TOS] = 0xc0;
    header[ipv4::TOTAL_LENGTH..ipv4::ID].copy_from_slice(&total.to_be_bytes());
    // Never fragmented, so it needs no identification (RFC 6864 section 4.1).
    header[ipv4::FRAGMENT..ipv4::TTL].copy_from_slice(&ipv4::DONT_FRAGMENT.to_be_bytes());
    header[ipv4::TTL] = ip::TTL;
    header[ipv4::PROTOCOL] = number::ICMP;
    header[ipv4::SOURCE..ipv4::DESTINATION].copy_from_slice(&from);
    header[ipv4::DESTINATION..].copy_from_slice(&sender.octets());
    let sum = checksum::of(header);
    header[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&sum);
    Some(())
}

fn write_v6(packet: &mut [u8], offending: &[u8], headers: &Headers, from: [u8; 16]) -> Option<()> {
    let (sender, to) = headers.addresses_v6(offending);
    if headers.version != IpVersion::V6 || !is_host_v6(sender) || to.is_multicast() {
        return None;
    }
    let payload = (packet.len() - ipv6::LENGTH) as u16;
    let header: &mut [u8; ipv6::LENGTH] = packet.first_chunk_mut()?;
    header[0] = 0x60;
    header[ipv6::PAYLOAD_LENGTH..ipv6::NEXT_HEADER].copy_from_slice(&payload.to_be_bytes());
    header[ipv6::NEXT_HEADER] = number::ICMPV6;
    header[ipv6::HOP_LIMIT] = ip::TTL;
    header[ipv6::SOURCE..ipv6::DESTINATION].copy_from_slice(&from);
    header[ipv6::DESTINATION..].copy_from_slice(&sender.octets());
    Some(())
}
