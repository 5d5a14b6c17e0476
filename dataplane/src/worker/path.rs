//! What differs between the paths of IPv4 and IPv6 packets: addresses, keys, tables and rewriting.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Hands, Shared};
use crate::flow::{Direction, Family, FlowEntry, FlowKey, FlowTable, FlowWorker, V4, V6, transport};
use crate::forward::icmp_translate::{self, Embedded};
use crate::forward::nat::{self, Rewrite};
use crate::forward::plain;
use crate::forward::segment;
use crate::forward::tun::Outer;
use crate::ident::{NetPort, Protocol};
use crate::state::{Activity, SctpState, TcpState, View};
use crate::syn_proxy::cookie::Client;
use crate::wire::checksum::Delta;
use crate::wire::plain::{L3, L4_V4, L4_V6, Transport};
use crate::wire::{Headers, ipv4, ipv6};

/// The path of one family.
pub(super) trait Path: Family {
    /// Whether this is IPv6.
    const IS_V6: bool;
    /// The table of this family.
    fn table(shared: &Shared) -> &FlowTable<Self>;
    /// The worker's part in it.
    fn part<P>(hands: &mut Hands<P>) -> &mut FlowWorker<Self>;
    /// The addresses of a packet of this family: source, destination.
    fn addresses(headers: &Headers, frame: &[u8]) -> (Self::Addr, Self::Addr);
    /// The address in keys of this family: those of IPv6 also hold IPv4 addresses, mapped (RFC 4291 section 2.5.5.2).
    fn address(of: IpAddr) -> Option<Self::Addr>;
    /// What one sender may have addresses in: an IPv4 address, the /64 of an IPv6 address.
    fn network(of: Self::Addr) -> u64;
    /// The address of a key: of IPv4 where it is a mapped one.
    fn ip(of: Self::Addr) -> IpAddr;
    /// Translates an ICMP error: see [`icmp_translate`].
    fn translate(
        frame: &mut [u8],
        headers: &Headers,
        embedded: &Embedded,
        outer: (Self::Addr, Self::Addr),
        inner: &Rewrite<Self::Addr>,
    );
    /// Gives a plain packet the addresses and ports of a packed key and sends it on its way: see [`plain`]. `moved` is
    /// what else was changed below the transport's checksum.
    fn translate_plain(frame: &mut [u8], of: Transport, link: &[u8; plain::LINK], to: &Self::Words, moved: Delta);
    /// The same for a packet that has a flow's key of this direction, with the other key's.
    fn exchange_plain(
        frame: &mut [u8],
        of: Transport,
        link: &[u8; plain::LINK],
        flow: (&FlowEntry<Self>, Direction),
        to: &Self::Words,
        moved: Delta,
    );
    /// The source of a packed key.
    fn client(words: &Self::Words) -> Client;
    /// Writes a segment over a plain packet, with the addresses and ports of a packed key: see [`segment`].
    fn answer_plain(
        frame: &mut [u8],
        link: &[u8; plain::LINK],
        to: &Self::Words,
        segment: &segment::Plain,
    ) -> Option<usize>;
    /// Sends a plain packet on its way as it is.
    fn route_plain(frame: &mut [u8], link: &[u8; plain::LINK]);
    /// Sends a plain packet on in an outer one, for which there is room in front.
    fn encapsulate_plain(frame: &mut [u8], link: &[u8; plain::LINK], outer: &Outer, id: u16);
    /// Offset of the addresses in an IP header.
    const ADDRESSES: usize;
    /// Offset of the transport header in a plain packet.
    const L4: usize;
    /// The packed key of a plain packet of this family, whose transport has this number.
    fn read_plain(frame: &[u8], protocol: u8) -> Option<Self::Words>;
    /// Rewrites addresses and ports.
    fn rewrite(frame: &mut [u8], headers: &Headers, to: &Rewrite<Self::Addr>);
}

impl Path for V4 {
    const IS_V6: bool = false;
    const ADDRESSES: usize = ipv4::SOURCE;
    const L4: usize = L4_V4;

    #[inline]
    fn table(shared: &Shared) -> &FlowTable<Self> {
        &shared.flows4
    }

