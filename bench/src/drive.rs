//! One worker and what is done with it: flows opened by real segments, then their packets forwarded.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use dataplane::clock;
use dataplane::counters::{Counter, Drop, Event, WorkerCounters};
use dataplane::flow::{self, FlowEntry, FlowTable, Mapping, Storage};
use dataplane::ident::{Protocol, WorkerIndex};
use dataplane::state::TcpState;
use dataplane::worker::{Shared, Worker};

use crate::error::BenchError;
use crate::loop_ports::{LoopPorts, Order, Stream, random};
use crate::measure::{Cost, Stopwatch};
use crate::packets::{Family, Peer, Sender, host};
use crate::plan::{Flowing, Plan, chunks};

/// A worker of a plan, pinned to its core, with its share of the flows.
#[derive(Debug)]
pub(crate) struct Driver<'p> {
    plan: &'p Plan,
    index: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Worker<LoopPorts>,
    opened: Vec<Range<u32>>,
}

/// The packets that arrive at both ports.
pub(crate) type Streams = (Option<Stream>, Option<Stream>);

impl<'p> Driver<'p> {
    /// The worker of this number, on its core from now on.
    ///
    /// # Errors
    /// When there is no such core, or the worker exists.
    pub(crate) fn new(plan: &'p Plan, index: usize, shared: Arc<Shared>) -> Result<Self, BenchError> {
        pin(plan.cores.get(index).copied().unwrap_or(0))?;
        let worker = Worker::new(WorkerIndex(index as u8), Arc::clone(&shared), LoopPorts::new(), clock::since_boot());
        let worker = worker.ok_or(BenchError::NoWorker(index))?;
        Ok(Self { plan, index, shared, worker, opened: Vec::new() })
    }

    /// The worker's counters.
    pub(crate) fn counters(&self) -> &WorkerCounters {
        &self.shared.boards[self.index].counters
    }

    /// Opens flows: of each the first segment and the client's next, after which it is established. The cost of the
    /// first segments of the last tenth.
    ///
    /// # Errors
    /// When fewer were opened.
    pub(crate) fn open(&mut self, flows: Range<u32>) -> Result<Cost, BenchError> {
        let before = self.counters().event(Event::FlowCreated).read();
        let service = self.plan.service(self.index);
        let opening = self.plan.templates(Sender::Client, service, self.plan.opening());
        let later = self.plan.templates(Sender::Client, service, self.plan.later());
        let timed_from = flows.end - flows.len() as u32 / 10;
        let mut watch = Stopwatch::new()?;
        for chunk in chunks(flows.clone()) {
            if chunk.end < timed_from {
                watch = Stopwatch::new()?;
            }
            self.worker.ports_mut().load(Some(Stream::new(&opening, Order::Each(chunk.clone()))), None);
            watch.repeat(u64::MAX, || self.worker.turn(clock::since_boot()));
            let acknowledgements = Stream::new(&later, Order::Each(chunk)).beginning(1);
            self.worker.ports_mut().load(Some(acknowledgements), None);
            while self.worker.turn(clock::since_boot()) > 0 {}
        }
        let expected = flows.len() as u64;
        let created = self.counters().event(Event::FlowCreated).read() - before;
        expect("flows opened", expected, created, self.counters())?;
        self.opened.push(flows);
        watch.cost().ok_or(BenchError::Wrong { what: "flows opened", expected, found: 0, drops: String::new() })
    }

    /// Packets for ever of the flows that were opened, in random order.
    ///
    /// # Errors
    /// Replies are asked for, and the method has none.
    pub(crate) fn streams(&self) -> Result<Streams, BenchError> {
        let service = self.plan.service(self.index);
        let (first, last) = (self.opened.first(), self.opened.last());
        let flows = first.map_or(0, |first| first.start)..last.map_or(0, |last| last.end);
        let stream = |sender, order| {
            let templates = self.plan.templates(sender, service, self.plan.later());
            // Behind everything that was sent when the flows were opened.
            Stream::new(&templates, order).seeded(1 + self.index as u64).beginning(1 << 16)
        };
        let requests = || stream(Sender::Client, Order::Random(flows.clone()));
        let replies =
            || -> Result<Stream, BenchError> { Ok(stream(Sender::Server, Order::RandomPeers(self.peers(&flows)?))) };
        Ok(match self.plan.direction {
            Flowing::Request => (Some(requests()), None),
            Flowing::Reply => (None, Some(replies()?)),
            Flowing::Both => (Some(requests()), Some(replies()?)),
        })
    }

