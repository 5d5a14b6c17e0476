//! The passes over a burst: parse and hash all, look up all, act on all.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use arrayvec::ArrayVec;

use super::fast::Fast;
use super::path::{self, Path};
use super::{Context, Hands, Packet, admit, carry, error, fragment, gate, mixed, watch};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Find, FlowKey, KeyHash, V4, V6};
use crate::ident::PortIndex;
use crate::port::{BURST, Burst, ChecksumMode, Frame, Ports};
use crate::rules::Scope;
use crate::snapshot::Defended;
use crate::wire::{self, Fragment, Headers, IpVersion, Settled, checksum};

/// How often a packet is admitted while other workers end the flows that it gets.
pub(super) const ADMISSIONS: u32 = 4;

/// A packet with the key that it is looked up by.
pub(super) struct Keyed<'h, F: Path> {
    pub(super) packet: Packet<'h>,
    pub(super) key: &'h FlowKey<F::Addr>,
}

/// The packets of one family in a burst, side by side: each pass reads only what it needs.
struct Lot<F: Path> {
    frames: ArrayVec<Frame, BURST>,
    headers: ArrayVec<Headers, BURST>,
    keys: ArrayVec<F::Words, BURST>,
    hashes: ArrayVec<KeyHash, BURST>,
}

impl<F: Path> Lot<F> {
    fn new() -> Self {
        Self { frames: ArrayVec::new(), headers: ArrayVec::new(), keys: ArrayVec::new(), hashes: ArrayVec::new() }
    }

    /// Adds a packet and asks for the memory that its lookup will read. Gives the frame back when the lot is full.
    #[inline(always)]
    fn push(&mut self, context: Context<'_>, frame: Frame, headers: Headers, key: F::Words) -> Option<Frame> {
        if self.frames.is_full() {
            return Some(frame);
        }
        let table = F::table(context.shared);
        let hash = table.hash_words(&key);
        table.prefetch(hash);
        self.frames.push(frame);
        self.headers.push(headers);
        self.keys.push(key);
        self.hashes.push(hash);
        None
    }
}

/// Handles every frame of a burst from `port`.
pub(super) fn burst<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, port: PortIndex, burst: &mut Burst) {
    if burst.is_empty() {
        return;
    }
    let source = Source::of(context, port);
    let traffic = context.counters.ports().get(port.0 as usize);
    if let Some(watch) = context.watch() {
        for frame in burst.iter() {
            if let Some(traffic) = traffic {
                traffic.received.count(frame.len());
            }
        }
        return watch::burst(context, hands, watch, source, burst);
    }
    let (mut v4, mut v6) = (Lot::<V4>::new(), Lot::<V6>::new());
    for frame in burst.drain(..) {
        if let Some(traffic) = traffic {
            traffic.received.count(frame.len());
        }
        sort(context, hands, frame, source, &mut v4, &mut v6);
    }
    look_up(context, hands, &mut v4, port);
    look_up(context, hands, &mut v6, port);
}

/// Handles one frame by itself.
#[cold]
#[inline(never)]
pub(super) fn alone<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, source: Source, frame: Frame) {
    let (mut v4, mut v6) = (Lot::<V4>::new(), Lot::<V6>::new());
    sort(context, hands, frame, source, &mut v4, &mut v6);
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

/// Parses a frame and puts it, keyed, with the others of its family; what has no ports goes its own way.
#[inline(always)]
fn sort<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: Frame,
    from: Source,
    v4: &mut Lot<V4>,
    v6: &mut Lot<V6>,
) {
    let headers = match wire::parse(hands.ports.bytes(&frame)) {
        Ok(headers) => headers,
        Err(reason) => return hands.discard(context, frame, reason),
    };
    if headers.fragment != Fragment::Whole && context.snapshot.policy.defence.fragments == Defended::On {
        return hands.discard(context, frame, Drop::DefendedFragment);
    }
    if !headers.has_ports() {
        return portless(context, hands, frame, &headers, from);
    }
    match headers.version {
        IpVersion::V4 => enlist(context, hands, frame, headers, from, v4),
        IpVersion::V6 => enlist(context, hands, frame, headers, from, v6),
    }
}

/// Adds a packet with ports to its lot.
#[inline(always)]
fn enlist<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: Frame,
    headers: Headers,
    from: Source,
    lot: &mut Lot<F>,
) {
    let Some(key) = path::words::<F>(&headers, hands.ports.bytes(&frame)) else {
        return hands.discard(context, frame, Drop::Truncated);
    };
    let Some(frame) = welcome(context, hands, frame, &headers, from, F::is_loopback(&key)) else { return };
    // A lot holds as many as a burst, so there is always room.
    if let Some(frame) = lot.push(context, frame, headers, key) {
        hands.ports.free(frame);
    }
}

/// Refuses loopback addresses (a local server may have one, but no host on a wire: the kernel, with `route_localnet`,
/// would take them for its own) and, where its port asks for it, sees to a packet's transport checksum.
#[inline(always)]
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
#[inline(never)]
fn portless<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, frame: Frame, headers: &Headers, from: Source) {
    let is_loopback = headers.is_loopback(hands.ports.bytes(&frame));
    let Some(frame) = welcome(context, hands, frame, headers, from, is_loopback) else { return };
    let packet = Packet { frame, headers, port: from.port };
    match headers.fragment {
        Fragment::Later { .. } => fragment::follow(context, hands, packet),
        _ => error::relate(context, hands, packet),
    }
}

fn look_up<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, lot: &mut Lot<F>, port: PortIndex) {
    if lot.frames.is_empty() {
        return;
    }
    let table = F::table(context.shared);
    let mut probes = ArrayVec::<_, BURST>::new();
    for hash in &lot.hashes {
        probes.push(table.probe(*hash));
    }
    let mut fast = Fast::new(context, hands);
    // All four have one length.
    let lot = lot.frames.drain(..).zip(&lot.headers).zip(&lot.keys).zip(&probes);
    for (((frame, headers), key), probe) in lot {
        let found = table.find_words(key, probe);
        let frame = match (found, &mut fast) {
            (Find::Hit { flow, direction }, Some(fast)) => {
                match fast.packet(context, hands, frame, headers, table.entry(flow), direction) {
                    None => continue,
                    Some(frame) => frame,
                }
            }
            _ => frame,
        };
        act::<F, P>(context, hands, Packet { frame, headers, port }, key, found);
    }
    if let Some(mut fast) = fast {
        fast.count(context);
    }
}

/// Handles a packet that does not go the fast way.
#[inline(never)]
fn act<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    key: &F::Words,
    found: Find,
) {
    let Some(key) = F::unpack(key) else {
        // It has ports, so it has a transport.
        return hands.discard(context, packet.frame, Drop::UnhandledProtocol);
    };
    let keyed = Keyed::<F> { packet, key: &key };
    let flowless = match found {
        Find::Hit { direction: Direction::Forward, .. }
            if context.snapshot.gates.scope == Scope::Established && gate::denies::<F>(context, keyed.key) =>
        {
            hands.discard(context, keyed.packet.frame, Drop::Denied);
            None
        }
        Find::Hit { flow, direction } => carry::packet(context, hands, keyed, flow, direction),
        Find::Miss => Some(keyed),
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
fn admit<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, mut keyed: Keyed<'_, F>) {
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
