//! The passes over a burst: parse and hash all, look up all, act on all.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use super::fast::Fast;
use super::lot::{Item, Lot};
use super::opening::{Known, Opening};
use super::path::{self, Path};
use super::{Context, Hands, Packet, admit, carry, error, fragment, gate, mixed, watch};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Find, FlowKey, V4, V6};
use crate::ident::PortIndex;
use crate::port::{Burst, ChecksumMode, Frame, Ports};
use crate::rules::Scope;
use crate::snapshot::Defended;
use crate::wire::{self, Fragment, Headers, IpVersion, Plain, Settled, checksum};

/// How often a packet is admitted while other workers end the flows that it gets.
pub(super) const ADMISSIONS: u32 = 4;

/// A packet with the key that it is looked up by.
pub(super) struct Keyed<'h, F: Path> {
    pub(super) packet: Packet<'h>,
    pub(super) key: &'h FlowKey<F::Addr>,
}

/// Handles every frame of a burst from `port`.
pub(super) fn burst<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, port: PortIndex, burst: &mut Burst) {
    if burst.is_empty() {
        return;
    }
    let source = Source::of(context, port);
    let traffic = context.counters.ports().get(port.0 as usize);
    if let Some(traffic) = traffic {
        traffic.received.packets.add(burst.len() as u64);
        traffic.received.bytes.add(burst.iter().map(|frame| frame.len() as u64).sum());
    }
    if let Some(watch) = context.watch() {
        return watch::burst(context, hands, watch, source, burst);
    }
    let (mut v4, mut v6) = (Lot::<V4>::new(), Lot::<V6>::new());
    match source.checksum {
        ChecksumMode::Offload => {
            for frame in burst.drain(..) {
                sort(context, hands, frame, source, &mut v4, &mut v6);
            }
        }
        ChecksumMode::Full => {
            for frame in burst.drain(..) {
                sort_closely(context, hands, frame, source, &mut v4, &mut v6);
            }
        }
    }
    look_up(context, hands, &mut v4, port);
    look_up(context, hands, &mut v6, port);
}

/// Handles one frame by itself.
#[cold]
#[inline(never)]
pub(super) fn alone<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, source: Source, frame: Frame) {
    let (mut v4, mut v6) = (Lot::<V4>::new(), Lot::<V6>::new());
    sort_closely(context, hands, frame, source, &mut v4, &mut v6);
    look_up(context, hands, &mut v4, source.port);
    look_up(context, hands, &mut v6, source.port);
}

/// What to look at in the frames of a port.
#[derive(Clone, Copy)]
pub(super) struct Source {
    pub(super) port: PortIndex,
    checksum: ChecksumMode,
    is_kernel: bool,
}

impl Source {
    fn of(context: Context<'_>, port: PortIndex) -> Self {
        let settings = context.snapshot.ports.get(port.0 as usize);
        Self {
            port,
            // A port that the snapshot does not know yet gets all care.
            checksum: settings.map_or(ChecksumMode::Full, |settings| settings.checksum),
            is_kernel: context.snapshot.kernel.as_ref().is_some_and(|kernel| kernel.port == port),
        }
    }
}

/// Reads a frame and puts it, aimed at its flow, with the others of its family.
#[inline(always)]
fn sort<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: Frame,
    from: Source,
    v4: &mut Lot<V4>,
    v6: &mut Lot<V6>,
) {
    let bytes = hands.ports.bytes(&frame);
    let left = if let Some(plain) = Plain::of_v4(bytes) {
        enlist(context, bytes, frame, plain, v4)
    } else if let Some(plain) = Plain::of_v6(bytes) {
        enlist(context, bytes, frame, plain, v6)
    } else {
        Some(frame)
    };
    if let Some(frame) = left {
        sort_closely(context, hands, frame, from, v4, v6);
    }
}

/// Adds a plain packet to its lot, or gives it back.
#[inline(always)]
fn enlist<F: Path>(context: Context<'_>, bytes: &[u8], frame: Frame, plain: Plain, lot: &mut Lot<F>) -> Option<Frame> {
    match F::read_plain(bytes, plain.protocol()) {
        Some(key) if !F::may_be_loopback(&key) => lot.push_plain(frame, plain, key, F::table(context.shared).aim(&key)),
        _ => Some(frame),
    }
}

/// As [`sort`], of a packet of any shape from any port; what has no ports goes its own way.
#[inline(never)]
fn sort_closely<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: Frame,
    from: Source,
    v4: &mut Lot<V4>,
    v6: &mut Lot<V6>,
) {
    let headers = match wire::parse_any(hands.ports.bytes(&frame)) {
        Ok(headers) => headers,
        Err(reason) => return hands.discard(context, frame, reason),
    };
    if headers.fragment != Fragment::Whole && context.snapshot.policy.defence.fragments == Defended::On {
        return hands.discard(context, frame, Drop::DefendedFragment);
    }
    let is_loopback = headers.is_loopback(hands.ports.bytes(&frame));
    let Some(frame) = welcome(context, hands, frame, &headers, from, is_loopback) else { return };
    if !headers.has_ports() {
        return portless(context, hands, Packet { frame, headers: &headers, port: from.port });
    }
    match headers.version {
        IpVersion::V4 => enlist_closely(context, hands, frame, &headers, v4),
        IpVersion::V6 => enlist_closely(context, hands, frame, &headers, v6),
    }
}

