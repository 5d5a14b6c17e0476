//! The server's answer: joins the connection with the client and the one with the server, or ends both.

use super::bits::{ANSWERED, Agreed};
use super::{Way, fail, open, segment_of, send, send_with, service_of, wait};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Extension, FlowEntry, FlowRef, Shift, Terms, flag};
use crate::port::Ports;
use crate::service::DestinationSlot;
use crate::state::TcpState;
use crate::syn_proxy::offer::Asked;
use crate::syn_proxy::segment::{self, Options, Segment};
use crate::wire::TcpFlags;
use crate::worker::pass::Keyed;
use crate::worker::path::Path;
use crate::worker::{Context, Hands, Packet, introduce};

/// A packet of a server that was asked.
pub(super) fn from_server<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'_, F>,
    flow: FlowRef,
    record: &Extension,
) {
    let entry = F::table(context.shared).entry(flow);
    let Packet { frame, headers, port } = keyed.packet;
    let (l3, flags) = (headers.l3 as usize, headers.tcp);
    let bytes = hands.ports.bytes(&frame);
    let read = segment_of(bytes, headers).and_then(|segment| Some((segment::numbers(segment)?, Options::of(segment))));
    let (Some(((sequence, acknowledged, _), options)), Some(way)) = (read, Way::to_server(context, entry)) else {
        return hands.discard(context, frame, Drop::HandshakePending);
    };
    let expected = open::initial(record).wrapping_add(1);
    let way = Way { port, ..way };
    if !flags.contains(TcpFlags::ACK) || (flags.contains(TcpFlags::RST) && acknowledged != expected) {
        return hands.discard(context, frame, Drop::HandshakePending);
    }
    if flags.contains(TcpFlags::RST) {
        context.counters.event(Event::HandshakeRefused).add(1);
        let reset = wait::reset_for_client(record);
        let to_client = Way { port, ..Way::to_client(context, entry) };
        send(context, hands, frame, l3, to_client, &reset);
        return fail::<F, P>(context, hands, flow);
    }
    if acknowledged != expected {
        // Of an older connection, which the server has not forgotten (RFC 9293 section 3.10.7.3): the next SYN finds
        // it gone.
        let reset = Segment {
            sequence: acknowledged,
            acknowledgement: 0,
            flags: TcpFlags::RST,
            window: 0,
            options: Options::default(),
        };
        return send(context, hands, frame, l3, way, &reset);
    }
    if !flags.contains(TcpFlags::SYN) || record.change_bits(ANSWERED, 0) & ANSWERED != 0 {
        return hands.discard(context, frame, Drop::HandshakePending);
    }
    join(context, entry, record, sequence.wrapping_add(1), &options);
    let ack = acknowledgement(record, (sequence, acknowledged), &options);
    let additions = introduce::with_acknowledgement(entry, record);
    send_with(context, hands, (frame, l3), way, &ack, &additions);
    if !hands.first_data.is_empty() {
        wait::release(context, hands);
    }
}

/// Writes down how far the server's numbers are from those that the client was told, and lets packets pass.
fn join<F: Path>(context: Context<'_>, entry: &FlowEntry<F>, record: &Extension, first: u32, answer: &Options) {
    let agreed = Agreed::unpack(record.bits());
    learn(context, entry, agreed, answer);
    let (client_window, server_window) = windows(agreed, answer);
    record.set_terms(Terms { client_window, server_window, ..record.terms() });
    let [_, told] = record.timestamps();
    let offset = match answer.timestamps {
        Some((value, _)) if agreed.timestamps => told.wrapping_sub(value),
        _ => 0,
    };
    record.set_timestamp(Direction::Forward, open::stamp_offset(record));
    record.set_timestamp(Direction::Reverse, offset);
    // From now on this word counts equal acknowledgements.
    record.swap_held(record.held(), 0);
    record.set_shift(Direction::Reverse, Shift::by(record.next(Direction::Reverse).wrapping_sub(first)));
    entry.set_deadline(context.now.after(context.snapshot.policy.timeouts.tcp(TcpState::Established)));
    let mut seen = entry.state();
    while seen.is_live() {
        let flags = seen.flags() & !(flag::SYN_PROXY | flag::EMBRYONIC);
        // Both states count as active, so no count moves.
        match entry.transition(seen, TcpState::Established.to_u8(), flags) {
            Ok(_) => break,
            Err(other) => seen = other,
        }
    }
    context.counters.event(Event::HandshakeJoined).add(1);
}

/// By how many bits window fields of the client and of the server are shifted to the right.
fn windows(agreed: Agreed, answer: &Options) -> (i8, i8) {
    match (agreed.scales, answer.window_scale) {
        (None, _) => (0, 0),
        (Some((_, told)), Some(has)) => (0, told.cast_signed() - has.cast_signed()),
        // The server scales neither way (RFC 7323 section 2.2).
        (Some((client, told)), None) => (-client.cast_signed(), told.cast_signed()),
    }
}

/// Notes what the server has, for the clients to come.
fn learn<F: Path>(context: Context<'_>, entry: &FlowEntry<F>, agreed: Agreed, answer: &Options) {
    let services = &context.snapshot.services;
    let Some(destination) = services.destination(DestinationSlot(entry.destination())) else { return };
    let asked = Asked { window_scale: agreed.scales.is_some(), sack: agreed.sack, timestamps: agreed.timestamps };
    if destination.counts.handshake.note(asked, answer)
        && let Some((service, _)) = service_of(context, entry)
    {
        service.state.offer.settle(service.destinations.iter().map(|server| &server.counts.handshake));
    }
}

/// The director's acknowledgement of a server's SYN, whose numbers are given.
pub(super) fn acknowledgement(record: &Extension, (sequence, acknowledged): (u32, u32), answer: &Options) -> Segment {
    let agreed = Agreed::unpack(record.bits());
    let is_scaled = agreed.scales.is_some() && answer.window_scale.is_some();
    Segment {
        sequence: acknowledged,
        acknowledgement: sequence.wrapping_add(1),
        flags: TcpFlags::ACK,
        window: if is_scaled { agreed.window } else { agreed.unscaled_window() },
        options: Options {
            // What it echoes is what the SYN said: the server has heard nothing newer of the client.
            timestamps: answer.timestamps.filter(|_| agreed.timestamps).map(|(value, echo)| (echo, value)),
            ..Options::default()
        },
    }
}
