//! FULLNAT: a local address and port for each flow, and what comes to them of no flow.
//!
//! A port is taken by inserting the flow's reverse key: whoever inserts it first has it, so no worker ever asks
//! another. Workers begin in slices of their own (ports of one remainder modulo their number), so that they rarely try
//! the same; where its slice is used up, a worker tries the others. Where it is known how the port spreads what it
//! receives, a worker looks for ports first whose replies come to itself: these are slices of another kind.

#![allow(clippy::inline_always, reason = "part of the way of every new flow: see opening")]

use std::net::IpAddr;

use super::admit::{self, Opened};
use super::pass::Keyed;
use super::path::Path;
use super::{Context, Hands, introduce, reply};
use crate::counters::{Drop, Event};
use crate::flow::{FlowEntry, FlowKey, Insert, NewFlow};
use crate::ident::{Endpoint, NetPort, Protocol, WorkerIndex};
use crate::next_hop::{Exit, Hop};
use crate::port::{BURST, Ports};
use crate::rss::{Packets, Rss};
use crate::service::{Destination, DestinationSlot, Local, LocalPair, LocalPorts, PairKey, Services, below};
use crate::snapshot::StraySegments;
use crate::wire::TcpFlags;

/// Local addresses that are tried for a flow.
const ADDRESSES: usize = 4;
/// Ports that are tried of each: in the worker's own slice first, then in all.
const PROBES: u32 = 32;
/// Those of the own slice.
const OWN_PROBES: u32 = 24;
/// Ports that are tried where all seem to be in use: enough to find out that one is not.
const FULL_PROBES: u32 = 2;
/// Ports of which it is found out where replies to them come, of each address.
const HASHES: u32 = 32;

/// Inserts a flow to `destination` from a local address and port that nobody has; `None` when none was found.
#[inline(never)]
pub(super) fn insert<'s, F: Path, P: Ports>(
    context: Context<'s>,
    hands: &mut Hands<P>,
    destination: &'s Destination,
    new: &NewFlow<F>,
) -> Result<Option<Opened<'s>>, Drop> {
    let locals = destination.locals.as_ref().ok_or(Drop::NoLocalPort)?;
    let server = F::address(destination.at.address).ok_or(Drop::NoDestination)?;
    let server_port = if destination.at.port.is_any() { new.forward.destination_port } else { destination.at.port };
    let rss = rss(context, destination);
    let replier = Endpoint { address: destination.at.address, port: server_port };
    for local in locals.in_turn(context.worker).take(ADDRESSES) {
        let Some(address) = F::address(local.address) else { continue };
        let replies = rss.and_then(|rss| rss.packets(new.forward.protocol, replier, local.address));
        let back = FlowKey {
            source: server,
            destination: address,
            source_port: server_port,
            destination_port: NetPort::ANY,
            protocol: new.forward.protocol,
        };
        // Before anybody else can see the flow and end it.
        local.pair.begin(context.worker);
        let inserted = insert_from(context, hands, (local, locals.ports, replies), back, new);
        if !matches!(inserted, Insert::Created(_)) {
            local.pair.end(context.worker);
        }
        if let Some(opened) = admit::outcome(context, inserted, destination)? {
            return Ok(Some(opened));
        }
    }
    Ok(None)
}

/// Where a flow may come from: for [`super::opening`], which asks for the memory of its reverse key before it inserts.
pub(super) struct Candidate<'s> {
    pub(super) local: &'s Local,
    pub(super) port: NetPort,
    /// Whether replies come to this worker, as far as is known.
    is_ours: bool,
}

impl Candidate<'_> {
    /// A flow was inserted from there, which its pair knows of already.
    #[inline]
    pub(super) fn taken(&self, context: Context<'_>) {
        if !self.is_ours {
            context.counters.event(Event::ReplyElsewhere).add(1);
        }
    }
}

/// The local address and port that [`insert`] would try next for a flow to `destination`, whose replies come from
/// `replier`. `None` where so few are free that it may have to try more than one.
#[inline(always)]
pub(super) fn next<'s>(
    context: Context<'s>,
    destination: &'s Destination,
    protocol: Protocol,
    replier: Endpoint,
) -> Option<Candidate<'s>> {
    let locals = destination.locals.as_ref()?;
    let local = locals.next(context.worker)?;
    if !local.pair.has_room(context.worker, locals.ports, BURST as u32) {
        return None;
    }
    locals.pass_turn(context.worker);
    let replies = rss(context, destination).and_then(|rss| rss.packets(protocol, replier, local.address));
    if replies.is_some() {
        // Ports are free: to ask how many are in use would be dear.
        let mut walk = Walk::of_at_most(PROBES, context, local, locals.ports, replies);
        let port = walk.next()?;
        return Some(Candidate { local, port, is_ours: walk.is_ours(port) });
    }
    // What the walk's first step comes to then.
    let slices = Slices::of(context, locals.ports);
    let (place, cursor) = slices.own(local.pair.cursor(context.worker));
    local.pair.set_cursor(context.worker, cursor);
    Some(Candidate { local, port: NetPort::new(locals.ports.at(place)), is_ours: true })
}

