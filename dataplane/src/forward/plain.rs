//! The usual packet, edited at one go: no VLAN tag, no IP option, no fragment, TCP or UDP.
//!
//! Everything is at a fixed place then, so one bounds check serves all of it; any other packet takes the general way
//! by [`super::nat`] and [`super::ttl`], with the same result. Checksums follow by their difference (RFC 1624).

#![allow(clippy::inline_always, reason = "part of the way of every packet: see worker::carry")]

use super::tun::{Inside, Outer};
use crate::wire::checksum::Delta;
use crate::wire::plain::{L3, L4_V4, L4_V6, Transport};
use crate::wire::{ethernet, ipv4, ipv6, tcp, udp};

/// Length of an Ethernet header's addresses.
pub const LINK: usize = ethernet::TYPE;
/// Bytes of the ports that a transport header begins with.
const PORTS: usize = 4;
/// Bytes of a transport header up to the end of its checksum.
const TCP_HEAD: usize = tcp::CHECKSUM + 2;
const UDP_HEAD: usize = udp::CHECKSUM + 2;

/// Gives an IPv4 packet new Ethernet addresses, the addresses and ports of a packed key, and a TTL one less. `moved` is
/// what else was changed below the transport's checksum.
#[inline(always)]
pub fn translate_v4(
    frame: &mut [u8],
    transport: Transport,
    link: &[u8; LINK],
    &[addresses, ports]: &[u64; 2],
    moved: Delta,
) {
    match transport {
        Transport::Tcp => {
            let Some(head) = frame.first_chunk_mut::<{ L4_V4 + TCP_HEAD }>() else { return };
            let delta =
                moved.and(address_v4(head, link, addresses)).and(replace(head, L4_V4, (ports as u32).to_le_bytes()));
            update(head, L4_V4 + tcp::CHECKSUM, |sum| delta.apply(sum));
        }
        Transport::Udp => {
            let Some(head) = frame.first_chunk_mut::<{ L4_V4 + UDP_HEAD }>() else { return };
            let delta =
                moved.and(address_v4(head, link, addresses)).and(replace(head, L4_V4, (ports as u32).to_le_bytes()));
            update(head, L4_V4 + udp::CHECKSUM, |sum| delta.apply_udp(sum));
        }
    }
}

/// As [`translate_v4`], for an IPv6 packet.
#[inline(always)]
pub fn translate_v6(frame: &mut [u8], transport: Transport, link: &[u8; LINK], to: &[u64; 5], moved: Delta) {
    let Some(head) = frame.first_chunk::<{ L4_V6 + PORTS }>() else { return };
    let mut changed = moved.and(replaced(head, L4_V6, (to[4] as u32).to_le_bytes()));
    for (place, word) in to[..4].iter().enumerate() {
        changed = changed.and(replaced(head, L3 + ipv6::SOURCE + 8 * place, word.to_le_bytes()));
    }
    exchange_v6(frame, transport, link, to, changed);
}

/// As [`translate_v6`], where it is known what changes below the transport's checksum.
#[inline(always)]
pub fn exchange_v6(frame: &mut [u8], transport: Transport, link: &[u8; LINK], to: &[u64; 5], changed: Delta) {
    match transport {
        Transport::Tcp => {
            let Some(head) = frame.first_chunk_mut::<{ L4_V6 + TCP_HEAD }>() else { return };
            address_v6(head, link, to);
            update(head, L4_V6 + tcp::CHECKSUM, |sum| changed.apply(sum));
        }
        Transport::Udp => {
            let Some(head) = frame.first_chunk_mut::<{ L4_V6 + UDP_HEAD }>() else { return };
            address_v6(head, link, to);
            update(head, L4_V6 + udp::CHECKSUM, |sum| changed.apply_udp(sum));
        }
    }
}

/// New Ethernet addresses and a TTL one less, for an IPv4 packet.
#[inline(always)]
pub fn route_v4(frame: &mut [u8], link: &[u8; LINK]) {
    if let Some(head) = frame.first_chunk_mut::<L4_V4>() {
        head[..LINK].copy_from_slice(link);
        if let Some(ip) = head.last_chunk_mut() {
            age_v4(ip);
        }
    }
}

/// As [`route_v4`], for an IPv6 packet.
#[inline(always)]
pub fn route_v6(frame: &mut [u8], link: &[u8; LINK]) {
    if let Some(head) = frame.first_chunk_mut::<L4_V6>() {
        route_header_v6(head, link);
    }
}

/// Sends an IPv4 packet on in an outer one: `frame` begins with room for the Ethernet header and the outer one.
#[inline(always)]
pub fn encapsulate_v4(frame: &mut [u8], link: &[u8; LINK], outer: &Outer, id: u16) {
    let Some((head, inner)) = frame.split_at_mut_checked(L3 + outer.length()) else { return };
    let length = inner.len();
    let Some(ip) = inner.first_chunk_mut() else { return };
    age_v4(ip);
    wrap(head, link, outer, (Inside::of_v4(ip), length), id);
}

/// As [`encapsulate_v4`], for an IPv6 packet.
#[inline(always)]
pub fn encapsulate_v6(frame: &mut [u8], link: &[u8; LINK], outer: &Outer, id: u16) {
    let Some((head, inner)) = frame.split_at_mut_checked(L3 + outer.length()) else { return };
    let length = inner.len();
    let Some(ip) = inner.first_chunk_mut::<{ ipv6::LENGTH }>() else { return };
    ip[ipv6::HOP_LIMIT] = ip[ipv6::HOP_LIMIT].wrapping_sub(1);
    wrap(head, link, outer, (Inside::of_v6(ip), length), id);
}

