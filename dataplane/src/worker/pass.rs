//! The passes over a burst: parse and hash all, look up all, act on all.

use arrayvec::ArrayVec;

use super::path::Path;
use super::{Context, Hands, Packet, admit, carry, error, fragment};
use crate::counters::{Drop, Event};
use crate::flow::{Find, FlowKey, KeyHash, V4, V6};
use crate::ident::{PortIndex, Protocol};
use crate::port::{BURST, Burst, ChecksumMode, Frame, Ports};
use crate::wire::{self, Fragment, Headers, IpVersion, Settled, checksum};

/// How often a packet is admitted while other workers end the flows that it gets.
const ADMISSIONS: u32 = 4;

/// A packet with the key that it is looked up by.
pub(super) struct Keyed<F: Path> {
    pub(super) packet: Packet,
    pub(super) key: FlowKey<F::Addr>,
    pub(super) hash: KeyHash,
}

type Lot<F> = ArrayVec<Keyed<F>, BURST>;

/// Handles every frame of a burst from `port`.
pub(super) fn burst<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, port: PortIndex, burst: &mut Burst) {
    if burst.is_empty() {
        return;
    }
    let source = Source::of(context, port);
    let traffic = context.counters.ports().get(port.0 as usize);
    let (mut v4, mut v6) = (Lot::<V4>::new(), Lot::<V6>::new());
    for frame in burst.drain(..) {
        if let Some(traffic) = traffic {
            traffic.received.count(frame.len());
        }
        match examine(context, hands, frame, source) {
            Ok((frame, headers)) => sort(context, hands, Packet { frame, headers, port }, &mut v4, &mut v6),
            Err((frame, reason)) => hands.discard(context, frame, reason),
        }
    }
    look_up(context, hands, v4);
    look_up(context, hands, v6);
}

/// What to look at in the frames of a port.
#[derive(Clone, Copy)]
struct Source {
    checksum: ChecksumMode,
    is_kernel: bool,
}

impl Source {
    fn of(context: Context<'_>, port: PortIndex) -> Self {
        let settings = context.snapshot.ports.get(port.0 as usize);
        Self {
            // A port that the snapshot does not know yet gets all care.
            checksum: settings.map_or(ChecksumMode::Full, |settings| settings.checksum),
            is_kernel: context.snapshot.kernel.as_ref().is_some_and(|kernel| kernel.port == port),
        }
    }
}

/// Parses a frame, refuses loopback addresses (a local server may have one, but no host on a wire: the kernel, with
/// `route_localnet`, would take them for its own) and, where its port asks for it, sees to its transport checksum.
fn examine<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut frame: Frame,
    from: Source,
) -> Result<(Frame, Headers), (Frame, Drop)> {
    let headers = match wire::parse(hands.ports.bytes(&frame)) {
        Ok(headers) => headers,
        Err(reason) => return Err((frame, reason)),
    };
    if !from.is_kernel && headers.is_loopback(hands.ports.bytes(&frame)) {
        return Err((frame, Drop::Martian));
    }
    if from.checksum == ChecksumMode::Full {
        match checksum::settle(hands.ports.bytes_mut(&mut frame), &headers) {
            Ok(Settled::Completed) => context.counters.event(Event::ChecksumCompleted).add(1),
            Ok(_) => {}
            Err(reason) => return Err((frame, reason)),
        }
    }
    Ok((frame, headers))
}

/// Keys a packet and puts it with the others of its family; what has no ports goes its own way.
fn sort<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet, v4: &mut Lot<V4>, v6: &mut Lot<V6>) {
    if matches!(packet.headers.fragment, Fragment::Later { .. }) {
        return fragment::follow(context, hands, packet);
    }
    let Some(protocol) = Protocol::from_number(packet.headers.protocol) else {
        return error::relate(context, hands, packet);
    };
    match packet.headers.version {
        IpVersion::V4 => push(context, hands, packet, protocol, v4),
        IpVersion::V6 => push(context, hands, packet, protocol, v6),
    }
}

#[inline]
fn push<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet,
    protocol: Protocol,
    lot: &mut Lot<F>,
) {
    let headers = &packet.headers;
    let (source, destination) = F::addresses(headers, hands.ports.bytes(&packet.frame));
    let key = FlowKey {
        source,
        destination,
        source_port: headers.source_port,
        destination_port: headers.destination_port,
        protocol,
    };
    let table = F::table(context.shared);
    let hash = table.hash(&key);
    table.prefetch(hash);
    // A lot holds as many as a burst, so there is always room.
    if let Err(full) = lot.try_push(Keyed { packet, key, hash }) {
        hands.ports.free(full.element().packet.frame);
    }
}

fn look_up<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, lot: Lot<F>) {
    if lot.is_empty() {
        return;
    }
    let table = F::table(context.shared);
    let probes: ArrayVec<_, BURST> = lot.iter().map(|keyed| table.probe(keyed.hash)).collect();
    for (keyed, probe) in lot.into_iter().zip(&probes) {
        let flowless = match table.find(&keyed.key, probe) {
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
}

/// Admits a packet of no flow: again when the flow that it got ends before the packet could use it.
fn admit<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, mut keyed: Keyed<F>) {
    for _ in 0..ADMISSIONS {
        match admit::packet(context, hands, keyed) {
            None => return,
            Some(flowless) => keyed = flowless,
        }
    }
    hands.discard(context, keyed.packet.frame, Drop::InsertContended);
}
