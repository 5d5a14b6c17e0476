//! What a new flow costs: a segment that no flow claims, wlc over ten servers, its keys inserted, the segment forwarded.
//!
//! Each repetition adds a twentieth to the flows that are in the table already.

use std::time::Instant;

use dataplane::clock;
use dataplane::counters::Event;
use serde::Serialize;

use crate::drive::{Driver, expect};
use crate::error::BenchError;
use crate::loop_ports::{LoopPorts, Order, Stream, bare_turn};
use crate::machine::{Machine, Quiet};
use crate::measure::{Cost, Stopwatch};
use crate::packets::{Family, Sender};
use crate::plan::Plan;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) mode: dataplane::service::Method,
    pub(crate) family: Family,
    pub(crate) protocol: &'static str,
    /// Flows in the table before the first repetition.
    pub(crate) flows: u32,
    /// A new flow, the port's own cost included.
    pub(crate) new_flow_ns: f64,
    pub(crate) port_ns_per_packet: f64,
    pub(crate) net_new_flow_ns: f64,
    pub(crate) details: Details,
    pub(crate) machine: Machine,
    pub(crate) warnings: Vec<String>,
}

/// The spread of the figures.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Details {
    pub(crate) new_flow: Cost,
    pub(crate) port: Cost,
}

/// Measures with the plan's first core.
///
/// # Errors
/// When it cannot be set up, or flows were not opened.
pub(crate) fn run(plan: &Plan) -> Result<Outcome, BenchError> {
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
    Ok(Outcome {
        mode: plan.method,
        family: plan.family,
        protocol: plan.protocol.name(),
        flows: plan.flows,
        new_flow_ns: new_flow.median,
        port_ns_per_packet: port.median,
        net_new_flow_ns: new_flow.median - port.median,
        details: Details { new_flow, port },
        machine: Machine::here(),
        warnings: disturbance.into_iter().collect(),
    })
}
