//! What a packet costs in the real worker loop, over ports that cost next to nothing.
//!
//! Flows are opened by real SYN and ACK segments (or datagrams) through the same loop. Each repetition measures the
//! loop, the bare port and the memory limit one after the other, so that all three meet the same machine.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use dataplane::clock;
use dataplane::counters::{Counter, Drop, Event, WorkerCounters};
use dataplane::ident::{Protocol, WorkerIndex};
use dataplane::service::Method;
use dataplane::worker::{Shared, Worker};
use serde::Serialize;

use crate::checked::Checked;
use crate::error::BenchError;
use crate::limit::Limit;
use crate::loop_ports::{LoopPorts, Order, bare_turn};
use crate::machine::{Machine, Quiet};
use crate::measure::{Cost, Stopwatch};
use crate::packets::{Family, Segment, Template};
use crate::scene::Scene;

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) method: Method,
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    pub(crate) flows: u32,
    pub(crate) size: usize,
    /// Packets of each worker, over all repetitions.
    pub(crate) packets: u64,
    /// The core of each worker.
    pub(crate) cores: Vec<usize>,
    pub(crate) repetitions: u32,
}

/// What was measured. Costs are of one worker, the slowest of several; rates are of all together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) mode: Method,
    pub(crate) family: Family,
    pub(crate) protocol: &'static str,
    pub(crate) flows: u32,
    /// Bytes of a frame as it arrives, without FCS.
    pub(crate) size: usize,
    pub(crate) workers: usize,
    /// Forwarding with the port's own cost.
    pub(crate) ns_per_packet: f64,
    /// The bare port: receive and transmit with nothing between.
    pub(crate) port_ns_per_packet: f64,
    /// Forwarding without the port's own cost.
    pub(crate) net_ns_per_packet: f64,
    pub(crate) packets_per_second: f64,
    pub(crate) memory_bytes_per_flow: f64,
    /// How full the index is, 0 to 1.
    pub(crate) table_load: f64,
    /// Opening the last tenth of the flows, the port's own cost included.
    pub(crate) new_flow_ns: f64,
    /// Prefetching random access to memory of the table's size: no table can cost less.
    pub(crate) memory_limit_ns: f64,
    pub(crate) details: Details,
    pub(crate) machine: Machine,
    /// What may have disturbed the measurement.
    pub(crate) warnings: Vec<String>,
}

/// The spread of the figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Details {
    pub(crate) whole: Cost,
    pub(crate) port: Cost,
    pub(crate) memory_limit: Cost,
}

/// One worker's measurements.
struct Part {
    whole: Cost,
    port: Cost,
    limit: Cost,
    new_flow: Cost,
    disturbance: Option<String>,
}

/// Flows that are opened before their next segment comes: few enough that the table sees none as embryonic for long.
const CHUNK: u32 = 4096;

impl Plan {
    /// The director for it, with room for an eighth more flows, so that no embryonic flow has to go.
    pub(crate) fn scene(&self) -> Scene {
        Scene {
            method: self.method,
            family: self.family,
            protocol: self.protocol,
            capacity: self.flows + self.flows / 8 + 4096,
            workers: self.cores.len(),
            size: self.size,
        }
    }

    fn templates(&self) -> (Template, Template) {
        let (opening, later) = match self.protocol {
            Protocol::Tcp => (Segment::Syn, Segment::Ack),
            Protocol::Udp | Protocol::Sctp => (Segment::Datagram, Segment::Datagram),
        };
        let shape = self.scene().shape();
        (Template::new(shape, opening), Template::new(shape, later))
    }

    /// The flows that a worker opens.
    fn share(&self, worker: usize) -> std::ops::Range<u32> {
        let workers = self.cores.len() as u64;
        let border = |n: usize| (u64::from(self.flows) * n as u64 / workers) as u32;
        border(worker)..border(worker + 1)
    }
}

/// Measures.
///
/// # Errors
/// When it cannot be set up, or when the loop did not do what it should have.
pub(crate) fn run(plan: &Plan) -> Result<Outcome, BenchError> {
    let shared = plan.scene().shared()?;
    let barrier = Barrier::new(plan.cores.len());
    let parts: Vec<Result<Part, BenchError>> = thread::scope(|scope| {
        let start = |n| {
            let (shared, barrier) = (Arc::clone(&shared), &barrier);
            scope.spawn(move || drive(plan, n, shared, barrier))
        };
        let threads: Vec<_> = (0..plan.cores.len()).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(BenchError::Panicked))).collect()
    });
    let parts: Vec<Part> = parts.into_iter().collect::<Result<_, _>>()?;
    summary(plan, &shared, &parts)
}

