//! Handshakes with servers that are not over: what the client sends meanwhile, and when to ask again.

use std::collections::VecDeque;

use super::{Outcome, Way, agreement, answer, begins, fail, open, segment_of, send_own, service_of};
use crate::clock::{Tick, Ticks};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Extension, FlowRef, V4, V6, flag};
use crate::port::Ports;
use crate::syn_proxy::segment::{self, Options, Segment};
use crate::wire::{Headers, TcpFlags};
use crate::worker::held::Parcel;
use crate::worker::introduce::Additions;
use crate::worker::pass::Keyed;
use crate::worker::path::Path;
use crate::worker::{Context, Hands, Packet, carry};

/// How long data waits: longer than any handshake, which ends the waiting itself.
const LONGEST_HOLD: Ticks = Ticks::seconds(130);
/// Times that a server may be asked.
const TRIES: usize = 8;
/// Handshakes of one worker that wait for the first time, and for each time after that. What finds no place is not
/// tried again.
const PLACES: [usize; TRIES] = [1 << 17, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14, 1 << 14];
/// Set in the tag of an IPv6 flow, where the number of an entry does not reach.
const IS_V6: u64 = 1 << 31;

/// The handshakes that a worker began, by the number of tries: those in one list wait equally long, so that each is in
/// the order of time.
#[derive(Debug)]
pub(in crate::worker) struct Handshakes {
    lists: [VecDeque<Handshake>; TRIES],
}

#[derive(Clone, Copy, Debug)]
struct Handshake {
    tag: u64,
    due: Tick,
    /// Tries that are left.
    left: u8,
}

impl Handshakes {
    pub(in crate::worker) fn new() -> Self {
        Self { lists: PLACES.map(VecDeque::with_capacity) }
    }

    /// A handshake whose SYN has just been sent for the first time.
    pub(super) fn begin<F: Path>(&mut self, flow: FlowRef, due: Tick, left: u8) {
        self.push(0, Handshake { tag: tag::<F>(flow), due, left });
    }

    fn push(&mut self, tries: usize, handshake: Handshake) {
        if let Some(list) = self.lists.get_mut(tries)
            && list.len() < list.capacity()
        {
            list.push_back(handshake);
        }
    }

    /// The next that is due, with the number of times that it was due before.
    fn pop(&mut self, now: Tick) -> Option<(usize, Handshake)> {
        let due = |list: &VecDeque<Handshake>| list.front().is_some_and(|first| first.due.reached(now));
        let tries = self.lists.iter().position(due)?;
        Some((tries, self.lists.get_mut(tries)?.pop_front()?))
    }
}

/// A flow's name among those of both families.
fn tag<F: Path>(flow: FlowRef) -> u64 {
    let family = if F::IS_V6 { IS_V6 } else { 0 };
    u64::from(flow.generation()) << 32 | family | u64::from(flow.index())
}

/// The flow of a tag, if it lives.
fn flow<F: Path>(context: Context<'_>, tag: u64) -> Option<FlowRef> {
    F::table(context.shared).current((tag & (IS_V6 - 1)) as u32, (tag >> 32) as u32)
}

/// Whether a client's packet holds something that its server has to see: data, or the end of it.
pub(super) fn must_be_kept(frame: &[u8], headers: &Headers) -> bool {
    headers.tcp.contains(TcpFlags::FIN) || segment::data_length(frame, headers) > 0
}

/// A client's packet before its server has answered.
pub(super) fn from_client<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    flow: FlowRef,
    record: &Extension,
) -> Outcome<'h, F> {
    let headers = keyed.packet.headers;
    let frame = hands.ports.bytes(&keyed.packet.frame);
    let Some((sequence, acknowledged, _)) = segment_of(frame, headers).and_then(segment::numbers) else {
        hands.discard(context, keyed.packet.frame, Drop::Truncated);
        return Outcome::Done;
    };
    let proxied = service_of(context, F::table(context.shared).entry(flow));
    if begins(headers.tcp)
        && let Some((service, proxy)) = proxied
    {
        // Whoever sent it has to show first that it is the client.
        answer::syn(context, hands, keyed, service, proxy);
        return Outcome::Done;
    }
    let is_of_this = acknowledged == record.next(Direction::Reverse);
    let beyond = sequence.wrapping_sub(record.next(Direction::Forward));
    if headers.tcp.contains(TcpFlags::RST) {
        if u16::try_from(beyond).is_ok() {
            fail::<F, P>(context, hands, flow);
        }
    } else if is_of_this && must_be_kept(frame, headers) {
        keep::<F, P>(context, hands, keyed.packet, flow);
        return Outcome::Done;
    } else if !is_of_this
        && let Some(proxied) = proxied
        && agreement(context, hands, &keyed, proxied).is_some()
    {
        fail::<F, P>(context, hands, flow);
        return Outcome::Flowless(keyed);
    }
    hands.discard(context, keyed.packet.frame, Drop::HandshakePending);
    Outcome::Done
}

