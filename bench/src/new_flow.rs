//! What a new flow costs: a segment that no flow claims, wlc over ten servers, its keys inserted, the segment forwarded.
//!
//! Each repetition adds a twentieth to the flows that are in the table already.

use std::time::Instant;

use dataplane::clock;
use dataplane::counters::Event;

use crate::drive::{Driver, expect};
use crate::error::BenchError;
use crate::loop_ports::{LoopPorts, Order, Stream, bare_turn};
use crate::machine::Quiet;
use crate::measure::Stopwatch;
use crate::packets::Sender;
use crate::plan::Plan;
use crate::results::Measured;

/// Measures with the plan's first core.
///
/// # Errors
/// When it cannot be set up, or flows were not opened.
pub(crate) fn run(plan: &Plan) -> Result<Measured, BenchError> {
    let step = (plan.flows / 20).max(4096);
    // Room for the repetitions and the unmeasured one before them.
    let all = plan.flows + step * (plan.repetitions + 1);
    let core = plan.cores.first().copied().unwrap_or(0);
    let sized = Plan { flows: all, cores: vec![core], ..plan.clone() };
    let mut driver = Driver::new(&sized, 0, sized.scene().shared()?)?;
    driver.open(0..plan.flows)?;
    let opening = plan.templates(Sender::Client, 0, plan.opening());
    let later = plan.templates(Sender::Client, 0, plan.later());
    let (quiet, begin) = (Quiet::watch(), Instant::now());
    let mut watches = [Stopwatch::new()?, Stopwatch::new()?];
    for round in 0..=plan.repetitions {
        if round == 1 {
            watches = [Stopwatch::new()?, Stopwatch::new()?];
        }
        let range = plan.flows + round * step..plan.flows + (round + 1) * step;
        let requests = Stream::new(&opening, Order::Each(range.clone()));
        driver.worker.ports_mut().load(Some(requests.clone()), None);
        watches[0].repeat(u64::MAX, || driver.worker.turn(clock::since_boot()));
        let mut bare = LoopPorts::new();
        bare.load(Some(requests), None);
        watches[1].repeat(u64::MAX, || bare_turn(&mut bare));
        driver.worker.ports_mut().load(Some(Stream::new(&later, Order::Each(range)).beginning(1)), None);
        while driver.worker.turn(clock::since_boot()) > 0 {}
    }
    let disturbance = quiet.disturbance(begin.elapsed().as_secs_f64());
    let created = driver.counters().event(Event::FlowCreated).read();
    expect("flows opened", u64::from(all), created, driver.counters())?;
    let [new_flow, port] = watches.map(|watch| watch.cost());
    let (Some(new_flow), Some(port)) = (new_flow, port) else { return Err(BenchError::NoWorker(0)) };
    let row = plan
        .describe()
        .with("flows", plan.flows)
        .with("new_flow_ns", new_flow.median)
        .with("port_ns", port.median)
        .with("net_ns", new_flow.median - port.median)
        .with("new_flows_per_second", (1e9 / new_flow.median).round())
        .with("lowest_ns", new_flow.min)
        .with("highest_ns", new_flow.max)
        .with("p50_of_batches_ns", new_flow.batches.p50)
        .with("p99_of_batches_ns", new_flow.batches.p99);
    Ok(Measured::one(row, disturbance.into_iter().collect()))
}
