//! The fast way of new flows: plain SYNs and datagrams to services that ask for nothing but a server, SYNs that the
//! SYN proxy answers, and what brings its cookies back.
//!
//! Some of what a burst opens get their servers first (under FULLNAT their local ports too), and the memory that their
//! keys will be put into is asked for; then they are inserted and sent. So the waits of one flow hide behind the work for
//! the others, as in the passes over packets of flows. Whatever else there may be to do with a packet, it goes the way
//! that knows all cases ([`super::admit`]) with the same result.

#![allow(clippy::inline_always, reason = "keys that are returned by memory wait for their words")]

use arrayvec::ArrayVec;

use super::egress::Learnt;
use super::fast::Fast;
use super::fullnat::{self, Candidate};
use super::introduce::{self, Introduction};
use super::lot::{Item, Other};
use super::pass::{self, Keyed};
use super::path::{self, Path};
use super::syn_proxy::answer::{self, Answers};
use super::{Context, Hands, Packet, admit, carry, mixed, syn_proxy};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::flow::{ClientMac, Direction, FlowKey, FlowRef, Insert, KeyHash, NewExtension, PackedFlow, Probe, flag};
use crate::forward::sequence;
use crate::ident::{Endpoint, PortIndex, Protocol};
use crate::next_hop::{NextHops, PlainHop};
use crate::port::{Frame, Ports};
use crate::service::{AccessLists, Activity, Destination, Method, Service};
use crate::state::{TcpState, UDP_STATE, View};
use crate::syn_proxy::SynProxy;
use crate::syn_proxy::cookie::{Agreement, Cookies};
use crate::wire::checksum::Delta;
use crate::wire::plain::Transport;
use crate::wire::{Plain, TcpFlags, tcp};

/// What a flow begins as whose server is asked by the SYN proxy.
const ASKED: TcpState = TcpState::SynSent;
/// Flows that are inserted together: enough to hide the waits of each, and so few that what was asked for is still near.
const TOGETHER: usize = 16;

/// New flows of a burst that have a server and are not in the table yet.
pub(super) struct Opening<'a, F: Path> {
    /// Their packets.
    frames: ArrayVec<Frame, TOGETHER>,
    scheduled: ArrayVec<Scheduled<'a, F>, TOGETHER>,
    /// How the packet before was treated, by where it went.
    last: Option<(F::Words, Treatment<'a>)>,
    beginnings: Option<Beginnings>,
}

/// Where a packet's flow goes.
struct Scheduled<'a, F: Path> {
    /// Where in the lot it stands.
    at: u8,
    service: &'a Service,
    destination: &'a Destination,
    /// The way to the server, if it is a plain one.
    hop: Option<&'a PlainHop>,
    /// The key of the way back, if there is one, and where it may stand.
    reverse: F::Words,
    /// Found when the flows are inserted; until then that of the packet's own key.
    aim: Probe,
    /// Where FULLNAT lets it come from.
    from: Option<Candidate<'a>>,
    /// What was agreed on with a client that brings its cookie back.
    agreement: Option<Agreement>,
}

