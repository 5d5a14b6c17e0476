//! The fast way of new flows: plain SYNs and datagrams to services that ask for nothing but a server, and SYNs that the
//! SYN proxy answers.
//!
//! All that a burst opens get their servers first, and the memory that their keys will be put into is asked for; then
//! all are inserted and sent. So the waits of one flow hide behind the work for the others, as in the passes over
//! packets of flows. Whatever else there may be to do with a packet, it goes the way that knows all cases
//! ([`super::admit`]) with the same result.

use arrayvec::ArrayVec;

use super::egress::Learnt;
use super::fast::Fast;
use super::lot::{Item, Other};
use super::pass::{self, Keyed};
use super::path::{self, Path};
use super::syn_proxy::answer::{self, Answers};
use super::{Context, Hands, Packet, admit, carry, mixed};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, FlowKey, FlowRef, Insert, PackedFlow, Probe, flag};
use crate::ident::{Endpoint, PortIndex, Protocol};
use crate::next_hop::{NextHops, PlainHop};
use crate::port::{BURST, Frame, Ports};
use crate::sched::Arrival;
use crate::service::{AccessLists, Activity, Destination, Method, Service};
use crate::state::{TcpState, UDP_STATE, View};
use crate::wire::plain::Transport;
use crate::wire::{Plain, TcpFlags};

/// New flows of a burst that have a server and are not in the table yet.
pub(super) struct Opening<'a, F: Path> {
    scheduled: ArrayVec<Scheduled<'a, F>, BURST>,
    /// How the packet before was treated, by where it went.
    last: Option<(F::Words, Treatment<'a>)>,
    beginnings: Option<Beginnings>,
}

/// A packet with the server that its flow goes to.
struct Scheduled<'a, F: Path> {
    frame: Frame,
    /// Where in the lot it stands.
    at: u8,
    service: &'a Service,
    destination: &'a Destination,
    /// The way to the server, if it is a plain one.
    hop: Option<&'a PlainHop>,
    /// The key of the way back, if there is one, and where it may stand.
    reverse: F::Words,
    aim: Probe,
}

/// What becomes of packets to one endpoint that open flows.
enum Treatment<'a> {
    /// They need nothing but a server.
    Scheduled(&'a Service),
    /// They are answered by cookies.
    Answered(Answers),
    /// They go the general way.
    Other,
}

/// What is known of the packets of a lot, and where they came from.
#[derive(Clone, Copy)]
pub(super) struct Known<'l, F: Path> {
    pub(super) items: &'l [Item<F>],
    pub(super) others: &'l [Other],
    pub(super) port: PortIndex,
}

/// What a flow begins as.
#[derive(Clone, Copy)]
struct Beginning {
    state: u8,
    flags: u16,
    deadline: Tick,
    activity: Activity,
}

/// What flows of a burst begin as.
#[derive(Clone, Copy)]
struct Beginnings {
    two_way: Beginning,
    one_way: Beginning,
    datagram: Beginning,
}

impl Beginnings {
    fn new(context: Context<'_>) -> Self {
        let timeouts = &context.snapshot.policy.timeouts;
        let tcp = |view| {
            let state = TcpState::None.next(view, TcpFlags::SYN);
            Beginning {
                state: state.to_u8(),
                flags: if state.is_embryonic() { flag::EMBRYONIC } else { 0 },
                deadline: context.now.after(timeouts.tcp(state)),
                activity: state.activity(),
            }
        };
        let datagram = Beginning {
            state: UDP_STATE,
            flags: flag::EMBRYONIC,
            deadline: context.now.after(timeouts.udp()),
            activity: path::state_activity(Protocol::Udp, UDP_STATE),
        };
        Self { two_way: tcp(View::Input), one_way: tcp(View::InputOnly), datagram }
    }

    #[inline]
    fn of(&self, plain: Plain, destination: &Destination) -> Beginning {
        match (plain.transport(), destination.method.is_two_way()) {
            (Transport::Tcp, true) => self.two_way,
            (Transport::Tcp, false) => self.one_way,
            (Transport::Udp, _) => self.datagram,
        }
    }
}

impl<'a, F: Path> Opening<'a, F> {
    /// For one burst.
    #[inline]
    pub(super) fn new() -> Self {
        Self { scheduled: ArrayVec::new(), last: None, beginnings: None }
    }

