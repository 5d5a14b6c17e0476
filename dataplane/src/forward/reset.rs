//! The reset for a segment of no connection (RFC 9293 section 3.10.7.1).

use std::net::IpAddr;

use super::icmp::{is_host_v4, is_host_v6};
use super::segment::{self, Segment};
use crate::ident::Endpoint;
use crate::wire::{Fragment, Headers, IpVersion, TcpFlags, number, parse_ip, tcp};

/// Writes an IP packet that resets the connection `offending` (an IP packet with TCP) takes itself to belong to, from
/// the address that it went to. `None` when there is nothing to reset: a reset itself, a fragment, another transport;
/// or when either address is no single host's (RFC 1122 section 4.2.3.10).
pub fn reply(out: &mut [u8], offending: &[u8]) -> Option<usize> {
    let headers = parse_ip(offending).ok()?;
    let is_reset = headers.tcp.contains(TcpFlags::RST);
    if headers.protocol != number::TCP || headers.fragment != Fragment::Whole || is_reset {
        return None;
    }
    let (source, destination): (IpAddr, IpAddr) = match headers.version {
        IpVersion::V4 => {
            let both = headers.addresses_v4(offending);
            <[_; 2]>::from(both).into_iter().all(is_host_v4).then_some((both.0.into(), both.1.into()))?
        }
        IpVersion::V6 => {
            let both = headers.addresses_v6(offending);
            <[_; 2]>::from(both).into_iter().all(is_host_v6).then_some((both.0.into(), both.1.into()))?
        }
    };
    let from = Endpoint { address: destination, port: headers.destination_port };
    let to = Endpoint { address: source, port: headers.source_port };
    segment::write(out, from, to, &answer(offending, &headers)?)
}

/// The sequence number that the peer waits for, or zero with an acknowledgement of all it sent.
fn answer(offending: &[u8], headers: &Headers) -> Option<Segment<'static>> {
    let segment = offending.get(headers.l4 as usize..headers.end as usize)?;
    let from: &[u8; tcp::LENGTH] = segment.first_chunk()?;
    let number = |at: usize| from.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    if headers.tcp.contains(TcpFlags::ACK) {
        let sequence = number(tcp::ACKNOWLEDGEMENT)?;
        return Some(Segment { sequence, flags: TcpFlags::RST, ..Segment::default() });
    }
    let data = segment.len().saturating_sub(usize::from(from[tcp::DATA_OFFSET] >> 4) * 4) as u32;
    let control = u32::from(headers.tcp.contains(TcpFlags::SYN)) + u32::from(headers.tcp.contains(TcpFlags::FIN));
    let all = number(tcp::SEQUENCE)?.wrapping_add(data).wrapping_add(control);
    Some(Segment { acknowledgement: all, flags: TcpFlags::RST.with(TcpFlags::ACK), ..Segment::default() })
}
