//! A packet of a flow: the flow's state moves, the packet is rewritten by the flow's method and sent on.

#![allow(clippy::inline_always, reason = "one body for each family, its packets in registers: a third of the cost")]

use std::net::IpAddr;

use super::egress::{self, Learnt};
use super::pass::Keyed;
use super::path::{self, Path};
use super::sctp;
use super::tunnel;
use super::{Context, Hands, Packet, anew, clamp, extended, fragment, fullnat, mixed, reply, syn_proxy};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Find, FlowEntry, FlowKey, FlowRef, flag};
use crate::forward::icmp::ErrorKind;
use crate::forward::nat::Rewrite;
use crate::forward::{mtu, ttl};
use crate::ident::Protocol;
use crate::next_hop::{Hop, NextHops};
use crate::port::Ports;
use crate::service::{Destination, DestinationSlot, Method};
use crate::state::TcpState;
use crate::wire::{Fragment, TcpFlags};

/// How often a flow's state is moved on while other workers move it too.
const TRANSITIONS: u32 = 16;

/// A packet that was found to belong to a flow by its key. Given back when the flow is over: it belongs to none then.
#[inline(always)]
#[must_use]
pub(super) fn packet<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut keyed: Keyed<'h, F>,
    flow: FlowRef,
    direction: Direction,
) -> Option<Keyed<'h, F>> {
    let entry = F::table(context.shared).entry(flow);
    if entry.state().flags() & flag::EXTENDED != 0 && !entry.deadline().reached(context.now) {
        match syn_proxy::intercept(context, hands, keyed, flow, direction) {
            syn_proxy::Outcome::Usual(usual) => keyed = usual,
            syn_proxy::Outcome::Done => return None,
            syn_proxy::Outcome::Flowless(flowless) => return Some(flowless),
        }
    }
    if entry.deadline().reached(context.now) || anew::begins(context, entry, &keyed, direction) {
        end(context, hands, flow, entry);
        return Some(keyed);
    }
    let Some(destination) = context.snapshot.services.destination(DestinationSlot(entry.destination())) else {
        anew::without_server(context, hands, keyed, flow, entry);
        return None;
    };
    let is_live = match keyed.key.protocol {
        Protocol::Sctp => sctp::advance(context, hands, (flow, entry), destination, direction, &keyed),
        Protocol::Tcp | Protocol::Udp => advance(context, entry, destination, direction, &keyed),
    };
    if !is_live {
        return Some(keyed);
    }
    if let Err(reason) = remember(context, hands, &keyed, flow, direction) {
        hands.discard(context, keyed.packet.frame, reason);
        return None;
    }
    deliver(context, hands, keyed.packet, entry, destination, direction);
    None
}

/// As [`packet`], for callers off the usual way.
#[inline(never)]
#[must_use]
pub(super) fn packet_after_all<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    flow: FlowRef,
    direction: Direction,
) -> Option<Keyed<'h, F>> {
    packet(context, hands, keyed, flow, direction)
}

/// A packet that was looked up before others of its burst were handled, one of which may just have opened its flow: it goes
/// the flow's way, or `otherwise` where there is still none.
#[inline]
#[must_use]
pub(super) fn if_opened<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    otherwise: impl FnOnce(&mut Hands<P>, Keyed<'h, F>) -> Option<Keyed<'h, F>>,
) -> Option<Keyed<'h, F>> {
    match F::table(context.shared).lookup(keyed.key) {
        Find::Hit { flow, direction } => packet_after_all(context, hands, keyed, flow, direction),
        Find::Miss => otherwise(hands, keyed),
        Find::Unsettled => {
            hands.discard(context, keyed.packet.frame, Drop::InsertContended);
            None
        }
    }
}

/// The packet that its worker has just opened a flow for: the flow's state is already that after it.
#[inline(never)]
pub(super) fn first<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'_, F>,
    flow: FlowRef,
    destination: &Destination,
) {
    let entry = F::table(context.shared).entry(flow);
    match remember(context, hands, &keyed, flow, Direction::Forward) {
        Ok(()) => deliver(context, hands, keyed.packet, entry, destination, Direction::Forward),
        Err(reason) => hands.discard(context, keyed.packet.frame, reason),
    }
}

/// A packet that goes a flow's way and moves nothing in it: a later fragment, an ICMP error.
#[inline(never)]
pub(super) fn follow<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    entry: &FlowEntry<F>,
    direction: Direction,
) {
    match context.snapshot.services.destination(DestinationSlot(entry.destination())) {
        Some(destination) => deliver(context, hands, packet, entry, destination, direction),
        None => hands.discard(context, packet.frame, Drop::DestinationGone),
    }
}

/// Lets later fragments find the flow of a first one.
///
/// # Errors
/// The reason for which the first one is to be dropped.
#[inline(always)]
fn remember<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &Hands<P>,
    keyed: &Keyed<'_, F>,
    flow: FlowRef,
    direction: Direction,
) -> Result<(), Drop> {
    let Packet { frame, headers, .. } = &keyed.packet;
    match headers.fragment {
        Fragment::First { .. } => fragment::first(context, headers, hands.ports.bytes(frame), (flow, direction)),
        _ => Ok(()),
    }
}

