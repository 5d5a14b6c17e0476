//! A packet of no flow: a service may open one, it may be a stray, or it belongs to the kernel.

use super::carry;
use super::egress::{self, Learnt};
use super::gate;
use super::pass::Keyed;
use super::path::{self, Path};
use super::{Context, Hands, ftp, fullnat, introduce, limits, mixed, persistence, reply, syn_proxy};
use crate::clock::Ticks;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, FlowKey, FlowLink, FlowRef, Insert, NewExtension, NewFlow, flag};
use crate::forward::icmp::ErrorKind;
use crate::ident::{Endpoint, NetPort, Protocol};
use crate::next_hop::{Hop, NextHops};
use crate::port::Ports;
use crate::rules::Judgement;
use crate::sched::Arrival;
use crate::service::{Datagrams, Destination, Method, Service};
use crate::snapshot::StraySegments;
use crate::state::SctpState;
use crate::state::{TcpState, UDP_STATE, View};
use crate::wire::{Fragment, TcpFlags};

/// Other servers that are tried when the reverse key of the one picked is taken.
const OTHER_SERVERS: usize = 3;
/// Local ports that are tried for a server on the director itself.
const PORT_TRIES: u16 = 32;

/// A flow for a packet.
pub(super) enum Opened<'s> {
    /// It is new, to this server, and this is its first packet.
    Created(FlowRef, &'s Destination),
    /// Another worker was faster.
    Adopted(FlowRef),
}

/// What a flow begins as.
pub(super) struct Beginning {
    pub(super) state: u8,
    pub(super) flags: u16,
    /// How long it may idle.
    pub(super) idle: Ticks,
    pub(super) extension: Option<NewExtension>,
    /// The template that it hangs on.
    pub(super) controller: Option<FlowLink>,
}

/// A packet whose key belongs to no flow, as far as the lookup saw. Given back when it got a flow that is over already.
#[inline(never)]
#[must_use]
pub(super) fn packet<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
) -> Option<Keyed<'h, F>> {
    let keyed = if context.snapshot.services.has_ftp() { ftp::expected(context, hands, keyed)? } else { keyed };
    let at = Endpoint { address: F::ip(keyed.key.destination), port: keyed.key.destination_port };
    let (judgement, service) = gate::service(context, &keyed, at);
    let Some(service) = service.or_else(|| ftp::related(context, &keyed)) else {
        match gate::defended::<F>(context, keyed.key) {
            _ if context.snapshot.services.is_local(at) => fullnat::stray(context, hands, keyed),
            Some(reason) => hands.discard(context, keyed.packet.frame, reason),
            None => egress::to_kernel(context, hands, keyed.packet),
        }
        return None;
    };
    if let Some(proxy) = &service.settings.syn_proxy
        && keyed.key.protocol == Protocol::Tcp
    {
        // Whoever is not welcome gets no cookie either; rates are for those who bring one back.
        if let Some(reason) = gate::unwelcome(&keyed, judgement, service).filter(|_| opens(context, hands, &keyed)) {
            hands.discard(context, keyed.packet.frame, reason);
            return None;
        }
        return syn_proxy::admit(context, hands, keyed, service, proxy);
    }
    if !opens(context, hands, &keyed) {
        return carry::if_opened(context, hands, keyed, |hands, keyed| {
            match judgement {
                Judgement::Denied => hands.discard(context, keyed.packet.frame, Drop::Denied),
                _ => stray(context, hands, keyed),
            }
            None
        });
    }
    if is_scheduled_alone(&keyed, service) {
        once(context, hands, keyed, service);
        return None;
    }
    if let Some(exceeded) = limits::exceeded(context, service) {
        limits::refuse(context, hands, keyed, exceeded);
        return None;
    }
    let opened = open(context, hands, &keyed, service, None);
    begin(context, hands, keyed, opened)
}

/// As [`packet`], for one that opens a flow to a server which was picked for it.
#[must_use]
pub(super) fn scheduled<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    service: &Service,
    picked: &Destination,
) -> Option<Keyed<'h, F>> {
    let opened = open_to(context, hands, &keyed, service, picked, None);
    begin(context, hands, keyed, opened)
}