    #[inline]
    fn part<P>(hands: &mut Hands<P>) -> &mut FlowWorker<Self> {
        &mut hands.flows4
    }

    #[inline]
    fn addresses(headers: &Headers, frame: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
        headers.addresses_v4(frame)
    }

    fn address(of: IpAddr) -> Option<Ipv4Addr> {
        match of {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        }
    }

    fn network(of: Ipv4Addr) -> u64 {
        u64::from(of.to_bits())
    }

    #[inline]
    fn ip(of: Ipv4Addr) -> IpAddr {
        of.into()
    }

    #[inline(always)]
    fn read_plain(frame: &[u8], protocol: u8) -> Option<[u64; 2]> {
        let head: &[u8; L4_V4 + 4] = frame.first_chunk()?;
        Self::read(head, L3 + ipv4::SOURCE, transport_of(head.last_chunk(), protocol))
    }

    #[inline(always)]
    fn translate_plain(frame: &mut [u8], of: Transport, link: &[u8; plain::LINK], to: &Self::Words, moved: Delta) {
        plain::translate_v4(frame, of, link, to, moved);
    }

    #[inline(always)]
    fn exchange_plain(
        frame: &mut [u8],
        of: Transport,
        link: &[u8; plain::LINK],
        _: (&FlowEntry<Self>, Direction),
        to: &Self::Words,
        moved: Delta,
    ) {
        plain::translate_v4(frame, of, link, to, moved);
    }

    #[inline]
    fn client(&[addresses, ports]: &[u64; 2]) -> Client {
        Client::V4(addresses as u32, NetPort::from_raw(ports as u16))
    }

    #[inline(always)]
    fn answer_plain(
        frame: &mut [u8],
        link: &[u8; plain::LINK],
        to: &[u64; 2],
        segment: &segment::Plain,
    ) -> Option<usize> {
        segment::over_v4(frame, link, to, segment)
    }

    #[inline(always)]
    fn route_plain(frame: &mut [u8], link: &[u8; plain::LINK]) {
        plain::route_v4(frame, link);
    }

    #[inline(always)]
    fn encapsulate_plain(frame: &mut [u8], link: &[u8; plain::LINK], outer: &Outer, id: u16) {
        plain::encapsulate_v4(frame, link, outer, id);
    }

    #[inline]
    fn rewrite(frame: &mut [u8], headers: &Headers, to: &Rewrite<Ipv4Addr>) {
        nat::rewrite_v4(frame, headers, to);
    }

    fn translate(
        frame: &mut [u8],
        headers: &Headers,
        embedded: &Embedded,
        outer: (Ipv4Addr, Ipv4Addr),
        inner: &Rewrite<Ipv4Addr>,
    ) {
        icmp_translate::translate_v4(frame, headers, embedded, outer, inner);
    }
}

impl Path for V6 {
    const IS_V6: bool = true;
    const ADDRESSES: usize = ipv6::SOURCE;
    const L4: usize = L4_V6;

    #[inline]
    fn table(shared: &Shared) -> &FlowTable<Self> {
        &shared.flows6
    }

    #[inline]
    fn part<P>(hands: &mut Hands<P>) -> &mut FlowWorker<Self> {
        &mut hands.flows6
    }

    #[inline]
    fn addresses(headers: &Headers, frame: &[u8]) -> (Ipv6Addr, Ipv6Addr) {
        headers.addresses_v6(frame)
    }

    fn address(of: IpAddr) -> Option<Ipv6Addr> {
        match of {
            IpAddr::V4(address) => Some(address.to_ipv6_mapped()),
            IpAddr::V6(address) => Some(address),
        }
    }

    fn network(of: Ipv6Addr) -> u64 {
        (of.to_bits() >> 64) as u64
    }

    #[inline]
    fn ip(of: Ipv6Addr) -> IpAddr {
        IpAddr::V6(of).to_canonical()
    }

    #[inline(always)]
    fn read_plain(frame: &[u8], protocol: u8) -> Option<[u64; 5]> {
        let head: &[u8; L4_V6 + 4] = frame.first_chunk()?;
        Self::read(head, L3 + ipv6::SOURCE, transport_of(head.last_chunk(), protocol))
    }