/// Writes the headers in front of a packet of so many bytes.
#[inline(always)]
fn wrap(head: &mut [u8], link: &[u8; LINK], outer: &Outer, (inside, length): (Inside, usize), id: u16) {
    let Some((ethernet, out)) = head.split_first_chunk_mut::<L3>() else { return };
    ethernet[..LINK].copy_from_slice(link);
    ethernet[LINK..].copy_from_slice(&outer.version().ether_type());
    outer.write(out, inside, length, id);
}

/// A TTL one less, and the checksum that goes with it: 0x0100 more, the carry brought round. 0xffff becomes 0, which
/// it equals, as everywhere.
#[inline(always)]
fn age_v4(ip: &mut [u8; ipv4::LENGTH]) {
    ip[ipv4::TTL] = ip[ipv4::TTL].wrapping_sub(1);
    let sum = u32::from(u16::from_be_bytes([ip[ipv4::CHECKSUM], ip[ipv4::CHECKSUM + 1]])) + 0x100;
    let sum = sum + u32::from(sum >= 0xffff);
    ip[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&(sum as u16).to_be_bytes());
}

#[inline(always)]
fn address_v4<const N: usize>(head: &mut [u8; N], link: &[u8; LINK], addresses: u64) -> Delta {
    let delta = replace(head, L3 + ipv4::SOURCE, addresses.to_le_bytes());
    route_header_v4(head, link, delta);
    delta
}

#[inline(always)]
fn address_v6<const N: usize>(head: &mut [u8; N], link: &[u8; LINK], to: &[u64; 5]) {
    route_header_v6(head, link);
    for (place, word) in to[..4].iter().enumerate() {
        replace(head, L3 + ipv6::SOURCE + 8 * place, word.to_le_bytes());
    }
    replace(head, L4_V6, (to[4] as u32).to_le_bytes());
}

#[inline(always)]
fn route_header_v4<const N: usize>(head: &mut [u8; N], link: &[u8; LINK], addresses: Delta) {
    head[..LINK].copy_from_slice(link);
    head[L3 + ipv4::TTL] = head[L3 + ipv4::TTL].wrapping_sub(1);
    // The word of TTL and protocol is 0x0100 less, whatever it was.
    let delta = addresses.and(Delta::default().replace([1, 0], [0, 0]));
    update(head, L3 + ipv4::CHECKSUM, |sum| delta.apply(sum));
}

#[inline]
fn route_header_v6<const N: usize>(head: &mut [u8; N], link: &[u8; LINK]) {
    head[..LINK].copy_from_slice(link);
    head[L3 + ipv6::HOP_LIMIT] = head[L3 + ipv6::HOP_LIMIT].wrapping_sub(1);
}

/// Puts bytes at an offset, where they lie inside; gives the difference for a checksum over them.
#[inline]
fn replace<const N: usize, const M: usize>(head: &mut [u8; N], at: usize, new: [u8; M]) -> Delta {
    let delta = replaced(head, at, new);
    if let Some(place) = head.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = new;
    }
    delta
}

/// The difference for a checksum over bytes at an offset, which lies inside, if others come in their place.
#[inline]
fn replaced<const N: usize, const M: usize>(head: &[u8; N], at: usize, new: [u8; M]) -> Delta {
    let Some(old) = head.get(at..).and_then(<[u8]>::first_chunk::<M>) else { return Delta::default() };
    Delta::default().replace(*old, new)
}

/// Changes the checksum field at an offset, which lies inside.
#[inline]
fn update<const N: usize>(head: &mut [u8; N], at: usize, change: impl FnOnce([u8; 2]) -> [u8; 2]) {
    if let Some(field) = head.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *field = change(*field);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::flow::{Family, FlowKey, V4, V6};
    use crate::forward::nat::{self, Rewrite};
    use crate::forward::ttl;
    use crate::ident::{NetPort, Protocol};
    use crate::wire::{self, Headers, checksum, number};

    fn key<A>(to: &Rewrite<A>) -> FlowKey<A>
    where
        A: Copy,
    {
        FlowKey {
            source: to.source,
            destination: to.destination,
            source_port: to.source_port,
            destination_port: to.destination_port,
            protocol: Protocol::Tcp,
        }
    }

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
        assert!(wire::Plain::of(frame).is_some());
        wire::parse(frame).unwrap()
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
            let (protocol, of) =
                if is_tcp { (number::TCP, Transport::Tcp) } else { (number::UDP, Transport::Udp) };
            let [source_port, destination_port] = ports.map(NetPort::new);
            let general = |frame: &mut [u8], headers: &Headers| {
                ttl::decrement(frame, headers).unwrap();
                frame[..LINK].copy_from_slice(&link);
            };

            let mut ours = frame(&old, protocol, hops, &transport);
            let (mut theirs, headers) = (ours.clone(), parsed(&ours));
            let [source, destination] = new.map(Ipv6Addr::from);
            let to = Rewrite { source, source_port, destination, destination_port };
            translate_v6(&mut ours, of, &link, &V6::pack(&key(&to)), Delta::default());
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
            translate_v4(&mut ours, of, &link, &V4::pack(&key(&to)), Delta::default());
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