/// Sends the packet for which a flow was opened, if it was.
fn begin<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    opened: Result<Opened<'_>, Drop>,
) -> Option<Keyed<'h, F>> {
    match opened {
        Ok(Opened::Created(flow, destination)) => carry::first(context, hands, keyed, flow, destination),
        Ok(Opened::Adopted(flow)) => return carry::packet_after_all(context, hands, keyed, flow, Direction::Forward),
        Err(reason) => refuse(context, hands, keyed, reason),
    }
    None
}

/// Drops a packet that found no flow and no server. Who gets no server hears of it.
fn refuse<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, keyed: Keyed<'_, F>, reason: Drop) {
    if reason == Drop::NoDestination {
        let vip = keyed.key.destination.into();
        reply::icmp(context, hands, &keyed.packet, ErrorKind::PortUnreachable, vip);
    }
    hands.discard(context, keyed.packet.frame, reason);
}

/// Whether a packet is a datagram of a service with `ops`. One in fragments gets a flow all the same, for the later ones
/// to follow.
fn is_scheduled_alone<F: Path>(keyed: &Keyed<'_, F>, service: &Service) -> bool {
    service.settings.datagrams == Datagrams::OneByOne
        && keyed.key.protocol == Protocol::Udp
        && keyed.packet.headers.fragment == Fragment::Whole
}

/// Sends a datagram where the scheduler says, and forgets it.
#[inline(never)]
fn once<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, keyed: Keyed<'_, F>, service: &Service) {
    if let Some(reason) = gate::refusal(context, &keyed, service) {
        return refuse(context, hands, keyed, reason);
    }
    let Some(destination) = pick::<F>(context, service, || *keyed.key) else {
        return refuse(context, hands, keyed, Drop::NoDestination);
    };
    let is_local = *context.snapshot.hops.destination(destination.slot) == Hop::Kernel;
    match reverse_key::<F>(keyed.key, destination, is_local, 0) {
        Ok(back) => {
            context.counters.event(Event::DatagramScheduled).add(1);
            if let Some(traffic) = destination.counts.traffic().get(context.worker.0 as usize) {
                traffic.connections.add(1);
            }
            carry::once(context, hands, keyed, destination, back.as_ref());
        }
        Err(reason) => refuse(context, hands, keyed, reason),
    }
}

/// Whether a packet may open a flow: every datagram, a segment with SYN; with `sloppy_tcp` any but a reset. Of SCTP
/// [`super::sctp`] knows.
fn opens<F: Path, P: Ports>(context: Context<'_>, hands: &Hands<P>, keyed: &Keyed<'_, F>) -> bool {
    let tcp = keyed.packet.headers.tcp;
    match (keyed.key.protocol, context.snapshot.policy.stray) {
        (Protocol::Tcp, _) if tcp.contains(TcpFlags::RST) => false,
        (Protocol::Tcp, StraySegments::Reset | StraySegments::Silence) => tcp.contains(TcpFlags::SYN),
        (Protocol::Tcp, StraySegments::Open) | (Protocol::Udp, _) => true,
        (Protocol::Sctp, _) => super::sctp::opens(context, hands, keyed),
    }
}

/// A segment of a connection that nobody knows: the client learns it at once.
pub(super) fn stray<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, keyed: Keyed<'_, F>) {
    if context.snapshot.policy.stray == StraySegments::Silence {
        return hands.discard(context, keyed.packet.frame, Drop::DefendedTcp);
    }
    let reason = match reply::reset(context, hands, &keyed.packet) {
        reply::Sent::Yes | reply::Sent::Unanswerable => Drop::NoFlow,
        reply::Sent::Limited => Drop::NoFlowLimited,
    };
    hands.discard(context, keyed.packet.frame, reason);
}

