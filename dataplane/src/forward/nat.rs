//! NAT: new addresses and ports, with every checksum kept right by its difference (RFC 1624, RFC 3022).

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::ident::NetPort;
use crate::wire::checksum::Delta;
use crate::wire::{Fragment, Headers, ipv4, ipv6, number, sctp, tcp, udp};

/// The addresses and ports that a packet gets. Those that stay the same cost nothing but the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrite<A> {
    /// New source address.
    pub source: A,
    /// New source port.
    pub source_port: NetPort,
    /// New destination address.
    pub destination: A,
    /// New destination port.
    pub destination_port: NetPort,
}

/// Rewrites an IPv4 packet that was parsed into `headers`: its addresses, header checksum, ports and TCP or UDP checksum.
#[inline]
pub fn rewrite_v4(frame: &mut [u8], headers: &Headers, to: &Rewrite<Ipv4Addr>) {
    let l3 = headers.l3 as usize;
    let Some(header) = frame.get_mut(l3..).and_then(<[u8]>::first_chunk_mut::<{ ipv4::LENGTH }>) else { return };
    let delta = swap::<4>(header, ipv4::SOURCE, to.source.octets()).and(swap::<4>(
        header,
        ipv4::DESTINATION,
        to.destination.octets(),
    ));
    let checksum = [header[ipv4::CHECKSUM], header[ipv4::CHECKSUM + 1]];
    let [high, low] = delta.apply(checksum);
    header[ipv4::CHECKSUM] = high;
    header[ipv4::CHECKSUM + 1] = low;
    rewrite_transport(frame, headers, delta, (to.source_port, to.destination_port));
}

/// Rewrites an IPv6 packet that was parsed into `headers`.
#[inline]
pub fn rewrite_v6(frame: &mut [u8], headers: &Headers, to: &Rewrite<Ipv6Addr>) {
    let l3 = headers.l3 as usize;
    let Some(header) = frame.get_mut(l3..).and_then(<[u8]>::first_chunk_mut::<{ ipv6::LENGTH }>) else { return };
    let delta = swap::<16>(header, ipv6::SOURCE, to.source.octets()).and(swap::<16>(
        header,
        ipv6::DESTINATION,
        to.destination.octets(),
    ));
    rewrite_transport(frame, headers, delta, (to.source_port, to.destination_port));
}

/// Ports and checksum of TCP and UDP. A first fragment has both, though its checksum covers the whole datagram; a
/// later one has neither.
#[inline]
fn rewrite_transport(frame: &mut [u8], headers: &Headers, addresses: Delta, ports: (NetPort, NetPort)) {
    if matches!(headers.fragment, Fragment::Later { .. }) {
        return;
    }
    let Some(transport) = frame.get_mut(headers.l4 as usize..) else { return };
    match headers.protocol {
        number::TCP => {
            let Some(header) = transport.first_chunk_mut::<{ tcp::LENGTH }>() else { return };
            let delta = addresses.and(swap_ports(header, ports));
            let new = delta.apply([header[tcp::CHECKSUM], header[tcp::CHECKSUM + 1]]);
            header[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&new);
        }
        number::UDP => {
            let Some(header) = transport.first_chunk_mut::<{ udp::LENGTH }>() else { return };
            let delta = addresses.and(swap_ports(header, ports));
            let new = delta.apply_udp([header[udp::CHECKSUM], header[udp::CHECKSUM + 1]]);
            header[udp::CHECKSUM..udp::CHECKSUM + 2].copy_from_slice(&new);
        }
        number::SCTP => sctp(frame, headers, ports),
        _ => {}
    }
}

/// The ports of SCTP. Its checksum covers no addresses.
#[inline(never)]
pub(super) fn sctp(frame: &mut [u8], headers: &Headers, ports: (NetPort, NetPort)) {
    if let Some(packet) = frame.get_mut(headers.l4 as usize..headers.end as usize) {
        sctp::rewrite_ports(packet, headers.fragment, ports);
    }
}

#[inline]
fn swap_ports(header: &mut [u8], (source, destination): (NetPort, NetPort)) -> Delta {
    let ([a, b], [c, d]) = (source.to_wire(), destination.to_wire());
    swap::<4>(header, 0, [a, b, c, d])
}

/// Puts `new` at an offset and gives the difference to a checksum over it.
#[inline]
pub(super) fn swap<const N: usize>(bytes: &mut [u8], at: usize, new: [u8; N]) -> Delta {
    let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) else { return Delta::default() };
    let old = *place;
    *place = new;
    if old == new { Delta::default() } else { Delta::default().replace(old, new) }
}
