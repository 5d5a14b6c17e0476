//! ICMP errors of others about translated packets: the packet inside is given back the addresses and ports that its
//! sender knows it by (RFC 5508 section 4.2), with all five checksums kept right by their differences.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nat::{Rewrite, swap};
use super::sequence::Translation;
use crate::counters::Drop;
use crate::ident::NetPort;
use crate::wire::checksum::Delta;
use crate::wire::{self, Headers, IpVersion, TcpFlags, ipv4, ipv6, number, tcp, udp};

/// Length of the ICMP header in front of the embedded packet.
const HEADER: usize = 8;
/// Offset of the checksum in the ICMP header.
const CHECKSUM: usize = 2;

/// The packet that an error is about, as far as the error holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Its source address.
    pub source: IpAddr,
    /// Its destination address.
    pub destination: IpAddr,
    /// Its source port.
    pub source_port: NetPort,
    /// Its destination port.
    pub destination_port: NetPort,
    /// Its transport's IANA number.
    pub protocol: u8,
    l3: usize,
    l4: usize,
    end: usize,
}

impl Embedded {
    /// The packet, as far as the error in `frame` holds it.
    pub(super) fn packet<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(self.l3..self.end).unwrap_or_default()
    }

    /// Its transport header and what follows, as far as the error holds it.
    pub(super) fn transport<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        frame.get(self.l4..self.end).unwrap_or_default()
    }

    /// Bytes from its IP header to its transport header.
    pub(super) const fn header_length(&self) -> usize {
        self.l4 - self.l3
    }
}

/// Reads the packet inside an ICMP error. The first four bytes of its transport are enough: RFC 792 promises eight.
///
/// # Errors
/// [`Drop::IcmpTruncated`] when its ports are not there, [`Drop::IcmpUnrelated`] when it has none.
pub fn embedded(frame: &[u8], headers: &Headers) -> Result<Embedded, Drop> {
    let l3 = headers.l4 as usize + HEADER;
    let packet = original(frame, headers).ok_or(Drop::IcmpTruncated)?;
    let (source, destination, protocol, l4) = match headers.version {
        IpVersion::V4 => embedded_v4(packet)?,
        IpVersion::V6 => embedded_v6(packet)?,
    };
    if !matches!(protocol, number::TCP | number::UDP | number::SCTP) {
        return Err(Drop::IcmpUnrelated);
    }
    let ports: [u8; 4] = *packet.get(l4..).and_then(<[u8]>::first_chunk).ok_or(Drop::IcmpTruncated)?;
    Ok(Embedded {
        source,
        destination,
        source_port: NetPort::from_wire([ports[0], ports[1]]),
        destination_port: NetPort::from_wire([ports[2], ports[3]]),
        protocol,
        l3,
        l4: l3 + l4,
        end: l3 + packet.len(),
    })
}

/// What an error holds of the packet it is about, without what follows it: extensions (RFC 4884 section 4), or padding
/// beyond the packet's own length.
pub(super) fn original<'f>(frame: &'f [u8], headers: &Headers) -> Option<&'f [u8]> {
    /// Extensions follow no fewer bytes than these; a shorter length is a router's leftover in an unused field.
    const LEAST: usize = 128;
    let message = frame.get(headers.l4 as usize..headers.end as usize)?;
    let words = match (headers.version, *message.first()?) {
        (IpVersion::V4, 3 | 11 | 12) => usize::from(*message.get(5)?) * 4,
        (IpVersion::V6, 1 | 3) => usize::from(*message.get(4)?) * 8,
        _ => 0,
    };
    let held = message.get(HEADER..)?;
    let word = |at: usize| held.get(at..).and_then(<[u8]>::first_chunk).map(|n| usize::from(u16::from_be_bytes(*n)));
    let whole = match headers.version {
        IpVersion::V4 => word(ipv4::TOTAL_LENGTH)?,
        IpVersion::V6 => word(ipv6::PAYLOAD_LENGTH)? + ipv6::LENGTH,
    };
    let original = if words < LEAST { whole } else { words.min(whole) };
    held.get(..original.min(held.len()))
}

/// The header of a quoted packet, of which the end may be missing.
pub(super) struct Quoted {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) protocol: u8,
    /// Where its payload begins.
    pub(super) l4: usize,
    /// How long it was as it says itself, in bytes.
    pub(super) length: usize,
}

/// Reads a quoted packet of either family.
pub(super) fn quoted(packet: &[u8]) -> Result<Quoted, Drop> {
    let is_v6 = packet.first().is_some_and(|first| first >> 4 == 6);
    let (source, destination, protocol, l4) = if is_v6 { embedded_v6(packet)? } else { embedded_v4(packet)? };
    let (at, more) = if is_v6 { (ipv6::PAYLOAD_LENGTH, ipv6::LENGTH) } else { (ipv4::TOTAL_LENGTH, 0) };
    let length: [u8; 2] = *packet.get(at..).and_then(<[u8]>::first_chunk).ok_or(Drop::IcmpTruncated)?;
    Ok(Quoted { source, destination, protocol, l4, length: usize::from(u16::from_be_bytes(length)) + more })
}

fn embedded_v4(packet: &[u8]) -> Result<(IpAddr, IpAddr, u8, usize), Drop> {
    let header: &[u8; ipv4::LENGTH] = packet.first_chunk().ok_or(Drop::IcmpTruncated)?;
    let length = usize::from(header[0] & 0xf) * 4;
    let offset = u16::from_be_bytes([header[ipv4::FRAGMENT], header[ipv4::FRAGMENT + 1]]) & ipv4::OFFSET_MASK;
    if header[0] >> 4 != 4 || length < ipv4::LENGTH || offset != 0 {
        return Err(Drop::IcmpTruncated);
    }
    let at = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Ok((at(ipv4::SOURCE).into(), at(ipv4::DESTINATION).into(), header[ipv4::PROTOCOL], length))
}