/// Keeps a client's data until its server has answered.
pub(super) fn keep<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>, flow: FlowRef) {
    let table = F::table(context.shared);
    let Some(record) = table.extension(table.entry(flow)) else {
        return hands.discard(context, packet.frame, Drop::HandshakeFailed);
    };
    let kept = record.held();
    if kept >= u32::from(super::HELD_SEGMENTS) || !record.swap_held(kept, kept + 1) {
        return hands.discard(context, packet.frame, Drop::HandshakeFull);
    }
    let until = context.now.after(LONGEST_HOLD);
    let parcel = Parcel::new(packet, until, Drop::HandshakeFailed, tag::<F>(flow));
    if let Err(parcel) = hands.first_data.hold(context, parcel) {
        hands.discard(context, parcel.frame, Drop::HandshakeFull);
    }
}

/// Sends on what waited for flows that are joined by now, and drops what waited in vain.
#[inline(never)]
pub(in crate::worker) fn release<P: Ports>(context: Context<'_>, hands: &mut Hands<P>) {
    let mut from = 0;
    while let Some((next, parcel)) = hands.first_data.take_from(context, from, |parcel| !is_waiting(context, parcel)) {
        from = next;
        if parcel.tag & IS_V6 == 0 {
            go_on::<V4, P>(context, hands, parcel);
        } else {
            go_on::<V6, P>(context, hands, parcel);
        }
    }
}

/// Drops all that waits.
pub(in crate::worker) fn abandon<P: Ports>(context: Context<'_>, hands: &mut Hands<P>) {
    let mut from = 0;
    while let Some((next, parcel)) = hands.first_data.take_from(context, from, |_| true) {
        from = next;
        hands.abandon(context, parcel);
    }
}

fn is_waiting(context: Context<'_>, parcel: &Parcel) -> bool {
    let pending = if parcel.tag & IS_V6 == 0 {
        is_pending::<V4>(context, parcel.tag)
    } else {
        is_pending::<V6>(context, parcel.tag)
    };
    pending && !parcel.until.reached(context.now)
}

/// Whether the flow of a tag lives and its server has not answered.
fn is_pending<F: Path>(context: Context<'_>, tag: u64) -> bool {
    let table = F::table(context.shared);
    flow::<F>(context, tag).is_some_and(|flow| table.entry(flow).state().flags() & flag::SYN_PROXY != 0)
}

fn go_on<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, parcel: Parcel) {
    let flow = flow::<F>(context, parcel.tag).filter(|_| !parcel.until.reached(context.now));
    let Some(flow) = flow else { return hands.abandon(context, parcel) };
    let key = F::table(context.shared).entry(flow).forward();
    let (frame, headers, port) = parcel.unpack();
    let keyed = Keyed::<F> { packet: Packet { frame, headers: &headers, port }, key: &key };
    if let Some(keyed) = carry::packet_after_all(context, hands, keyed, flow, Direction::Forward) {
        hands.discard(context, keyed.packet.frame, Drop::HandshakeFailed);
    }
}

/// Asks servers again that have not answered in time, and gives up on those that never do.
#[inline]
pub(in crate::worker) fn retry<P: Ports>(context: Context<'_>, hands: &mut Hands<P>) {
    while let Some((tries, handshake)) = hands.handshakes.pop(context.now) {
        if handshake.tag & IS_V6 == 0 {
            retry_one::<V4, P>(context, hands, tries, handshake);
        } else {
            retry_one::<V6, P>(context, hands, tries, handshake);
        }
    }
}

#[inline(never)]
fn retry_one<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, tries: usize, handshake: Handshake) {
    if !is_pending::<F>(context, handshake.tag) {
        return;
    }
    let Some(flow) = flow::<F>(context, handshake.tag) else { return };
    let table = F::table(context.shared);
    let entry = table.entry(flow);
    let Some(record) = table.extension(entry) else { return };
    if handshake.left == 0 {
        context.counters.event(Event::HandshakeTimedOut).add(1);
        let reset = reset_for_client(record);
        let way = Way::to_client(context, entry);
        send_own(context, hands, way, (&reset, &Additions::default()), Event::ResetSent);
        return fail::<F, P>(context, hands, flow);
    }
    context.counters.event(Event::HandshakeRetried).add(1);
    if let Some((way, syn, additions)) = open::ask(context, entry, record) {
        send_own(context, hands, way, (&syn, &additions), Event::HandshakeSent);
    }
    let due = context.now.after(Ticks(open::FIRST_WAIT.0 << (tries + 1).min(TRIES)));
    hands.handshakes.push(tries + 1, Handshake { due, left: handshake.left - 1, ..handshake });
}

/// The reset for a client whose server refused or did not answer.
pub(super) fn reset_for_client(record: &Extension) -> Segment {
    Segment {
        sequence: record.next(Direction::Reverse),
        acknowledgement: record.next(Direction::Forward),
        flags: TcpFlags::RST.with(TcpFlags::ACK),
        window: 0,
        options: Options::default(),
    }
}