/// Picks a server and inserts the flow, or takes over the one that another worker inserted. Where the server picked
/// has a flow with the same reverse key already, others are tried as they stand in the list: many schedulers would
/// pick the same again. The flow begins as its first packet says, or as `beginning`.
pub(super) fn open<'s, F: Path, P: Ports>(
    context: Context<'s>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    service: &'s Service,
    beginning: Option<&Beginning>,
) -> Result<Opened<'s>, Drop> {
    if let Some(reason) = gate::refusal(context, keyed, service) {
        return Err(reason);
    }
    if let Some(settings) = &service.settings.persistence {
        return persistence::open(context, hands, keyed, (service, settings), beginning);
    }
    let picked = pick::<F>(context, service, || *keyed.key).ok_or(Drop::NoDestination)?;
    open_to(context, hands, keyed, service, picked, beginning)
}

/// As [`open`], where nothing refuses the packet, to the server that was picked for it.
pub(super) fn open_to<'s, F: Path, P: Ports>(
    context: Context<'s>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    service: &'s Service,
    picked: &'s Destination,
    beginning: Option<&Beginning>,
) -> Result<Opened<'s>, Drop> {
    if let Some(opened) = insert(context, hands, keyed, picked, beginning)? {
        return Ok(opened);
    }
    let others = service.destinations.iter().filter(|other| other.takes_flows() && other.slot != picked.slot);
    for destination in others.take(OTHER_SERVERS) {
        if let Some(opened) = insert(context, hands, keyed, destination, beginning)? {
            return Ok(opened);
        }
    }
    Err(if picked.method == Method::FullNat { Drop::NoLocalPort } else { Drop::ReverseTaken })
}

/// The server that the service's scheduler has for packets with a key, if it asks for the key.
#[inline]
pub(super) fn pick<'s, F: Path>(
    context: Context<'_>,
    service: &'s Service,
    key: impl FnOnce() -> FlowKey<F::Addr>,
) -> Option<&'s Destination> {
    service.scheduler.pick(&service.destinations, &service.state, || {
        let key = key();
        let client = Endpoint { address: F::ip(key.source), port: key.source_port };
        Arrival { client, vip: F::ip(key.destination), now: context.now }
    })
}

/// Inserts a flow to `destination`; `None` when its reverse key belongs to another flow.
pub(super) fn insert<'s, F: Path, P: Ports>(
    context: Context<'s>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    destination: &'s Destination,
    beginning: Option<&Beginning>,
) -> Result<Option<Opened<'s>>, Drop> {
    let usual = || usual_beginning(context, hands, keyed, destination);
    let beginning = &beginning.map_or_else(usual, |given| Beginning { ..*given });
    let activity = path::state_activity(keyed.key.protocol, beginning.state);
    // Before anybody else can see the flow, move it or end it.
    destination.counts.begin(activity);
    let inserted = insert_uncounted(context, hands, keyed, destination, beginning);
    match inserted {
        Ok(Some(Opened::Created(..))) => {
            context.counters.event(Event::FlowCreated).add(1);
            if let Some(traffic) = destination.counts.traffic().get(context.worker.0 as usize) {
                traffic.connections.add(1);
            }
        }
        Ok(_) | Err(_) => destination.counts.end(activity),
    }
    inserted
}

fn insert_uncounted<'s, F: Path, P: Ports>(
    context: Context<'s>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    destination: &'s Destination,
    beginning: &Beginning,
) -> Result<Option<Opened<'s>>, Drop> {
    let is_local = *context.snapshot.hops.destination(destination.slot) == Hop::Kernel;
    let tries = if is_local && destination.method.is_two_way() { PORT_TRIES } else { 1 };
    let mut new = NewFlow {
        forward: *keyed.key,
        reverse: None,
        destination: destination.slot.0,
        state: beginning.state,
        flags: beginning.flags | mixed::flag::<F>(context, keyed.key.source, destination),
        deadline: context.now.after(beginning.idle),
        client_mac: Learnt::sender(hands.ports.bytes(&keyed.packet.frame), keyed.packet.port)
            .map(|learnt| (learnt.mac, learnt.port)),
        return_hop: NextHops::NOT_LOOKED_UP,
        extension: beginning.extension,
        controller: beginning.controller,
    };
    introduce::begin(context, hands, keyed, destination, &mut new);
    ftp::begin(context, keyed, destination, &mut new);
    if destination.method == Method::FullNat && !is_local {
        return fullnat::insert(context, hands, destination, &new);
    }
    for attempt in 0..tries {
        let reverse = reverse_key::<F>(keyed.key, destination, is_local, attempt)?;
        let new = NewFlow { reverse, ..new };
        let inserted = F::table(context.shared).insert(F::part(hands), &new);
        if let Some(opened) = outcome(context, inserted, destination)? {
            return Ok(Some(opened));
        }
    }
    Ok(None)
}

