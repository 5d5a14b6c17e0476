//! The usual packet, edited at one go: no VLAN tag, no IP option, no fragment, TCP, UDP or SCTP.
//!
//! Everything is at a fixed place then, so one bounds check serves all of it; any other packet takes the general way
//! by [`super::nat`] and [`super::ttl`], with the same result.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::nat::{Rewrite, swap};
use crate::wire::checksum::Delta;
use crate::wire::{Fragment, ipv4, ipv6, number, sctp, tcp, udp};

/// Length of an Ethernet header's addresses.
pub const LINK: usize = 12;
/// Offset of the IP header.
const L3: usize = 14;
/// Offsets of the transport header.
const L4_V4: usize = L3 + ipv4::LENGTH;
const L4_V6: usize = L3 + ipv6::LENGTH;

/// New Ethernet addresses, addresses and ports, and a TTL one less, for an IPv4 packet.
#[inline]
pub fn translate_v4(frame: &mut [u8], protocol: u8, link: &[u8; LINK], to: &Rewrite<Ipv4Addr>) {
    let Some((header, transport)) = frame.split_first_chunk_mut::<L4_V4>() else { return };
    let addresses = swap::<4>(header, L3 + ipv4::SOURCE, to.source.octets()).and(swap::<4>(
        header,
        L3 + ipv4::DESTINATION,
        to.destination.octets(),
    ));
    route_header(header, link, addresses);
    let total = usize::from(u16::from_be_bytes([header[L3 + ipv4::TOTAL_LENGTH], header[L3 + ipv4::TOTAL_LENGTH + 1]]));
    ports(transport, protocol, addresses, to, || total.saturating_sub(ipv4::LENGTH));
}

/// As [`translate_v4`], for an IPv6 packet.
#[inline]
pub fn translate_v6(frame: &mut [u8], protocol: u8, link: &[u8; LINK], to: &Rewrite<Ipv6Addr>) {
    let Some((header, transport)) = frame.split_first_chunk_mut::<L4_V6>() else { return };
    let addresses = swap::<16>(header, L3 + ipv6::SOURCE, to.source.octets()).and(swap::<16>(
        header,
        L3 + ipv6::DESTINATION,
        to.destination.octets(),
    ));
    header[..LINK].copy_from_slice(link);
    header[L3 + ipv6::HOP_LIMIT] = header[L3 + ipv6::HOP_LIMIT].wrapping_sub(1);
    let payload = [header[L3 + ipv6::PAYLOAD_LENGTH], header[L3 + ipv6::PAYLOAD_LENGTH + 1]];
    ports(transport, protocol, addresses, to, || usize::from(u16::from_be_bytes(payload)));
}

/// New Ethernet addresses and a TTL one less, for an IPv4 packet.
#[inline]
pub fn route_v4(frame: &mut [u8], link: &[u8; LINK]) {
    if let Some(header) = frame.first_chunk_mut::<L4_V4>() {
        route_header(header, link, Delta::default());
    }
}

/// As [`route_v4`], for an IPv6 packet.
#[inline]
pub fn route_v6(frame: &mut [u8], link: &[u8; LINK]) {
    if let Some(header) = frame.first_chunk_mut::<L4_V6>() {
        header[..LINK].copy_from_slice(link);
        header[L3 + ipv6::HOP_LIMIT] = header[L3 + ipv6::HOP_LIMIT].wrapping_sub(1);
    }
}

#[inline]
fn route_header(header: &mut [u8; L4_V4], link: &[u8; LINK], addresses: Delta) {
    header[..LINK].copy_from_slice(link);
    let old = [header[L3 + ipv4::TTL], header[L3 + ipv4::PROTOCOL]];
    let new = [old[0].wrapping_sub(1), old[1]];
    header[L3 + ipv4::TTL] = new[0];
    let delta = addresses.and(Delta::default().replace(old, new));
    let sum = delta.apply([header[L3 + ipv4::CHECKSUM], header[L3 + ipv4::CHECKSUM + 1]]);
    header[L3 + ipv4::CHECKSUM..L3 + ipv4::SOURCE].copy_from_slice(&sum);
}