/// Sends packets of many flows through and looks at every frame that leaves. Gives their number.
///
/// # Errors
/// The first frame that is wrong, or a count that is.
pub(crate) fn verify(plan: &Plan) -> Result<u64, BenchError> {
    let plan = Plan { flows: plan.flows.min(100_000), cores: vec![0], ..plan.clone() };
    let scene = plan.scene();
    let shared = scene.shared()?;
    let (opening, later) = plan.templates();
    let ports = Checked::new(LoopPorts::new(opening.clone(), Order::Each(0..0)), scene);
    let now = clock::since_boot();
    let worker = Worker::new(WorkerIndex(0), Arc::clone(&shared), ports, now);
    let mut worker = worker.ok_or(BenchError::NoWorker(0))?;
    let mut pass = |template: &Template, order: Order| {
        worker.ports_mut().ports.load(template.clone(), order);
        while worker.turn(clock::since_boot()) > 0 {}
        worker.ports_mut().wrong.take().map_or(Ok(()), Err)
    };
    for chunk in chunks(0..plan.flows) {
        pass(&opening, Order::Each(chunk.clone()))?;
        pass(&later, Order::Each(chunk))?;
    }
    pass(&later, Order::Each(0..plan.flows))?;
    let sent = worker.ports_mut().ports.sent();
    expect("frames sent", u64::from(plan.flows) * 3, sent, &shared.boards[0].counters)?;
    Ok(sent)
}

/// One worker's thread.
fn drive(plan: &Plan, index: usize, shared: Arc<Shared>, barrier: &Barrier) -> Result<Part, BenchError> {
    let pinned = pin(plan.cores[index]);
    let limit = Limit::new(plan.family, plan.flows).map_err(BenchError::Memory);
    let (opening, later) = plan.templates();
    let ports = LoopPorts::new(opening.clone(), Order::Each(0..0));
    let now = clock::since_boot();
    let worker = Worker::new(WorkerIndex(index as u8), Arc::clone(&shared), ports, now);
    let opened = pinned.and(worker.ok_or(BenchError::NoWorker(index))).and_then(|mut worker| {
        let new_flow = open(plan, index, &shared, &mut worker, (&opening, &later))?;
        Ok((worker, new_flow))
    });
    // Nobody is left waiting when one worker fails: errors are told after the last common point.
    barrier.wait();
    let quiet = Quiet::watch();
    let begin = Instant::now();
    let measured = opened.and_then(|(worker, new_flow)| Ok((measure(plan, index, worker, limit?, &later)?, new_flow)));
    barrier.wait();
    let seconds = begin.elapsed().as_secs_f64();
    let ([whole, port, limit], new_flow) = measured?;
    Ok(Part { whole, port, limit, new_flow, disturbance: quiet.disturbance(seconds) })
}

/// Opens a worker's share of the flows; the cost of opening the last tenth.
fn open(
    plan: &Plan,
    index: usize,
    shared: &Shared,
    worker: &mut Worker<LoopPorts>,
    (opening, later): (&Template, &Template),
) -> Result<Cost, BenchError> {
    let share = plan.share(index);
    let timed_from = share.end - share.len() as u32 / 10;
    let mut watch = Stopwatch::new()?;
    for chunk in chunks(share.clone()) {
        if chunk.end < timed_from {
            watch = Stopwatch::new()?;
        }
        worker.ports_mut().load(opening.clone(), Order::Each(chunk.clone()));
        watch.repeat(u64::MAX, || worker.turn(clock::since_boot()));
        worker.ports_mut().load(later.clone(), Order::Each(chunk));
        while worker.turn(clock::since_boot()) > 0 {}
    }
    let counters = &shared.boards[index].counters;
    let expected = share.len() as u64;
    expect("flows opened", expected, counters.event(Event::FlowCreated).read(), counters)?;
    watch.cost().ok_or(BenchError::Wrong { what: "flows opened", expected, found: 0, drops: String::new() })
}

