//! Packets of joined connections that do not go on as they are: a server's SYN again, equal acknowledgements without
//! end, and a client that begins anew from the same port.

use super::{Outcome, Way, acknowledges, agreement, answer, begins, join, segment_of, send_with, service_of, wait};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Extension, FlowEntry, FlowRef};
use crate::port::Ports;
use crate::state::TcpState;
use crate::syn_proxy::SynProxy;
use crate::syn_proxy::segment::{self, Options};
use crate::wire::{TcpFlags, TcpOption, TcpOptions, tcp};
use crate::worker::pass::Keyed;
use crate::worker::path::Path;
use crate::worker::{Context, Hands, Packet, carry, introduce};

/// Equal acknowledgements count as one row within 0.64 s: those of a keep-alive are further apart.
const ROW_BITS: u32 = 6;

/// A packet of the client.
pub(super) fn from_client<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    flow: FlowRef,
    record: &Extension,
) -> Outcome<'h, F> {
    let entry = F::table(context.shared).entry(flow);
    let flags = keyed.packet.headers.tcp;
    let Some((service, proxy)) = service_of(context, entry) else { return Outcome::Usual(keyed) };
    let is_reusable = proxy.reusable.contains(TcpState::from_u8(entry.state().state()));
    if begins(flags) && is_reusable {
        // The old connection stays as it is until the client has shown that it is the client.
        answer::syn(context, hands, keyed, service, proxy);
        return Outcome::Done;
    }
    if !acknowledges(flags) {
        return Outcome::Usual(keyed);
    }
    let frame = hands.ports.bytes(&keyed.packet.frame);
    let Some((sequence, acknowledged, window)) = segment_of(frame, keyed.packet.headers).and_then(segment::numbers)
    else {
        return Outcome::Usual(keyed);
    };
    if is_reusable
        && acknowledged != record.next(Direction::Reverse)
        && agreement(context, hands, &keyed, (service, proxy)).is_some()
    {
        carry::end(context, hands, flow, entry);
        return Outcome::Flowless(keyed);
    }
    let frame = hands.ports.bytes(&keyed.packet.frame);
    if proxy.ack_storm > 0
        && !wait::must_be_kept(frame, keyed.packet.headers)
        && !segment_of(frame, keyed.packet.headers).is_some_and(is_selective)
        && is_storm(context.now, record, [sequence, acknowledged, u32::from(window)], proxy.ack_storm)
    {
        hands.discard(context, keyed.packet.frame, Drop::AckStorm);
        return Outcome::Done;
    }
    Outcome::Usual(keyed)
}

/// A packet of the server.
pub(super) fn from_server<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    entry: &FlowEntry<F>,
    record: &Extension,
) -> Outcome<'h, F> {
    let headers = keyed.packet.headers;
    if !headers.tcp.contains(TcpFlags::SYN) {
        return Outcome::Usual(keyed);
    }
    // Our acknowledgement was lost. The client knows nothing of this SYN.
    let frame = hands.ports.bytes(&keyed.packet.frame);
    let read = segment_of(frame, headers).and_then(|segment| Some((segment::numbers(segment)?, Options::of(segment))));
    let Packet { frame, port, .. } = keyed.packet;
    let (Some(((sequence, acknowledged, _), options)), Some(way)) = (read, Way::to_server(context, entry)) else {
        hands.discard(context, frame, Drop::HandshakePending);
        return Outcome::Done;
    };
    context.counters.event(Event::HandshakeRepeated).add(1);
    let ack = join::acknowledgement(record, (sequence, acknowledged), &options);
    let additions = introduce::with_acknowledgement(entry, record);
    send_with(context, hands, (frame, headers.l3 as usize), Way { port, ..way }, &ack, &additions);
    Outcome::Done
}

/// Whether a usual segment of the client needs no closer look. A row of equal acknowledgements is counted here, and looked
/// at by [`from_client`] when it is too long.
pub(super) fn may_pass(context: Context<'_>, segment: &[u8], record: &Extension, proxy: &SynProxy) -> bool {
    if proxy.reusable.contains(TcpState::Established) {
        return false;
    }
    let has_data = segment.get(tcp::DATA_OFFSET).is_some_and(|offset| segment.len() > usize::from(offset >> 4) * 4);
    if proxy.ack_storm == 0 || has_data {
        return true;
    }
    let Some((sequence, acknowledged, window)) = segment::numbers(segment) else { return false };
    !is_storm(context.now, record, [sequence, acknowledged, u32::from(window)], proxy.ack_storm)
}

/// Whether a segment says something new though its numbers are old.
fn is_selective(segment: &[u8]) -> bool {
    TcpOptions::of(segment).any(|placed| matches!(placed.option, TcpOption::Sack { .. }))
}

/// Counts acknowledgements that say the same as the one before. True for those beyond `most` in a row.
fn is_storm(now: Tick, record: &Extension, [sequence, acknowledged, window]: [u32; 3], most: u8) -> bool {
    let mixed = sequence.wrapping_mul(0x9e37_79b1) ^ acknowledged.wrapping_mul(0x85eb_ca6b) ^ window;
    let said = (mixed ^ mixed >> 16) & 0xffff;
    let row = (now.raw() >> ROW_BITS) & 0xff;
    let word = said << 16 | row << 8;
    let seen = record.held();
    let count = if seen & !0xff == word { ((seen & 0xff) + 1).min(0xff) } else { 1 };
    // Of two workers that count at once one may be left out.
    record.swap_held(seen, word | count);
    count > u32::from(most)
}
