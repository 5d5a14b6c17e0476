//! Packets that are watched: taken one at a time, with every step written down.
//!
//! Only while a watch is in the snapshot. What happened to a packet is told from the outside, by the counters that moved
//! and the frames that left, so that a watched packet goes the way of all others (but for `fast`, whose results are the same).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::limiter::Limiter;
use super::pass::{self, Source};
use super::path::{self, Path};
use super::{Context, Hands};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Find, FlowKey, V4, V6};
use crate::ident::{Endpoint, PortIndex};
use crate::port::{Burst, Frame, Ports};
use crate::watch::{Address, Fate, FlowSeen, Found, Place, Record, STEPS, Step, Subject, Watch};
use crate::wire::{self, Headers, IpVersion};
use arrayvec::ArrayVec;

/// What a worker writes down of the packet in hand.
#[derive(Debug)]
pub(super) struct Watcher {
    /// Whether the packet in hand is watched.
    pub(super) is_on: bool,
    records: ArrayVec<Box<Record>, STEPS>,
    limiter: Limiter,
    /// Of the next packet.
    number: u64,
    fate: Fate,
}

impl Watcher {
    pub(super) const fn new(now: Tick) -> Self {
        Self { is_on: false, records: ArrayVec::new_const(), limiter: Limiter::new(now), number: 0, fate: Fate::Open }
    }

    fn add(&mut self, context: Context<'_>, watch: &Watch, step: Step, frame: (PortIndex, &[u8])) {
        if !watch.scope.shows(&step) {
            return;
        }
        if self.records.is_full() {
            return watch.lose();
        }
        let Some(mut record) = watch.blank() else { return };
        record.packet = self.number;
        record.worker = context.worker;
        record.time = context.time;
        record.step = step;
        record.place = Place::Inner;
        record.port = frame.0;
        record.fill(frame.1);
        self.records.push(record);
    }
}

/// The key that a packet is looked up by, if it has ports.
enum Keys {
    V4(FlowKey<Ipv4Addr>),
    V6(FlowKey<Ipv6Addr>),
    None,
}

impl Keys {
    fn of(headers: &Headers, bytes: &[u8]) -> Self {
        fn key<F: Path>(headers: &Headers, bytes: &[u8]) -> Option<FlowKey<F::Addr>> {
            F::unpack(&path::words::<F>(headers, bytes)?)
        }
        let key = match headers.version {
            _ if !headers.has_ports() => None,
            IpVersion::V4 => key::<V4>(headers, bytes).map(Self::V4),
            IpVersion::V6 => key::<V6>(headers, bytes).map(Self::V6),
        };
        key.unwrap_or(Self::None)
    }
}

/// Handles a burst, packet by packet.
#[cold]
#[inline(never)]
pub(super) fn burst<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    watch: &Watch,
    source: Source,
    burst: &mut Burst,
) {
    for frame in burst.drain(..) {
        one(context, hands, watch, source, frame);
    }
}

fn one<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, watch: &Watch, source: Source, frame: Frame) {
    let bytes = hands.ports.bytes(&frame);
    let headers = wire::parse(bytes).ok();
    let keys = headers.as_ref().map_or(Keys::None, |headers| Keys::of(headers, bytes));
    let mut subject = Subject {
        headers: headers.as_ref(),
        ends: [headers.as_ref().map(|headers| ends(headers, bytes)), other_side(context, &keys)],
        port: source.port,
        fate: Fate::Open,
    };
    if watch.filter.holds(&subject) == Some(false) {
        return pass::alone(context, hands, source, frame);
    }
    let before = Event::ALL.iter().map(|event| context.counters.event(*event).read());
    let before: ArrayVec<u64, { Event::ALL.len() }> = before.collect();
    hands.watcher.is_on = true;
    hands.watcher.fate = Fate::Kept;
    hands.watcher.add(context, watch, Step::Arrived, (source.port, hands.ports.bytes(&frame)));
    hands.watcher.add(context, watch, Step::LookedUp(looked_up(context, &keys)), (source.port, &[]));
    pass::alone(context, hands, source, frame);
    hands.watcher.is_on = false;
    let moved = Event::ALL.iter().zip(before).filter(|(event, n)| context.counters.event(**event).read() != *n);
    for (event, _) in moved.filter(|(event, _)| **event != Event::Forwarded) {
        hands.watcher.add(context, watch, Step::Noted(*event), (source.port, &[]));
    }
    if let Some(flow) = seen(context, &keys) {
        hands.watcher.add(context, watch, Step::Flow(flow), (source.port, &[]));
        // Of a flow that this packet opened, the other side is known only now.
        subject.ends[1] = subject.ends[1].or(other_side(context, &keys));
    }
    subject.fate = hands.watcher.fate;
    finish(context, hands, watch, watch.filter.holds(&subject) == Some(true));
}