    #[inline(always)]
    fn translate_plain(frame: &mut [u8], of: Transport, link: &[u8; plain::LINK], to: &Self::Words, moved: Delta) {
        plain::translate_v6(frame, of, link, to, moved);
    }

    #[inline(always)]
    fn exchange_plain(
        frame: &mut [u8],
        of: Transport,
        link: &[u8; plain::LINK],
        (entry, direction): (&FlowEntry<Self>, Direction),
        to: &Self::Words,
        moved: Delta,
    ) {
        plain::exchange_v6(frame, of, link, to, moved.and(entry.difference(direction)));
    }

    #[inline]
    fn client(&[a, b, _, _, ports]: &[u64; 5]) -> Client {
        Client::V6([a, b], NetPort::from_raw(ports as u16))
    }

    #[inline(always)]
    fn answer_plain(
        frame: &mut [u8],
        link: &[u8; plain::LINK],
        to: &[u64; 5],
        segment: &segment::Plain,
    ) -> Option<usize> {
        segment::over_v6(frame, link, to, segment)
    }

    #[inline(always)]
    fn route_plain(frame: &mut [u8], link: &[u8; plain::LINK]) {
        plain::route_v6(frame, link);
    }

    #[inline(always)]
    fn encapsulate_plain(frame: &mut [u8], link: &[u8; plain::LINK], outer: &Outer, id: u16) {
        plain::encapsulate_v6(frame, link, outer, id);
    }

    #[inline]
    fn rewrite(frame: &mut [u8], headers: &Headers, to: &Rewrite<Ipv6Addr>) {
        nat::rewrite_v6(frame, headers, to);
    }

    fn translate(
        frame: &mut [u8],
        headers: &Headers,
        embedded: &Embedded,
        outer: (Ipv6Addr, Ipv6Addr),
        inner: &Rewrite<Ipv6Addr>,
    ) {
        icmp_translate::translate_v6(frame, headers, embedded, outer, inner);
    }
}

/// The word of a packed key for the ports of a transport header.
#[inline]
fn transport_of(ports: Option<&[u8; 4]>, protocol: u8) -> u64 {
    let [a, b, c, d] = ports.copied().unwrap_or_default();
    transport(NetPort::from_wire([a, b]), NetPort::from_wire([c, d]), protocol)
}

/// The packed key of a packet that has ports.
#[inline]
pub(super) fn words<F: Path>(headers: &Headers, frame: &[u8]) -> Option<F::Words> {
    let transport = transport(headers.source_port, headers.destination_port, headers.protocol);
    F::read(frame, headers.l3 as usize + F::ADDRESSES, transport)
}

/// The key of a packet that runs the other way.
pub(super) const fn reversed<A: Copy>(key: &FlowKey<A>) -> FlowKey<A> {
    FlowKey {
        source: key.destination,
        destination: key.source,
        source_port: key.destination_port,
        destination_port: key.source_port,
        protocol: key.protocol,
    }
}

/// The addresses and ports of packets with this key.
pub(super) const fn addressed<A: Copy>(key: &FlowKey<A>) -> Rewrite<A> {
    Rewrite {
        source: key.source,
        source_port: key.source_port,
        destination: key.destination,
        destination_port: key.destination_port,
    }
}

/// Which side a flow's packet shows to its state table.
#[inline]
pub(super) fn view<F: Family>(entry: &FlowEntry<F>, direction: Direction) -> View {
    match direction {
        Direction::Reverse => View::Output,
        Direction::Forward if entry.is_two_way() => View::Input,
        Direction::Forward => View::InputOnly,
    }
}

/// The count that a flow in `state` stands in.
pub(super) fn state_activity(protocol: Protocol, state: u8) -> Activity {
    match protocol {
        Protocol::Tcp => TcpState::from_u8(state).activity(),
        Protocol::Udp => Activity::Inactive,
        Protocol::Sctp => SctpState::from_u8(state).activity(),
    }
}

/// The count that an entry's flow stands in.
pub(super) fn activity<F: Family>(entry: &FlowEntry<F>) -> Activity {
    state_activity(entry.forward().protocol, entry.state().state())
}