/// What becomes of packets to one endpoint that open flows.
enum Treatment<'a> {
    /// They need nothing but a server.
    Scheduled(&'a Service),
    /// They are answered by cookies.
    Answered(Proxied<'a>),
    /// They go the general way.
    Other,
}

/// A service whose clients are answered by cookies.
#[derive(Clone, Copy)]
struct Proxied<'a> {
    service: &'a Service,
    proxy: &'a SynProxy,
    answers: Answers,
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
        Self { frames: ArrayVec::new(), scheduled: ArrayVec::new(), last: None, beginnings: None }
    }

    /// Schedules a packet of no flow, or answers it by a cookie, or gives it back.
    #[inline]
    pub(super) fn packet<P: Ports>(
        &mut self,
        context: Context<'a>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        frame: Frame,
        (known, at): (Known<'_, F>, usize),
    ) -> Option<Frame> {
        let Some(item) = known.items.get(at) else { return Some(frame) };
        match item.plain {
            Some(plain) if item.probe.is_miss() && opens(plain) => match self.treatment(context, hands, item) {
                &Treatment::Scheduled(service) => {
                    if self.scheduled.is_full() {
                        self.finish(context, hands, fast, known);
                    }
                    self.schedule(context, service, frame, at, (item, plain))
                }
                Treatment::Answered(Proxied { answers, .. }) => {
                    answer::plain::<F, P>(context, hands, fast, frame, (plain, &item.key), answers)
                }
                Treatment::Other => Some(frame),
            },
            Some(plain) if item.probe.is_miss() && is_answer(plain) => {
                self.acknowledgement(context, hands, fast, frame, (known, at), (item, plain))
            }
            _ => Some(frame),
        }
    }

    /// How packets of a key are treated.
    #[inline]
    fn treatment<P>(&mut self, context: Context<'a>, hands: &mut Hands<P>, item: &Item<F>) -> &Treatment<'a> {
        let to = F::without_source(&item.key);
        if self.last.as_ref().is_none_or(|(before, _)| !F::are_same(before, &to)) {
            let key = key::<F>(item);
            let at = Endpoint { address: F::ip(key.destination), port: key.destination_port };
            self.last = Some((to, treatment(context, &mut hands.cookies, key.protocol, at)));
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
        (item, plain): (&Item<F>, Plain),
    ) -> Option<Frame> {
        if self.scheduled.is_full() {
            return Some(frame);
        }
        let Some(destination) = admit::pick::<F>(context, service, || key::<F>(item)) else { return Some(frame) };
        let beginnings = self.beginnings.get_or_insert_with(|| Beginnings::new(context));
        // Before the next one is scheduled, and before anybody else can see the flow, move it or end it. At once, because
        // the next one's server waits for this count, and the count for all stores before it.
        destination.counts.begin(beginnings.of(plain, destination).activity);
        let mut reverse = F::Words::default();
        let way = way(context, destination, item, &mut reverse);
        let (hop, from) = way.map_or((None, None), |(hop, from)| (Some(hop), from));
        if let Some(from) = &from {
            from.local.pair.begin(context.worker);
        }
        let (at, aim, agreement) = (at as u8, item.probe, None);
        self.frames.push(frame);
        self.scheduled.push(Scheduled { at, service, destination, hop, reverse, aim, from, agreement });
        None
    }

    /// Schedules a client's segment to a proxied service if it holds a cookie, or gives it back.
    #[inline(never)]
    fn acknowledgement<P: Ports>(
        &mut self,
        context: Context<'a>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        frame: Frame,
        (known, at): (Known<'_, F>, usize),
        (item, plain): (&Item<F>, Plain),
    ) -> Option<Frame> {
        let key = key::<F>(item);
        let &Treatment::Answered(Proxied { service, proxy, .. }) = self.treatment(context, hands, item) else {
            return Some(frame);
        };
        let segment = hands.ports.bytes(&frame).get(F::L4..plain.end()).unwrap_or_default();
        let agreement = syn_proxy::agreed(&hands.cookies, segment, &key, (service, proxy));
        let Some(agreement) = agreement.filter(|_| service.settings.persistence.is_none()) else { return Some(frame) };
        if self.scheduled.is_full() {
            self.finish(context, hands, fast, known);
        }
        let Some(destination) = admit::pick::<F>(context, service, || key) else { return Some(frame) };
        let mut reverse = F::Words::default();
        // The port that FULLNAT takes is not known before.
        if destination.method == Method::Nat && way(context, destination, item, &mut reverse).is_some() {
            // Asked for only: what opens the flow looks itself.
            let _ = F::table(context.shared).aim(&reverse);
        }
        destination.counts.begin(ASKED.activity());
        self.beginnings.get_or_insert_with(|| Beginnings::new(context));
        let (reverse, aim) = (F::Words::default(), item.probe);
        let at = at as u8;
        let agreement = Some(agreement);
        self.frames.push(frame);
        self.scheduled.push(Scheduled { at, service, destination, hop: None, reverse, aim, from: None, agreement });
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
            // In a row: each may wait until the page that its buckets are in is found, and scheduling's locked additions
            // would make all that follows wait too.
            let table = F::table(context.shared);
            let mut hashes = [KeyHash::default(); TOGETHER];
            for (hash, scheduled) in hashes.iter_mut().zip(&mut self.scheduled) {
                if F::is_key(&scheduled.reverse) {
                    *hash = table.hash_words(&scheduled.reverse);
                    scheduled.aim = table.aim_hashed(*hash);
                }
            }
            // There are as many of each.
            for ((frame, scheduled), hash) in self.frames.drain(..).zip(&self.scheduled).zip(hashes) {
                scheduled.open(context, hands, fast, (frame, hash), known, &beginnings);
            }
            self.scheduled.clear();
        }
    }
}

impl<'a, F: Path> Scheduled<'a, F> {
    #[inline(never)]
    fn open<P: Ports>(
        &self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        (frame, hash): (Frame, KeyHash),
        known: Known<'_, F>,
        beginnings: &Beginnings,
    ) {
        let Some((item, plain)) = known.items.get(usize::from(self.at)).and_then(|item| Some((item, item.plain?)))
        else {
            // It was scheduled as a plain one of this lot.
            return hands.discard(context, frame, Drop::Truncated);
        };
        if let Some(agreement) = self.agreement {
            return self.proxied(context, hands, (frame, item, plain), known.port, agreement);
        }
        let beginning = beginnings.of(plain, self.destination);
        if let Some(introduction) = self.introduce(context, hands, (&frame, plain), (item, hash))
            && let Some(flow) = self.insert(context, hands, (&frame, item, &introduction), known.port, beginning)
        {
            return self.first(context, hands, fast, (frame, item, plain), (flow, &introduction), known.port);
        }
        self.destination.counts.end(beginning.activity);
        if let Some(from) = &self.from {
            from.local.pair.end(context.worker);
        }
        self.admit(context, hands, (frame, item, plain), known.port);
    }

    /// What the flow gets besides its keys. `None` where that needs more thought.
    #[inline]
    fn introduce<P: Ports>(
        &self,
        context: Context<'_>,
        hands: &Hands<P>,
        (frame, plain): (&Frame, Plain),
        (item, hash): (&Item<F>, KeyHash),
    ) -> Option<Introduction> {
        if self.from.is_none() {
            return Some(Introduction::default());
        }
        let segment = hands.ports.bytes(frame).get(F::L4..plain.end())?;
        let (key, settings) = (|| key::<F>(item), &self.service.settings);
        let mark = || F::table(context.shared).mark_hashed(hash);
        let mut introduction = introduce::plain::<F, P>(hands, (segment, plain), key, mark, settings)?;
        if self.plainly(plain, &introduction).is_some()
            && let Some(extension) = introduction.extension.as_mut()
        {
            // Data of a SYN counts when it goes on.
            extension.next[0] = extension.next[0].wrapping_add(data(segment));
        }
        Some(introduction)
    }

    /// The hop that the first packet goes by, if there is no more to do with it than that.
    #[inline]
    fn plainly(&self, plain: Plain, introduction: &Introduction) -> Option<&'a PlainHop> {
        let fits = |hop: &&PlainHop| plain.ttl() > 1 && plain.ip_length() <= usize::from(hop.mtu);
        self.hop.filter(fits).filter(|_| self.destination.method != Method::Tun && introduction.is_plain())
    }

    /// Inserts the flow. `None` where that needs more thought.
    #[inline]
    fn insert<P: Ports>(
        &self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        (frame, item, introduction): (&Frame, &Item<F>, &Introduction),
        port: PortIndex,
        beginning: Beginning,
    ) -> Option<FlowRef> {
        self.hop?;
        let learnt = Learnt::sender(hands.ports.bytes(frame), port);
        let new = PackedFlow::<F> {
            forward: item.key,
            reverse: self.reverse,
            destination: self.destination.slot.0,
            state: beginning.state,
            flags: beginning.flags | introduction.flags,
            deadline: beginning.deadline,
            client: ClientMac::new(learnt.map(|learnt| (learnt.mac, learnt.port))),
            return_hop: NextHops::NOT_LOOKED_UP,
            extension: introduction.extension.as_ref(),
            controller: None,
        };
        match (F::table(context.shared).insert_aimed(F::part(hands), &new, [&item.probe, &self.aim]), &self.from) {
            (Insert::Created(flow), from) => {
                if let Some(from) = from {
                    from.taken(context);
                }
                Some(flow)
            }
            (Insert::ReverseTaken, Some(from)) => {
                from.local.pair.conflict(context.worker);
                None
            }
            _ => None,
        }
    }

    /// Counts a flow that is in the table, and sends its first packet.
    #[inline]
    fn first<P: Ports>(
        &self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        fast: &mut Fast<'_>,
        (mut frame, item, plain): (Frame, &Item<F>, Plain),
        (flow, introduction): (FlowRef, &Introduction),
        port: PortIndex,
    ) {
        let (destination, length) = (self.destination, plain.ip_length());
        context.counters.event(Event::FlowCreated).add(1);
        if let Some(traffic) = destination.counts.traffic().get(context.worker.0 as usize) {
            traffic.connections.add(1);
        }
        if let Some(hop) = self.plainly(plain, introduction) {
            destination.counts.carried(context.worker, Direction::Forward, length);
            let bytes = hands.ports.bytes_mut(&mut frame);
            if F::is_key(&self.reverse) {
                let to = F::turned(&self.reverse);
                let moved = introduction.extension.as_ref().map(|moved| renumber::<F>(bytes, plain, moved));
                F::translate_plain(bytes, plain.transport(), &hop.link, &to, moved.unwrap_or_default());
            } else {
                F::route_plain(bytes, &hop.link);
            }
            fast.send(context, hands, frame, hop.port);
        } else {
            let key = key::<F>(item);
            let headers = plain.headers(key.source_port, key.destination_port);
            let packet = Packet { frame, headers: &headers, port };
            carry::first(context, hands, Keyed::<F> { packet, key: &key }, flow, destination);
        }
    }

    /// Opens the flow of a client that brought its cookie back.
    #[inline(never)]
    fn proxied<P: Ports>(
        &self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        (frame, item, plain): (Frame, &Item<F>, Plain),
        port: PortIndex,
        agreement: Agreement,
    ) {
        self.destination.counts.end(ASKED.activity());
        let key = key::<F>(item);
        let headers = plain.headers(key.source_port, key.destination_port);
        let packet = Packet { frame, headers: &headers, port };
        let keyed = Keyed::<F> { packet, key: &key };
        let by = (agreement, self.destination);
        if let Some(flowless) = syn_proxy::scheduled(context, hands, keyed, self.service, by) {
            pass::admit(context, hands, flowless);
        }
    }

    /// Lets the packet go the way that knows all cases, to the server that it was scheduled to.
    #[cold]
    #[inline(never)]
    fn admit<P: Ports>(
        &self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        (frame, item, plain): (Frame, &Item<F>, Plain),
        port: PortIndex,
    ) {
        let key = key::<F>(item);
        let headers = plain.headers(key.source_port, key.destination_port);
        let packet = Packet { frame, headers: &headers, port };
        let keyed = Keyed::<F> { packet, key: &key };
        if let Some(flowless) = admit::scheduled(context, hands, keyed, self.service, self.destination) {
            pass::admit(context, hands, flowless);
        }
    }
}

/// The key of a plain packet, which always has one. Unpacked where it is needed: the words of an IPv6 key are many.
#[inline(always)]
fn key<F: Path>(item: &Item<F>) -> FlowKey<F::Addr> {
    F::unpack(&item.key).unwrap_or(F::NO_KEY)
}

/// The way to a new flow's server, and where FULLNAT lets it come from; sets the key that replies will have, if they
/// come by. `None` where that needs more thought.
#[inline(always)]
fn way<'a, F: Path>(
    context: Context<'a>,
    destination: &'a Destination,
    item: &Item<F>,
    reverse: &mut F::Words,
) -> Option<(&'a PlainHop, Option<Candidate<'a>>)> {
    let hop = context.snapshot.hops.plain_destination(destination.slot)?;
    if !destination.method.is_two_way() {
        return Some((hop, None));
    }
    let Endpoint { address, port } = destination.at;
    let key = key::<F>(item);
    let (server, port) = (F::address(address)?, if port.is_any() { key.destination_port } else { port });
    if destination.method == Method::Nat {
        *reverse = F::with_source(&F::turned(&item.key), server, port);
        return Some((hop, None));
    }
    let from = fullnat::next(context, destination, key.protocol, Endpoint { address, port })?;
    let there = F::with_source(&item.key, F::address(from.local.address)?, from.port);
    *reverse = F::with_source(&F::turned(&there), server, port);
    Some((hop, Some(from)))
}

