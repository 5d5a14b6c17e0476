//! What a packet costs in the real worker loop, over ports that cost next to nothing.
//!
//! Flows are opened by real SYN and ACK segments (or datagrams) through the same loop. Each repetition measures the
//! loop, the bare port and the memory limit one after the other, so that all three meet the same machine.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use dataplane::clock;
use dataplane::counters::Event;
use dataplane::ident::WorkerIndex;
use dataplane::worker::{Shared, Worker};

use crate::checked::Checked;
use crate::drive::{Driver, established, expect, peers_of};
use crate::error::BenchError;
use crate::limit::{INDEX_LOAD, Limit};
use crate::loop_ports::{LoopPorts, Order, Stream, bare_turn};
use crate::machine::Quiet;
use crate::measure::{Cost, Stopwatch};
use crate::packets::{Family, Sender};
use crate::plan::{Plan, chunks};
use crate::results::Measured;

/// One worker's measurements.
struct Part {
    whole: Cost,
    port: Cost,
    limit: Cost,
    new_flow: Cost,
    disturbance: Option<String>,
}

/// Measures.
///
/// # Errors
/// When it cannot be set up, or when the loop did not do what it should have.
pub(crate) fn run(plan: &Plan) -> Result<Measured, BenchError> {
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
    let counters = &shared.boards[0].counters;
    expect("established flows", u64::from(plan.flows), established(&shared, plan.family), counters)?;
    Ok(summary(plan, &shared, &parts))
}

/// Sends packets of many flows through and looks at every frame that leaves. Gives their number.
///
/// # Errors
/// The first frame that is wrong, or a count that is.
pub(crate) fn verify(plan: &Plan) -> Result<u64, BenchError> {
    let plan = Plan { flows: plan.flows.min(100_000), cores: vec![0], services: 1, ..plan.clone() };
    let scene = plan.scene();
    let shared = scene.shared()?;
    let ports = Checked::new(LoopPorts::new(), scene);
    let worker = Worker::new(WorkerIndex(0), Arc::clone(&shared), ports, clock::since_boot());
    let mut worker = worker.ok_or(BenchError::NoWorker(0))?;
    let mut pass = |stream: Stream| {
        worker.ports_mut().ports.load(Some(stream), None);
        while worker.turn(clock::since_boot()) > 0 {}
        worker.ports_mut().wrong.take().map_or(Ok(()), Err)
    };
    let opening = plan.templates(Sender::Client, 0, plan.opening());
    let later = plan.templates(Sender::Client, 0, plan.later());
    for chunk in chunks(0..plan.flows) {
        pass(Stream::new(&opening, Order::Each(chunk.clone())))?;
        pass(Stream::new(&later, Order::Each(chunk)).beginning(1))?;
    }
    pass(Stream::new(&later, Order::Each(0..plan.flows)).beginning(1))?;
    let mut expected = u64::from(plan.flows) * 3;
    if plan.method.is_two_way() {
        let peers = peers_of(&shared, plan.family, &(0..plan.flows));
        let replies = plan.templates(Sender::Server, 0, plan.later());
        expected += peers.len() as u64;
        worker.ports_mut().ports.load(None, Some(Stream::new(&replies, Order::EachPeer(peers.into()))));
        while worker.turn(clock::since_boot()) > 0 {}
        worker.ports_mut().wrong.take().map_or(Ok(()), Err)?;
    }
    let sent = worker.ports_mut().ports.sent();
    expect("frames sent", expected, sent, &shared.boards[0].counters)?;
    Ok(sent)
}

/// One worker's thread.
fn drive(plan: &Plan, index: usize, shared: Arc<Shared>, barrier: &Barrier) -> Result<Part, BenchError> {
    let limit = Limit::new(plan.family, plan.flows).map_err(BenchError::Memory);
    let opened = Driver::new(plan, index, shared).and_then(|mut driver| {
        let new_flow = driver.open(plan.share(index))?;
        Ok((driver, new_flow))
    });
    // Nobody is left waiting when one worker fails: errors are told after the last common point.
    barrier.wait();
    let quiet = Quiet::watch();
    let begin = Instant::now();
    let measured = opened.and_then(|(driver, new_flow)| Ok((measure(plan, driver, limit?)?, new_flow)));
    barrier.wait();
    let seconds = begin.elapsed().as_secs_f64();
    let ([whole, port, limit], new_flow) = measured?;
    Ok(Part { whole, port, limit, new_flow, disturbance: quiet.disturbance(seconds) })
}