#[inline]
fn ports<A>(transport: &mut [u8], protocol: u8, addresses: Delta, to: &Rewrite<A>, length: impl FnOnce() -> usize) {
    let ([a, b], [c, d]) = (to.source_port.to_wire(), to.destination_port.to_wire());
    if protocol == number::TCP {
        let Some(header) = transport.first_chunk_mut::<{ tcp::LENGTH }>() else { return };
        let delta = addresses.and(swap::<4>(header, 0, [a, b, c, d]));
        let sum = delta.apply([header[tcp::CHECKSUM], header[tcp::CHECKSUM + 1]]);
        header[tcp::CHECKSUM..tcp::CHECKSUM + 2].copy_from_slice(&sum);
    } else if protocol == number::SCTP {
        let Some(packet) = transport.get_mut(..length()) else { return };
        sctp::rewrite_ports(packet, Fragment::Whole, (to.source_port, to.destination_port));
    } else {
        let Some(header) = transport.first_chunk_mut::<{ udp::LENGTH }>() else { return };
        let delta = addresses.and(swap::<4>(header, 0, [a, b, c, d]));
        let sum = delta.apply_udp([header[udp::CHECKSUM], header[udp::CHECKSUM + 1]]);
        header[udp::CHECKSUM..udp::LENGTH].copy_from_slice(&sum);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forward::{nat, ttl};
    use crate::ident::NetPort;
    use crate::wire::{self, Headers, checksum};

    /// A plain frame of these addresses and ports; transport checksums need not be right to be updated rightly.
    fn frame(addresses: &[u8], protocol: u8, hops: u8, transport: &[u8; 20]) -> Vec<u8> {
        let mut transport = *transport;
        transport[tcp::DATA_OFFSET] = 0x50;
        if protocol == number::UDP {
            transport[udp::DATA_LENGTH..udp::CHECKSUM].copy_from_slice(&20u16.to_be_bytes());
        }
        let mut frame = vec![0; 12];
        if addresses.len() == 8 {
            frame.extend([8, 0, 0x45, 0, 0, 40, 1, 2, 0x40, 0, hops, protocol, 0, 0]);
            frame.extend(addresses);
            let sum = checksum::of(&frame[L3..]);
            frame[L3 + ipv4::CHECKSUM..L3 + ipv4::SOURCE].copy_from_slice(&sum);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, hops]);
            frame.extend(addresses);
        }
        frame.extend(transport);
        frame
    }

    fn parsed(frame: &[u8]) -> Headers {
        let headers = wire::parse(frame).unwrap();
        assert!(headers.is_plain());
        headers
    }

    proptest! {
        #[test]
        fn it_is_what_the_general_way_gives(
            is_tcp in any::<bool>(),
            hops in 3u8..,
            transport in any::<[u8; 20]>(),
            link in any::<[u8; LINK]>(),
            old in any::<[u8; 32]>(),
            new in any::<[[u8; 16]; 2]>(),
            ports in any::<[u16; 2]>(),
        ) {
            let protocol = if is_tcp { number::TCP } else { number::UDP };
            let [source_port, destination_port] = ports.map(NetPort::new);
            let general = |frame: &mut [u8], headers: &Headers| {
                ttl::decrement(frame, headers).unwrap();
                frame[..LINK].copy_from_slice(&link);
            };

            let mut ours = frame(&old, protocol, hops, &transport);
            let (mut theirs, headers) = (ours.clone(), parsed(&ours));
            let [source, destination] = new.map(Ipv6Addr::from);
            let to = Rewrite { source, source_port, destination, destination_port };
            translate_v6(&mut ours, protocol, &link, &to);
            nat::rewrite_v6(&mut theirs, &headers, &to);
            general(&mut theirs, &headers);
            prop_assert_eq!(&ours, &theirs);
            route_v6(&mut ours, &link);
            let headers = parsed(&theirs);
            general(&mut theirs, &headers);
            prop_assert_eq!(&ours, &theirs);

            let mut ours = frame(&old[..8], protocol, hops, &transport);
            let (mut theirs, headers) = (ours.clone(), parsed(&ours));
            let [source, destination] = new.map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3]));
            let to = Rewrite { source, source_port, destination, destination_port };
            translate_v4(&mut ours, protocol, &link, &to);
            nat::rewrite_v4(&mut theirs, &headers, &to);
            general(&mut theirs, &headers);
            prop_assert_eq!(&ours, &theirs);
            route_v4(&mut ours, &link);
            let headers = parsed(&theirs);
            general(&mut theirs, &headers);
            prop_assert_eq!(&ours, &theirs);
        }
    }
}
