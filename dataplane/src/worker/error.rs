//! ICMP errors of others about packets of our flows: translated and passed to the side that sent those packets.

use super::egress::{self, Learnt};
use super::path::{self, Path};
use super::{Context, Hands, Packet, carry, mixed, tunnel_error};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Family, Find, FlowEntry, FlowKey, V4, V6, flag};
use crate::forward::icmp_translate::{self, Embedded};
use crate::forward::sequence::Translation;
use crate::forward::ttl;
use crate::ident::Protocol;
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::service::{Destination, DestinationSlot};
use crate::wire::IpVersion;

/// A packet that is neither TCP nor UDP: an ICMP error that a flow is behind, or nothing of ours.
#[inline(never)]
pub(super) fn relate<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>) {
    let frame = hands.ports.bytes(&packet.frame);
    if !packet.headers.is_icmp_error(frame) {
        return hands.discard(context, packet.frame, Drop::UnhandledProtocol);
    }
    let embedded = match icmp_translate::embedded(frame, packet.headers) {
        Ok(embedded) => embedded,
        // Neither TCP nor UDP: an outer packet, or nothing of ours.
        Err(Drop::IcmpUnrelated) => return tunnel_error::relate(context, hands, packet),
        Err(reason) => return hands.discard(context, packet.frame, reason),
    };
    match packet.headers.version {
        IpVersion::V4 => about::<V4, P>(context, hands, packet, &embedded),
        IpVersion::V6 => about::<V6, P>(context, hands, packet, &embedded),
    }
}

/// Finds the flow of the packet that the error is about. That packet ran away from us: its key reversed is the one
/// that its answers come by.
fn about<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>, embedded: &Embedded) {
    let Some(key) = key::<F>(embedded) else {
        return hands.discard(context, packet.frame, Drop::UnhandledProtocol);
    };
    let table = F::table(context.shared);
    match table.lookup(&path::reversed(&key)) {
        Find::Hit { flow, direction } => {
            translate::<F, P>(context, hands, packet, embedded, table.entry(flow), direction);
        }
        // An IPv4 packet of a flow between the families.
        Find::Miss if F::NUMBER == V4::NUMBER && mixed::are_there(context) => {
            about::<V6, P>(context, hands, packet, embedded);
        }
        // GUE is UDP, too.
        Find::Miss => tunnel_error::relate(context, hands, packet),
        Find::Unsettled => hands.discard(context, packet.frame, Drop::InsertContended),
    }
}

fn key<F: Path>(embedded: &Embedded) -> Option<FlowKey<F::Addr>> {
    Some(FlowKey {
        source: F::address(embedded.source)?,
        destination: F::address(embedded.destination)?,
        source_port: embedded.source_port,
        destination_port: embedded.destination_port,
        protocol: Protocol::from_number(embedded.protocol)?,
    })
}

fn translate<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut packet: Packet<'_>,
    embedded: &Embedded,
    entry: &FlowEntry<F>,
    direction: Direction,
) {
    let slot = DestinationSlot(entry.destination());
    let Some(destination) = context.snapshot.services.destination(slot) else {
        return hands.discard(context, packet.frame, Drop::DestinationGone);
    };
    if let Some(record) = F::table(context.shared).extension(entry) {
        // It is about a packet that ran the other way.
        let by = Translation::of(record, direction.opposite());
        icmp_translate::restore_sequence(hands.ports.bytes_mut(&mut packet.frame), packet.headers, embedded, &by);
    }
    if entry.state().flags() & flag::MIXED != 0 {
        carry::count(context, destination, direction, &packet);
        return mixed::error(context, hands, packet, embedded, entry, (destination, direction));
    }
    match (direction, entry.reverse()) {
        (Direction::Forward, Some(back)) => {
            carry::count(context, destination, direction, &packet);
            to_server::<F, P>(context, hands, packet, embedded, &back, destination);
        }
        // The server has the VIP itself: the error goes the way of the flow, as it is.
        (Direction::Forward, None) => carry::follow(context, hands, packet, entry, direction),
        (Direction::Reverse, _) => {
            carry::count(context, destination, direction, &packet);
            to_client(context, hands, packet, embedded, entry);
        }
    }
}

/// About a reply to the client: the server sent it, the server is to know.
fn to_server<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut packet: Packet<'_>,
    embedded: &Embedded,
    back: &FlowKey<F::Addr>,
    destination: &Destination,
) {
    let inner = path::addressed(back);
    let frame = hands.ports.bytes_mut(&mut packet.frame);
    let (sender, _) = F::addresses(packet.headers, frame);
    // The server knows a client of FULLNAT by the local address.
    let speaker = if sender.into() == embedded.destination { back.destination } else { sender };
    F::translate(frame, packet.headers, embedded, (speaker, back.source), &inner);
    if ttl::decrement(frame, packet.headers).is_err() {
        return hands.discard(context, packet.frame, Drop::TtlExceeded);
    }
    context.counters.event(Event::IcmpTranslated).add(1);
    let hop = context.snapshot.hops.destination(destination.slot);
    egress::send(context, hands, packet, hop, || destination.at.address, None);
}

/// About a packet to the server: the client sent it, the client is to know. The server's own address does not show.
fn to_client<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut packet: Packet<'_>,
    embedded: &Embedded,
    entry: &FlowEntry<F>,
) {
    let there = entry.forward();
    let inner = path::addressed(&there);
    let frame = hands.ports.bytes_mut(&mut packet.frame);
    let (sender, _) = F::addresses(packet.headers, frame);
    let speaker = if sender.into() == embedded.destination { there.destination } else { sender };
    F::translate(frame, packet.headers, embedded, (speaker, there.source), &inner);
    if ttl::decrement(frame, packet.headers).is_err() {
        return hands.discard(context, packet.frame, Drop::TtlExceeded);
    }
    context.counters.event(Event::IcmpTranslated).add(1);
    let hop = carry::way_to_client(context, entry, there.source.into());
    let learnt = match hop {
        Hop::OnLink(_) => entry.client_mac().map(|(mac, port)| Learnt { mac, port }),
        _ => None,
    };
    egress::send(context, hands, packet, hop, || there.source.into(), learnt);
}