    /// Whom the servers of flows send to, in no order: the table knows.
    fn peers(&self, flows: &Range<u32>) -> Result<Arc<[Peer]>, BenchError> {
        if !self.plan.method.is_two_way() {
            return Err(BenchError::OneWay);
        }
        let mut peers = peers_of(&self.shared, self.plan.family, flows);
        expect("flows with replies", flows.len() as u64, peers.len() as u64, self.counters())?;
        let mut state = 1;
        for n in (1..peers.len()).rev() {
            peers.swap(n, random(&mut state, n + 1));
        }
        Ok(peers.into())
    }
}

/// Pins the calling thread.
///
/// # Errors
/// When there is no such core, or it is not allowed.
pub(crate) fn pin(core: usize) -> Result<(), BenchError> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let id = cores.iter().find(|id| id.id == core).ok_or(BenchError::NoCore { core, cores: cores.len() })?;
    if core_affinity::set_for_current(*id) { Ok(()) } else { Err(BenchError::NoCore { core, cores: cores.len() }) }
}

/// A count that has to be right, or the figures mean nothing.
///
/// # Errors
/// When it is not.
pub(crate) fn expect(
    what: &'static str,
    expected: u64,
    found: u64,
    counters: &WorkerCounters,
) -> Result<(), BenchError> {
    if expected == found {
        return Ok(());
    }
    let drops = Drop::ALL.iter().map(|reason| (reason.name(), Counter::read(counters.drop(*reason))));
    let drops: Vec<String> = drops.filter(|(_, n)| *n > 0).map(|(name, n)| format!(", {n} dropped: {name}")).collect();
    let drops = drops.concat();
    Err(BenchError::Wrong { what, expected, found, drops })
}

/// How many flows of the table are established: TCP past its handshake, UDP past its first datagram.
pub(crate) fn established(shared: &Shared, family: Family) -> u64 {
    match family {
        Family::V4 => count(&shared.flows4, is_established),
        Family::V6 => count(&shared.flows6, is_established),
    }
}

/// Whom the servers of flows send to, in the order of the table.
pub(crate) fn peers_of(shared: &Shared, family: Family, flows: &Range<u32>) -> Vec<Peer> {
    match family {
        Family::V4 => peers(&shared.flows4, family, flows),
        Family::V6 => peers(&shared.flows6, family, flows),
    }
}

fn is_established<F: flow::Family>(entry: &FlowEntry<F>) -> bool {
    match entry.forward().protocol {
        Protocol::Tcp => entry.state().state() == TcpState::Established.to_u8() && !entry.is_embryonic(),
        Protocol::Udp | Protocol::Sctp => !entry.is_embryonic(),
    }
}

fn count<F: flow::Family>(table: &FlowTable<F>, is_counted: impl Fn(&FlowEntry<F>) -> bool) -> u64
where
    Mapping<F>: Storage<F, 8>,
{
    let mut count = 0;
    table.for_each(|entry| count += u64::from(is_counted(entry)));
    count
}

fn peers<F: flow::Family>(table: &FlowTable<F>, family: Family, flows: &Range<u32>) -> Vec<Peer>
where
    Mapping<F>: Storage<F, 8>,
    F::Addr: Into<IpAddr>,
{
    let mut peers = Vec::with_capacity(flows.len());
    table.for_each(|entry| {
        let there = entry.forward();
        let client = Peer { host: host(there.source.into()), port: there.source_port.host(), server: 0 };
        if let Some(back) = entry.reverse().filter(|_| flows.contains(&client.flow(family))) {
            let server = host(back.source.into()) as u16;
            peers.push(Peer { host: host(back.destination.into()), port: back.destination_port.host(), server });
        }
    });
    peers
}