/// Adds a packet with ports to its lot.
fn enlist_closely<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: Frame,
    headers: &Headers,
    lot: &mut Lot<F>,
) {
    let bytes = hands.ports.bytes(&frame);
    let Some(key) = path::words::<F>(headers, bytes) else {
        return hands.discard(context, frame, Drop::Truncated);
    };
    let probe = F::table(context.shared).aim(&key);
    let left = match Plain::of(bytes) {
        Some(plain) => lot.push_plain(frame, plain, key, probe),
        None => lot.push_other(frame, headers, key, probe),
    };
    // A lot holds as many as a burst, so there is always room.
    if let Some(frame) = left {
        hands.ports.free(frame);
    }
}

/// Refuses loopback addresses (a local server may have one, but no host on a wire: the kernel, with `route_localnet`,
/// would take them for its own) and, where its port asks for it, sees to a packet's transport checksum.
fn welcome<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut frame: Frame,
    headers: &Headers,
    from: Source,
    is_loopback: bool,
) -> Option<Frame> {
    if is_loopback && !from.is_kernel {
        hands.discard(context, frame, Drop::Martian);
        return None;
    }
    if from.checksum == ChecksumMode::Full {
        match checksum::settle(hands.ports.bytes_mut(&mut frame), headers) {
            Ok(Settled::Completed) => context.counters.event(Event::ChecksumCompleted).add(1),
            Ok(_) => {}
            Err(reason) => {
                hands.discard(context, frame, reason);
                return None;
            }
        }
    }
    Some(frame)
}

/// A later fragment, or neither TCP nor UDP.
fn portless<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>) {
    match packet.headers.fragment {
        Fragment::Later { .. } => fragment::follow(context, hands, packet),
        _ => error::relate(context, hands, packet),
    }
}

fn look_up<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, lot: &mut Lot<F>, port: PortIndex) {
    if lot.items.is_empty() {
        return;
    }
    let table = F::table(context.shared);
    for item in &mut lot.items {
        table.probe(&mut item.probe);
    }
    if context.snapshot.services.has_extended() {
        for item in &lot.items {
            table.prefetch_extension(&item.probe);
        }
    }
    let known = Known { items: &lot.items, others: &lot.others, port };
    // There are as many of both.
    let packets = lot.frames.drain(..).zip(&lot.items);
    let Some(mut fast) = Fast::new(context, hands) else {
        for (at, (frame, item)) in packets.enumerate() {
            act(context, hands, frame, (at, item), known, |_| {});
        }
        return;
    };
    let mut opening = Opening::new();
    for (at, (frame, item)) in packets.enumerate() {
        let Some(frame) = fast.packet(context, hands, frame, item) else { continue };
        let Some(frame) = opening.packet(context, hands, &mut fast, frame, (known, at)) else { continue };
        act(context, hands, frame, (at, item), known, |hands| opening.finish(context, hands, &mut fast, known));
    }
    opening.finish(context, hands, &mut fast, known);
    fast.count(context);
}

/// Handles a packet that does not go the fast way. Where no flow has it, `before` comes first: the packet before it in
/// the same burst may open one.
#[inline(never)]
fn act<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: Frame,
    (at, item): (usize, &Item<F>),
    known: Known<'_, F>,
    before: impl FnOnce(&mut Hands<P>),
) {
    let Some(key) = F::unpack(&item.key) else {
        // It has ports, so it has a transport.
        return hands.discard(context, frame, Drop::UnhandledProtocol);
    };
    let Some(headers) = item.headers(at, known.others, &key) else {
        return hands.discard(context, frame, Drop::Truncated);
    };
    let packet = Packet { frame, headers: &headers, port: known.port };
    let found = F::table(context.shared).find_words(&item.key, &item.probe);
    let keyed = Keyed::<F> { packet, key: &key };
    let flowless = match found {
        Find::Hit { direction: Direction::Forward, .. }
            if context.snapshot.gates.scope == Scope::Established && gate::denies::<F>(context, keyed.key) =>
        {
            hands.discard(context, keyed.packet.frame, Drop::Denied);
            None
        }
        Find::Hit { flow, direction } => carry::packet(context, hands, keyed, flow, direction),
        Find::Miss => {
            before(hands);
            Some(keyed)
        }
        Find::Unsettled => {
            hands.discard(context, keyed.packet.frame, Drop::InsertContended);
            None
        }
    };
    if let Some(keyed) = flowless {
        admit(context, hands, keyed);
    }
}

/// Admits a packet of no flow: again when the flow that it got ends before the packet could use it.
pub(super) fn admit<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, mut keyed: Keyed<'_, F>) {
    if mixed::are_there(context) {
        match mixed::admit(context, hands, keyed) {
            None => return,
            Some(other) => keyed = other,
        }
    }
    for _ in 0..ADMISSIONS {
        match admit::packet(context, hands, keyed) {
            None => return,
            Some(flowless) => keyed = flowless,
        }
    }
    hands.discard(context, keyed.packet.frame, Drop::InsertContended);
}