/// Inserts a flow from one local address, whose port is to be found for the key back; `ReverseTaken` when none was.
pub(super) fn insert_from<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    (local, ports, replies): (&Local, LocalPorts, Option<Packets<'_>>),
    back: FlowKey<F::Addr>,
    new: &NewFlow<F>,
) -> Insert {
    let mut walk = Walk::begin(context, local, ports, replies);
    while let Some(port) = walk.next() {
        let numbered = introduce::numbered(context, hands, new, FlowKey { destination_port: port, ..back });
        match F::table(context.shared).insert(F::part(hands), &numbered) {
            Insert::ReverseTaken => local.pair.conflict(context.worker),
            inserted => {
                if matches!(inserted, Insert::Created(_)) && !walk.is_ours(port) {
                    context.counters.event(Event::ReplyElsewhere).add(1);
                }
                return inserted;
            }
        }
    }
    Insert::ReverseTaken
}

/// How the port that leads to a server spreads what it receives over its queues. `None` with one worker, which gets all,
/// and of a bond: nobody knows by which member replies will come.
fn rss<'s>(context: Context<'s>, destination: &Destination) -> Option<&'s Rss> {
    if context.shared.boards.len() < 2 {
        return None;
    }
    let port = match context.snapshot.hops.destination(destination.slot) {
        Hop::Neighbour { port, .. } => *port,
        Hop::OnLink(egress) | Hop::Unresolved(egress) => match egress.exit {
            Exit::One(port) => port,
            Exit::Spread(_) => return None,
        },
        Hop::Spread { .. } | Hop::Kernel | Hop::NoRoute => return None,
    };
    context.snapshot.ports.get(port.0 as usize)?.rss.as_deref()
}

/// How the ports of a local address are parted among the workers.
#[derive(Clone, Copy)]
struct Slices {
    worker: u32,
    workers: u32,
    /// Ports of each.
    size: u32,
}

impl Slices {
    #[inline]
    fn of(context: Context<'_>, ports: LocalPorts) -> Self {
        let (workers, count) = (context.shared.boards.len().max(1) as u32, ports.count());
        // With fewer ports than workers, slices overlap.
        let size = if workers == 1 { count } else { (count / workers).max(1) };
        Self { worker: u32::from(context.worker.0), workers, size }
    }

    /// The place of a port of the worker's own, and the cursor of the next.
    #[inline]
    const fn own(self, cursor: u32) -> (u32, u32) {
        let own = below(cursor, self.size);
        (own * self.workers + self.worker, own + 1)
    }
}

/// The ports of one local address in the order in which a worker tries them.
pub(super) struct Walk<'l> {
    local: &'l Local,
    ports: LocalPorts,
    worker: WorkerIndex,
    slices: Slices,
    cursor: u32,
    tried: u32,
    /// How many are tried in the own slice, and in all.
    limits: (u32, u32),
    /// Replies to the address, where it is known at which queues they arrive.
    replies: Option<Packets<'l>>,
    /// How many ports may still be looked at for that.
    hashes: u32,
}

impl<'l> Walk<'l> {
    /// For a flow that may be counted already.
    pub(super) fn begin(
        context: Context<'_>,
        local: &'l Local,
        ports: LocalPorts,
        replies: Option<Packets<'l>>,
    ) -> Self {
        let most = if local.pair.in_use() > ports.count() { FULL_PROBES } else { PROBES };
        Self::of_at_most(most, context, local, ports, replies)
    }

    fn of_at_most(
        most: u32,
        context: Context<'_>,
        local: &'l Local,
        ports: LocalPorts,
        replies: Option<Packets<'l>>,
    ) -> Self {
        let (slices, count) = (Slices::of(context, ports), ports.count());
        let cursor = local.pair.cursor(context.worker);
        let limits = (OWN_PROBES.min(slices.size).min(most), most);
        let is_worth = most == PROBES && replies.is_some_and(|replies| replies.differ());
        let hashes = if is_worth { HASHES.min(count) } else { 0 };
        Self { local, ports, worker: context.worker, slices, cursor, tried: 0, limits, replies, hashes }
    }

