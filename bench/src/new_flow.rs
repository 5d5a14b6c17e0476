//! What a new flow costs: a SYN that no flow claims, wlc over ten servers, both keys inserted, the segment forwarded.
//!
//! Each repetition adds a twentieth to the flows that are in the table already.

use std::sync::Arc;
use std::time::Instant;

use dataplane::clock;
use dataplane::counters::Event;
use dataplane::ident::WorkerIndex;
use dataplane::worker::Worker;
use serde::Serialize;

use crate::error::BenchError;
use crate::loop_ports::{LoopPorts, Order, bare_turn};
use crate::machine::{Machine, Quiet};
use crate::measure::{Cost, Stopwatch};
use crate::packets::{Family, Segment, Template};
use crate::pipeline::{self, Plan};

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) mode: dataplane::service::Method,
    pub(crate) family: Family,
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
    let core = plan.cores.first().copied().unwrap_or(0);
    pipeline::pin(core)?;
    let step = (plan.flows / 20).max(4096);
    // Room for the repetitions and the unmeasured one before them.
    let all = plan.flows + step * (plan.repetitions + 1);
    let scene = Plan { flows: all, cores: vec![core], ..plan.clone() }.scene();
    let shared = scene.shared()?;
    let syn = Template::new(scene.shape(), Segment::Syn);
    let ack = Template::new(scene.shape(), Segment::Ack);
    let ports = LoopPorts::new(syn.clone(), Order::Each(0..0));
    let worker = Worker::new(WorkerIndex(0), Arc::clone(&shared), ports, clock::since_boot());
    let mut worker = worker.ok_or(BenchError::NoWorker(0))?;
    let mut pass = |template: &Template, range: std::ops::Range<u32>, watch: &mut Stopwatch| {
        worker.ports_mut().load(template.clone(), Order::Each(range));
        watch.repeat(u64::MAX, || worker.turn(clock::since_boot()))
    };
    let mut unused = Stopwatch::new()?;
    for chunk in pipeline::chunks(0..plan.flows) {
        pass(&syn, chunk.clone(), &mut unused);
        pass(&ack, chunk, &mut unused);
    }
    let (quiet, begin) = (Quiet::watch(), Instant::now());
    let mut watches = [Stopwatch::new()?, Stopwatch::new()?];
    for round in 0..=plan.repetitions {
        if round == 1 {
            watches = [Stopwatch::new()?, Stopwatch::new()?];
        }
        let range = plan.flows + round * step..plan.flows + (round + 1) * step;
        pass(&syn, range.clone(), &mut watches[0]);
        let mut bare = LoopPorts::new(syn.clone(), Order::Each(range.clone()));
        watches[1].repeat(u64::MAX, || bare_turn(&mut bare));
        pass(&ack, range, &mut unused);
    }
    let disturbance = quiet.disturbance(begin.elapsed().as_secs_f64());
    let counters = &shared.boards[0].counters;
    pipeline::expect("flows opened", u64::from(all), counters.event(Event::FlowCreated).read(), counters)?;
    let [new_flow, port] = watches.map(|watch| watch.cost());
    let (Some(new_flow), Some(port)) = (new_flow, port) else { return Err(BenchError::NoWorker(0)) };
    Ok(Outcome {
        mode: plan.method,
        family: plan.family,
        flows: plan.flows,
        new_flow_ns: new_flow.median,
        port_ns_per_packet: port.median,
        net_new_flow_ns: new_flow.median - port.median,
        details: Details { new_flow, port },
        machine: Machine::here(),
        warnings: disturbance.into_iter().collect(),
    })
}