    /// Schedules a packet of no flow, or answers it by a cookie, or gives it back.
    #[inline]
    pub(super) fn packet<P: Ports>(
        &mut self,
        context: Context<'a>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        frame: Frame,
        (at, item): (usize, &Item<F>),
    ) -> Option<Frame> {
        match item.plain {
            Some(plain) if item.probe.is_miss() && opens(plain) => {
                let Some(key) = F::unpack(&item.key) else { return Some(frame) };
                match self.treatment(context, item, &key) {
                    &Treatment::Scheduled(service) => self.schedule(context, service, frame, at, (item, plain, &key)),
                    Treatment::Answered(answers) => {
                        answer::plain::<F, P>(context, hands, fast, frame, (plain, &key), answers)
                    }
                    Treatment::Other => Some(frame),
                }
            }
            _ => Some(frame),
        }
    }

    /// How packets of a key are treated.
    #[inline]
    fn treatment(&mut self, context: Context<'a>, item: &Item<F>, key: &FlowKey<F::Addr>) -> &Treatment<'a> {
        let to = F::without_source(&item.key);
        if self.last.as_ref().is_none_or(|(before, _)| *before != to) {
            let at = Endpoint { address: F::ip(key.destination), port: key.destination_port };
            self.last = Some((to, treatment(context, key.protocol, at)));
        }
        self.last.as_ref().map_or(&Treatment::Other, |(_, treatment)| treatment)
    }

    #[inline(never)]
    fn schedule(
        &mut self,
        context: Context<'a>,
        service: &'a Service,
        frame: Frame,
        at: usize,
        (item, plain, key): (&Item<F>, Plain, &FlowKey<F::Addr>),
    ) -> Option<Frame> {
        if self.scheduled.is_full() {
            return Some(frame);
        }
        let client = Endpoint { address: F::ip(key.source), port: key.source_port };
        let arrival = Arrival { client, vip: F::ip(key.destination), now: context.now };
        let picked = service.scheduler.pick(&service.destinations, &service.state, arrival);
        let Some(destination) = picked else { return Some(frame) };
        let hop = context.snapshot.hops.plain_destination(destination.slot);
        let hop = hop.filter(|_| destination.method != Method::FullNat);
        let (mut reverse, mut aim) = (F::Words::default(), item.probe);
        if destination.method == Method::Nat
            && hop.is_some()
            && let Some(server) = F::address(destination.at.address)
        {
            let port = destination.at.port;
            let port = if port.is_any() { key.destination_port } else { port };
            reverse = F::with_source(&F::turned(&item.key), server, port);
            aim = F::table(context.shared).aim(&reverse);
        }
        let beginnings = self.beginnings.get_or_insert_with(|| Beginnings::new(context));
        // Before the next one is scheduled, and before anybody else can see the flow, move it or end it.
        destination.counts.begin(beginnings.of(plain, destination).activity);
        self.scheduled.push(Scheduled { frame, at: at as u8, service, destination, hop, reverse, aim });
        None
    }

    /// Inserts all flows that were scheduled, and sends their packets.
    #[inline]
    pub(super) fn finish<P: Ports>(
        &mut self,
        context: Context<'a>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        known: Known<'_, F>,
    ) {
        if let Some(beginnings) = self.beginnings.filter(|_| !self.scheduled.is_empty()) {
            for scheduled in self.scheduled.drain(..) {
                scheduled.open(context, hands, fast, known, &beginnings);
            }
        }
    }
}

impl<F: Path> Scheduled<'_, F> {
    #[inline(never)]
    fn open<P: Ports>(
        self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        known: Known<'_, F>,
        beginnings: &Beginnings,
    ) {
        let Some((item, plain)) = known.items.get(usize::from(self.at)).and_then(|item| Some((item, item.plain?)))
        else {
            // It was scheduled as a plain one of this lot.
            return hands.discard(context, self.frame, Drop::Truncated);
        };
        let beginning = beginnings.of(plain, self.destination);
        if let Some(flow) = self.insert(context, hands, item, known.port, beginning) {
            return self.first(context, hands, fast, (item, plain, flow), known.port);
        }
        self.destination.counts.end(beginning.activity);
        self.admit(context, hands, (item, plain), known.port);
    }