/// A datagram that was scheduled alone: it goes by the server's method, and leaves no flow. `back` is how an answer of a
/// NAT server would be keyed.
#[inline(never)]
pub(super) fn once<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'_, F>,
    destination: &Destination,
    back: Option<&FlowKey<F::Addr>>,
) {
    let packet = keyed.packet;
    count(context, destination, Direction::Forward, &packet);
    let vip = || keyed.key.destination.into();
    match (back, destination.method) {
        (Some(back), _) => to_server_nat::<F, P>(context, hands, packet, back, destination, vip),
        (None, Method::Dr) => to_server_dr::<F, P>(context, hands, packet, destination, vip),
        (None, Method::Tun) => tunnel::to_server::<F, P>(context, hands, packet, || *keyed.key, destination, vip),
        (None, Method::Nat | Method::FullNat) => hands.discard(context, packet.frame, Drop::NoDestination),
    }
}

/// Rewrites a packet by its flow's method and sends it. A flow with a reverse key began under NAT and stays under it,
/// whatever its server's method is by now.
#[inline(always)]
fn deliver<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut packet: Packet<'_>,
    entry: &FlowEntry<F>,
    destination: &Destination,
    direction: Direction,
) {
    count(context, destination, direction, &packet);
    if packet.headers.tcp.contains(TcpFlags::SYN) {
        clamp::clamp(context, hands, &mut packet, entry, destination);
    }
    let flags = entry.state().flags();
    if flags & (flag::EXTENDED | flag::INFO_DUE | flag::MIXED) != 0 {
        if flags & flag::MIXED != 0 {
            return mixed::packet(context, hands, packet, entry, destination, direction);
        }
        return extended::packet(context, hands, packet, entry, destination, direction);
    }
    if direction == Direction::Reverse {
        return to_client(context, hands, packet, entry, &entry.forward());
    }
    let vip = || entry.forward().destination.into();
    match (entry.reverse(), destination.method) {
        (Some(back), _) => to_server_nat::<F, P>(context, hands, packet, &back, destination, vip),
        (None, Method::Dr) => to_server_dr::<F, P>(context, hands, packet, destination, vip),
        (None, Method::Tun) => tunnel::to_server::<F, P>(context, hands, packet, || entry.forward(), destination, vip),
        // The server of a one-way flow now wants NAT or FULLNAT, for which the flow has no key.
        (None, Method::Nat | Method::FullNat) => hands.discard(context, packet.frame, Drop::DestinationGone),
    }
}

/// Sends a packet of a flow that has no reverse key, in the family of the packet.
pub(super) fn one_way<F: Path, T: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    entry: &FlowEntry<T>,
    destination: &Destination,
    vip: impl Fn() -> IpAddr,
) {
    match destination.method {
        Method::Dr => to_server_dr::<F, P>(context, hands, packet, destination, vip),
        Method::Tun => tunnel::to_server::<T, P>(context, hands, packet, || entry.forward(), destination, vip),
        Method::Nat | Method::FullNat => hands.discard(context, packet.frame, Drop::DestinationGone),
    }
}

/// Ends a flow before its time, if nobody else just did.
#[cold]
#[inline(never)]
pub(super) fn end<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, flow: FlowRef, entry: &FlowEntry<F>) {
    let is_late = entry.deadline().reached(context.now);
    end_as(context, hands, flow, entry, if is_late { Event::FlowExpired } else { Event::FlowReused });
}

/// As [`end`], counted as `event`.
pub(super) fn end_as<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    flow: FlowRef,
    entry: &FlowEntry<F>,
    event: Event,
) {
    if !F::table(context.shared).end(F::part(hands), flow) {
        return;
    }
    // An ended flow's state moves no more.
    if let Some(counts) = context.snapshot.services.counts(DestinationSlot(entry.destination())) {
        counts.end(path::activity(entry));
    }
    fullnat::release(context, entry);
    context.counters.event(event).add(1);
}

/// Moves the flow's state, its destination's counts and its deadline. False when the flow is over.
#[inline(always)]
fn advance<F: Path>(
    context: Context<'_>,
    entry: &FlowEntry<F>,
    destination: &Destination,
    direction: Direction,
    keyed: &Keyed<'_, F>,
) -> bool {
    let timeouts = &context.snapshot.policy.timeouts;
    let (protocol, tcp) = (keyed.key.protocol, keyed.packet.headers.tcp);
    let view = path::view(entry, direction);
    for _ in 0..TRANSITIONS {
        let seen = entry.state();
        if !seen.is_live() {
            return false;
        }
        let (next, idle, is_embryonic) = match protocol {
            Protocol::Tcp => {
                let next = TcpState::from_u8(seen.state()).next(view, tcp);
                (next.to_u8(), timeouts.tcp(next), next.is_embryonic())
            }
            // Whoever opened the flow saw the first datagram: this is another, of either side.
            Protocol::Udp | Protocol::Sctp => (seen.state(), timeouts.udp(), false),
        };
        let flags = if is_embryonic { seen.flags() } else { seen.flags() & !flag::EMBRYONIC };
        entry.set_deadline(context.now.after(idle));
        if (next, flags) == (seen.state(), seen.flags()) {
            return true;
        }
        // Another worker may move the same flow: the one whose transition takes effect moves the counts.
        if entry.transition(seen, next, flags).is_ok() {
            let (from, to) = (path::state_activity(protocol, seen.state()), path::state_activity(protocol, next));
            destination.counts.shift(from, to);
            return true;
        }
    }
    // So many others have moved it that this packet makes no difference.
    true
}