/// Shows what was written down, if the packet is one to be shown.
fn finish<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, watch: &Watch, is_shown: bool) {
    let watcher = &mut hands.watcher;
    let is_shown = is_shown && !watcher.records.is_empty() && {
        let may = watcher.limiter.take(context.now, watch.rate);
        if !may {
            watch.lose();
        }
        may
    };
    watcher.number += 1;
    if let Some(last) = watcher.records.last_mut() {
        last.place = Place::Last;
    }
    for record in watcher.records.drain(..) {
        if is_shown {
            watch.put(record);
        } else {
            watch.give_back(record);
        }
    }
}

/// A frame is about to leave while a watched packet is in hand.
#[cold]
#[inline(never)]
pub(super) fn left<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, frame: &Frame, port: PortIndex) {
    if let Some(watch) = context.watch() {
        hands.watcher.add(context, watch, Step::Left, (port, hands.ports.bytes(frame)));
    }
}

/// A frame is about to be dropped while a watched packet is in hand.
#[cold]
#[inline(never)]
pub(super) fn dropped<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, frame: &Frame, reason: Drop) {
    if let Some(watch) = context.watch() {
        hands.watcher.fate = Fate::Dropped(reason);
        hands.watcher.add(context, watch, Step::Dropped(reason), (PortIndex(u8::MAX), hands.ports.bytes(frame)));
    }
}

fn ends(headers: &Headers, frame: &[u8]) -> (Address, Address) {
    let (from, to) = (headers.source_port.host(), headers.destination_port.host());
    match headers.version {
        IpVersion::V4 => {
            let (source, destination) = headers.addresses_v4(frame);
            ((source.into(), from), (destination.into(), to))
        }
        IpVersion::V6 => {
            let (source, destination) = headers.addresses_v6(frame);
            ((source.into(), from), (destination.into(), to))
        }
    }
}

fn looked_up(context: Context<'_>, keys: &Keys) -> Found {
    match keys {
        Keys::V4(key) => found::<V4>(context, key),
        Keys::V6(key) => found::<V6>(context, key),
        Keys::None => Found::NoPorts,
    }
}

fn found<F: Path>(context: Context<'_>, key: &FlowKey<F::Addr>) -> Found {
    let table = F::table(context.shared);
    match table.lookup(key) {
        Find::Hit { flow, direction } => Found::Flow { direction, state: table.entry(flow).state().state() },
        Find::Miss => Found::None,
        Find::Unsettled => Found::Unsettled,
    }
}

/// The flow of a packet, if there is one.
fn seen(context: Context<'_>, keys: &Keys) -> Option<FlowSeen> {
    match keys {
        Keys::V4(key) => seen_in::<V4>(context, key),
        Keys::V6(key) => seen_in::<V6>(context, key),
        Keys::None => None,
    }
}

fn seen_in<F: Path>(context: Context<'_>, key: &FlowKey<F::Addr>) -> Option<FlowSeen> {
    let table = F::table(context.shared);
    let Find::Hit { flow, direction } = table.lookup(key) else { return None };
    let entry = table.entry(flow);
    let forward = entry.forward();
    let source = |key: &FlowKey<F::Addr>| Endpoint { address: key.source.into(), port: key.source_port };
    let destination = |key: &FlowKey<F::Addr>| Endpoint { address: key.destination.into(), port: key.destination_port };
    Some(FlowSeen {
        protocol: forward.protocol,
        direction,
        client: source(&forward),
        vip: destination(&forward),
        server_side: entry.reverse().map(|back| (source(&back), destination(&back))),
        destination: entry.destination(),
        state: entry.state().state(),
    })
}

/// Source and destination of a packet of a known flow on the flow's other side.
fn other_side(context: Context<'_>, keys: &Keys) -> Option<(Address, Address)> {
    let flow = seen(context, keys)?;
    let plain = |at: Endpoint| (at.address, at.port.host());
    match (flow.direction, flow.server_side) {
        (Direction::Forward, Some((server, to))) => Some((plain(to), plain(server))),
        (Direction::Forward, None) => None,
        (Direction::Reverse, _) => Some((plain(flow.vip), plain(flow.client))),
    }
}