    /// Inserts the flow. `None` where that needs more thought.
    #[inline]
    fn insert<P: Ports>(
        &self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        item: &Item<F>,
        port: PortIndex,
        beginning: Beginning,
    ) -> Option<FlowRef> {
        self.hop?;
        let learnt = Learnt::sender(hands.ports.bytes(&self.frame), port);
        let new = PackedFlow::<F> {
            forward: item.key,
            reverse: self.reverse,
            destination: self.destination.slot.0,
            state: beginning.state,
            flags: beginning.flags,
            deadline: beginning.deadline,
            client_mac: learnt.map(|learnt| (learnt.mac, learnt.port)),
            return_hop: NextHops::NOT_LOOKED_UP,
            extension: None,
            controller: None,
        };
        match F::table(context.shared).insert_aimed(F::part(hands), &new, [&item.probe, &self.aim]) {
            Insert::Created(flow) => Some(flow),
            _ => None,
        }
    }

    /// Counts a flow that is in the table, and sends its first packet.
    #[inline]
    fn first<P: Ports>(
        mut self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        (item, plain, flow): (&Item<F>, Plain, FlowRef),
        port: PortIndex,
    ) {
        let (destination, length) = (self.destination, plain.ip_length());
        context.counters.event(Event::FlowCreated).add(1);
        if let Some(traffic) = destination.counts.traffic().get(context.worker.0 as usize) {
            traffic.connections.add(1);
        }
        match self.hop {
            Some(hop) if plain.ttl() > 1 && length <= usize::from(hop.mtu) && destination.method != Method::Tun => {
                destination.counts.carried(context.worker, Direction::Forward, length);
                let bytes = hands.ports.bytes_mut(&mut self.frame);
                if F::is_key(&self.reverse) {
                    let to = F::turned(&self.reverse);
                    F::translate_plain(bytes, plain.transport(), &hop.link, &to);
                } else {
                    F::route_plain(bytes, &hop.link);
                }
                fast.send(context, hands, self.frame, hop.port);
            }
            _ => {
                let Some(key) = F::unpack(&item.key) else {
                    return hands.discard(context, self.frame, Drop::Truncated);
                };
                let headers = plain.headers(key.source_port, key.destination_port);
                let packet = Packet { frame: self.frame, headers: &headers, port };
                carry::first(context, hands, Keyed::<F> { packet, key: &key }, flow, destination);
            }
        }
    }

    /// Lets the packet go the way that knows all cases, to the server that it was scheduled to.
    #[cold]
    #[inline(never)]
    fn admit<P: Ports>(
        self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        (item, plain): (&Item<F>, Plain),
        port: PortIndex,
    ) {
        let Some(key) = F::unpack(&item.key) else { return hands.discard(context, self.frame, Drop::Truncated) };
        let headers = plain.headers(key.source_port, key.destination_port);
        let packet = Packet { frame: self.frame, headers: &headers, port };
        let keyed = Keyed::<F> { packet, key: &key };
        if let Some(flowless) = admit::scheduled(context, hands, keyed, self.service, self.destination) {
            pass::admit(context, hands, flowless);
        }
    }
}

/// Whether a packet opens a flow whatever the policy is.
#[inline]
fn opens(plain: Plain) -> bool {
    const DECIDING: TcpFlags = TcpFlags::SYN.with(TcpFlags::ACK).with(TcpFlags::FIN).with(TcpFlags::RST);
    plain.transport() == Transport::Udp || plain.is_segment(TcpFlags::SYN, DECIDING)
}

/// How packets to an endpoint are treated. Where anything stands before new flows, they go the general way.
#[inline(never)]
fn treatment(context: Context<'_>, protocol: Protocol, at: Endpoint) -> Treatment<'_> {
    let (services, gates) = (&context.snapshot.services, &context.snapshot.gates);
    let is_free = gates.rules.is_empty() && gates.sources.is_none();
    if !is_free || services.has_ftp() || mixed::are_there(context) {
        return Treatment::Other;
    }
    let Some((_, service)) = services.find(protocol, at) else { return Treatment::Other };
    match &service.settings.syn_proxy {
        None if service.is_plain => Treatment::Scheduled(service),
        Some(proxy) if protocol == Protocol::Tcp && service.settings.access == AccessLists::default() => {
            Answers::new(context, service, proxy).map_or(Treatment::Other, Treatment::Answered)
        }
        _ => Treatment::Other,
    }
}
