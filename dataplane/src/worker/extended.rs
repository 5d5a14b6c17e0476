//! Packets of flows with an extension record: their numbers are moved before they go the way of all others.

use std::net::IpAddr;

use super::egress::{self, Learnt};
use super::introduce::Additions;
use super::path::{self, Path};
use super::segment::Seen;
use super::syn_proxy::bits::PROXIED;
use super::{Context, Hands, Packet, carry, ftp, introduce};
use crate::counters::Drop;
use crate::flow::{Direction, Extension, FlowEntry, Shift, bit, flag};
use crate::forward::nat::Rewrite;
use crate::forward::sequence::{self, Translation};
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::service::Destination;
use crate::wire::{Fragment, Headers, TcpFlags};

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
    let Some(way) = way(context, entry, destination, direction) else {
        return hands.discard(context, packet.frame, Drop::DestinationGone);
    };
    let Some(record) = F::table(context.shared).extension(entry) else {
        return datagram(context, hands, packet, entry, &way);
    };
    let Packet { mut frame, headers, port } = packet;
    let mut headers = *headers;
    if entry.state().flags() & flag::FTP != 0
        && let Err(reason) = ftp::commands(context, hands, (&mut frame, &mut headers), entry, record, direction)
    {
        return hands.discard(context, frame, reason);
    }
    let packet = Packet { frame, headers: &headers, port };
    // Before anything else, so that an ICMP error shows the packet as its sender made it.
    let Some(mut packet) = carry::fit(context, hands, packet, way.hop, 0, || way.speaker) else { return };
    let mut headers = *packet.headers;
    let frame = hands.ports.bytes_mut(&mut packet.frame);
    let additions = prepare(context, (entry, record), (frame, &headers), direction, way.hop.mtu());
    F::rewrite(hands.ports.bytes_mut(&mut packet.frame), &headers, &way.to);
    let Packet { mut frame, port, .. } = packet;
    introduce::add(context, hands, &mut frame, &mut headers, &additions, |hands, frame, headers| {
        egress::send(context, hands, Packet { frame, headers, port }, way.hop, || way.towards, way.learnt);
    });
    egress::send(context, hands, Packet { frame, headers: &headers, port }, way.hop, || way.towards, way.learnt);
}

/// Moves a packet's numbers; says what is to be put into it before it goes on. `mtu` is that of its way.
pub(super) fn prepare<F: Path>(
    context: Context<'_>,
    (entry, record): (&FlowEntry<F>, &Extension),
    (frame, headers): (&mut [u8], &Headers),
    direction: Direction,
    mtu: Option<u16>,
) -> Additions {
    let mut additions = Additions::default();
    let Some(seen) = Seen::of(frame, headers) else { return additions };
    let mut translation = Translation::of(record, direction);
    settle(record, &seen, direction, &translation.sender);
    let of = (entry, record);
    match direction {
        Direction::Forward => {
            additions = introduce::from_client(context, of, (&mut *frame, headers), &seen, mtu, &mut translation);
        }
        Direction::Reverse => introduce::from_server(of, (&mut *frame, headers), &seen, &translation),
    }
    // A proxied flow has a use of its own for the record's numbers.
    if record.bits() & PROXIED == 0 {
        watch(record, &seen, direction);
    }
    sequence::translate(frame, headers, &translation);
    additions
}

/// A client's datagram whose server is to be told of the client.
fn datagram<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    entry: &FlowEntry<F>,
    way: &Way<'_, F>,
) {
    let Some(mut packet) = carry::fit(context, hands, packet, way.hop, 0, || way.speaker) else { return };
    let mut headers = *packet.headers;
    F::rewrite(hands.ports.bytes_mut(&mut packet.frame), &headers, &way.to);
    if headers.fragment == Fragment::Whole {
        introduce::datagram(context, hands, &mut packet.frame, &mut headers, entry, way.hop.mtu());
    }
    let packet = Packet { headers: &headers, ..packet };
    egress::send(context, hands, packet, way.hop, || way.towards, way.learnt);
}

/// Keeps the sequence numbers that either side is expected to use next.
pub(super) fn watch(record: &Extension, seen: &Seen, direction: Direction) {
    if seen.flags.contains(TcpFlags::RST) {
        return;
    }
    let (next, known) = (seen.sequence.wrapping_add(seen.length()), known(direction));
    let is_first = record.bits() & known == 0 || seen.flags.contains(TcpFlags::SYN);
    if is_first || next.wrapping_sub(record.next(direction)) < 1 << 31 {
        record.set_next(direction, next);
    }
    if is_first && record.bits() & known == 0 {
        record.change_bits(known, 0);
    }
}

/// The bit that says whether a side's next number is known.
pub(super) const fn known(of: Direction) -> u32 {
    match of {
        Direction::Forward => bit::CLIENT_KNOWN,
        Direction::Reverse => bit::SERVER_KNOWN,
    }
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
fn settle(record: &Extension, seen: &Seen, direction: Direction, shift: &Shift) {
    if shift.before != shift.after && (SETTLED..2 * SETTLED).contains(&seen.sequence.wrapping_sub(shift.from)) {
        // Whoever fails to has met another worker that changes it now; there will be more packets.
        record.set_shift(direction, Shift::by(shift.after));
    }
}