/// The repetitions: the whole, the bare port, the memory limit.
fn measure(
    plan: &Plan,
    index: usize,
    mut worker: Worker<LoopPorts>,
    mut limit: Limit,
    later: &Template,
) -> Result<[Cost; 3], BenchError> {
    let random = || Order::Random { flows: plan.flows, state: 1 + index as u64 };
    worker.ports_mut().load(later.clone(), random());
    let mut bare = LoopPorts::new(later.clone(), random());
    let mut watches = [Stopwatch::new()?, Stopwatch::new()?, Stopwatch::new()?];
    let before = worker.ports_mut().sent();
    let mut handled = 0;
    let packets = (plan.packets / u64::from(plan.repetitions)).max(1);
    // Once unmeasured, to meet warm caches.
    for round in 0..=plan.repetitions {
        if round == 1 {
            watches = [Stopwatch::new()?, Stopwatch::new()?, Stopwatch::new()?];
        }
        let packets = if round == 0 { packets / 4 + 1 } else { packets };
        handled += watches[0].repeat(packets, || worker.turn(clock::since_boot()));
        watches[1].repeat(packets, || bare_turn(&mut bare));
        watches[2].repeat(packets, || limit.turn());
    }
    let sent = worker.ports_mut().sent() - before;
    let nothing = || BenchError::Wrong { what: "packets measured", expected: packets, found: 0, drops: String::new() };
    if sent != handled {
        return Err(BenchError::Wrong {
            what: "packets forwarded",
            expected: handled,
            found: sent,
            drops: String::new(),
        });
    }
    let [whole, port, memory] = watches.map(|watch| watch.cost());
    Ok([whole.ok_or_else(nothing)?, port.ok_or_else(nothing)?, memory.ok_or_else(nothing)?])
}

fn summary(plan: &Plan, shared: &Shared, parts: &[Part]) -> Result<Outcome, BenchError> {
    let slowest = |cost: fn(&Part) -> f64| parts.iter().map(cost).fold(0.0, f64::max);
    let whole = slowest(|p| p.whole.median);
    let port = slowest(|p| p.port.median);
    let (memory, capacity, held) = match plan.family {
        Family::V4 => (shared.flows4.memory(), shared.flows4.capacity(), shared.flows4.len()),
        Family::V6 => (shared.flows6.memory(), shared.flows6.capacity(), shared.flows6.len()),
    };
    let keys = if plan.method.is_two_way() { 2.0 } else { 1.0 };
    let mut warnings: Vec<String> = parts.iter().filter_map(|p| p.disturbance.clone()).collect();
    if parts.iter().any(|p| p.whole.is_unsteady()) {
        warnings.push("the repetitions differ by more than 20 %: run again on a quieter machine".into());
    }
    if cfg!(debug_assertions) {
        warnings.push("not an optimised build: use cargo run --release".into());
    }
    let worst = parts.iter().max_by(|a, b| a.whole.median.total_cmp(&b.whole.median));
    let worst = worst.ok_or(BenchError::NoWorker(0))?;
    Ok(Outcome {
        mode: plan.method,
        family: plan.family,
        protocol: plan.protocol.name(),
        flows: plan.flows,
        size: plan.templates().1.length(),
        workers: plan.cores.len(),
        ns_per_packet: whole,
        port_ns_per_packet: port,
        net_ns_per_packet: whole - port,
        packets_per_second: parts.iter().map(|p| 1e9 / p.whole.median).sum(),
        memory_bytes_per_flow: memory as f64 / f64::from(capacity),
        table_load: 0.65 * keys / 2.0 * f64::from(held) / f64::from(capacity),
        new_flow_ns: slowest(|p| p.new_flow.median),
        memory_limit_ns: slowest(|p| p.limit.median),
        details: worst.details(),
        machine: Machine::here(),
        warnings,
    })
}

impl Part {
    fn details(&self) -> Details {
        Details { whole: self.whole.clone(), port: self.port.clone(), memory_limit: self.limit.clone() }
    }
}

/// Pins the calling thread.
pub(crate) fn pin(core: usize) -> Result<(), BenchError> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    let id = cores.iter().find(|id| id.id == core).ok_or(BenchError::NoCore { core, cores: cores.len() })?;
    if core_affinity::set_for_current(*id) { Ok(()) } else { Err(BenchError::NoCore { core, cores: cores.len() }) }
}

pub(crate) fn chunks(range: std::ops::Range<u32>) -> impl Iterator<Item = std::ops::Range<u32>> {
    let end = range.end;
    range.step_by(CHUNK as usize).map(move |start| start..end.min(start.saturating_add(CHUNK)))
}

/// A count that has to be right, or the figures mean nothing.
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