fn embedded_v6(packet: &[u8]) -> Result<(IpAddr, IpAddr, u8, usize), Drop> {
    let header: &[u8; ipv6::LENGTH] = packet.first_chunk().ok_or(Drop::IcmpTruncated)?;
    let address = |at: usize| header[at..].first_chunk::<16>().map(|a| Ipv6Addr::from(*a)).ok_or(Drop::IcmpTruncated);
    let (protocol, l4, fragment) = wire::skip_extensions(packet, header[ipv6::NEXT_HEADER], ipv6::LENGTH)?;
    if header[0] >> 4 != 6 || matches!(fragment, wire::Fragment::Later { .. }) {
        return Err(Drop::IcmpTruncated);
    }
    Ok((address(ipv6::SOURCE)?.into(), address(ipv6::DESTINATION)?.into(), protocol, l4))
}

/// Gives an ICMP error new outer addresses (source, destination), and the packet inside new addresses and ports.
pub fn translate_v4(
    frame: &mut [u8],
    headers: &Headers,
    embedded: &Embedded,
    outer: (Ipv4Addr, Ipv4Addr),
    inner: &Rewrite<Ipv4Addr>,
) {
    let addresses = (inner.source.octets(), inner.destination.octets());
    let inside = swap::<4>(frame, embedded.l3 + ipv4::SOURCE, addresses.0).and(swap::<4>(
        frame,
        embedded.l3 + ipv4::DESTINATION,
        addresses.1,
    ));
    let header_sum = update(frame, embedded.l3 + ipv4::CHECKSUM, inside);
    let transport = translate_transport(frame, embedded, inside, (inner.source_port, inner.destination_port));
    update(frame, headers.l4 as usize + CHECKSUM, inside.and(header_sum).and(transport));
    let l3 = headers.l3 as usize;
    let outside = swap::<4>(frame, l3 + ipv4::SOURCE, outer.0.octets()).and(swap::<4>(
        frame,
        l3 + ipv4::DESTINATION,
        outer.1.octets(),
    ));
    update(frame, l3 + ipv4::CHECKSUM, outside);
}

/// As [`translate_v4`]; the ICMPv6 checksum covers the outer addresses too (RFC 4443 section 2.3).
pub fn translate_v6(
    frame: &mut [u8],
    headers: &Headers,
    embedded: &Embedded,
    outer: (Ipv6Addr, Ipv6Addr),
    inner: &Rewrite<Ipv6Addr>,
) {
    let addresses = (inner.source.octets(), inner.destination.octets());
    let inside = swap::<16>(frame, embedded.l3 + ipv6::SOURCE, addresses.0).and(swap::<16>(
        frame,
        embedded.l3 + ipv6::DESTINATION,
        addresses.1,
    ));
    let transport = translate_transport(frame, embedded, inside, (inner.source_port, inner.destination_port));
    let l3 = headers.l3 as usize;
    let outside = swap::<16>(frame, l3 + ipv6::SOURCE, outer.0.octets()).and(swap::<16>(
        frame,
        l3 + ipv6::DESTINATION,
        outer.1.octets(),
    ));
    update(frame, headers.l4 as usize + CHECKSUM, inside.and(transport).and(outside));
}

/// Gives the TCP segment inside an ICMP error the sequence numbers that its sender knows, as far as the error holds it:
/// the sender compares them with what it has under way (RFC 5927 section 4.1). `by` is what was done to that segment.
pub fn restore_sequence(frame: &mut [u8], headers: &Headers, embedded: &Embedded, by: &Translation) {
    if embedded.protocol != number::TCP {
        return;
    }
    let Some(segment) = frame.get_mut(embedded.l4..embedded.end) else { return };
    let flags = TcpFlags::new(segment.get(tcp::FLAGS).copied().unwrap_or_default());
    let inside = by.back(segment, flags);
    let sum = match segment.len() {
        0..tcp::URGENT => Delta::default(),
        _ => update(segment, tcp::CHECKSUM, inside),
    };
    update(frame, headers.l4 as usize + CHECKSUM, inside.and(sum));
}

/// Ports, and the transport's checksum where the error holds so much; gives what this changed in all.
fn translate_transport(
    frame: &mut [u8],
    embedded: &Embedded,
    addresses: Delta,
    (source, destination): (NetPort, NetPort),
) -> Delta {
    let ([a, b], [c, d]) = (source.to_wire(), destination.to_wire());
    let ports = swap::<4>(frame, embedded.l4, [a, b, c, d]);
    if embedded.protocol == number::SCTP {
        // Its checksum covers more than an error holds; nobody verifies it there.
        return ports;
    }
    let at = embedded.l4 + if embedded.protocol == number::UDP { udp::CHECKSUM } else { tcp::CHECKSUM };
    let Some(field) =
        frame.get_mut(..embedded.end).and_then(|f| f.get_mut(at..)).and_then(<[u8]>::first_chunk_mut::<2>)
    else {
        return ports;
    };
    let (old, change) = (*field, addresses.and(ports));
    *field = if embedded.protocol == number::UDP { change.apply_udp(old) } else { change.apply(old) };
    ports.and(Delta::default().replace(old, *field))
}

/// Updates a checksum field and gives the difference that the field itself makes to a sum over it.
fn update(frame: &mut [u8], at: usize, change: Delta) -> Delta {
    let Some(field) = frame.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) else { return Delta::default() };
    let old = *field;
    *field = change.apply(old);
    Delta::default().replace(old, *field)
}
