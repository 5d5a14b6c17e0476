//! Packets of flows with an extension record: their numbers are moved before they go the way of all others.

use std::net::IpAddr;

use super::egress::{self, Learnt};
use super::path::{self, Path};
use super::{Context, Hands, Packet, carry};
use crate::counters::Drop;
use crate::flow::{Direction, Extension, FlowEntry, Shift};
use crate::forward::nat::Rewrite;
use crate::forward::sequence::{self, Translation};
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::service::Destination;
use crate::wire::{Fragment, Headers, number, tcp};

/// How far behind the place where a shift changes a sender is when nothing before it can be under way any more: the
/// largest window (RFC 7323 section 2.3).
const SETTLED: u32 = 1 << 30;

/// Where a packet goes and what it gets.
struct Way<'s, F: Path> {
    hop: &'s Hop,
    to: Rewrite<F::Addr>,
    /// Who says what has to be said to the sender.
    speaker: IpAddr,
    towards: IpAddr,
    learnt: Option<Learnt>,
}

/// Moves a packet's numbers, rewrites it by its flow's method and sends it.
#[cold]
#[inline(never)]
pub(super) fn packet<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    entry: &FlowEntry<F>,
    destination: &Destination,
    direction: Direction,
) {
    let Some(record) = F::table(context.shared).extension(entry) else {
        return hands.discard(context, packet.frame, Drop::DestinationGone);
    };
    let Some(way) = way(context, entry, destination, direction) else {
        return hands.discard(context, packet.frame, Drop::DestinationGone);
    };
    // Before anything else, so that an ICMP error shows the packet as its sender made it.
    let Some(mut packet) = carry::fit(context, hands, packet, way.hop, 0, || way.speaker) else { return };
    let frame = hands.ports.bytes_mut(&mut packet.frame);
    shift(record, frame, packet.headers, direction);
    F::rewrite(frame, packet.headers, &way.to);
    egress::send(context, hands, packet, way.hop, || way.towards, way.learnt);
}

/// Moves a packet's numbers.
pub(super) fn shift(record: &Extension, frame: &mut [u8], headers: &Headers, direction: Direction) {
    let translation = Translation::of(record, direction);
    settle(record, frame, headers, direction, &translation.sender);
    sequence::translate(frame, headers, &translation);
}

/// The way of a direction. `None` for a flow of one direction, which shifts nothing.
fn way<'s, F: Path>(
    context: Context<'s>,
    entry: &FlowEntry<F>,
    destination: &Destination,
    direction: Direction,
) -> Option<Way<'s, F>> {
    let there = entry.forward();
    if direction == Direction::Forward {
        return Some(Way {
            hop: context.snapshot.hops.destination(destination.slot),
            to: path::addressed(&path::reversed(&entry.reverse()?)),
            speaker: there.destination.into(),
            towards: destination.at.address,
            learnt: None,
        });
    }
    let hop = carry::way_to_client(context, entry, there.source.into());
    let learnt = match hop {
        Hop::OnLink(_) => entry.client_mac().map(|(mac, port)| Learnt { mac, port }),
        _ => None,
    };
    Some(Way {
        hop,
        to: path::addressed(&path::reversed(&there)),
        speaker: there.destination.into(),
        towards: there.source.into(),
        learnt,
    })
}

/// Makes a shift the same everywhere once its sender has left the place of its change far behind: 2^31 numbers on,
/// the place would seem to lie ahead.
fn settle(record: &Extension, frame: &[u8], headers: &Headers, direction: Direction, shift: &Shift) {
    if shift.before == shift.after || headers.protocol != number::TCP || is_later(headers) {
        return;
    }
    let place = headers.l4 as usize + tcp::SEQUENCE;
    let Some(sequence) = frame.get(place..).and_then(<[u8]>::first_chunk) else { return };
    let beyond = u32::from_be_bytes(*sequence).wrapping_sub(shift.from);
    if (SETTLED..2 * SETTLED).contains(&beyond) {
        // Whoever fails to has met another worker that changes it now; there will be more packets.
        record.set_shift(direction, Shift::by(shift.after));
    }
}

const fn is_later(headers: &Headers) -> bool {
    matches!(headers.fragment, Fragment::Later { .. })
}