    /// The next of all ports to which replies come to this worker, of those that may be looked at.
    fn next_of_ours(&mut self) -> Option<NetPort> {
        while self.hashes > 0 {
            self.hashes -= 1;
            let place = below(self.cursor, self.ports.count());
            let port = NetPort::new(self.ports.at(place));
            self.cursor = place + 1;
            if self.is_ours(port) {
                self.local.pair.set_cursor(self.worker, self.cursor);
                self.tried += 1;
                return Some(port);
            }
        }
        None
    }

    /// Whether replies to a port come to this worker, as far as is known: queue `q` is served by worker `q` modulo
    /// their number.
    fn is_ours(&self, port: NetPort) -> bool {
        let is_own = |replies: Packets<'_>| replies.queue(port).0 % self.slices.workers == u32::from(self.worker.0);
        self.replies.is_none_or(is_own)
    }
}

impl Iterator for Walk<'_> {
    type Item = NetPort;

    fn next(&mut self) -> Option<NetPort> {
        if let Some(port) = self.next_of_ours() {
            return Some(port);
        }
        let (own, all) = self.limits;
        let place = if self.tried < own {
            let (place, next) = self.slices.own(self.cursor);
            self.cursor = next;
            self.local.pair.set_cursor(self.worker, self.cursor);
            place
        } else if self.tried < all {
            // From behind the own slice's place on, all in a row.
            self.slices.own(self.cursor).0 + self.tried - own
        } else {
            return None;
        };
        self.tried += 1;
        Some(NetPort::new(self.ports.at(place)))
    }
}

/// A packet to a local address and port that no flow has: a server's, of a connection that is over here. The kernel
/// must not see it, for it owns the address and would answer by itself.
#[cold]
#[inline(never)]
pub(super) fn stray<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, keyed: Keyed<'_, F>) {
    let tcp = keyed.packet.headers.tcp;
    let is_answered = keyed.key.protocol == Protocol::Tcp
        && !tcp.contains(TcpFlags::RST)
        && context.snapshot.policy.stray == StraySegments::Reset;
    if is_answered {
        // Within the limit on resets; beyond it the server goes on asking.
        let _ = reply::reset(context, hands, &keyed.packet);
    }
    hands.discard(context, keyed.packet.frame, Drop::StrayReply);
}

/// Who tells a flow's server what is wrong with a reply: the local address that it answered, else the VIP.
#[cold]
#[inline(never)]
pub(super) fn speaker<F: Path>(entry: &FlowEntry<F>, there: &FlowKey<F::Addr>) -> IpAddr {
    let local = entry.reverse().map(|back| back.destination).filter(|address| *address != there.source);
    F::ip(local.unwrap_or(there.destination))
}

/// Counts the local port of a flow that this worker ended as free.
#[inline]
pub(super) fn release<F: Path>(context: Context<'_>, entry: &FlowEntry<F>) {
    if let Some(pair) = pair(&context.snapshot.services, entry) {
        pair.end(context.worker);
    }
}

/// Counts the local port of a flow as a worker's that was found at start, or of data of FTP.
pub(super) fn count<F: Path>(services: &Services, entry: &FlowEntry<F>, worker: WorkerIndex) {
    if let Some(pair) = pair(services, entry) {
        pair.begin(worker);
    }
}

/// The pair whose port a flow has. A flow to a server on the director itself has the kernel port's address, which is
/// of no pair, and data of FTP goes to another port of its server.
#[inline]
fn pair<'s, F: Path>(services: &'s Services, entry: &FlowEntry<F>) -> Option<&'s LocalPair> {
    let back = entry.reverse()?;
    if back.destination == entry.forward().source {
        return None;
    }
    let local = F::ip(back.destination);
    let is_of = |server: &&Destination| server.at.port.is_any() || server.at.port == back.source_port;
    let current = services.destination(DestinationSlot(entry.destination())).filter(is_of);
    if let Some(local) = current
        .and_then(|server| server.locals.as_ref())
        .and_then(|locals| locals.list.iter().find(|known| known.address == local))
    {
        return Some(&local.pair);
    }
    // The server was removed, or the address.
    let named = |(protocol, port)| {
        let server = Endpoint { address: F::ip(back.source), port };
        services.pair(&PairKey { protocol, server, local })
    };
    let protocol = Some(back.protocol);
    let names =
        [(protocol, back.source_port), (protocol, NetPort::ANY), (None, back.source_port), (None, NetPort::ANY)];
    names.into_iter().find_map(named)
}