/// What became of an insert; `None` where another flow has the reverse key.
///
/// # Errors
/// The reason for which the packet is to be dropped.
pub(super) fn outcome<'s>(
    context: Context<'_>,
    inserted: Insert,
    destination: &'s Destination,
) -> Result<Option<Opened<'s>>, Drop> {
    match inserted {
        Insert::Created(flow) => Ok(Some(Opened::Created(flow, destination))),
        Insert::Adopted(flow) => {
            context.counters.event(Event::FlowAdopted).add(1);
            Ok(Some(Opened::Adopted(flow)))
        }
        Insert::ReverseTaken => Ok(None),
        Insert::Contended => Err(Drop::InsertContended),
        Insert::Full => Err(Drop::TableFull),
        Insert::NoExtension => Err(Drop::NoExtension),
    }
}

/// How replies of the server will be keyed: to the client; from a server on the director itself, to an address and
/// port of the kernel port's, so that they come back by it. One-way methods have none.
fn reverse_key<F: Path>(
    forward: &FlowKey<F::Addr>,
    destination: &Destination,
    is_local: bool,
    attempt: u16,
) -> Result<Option<FlowKey<F::Addr>>, Drop> {
    if !destination.method.is_two_way() {
        return Ok(None);
    }
    let server = F::address(destination.at.address).ok_or(Drop::NoDestination)?;
    let (to, to_port) = if is_local {
        let local = destination.local_source.and_then(F::address).ok_or(Drop::NoRoute)?;
        (local, local_port(forward.source_port, attempt))
    } else {
        (forward.source, forward.source_port)
    };
    let source_port = if destination.at.port.is_any() { forward.destination_port } else { destination.at.port };
    Ok(Some(FlowKey {
        source: server,
        destination: to,
        source_port,
        destination_port: to_port,
        protocol: forward.protocol,
    }))
}

/// The client's own port first, then others of the range above 1024.
fn local_port(client: NetPort, attempt: u16) -> NetPort {
    if attempt == 0 {
        return client;
    }
    let spread = client.host().wrapping_mul(40_503).wrapping_add(attempt.wrapping_mul(2039));
    NetPort::new(1024 + spread % (u16::MAX - 1024))
}

/// What a flow begins as by its first packet.
pub(super) fn usual_beginning<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &Hands<P>,
    keyed: &Keyed<'_, F>,
    destination: &Destination,
) -> Beginning {
    let timeouts = &context.snapshot.policy.timeouts;
    let view = if destination.method.is_two_way() { View::Input } else { View::InputOnly };
    match keyed.key.protocol {
        Protocol::Tcp => {
            let state = TcpState::None.next(view, keyed.packet.headers.tcp);
            let flags = if state.is_embryonic() { flag::EMBRYONIC } else { 0 };
            Beginning { state: state.to_u8(), flags, idle: timeouts.tcp(state), extension: None, controller: None }
        }
        Protocol::Udp => Beginning {
            state: UDP_STATE,
            flags: flag::EMBRYONIC,
            idle: timeouts.udp(),
            extension: None,
            controller: None,
        },
        Protocol::Sctp => {
            let state = SctpState::None.next(view, super::sctp::event(hands, keyed));
            let flags = if state.is_embryonic() { flag::EMBRYONIC } else { 0 };
            Beginning { state: state.to_u8(), flags, idle: timeouts.sctp(state), extension: None, controller: None }
        }
    }
}