#[inline(always)]
pub(super) fn count(context: Context<'_>, destination: &Destination, direction: Direction, packet: &Packet<'_>) {
    destination.counts.carried(context.worker, direction, packet.headers.ip_length());
}

#[inline(always)]
fn to_server_nat<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    back: &FlowKey<F::Addr>,
    destination: &Destination,
    vip: impl Fn() -> IpAddr,
) {
    let hop = context.snapshot.hops.destination(destination.slot);
    let to = path::addressed(&path::reversed(back));
    translate::<F, P>(context, hands, packet, hop, &to, (vip, || destination.at.address), || None);
}

#[inline(always)]
fn to_server_dr<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    destination: &Destination,
    vip: impl Fn() -> IpAddr,
) {
    let hop = context.snapshot.hops.destination(destination.slot);
    if *hop == Hop::Kernel {
        return egress::to_kernel(context, hands, packet);
    }
    let Some(packet) = fit(context, hands, packet, hop, 0, vip) else { return };
    egress::send(context, hands, packet, hop, || destination.at.address, None);
}

#[inline(always)]
fn to_client<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    entry: &FlowEntry<F>,
    there: &FlowKey<F::Addr>,
) {
    let hop = way_to_client(context, entry, there.source.into());
    let to = path::addressed(&path::reversed(there));
    let learnt = || entry.client_mac().map(|(mac, port)| Learnt { mac, port });
    let (vip, client) = (|| fullnat::speaker(entry, there), || there.source.into());
    translate::<F, P>(context, hands, packet, hop, &to, (vip, client), learnt);
}

/// Gives a packet new addresses and ports and sends it by `hop`: to `towards`, with `speaker` for what has to be said
/// to its sender, and the Ethernet address that was learnt of an on-link client.
#[inline(always)]
fn translate<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    hop: &Hop,
    to: &Rewrite<F::Addr>,
    (speaker, towards): (impl Fn() -> IpAddr, impl FnOnce() -> IpAddr),
    learnt: impl FnOnce() -> Option<Learnt>,
) {
    let Some(mut packet) = fit(context, hands, packet, hop, 0, speaker) else { return };
    F::rewrite(hands.ports.bytes_mut(&mut packet.frame), packet.headers, to);
    let learnt = if matches!(hop, Hop::OnLink(_)) { learnt() } else { None };
    egress::send(context, hands, packet, hop, towards, learnt);
}

/// The way back to a flow's client: looked up when the first packet goes there, and remembered by the flow while the
/// routes stay the same.
#[inline(always)]
pub(super) fn way_to_client<'s, F: Path>(context: Context<'s>, entry: &FlowEntry<F>, client: IpAddr) -> &'s Hop {
    let hops = &context.snapshot.hops;
    if let Some(index) = hops.recall(entry.return_hop()) {
        return hops.hop(index);
    }
    let index = hops.lookup(client);
    if entry.return_hop() != NextHops::NOT_LOOKED_UP {
        context.counters.event(Event::RouteRefreshed).add(1);
    }
    entry.set_return_hop(hops.remembered(index));
    hops.hop(index)
}

/// Takes one off TTL or hop limit and checks the length against the way out; what does not pass is answered by ICMP
/// from `speaker` and dropped. Packets to the kernel keep their TTL: the kernel is the end of their way, or takes one
/// off itself.
#[inline(always)]
pub(super) fn fit<'h, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut packet: Packet<'h>,
    hop: &Hop,
    overhead: usize,
    speaker: impl Fn() -> IpAddr,
) -> Option<Packet<'h>> {
    let Some(limit) = hop.mtu() else { return Some(packet) };
    if packet.headers.ttl <= 1 {
        reply::icmp(context, hands, &packet, ErrorKind::TimeExceeded, speaker());
        hands.discard(context, packet.frame, Drop::TtlExceeded);
        return None;
    }
    if let Some(mtu) = mtu::exceeded(packet.headers, limit, overhead) {
        reply::icmp(context, hands, &packet, ErrorKind::TooBig { mtu }, speaker());
        hands.discard(context, packet.frame, Drop::TooBig);
        return None;
    }
    if ttl::decrement(hands.ports.bytes_mut(&mut packet.frame), packet.headers).is_err() {
        hands.discard(context, packet.frame, Drop::TtlExceeded);
        return None;
    }
    Some(packet)
}