/// The repetitions: the whole, the bare port, the memory limit.
fn measure(plan: &Plan, mut driver: Driver<'_>, mut limit: Limit) -> Result<[Cost; 3], BenchError> {
    let (requests, replies) = driver.streams()?;
    let mut bare = LoopPorts::new();
    bare.load(requests.clone(), replies.clone());
    driver.worker.ports_mut().load(requests, replies);
    let mut watches = [Stopwatch::new()?, Stopwatch::new()?, Stopwatch::new()?];
    let before = driver.worker.ports_mut().sent();
    let created = driver.counters().event(Event::FlowCreated).read();
    let mut handled = 0;
    let packets = (plan.packets / u64::from(plan.repetitions)).max(1);
    // Once unmeasured, to meet warm caches.
    for round in 0..=plan.repetitions {
        if round == 1 {
            watches = [Stopwatch::new()?, Stopwatch::new()?, Stopwatch::new()?];
        }
        let packets = if round == 0 { packets / 4 + 1 } else { packets };
        handled += watches[0].repeat(packets, || driver.worker.turn(clock::since_boot()));
        watches[1].repeat(packets, || bare_turn(&mut bare));
        watches[2].repeat(packets, || limit.turn());
    }
    let sent = driver.worker.ports_mut().sent() - before;
    expect("packets forwarded", handled, sent, driver.counters())?;
    // Of established flows nothing moves but their timers: that is what is measured.
    expect("flows opened in all", created, driver.counters().event(Event::FlowCreated).read(), driver.counters())?;
    let nothing = || BenchError::Wrong { what: "packets measured", expected: packets, found: 0, drops: String::new() };
    let [whole, port, memory] = watches.map(|watch| watch.cost());
    Ok([whole.ok_or_else(nothing)?, port.ok_or_else(nothing)?, memory.ok_or_else(nothing)?])
}

/// The row: costs are of one worker, the slowest of several; the rate is of all together.
fn summary(plan: &Plan, shared: &Shared, parts: &[Part]) -> Measured {
    let slowest = |cost: fn(&Part) -> &Cost| {
        parts.iter().map(cost).max_by(|a, b| a.median.total_cmp(&b.median)).cloned().unwrap_or_default()
    };
    let (whole, port) = (slowest(|p| &p.whole), slowest(|p| &p.port));
    let mut warnings: Vec<String> = parts.iter().filter_map(|p| p.disturbance.clone()).collect();
    if parts.iter().any(|p| p.whole.is_unsteady()) {
        warnings.push("the repetitions differ by more than 20 %: run again on a quieter machine".into());
    }
    if cfg!(debug_assertions) {
        warnings.push("not an optimised build: use cargo run --release".into());
    }
    let rate: f64 = parts.iter().map(|p| 1e3 / p.whole.median).sum();
    let (bytes_per_flow, index_load) = memory(plan, shared);
    let row = plan
        .describe()
        .with("direction", plan.direction.name())
        .with("flows", plan.flows)
        .with("size", plan.length())
        .with("workers", plan.cores.len())
        .with("ns_per_packet", whole.median)
        .with("port_ns", port.median)
        .with("net_ns", whole.median - port.median)
        .with("mpps", rate)
        .with("memory_limit_ns", slowest(|p| &p.limit).median)
        .with("new_flow_ns", slowest(|p| &p.new_flow).median)
        .with("bytes_per_flow", bytes_per_flow)
        .with("index_load", index_load)
        .with("lowest_ns", whole.min)
        .with("highest_ns", whole.max)
        .with("p50_of_batches_ns", whole.batches.p50)
        .with("p99_of_batches_ns", whole.batches.p99);
    Measured::one(row, warnings)
}

/// Bytes of the table for each flow that fits, and how full its index is, 0 to 1.
fn memory(plan: &Plan, shared: &Shared) -> (f64, f64) {
    let (memory, capacity, held) = match plan.family {
        Family::V4 => (shared.flows4.memory(), shared.flows4.capacity(), shared.flows4.len()),
        Family::V6 => (shared.flows6.memory(), shared.flows6.capacity(), shared.flows6.len()),
    };
    let keys = if plan.method.is_two_way() { 2.0 } else { 1.0 };
    let load = INDEX_LOAD as f64 / 100.0 * keys / 2.0 * f64::from(held) / f64::from(capacity);
    (memory as f64 / f64::from(capacity), load)
}