/// Bytes of data of a plain segment.
#[inline]
fn data(segment: &[u8]) -> u32 {
    let header = segment.get(tcp::DATA_OFFSET).map_or(0, |offset| usize::from(offset >> 4) * 4);
    segment.len().saturating_sub(header) as u32
}

/// Moves the numbers of the segment that a flow was opened by.
#[inline]
fn renumber<F: Path>(frame: &mut [u8], plain: Plain, extension: &NewExtension) -> Delta {
    let Some(segment) = frame.get_mut(F::L4..plain.end()) else { return Delta::default() };
    let (shift, stamp) = (extension.shifts[0].after, extension.timestamps[0]);
    sequence::translate_opening(segment, plain.tcp(), shift, stamp)
}

/// Whether a packet opens a flow whatever the policy is.
#[inline]
fn opens(plain: Plain) -> bool {
    const DECIDING: TcpFlags = TcpFlags::SYN.with(TcpFlags::ACK).with(TcpFlags::FIN).with(TcpFlags::RST);
    plain.transport() == Transport::Udp || plain.is_segment(TcpFlags::SYN, DECIDING)
}

/// Whether a packet may bring a cookie back.
#[inline]
fn is_answer(plain: Plain) -> bool {
    plain.transport() == Transport::Tcp && syn_proxy::acknowledges(plain.tcp())
}

/// How packets to an endpoint are treated. Where anything stands before new flows, they go the general way.
#[inline(never)]
fn treatment<'a>(context: Context<'a>, cookies: &mut Cookies, protocol: Protocol, at: Endpoint) -> Treatment<'a> {
    let (services, gates) = (&context.snapshot.services, &context.snapshot.gates);
    let is_free = gates.rules.is_empty() && gates.sources.is_none();
    if !is_free || services.has_ftp() || mixed::are_there(context) {
        return Treatment::Other;
    }
    let Some((_, service)) = services.find(protocol, at) else { return Treatment::Other };
    match &service.settings.syn_proxy {
        None if service.is_plain => Treatment::Scheduled(service),
        Some(proxy) if protocol == Protocol::Tcp && service.settings.access == AccessLists::default() => {
            let answers = Answers::new(context, cookies, (service, proxy), at);
            answers.map_or(Treatment::Other, |answers| Treatment::Answered(Proxied { service, proxy, answers }))
        }
        _ => Treatment::Other,
    }
}
