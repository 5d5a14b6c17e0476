//! What a second worker brings: workers over one table, each alone and then all at once, in turn.
//!
//! From the best case to the worst: nothing shared but the table, one service shared, one flow. The bare port and the
//! memory limit show what the machine itself allows.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use dataplane::clock;
use dataplane::worker::Shared;

use crate::drive::{Driver, pin};
use crate::error::BenchError;
use crate::limit::Limit;
use crate::loop_ports::{LoopPorts, Order, Stream, bare_turn};
use crate::measure::Stopwatch;
use crate::packets::Sender;
use crate::plan::{Plan, chunks};
use crate::results::{Measured, Row};

/// How long each measures in each repetition, at most, and for each packet of the plan: about what it takes.
const WINDOW: Duration = Duration::from_millis(200);
const PACKET: Duration = Duration::from_nanos(50);

/// A worker's work for one window, already begun; gives packets or flows a second.
type Load<'a> = Box<dyn FnMut() -> Result<f64, BenchError> + 'a>;

/// What the workers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    BarePort,
    MemoryLimit,
    /// Established flows of its own for each, of a service of its own.
    OwnServices,
    /// Established flows of its own for each, of one service.
    OneService,
    /// One established flow for all.
    OneFlow,
    /// New flows, of a service of its own each.
    NewInOwnServices,
    /// New flows, of one service: its servers' counts are shared.
    NewInOneService,
}

impl Case {
    const ALL: [Self; 7] = [
        Self::BarePort,
        Self::MemoryLimit,
        Self::OwnServices,
        Self::OneService,
        Self::OneFlow,
        Self::NewInOwnServices,
        Self::NewInOneService,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::BarePort => "bare port",
            Self::MemoryLimit => "memory limit",
            Self::OwnServices => "established flows, own services",
            Self::OneService => "established flows, one service",
            Self::OneFlow => "one established flow",
            Self::NewInOwnServices => "new flows, own services",
            Self::NewInOneService => "new flows, one service",
        }
    }

    const fn opens_flows(self) -> bool {
        matches!(self, Self::NewInOwnServices | Self::NewInOneService)
    }
}

/// Measures all cases with the plan's workers.
///
/// # Errors
/// When one cannot be set up.
pub(crate) fn run(plan: &Plan) -> Result<Measured, BenchError> {
    let rows: Result<Vec<Row>, BenchError> = Case::ALL.into_iter().map(|case| measure(plan, case)).collect();
    Ok(Measured { rows: rows?, warnings: Vec::new() })
}

fn measure(plan: &Plan, case: Case) -> Result<Row, BenchError> {
    let workers = plan.cores.len();
    let services = match case {
        Case::OwnServices | Case::NewInOwnServices => workers as u16,
        _ => 1,
    };
    let plan = &Plan { services, ..plan.clone() };
    // New flows are added in each repetition and in the unmeasured one before, by each worker alone and by all.
    let added = if case.opens_flows() { new_flows(plan) * 2 * (plan.repetitions + 1) * workers as u32 } else { 0 };
    let sized = Plan { flows: plan.flows + added, ..plan.clone() };
    let shared = sized.scene().shared()?;
    let rates = contest(plan, |index| load(plan, &sized, case, index, Arc::clone(&shared)))?;
    Ok(plan
        .describe()
        .with("case", case.name())
        .with("flows", plan.flows)
        .with("workers", workers)
        .with("one_alone_mpps", rates.alone / 1e6)
        .with("all_at_once_mpps", rates.together / 1e6)
        .with("ratio", rates.ratio))
}

/// New flows of one worker in one window: enough to measure, and few enough to be opened in the time of the others.
fn new_flows(plan: &Plan) -> u32 {
    (plan.flows / 20).clamp(4096, 1 << 18)
}

fn load<'a>(
    plan: &'a Plan,
    sized: &'a Plan,
    case: Case,
    index: usize,
    shared: Arc<Shared>,
) -> Result<Load<'a>, BenchError> {
    match case {
        Case::BarePort => {
            pin(plan.cores[index])?;
            let templates = plan.templates(Sender::Client, 0, plan.later());
            let mut ports = LoopPorts::new();
            ports.load(Some(Stream::new(&templates, Order::Random(plan.share(index)))), None);
            Ok(Box::new(move || window(plan, || bare_turn(&mut ports))))
        }
        Case::MemoryLimit => {
            pin(plan.cores[index])?;
            let mut limit = Limit::new(plan.family, plan.share(index).len() as u32).map_err(BenchError::Memory)?;
            Ok(Box::new(move || window(plan, || limit.turn())))
        }
        Case::OwnServices | Case::OneService | Case::OneFlow => {
            let mut driver = Driver::new(sized, index, shared)?;
            driver.open(plan.share(index))?;
            let (requests, replies) = driver.streams()?;
            let templates = plan.templates(Sender::Client, 0, plan.later());
            // All meet at the first worker's first flow.
            let one = || Stream::new(&templates, Order::Random(0..1)).beginning(1 << 16);
            let requests = if case == Case::OneFlow { Some(one()) } else { requests };
            driver.worker.ports_mut().load(requests, replies);
            Ok(Box::new(move || window(plan, || driver.worker.turn(clock::since_boot()))))
        }
        Case::NewInOwnServices | Case::NewInOneService => {
            let mut driver = Driver::new(sized, index, shared)?;
            driver.open(plan.share(index))?;
            let step = new_flows(plan);
            let mut next = plan.flows + index as u32 * step * 2 * (plan.repetitions + 1);
            Ok(Box::new(move || {
                next += step;
                opening(&mut driver, sized, index, next - step..next)
            }))
        }
    }
}

fn window(plan: &Plan, turn: impl FnMut() -> usize) -> Result<f64, BenchError> {
    let packets = u32::try_from(plan.packets).unwrap_or(u32::MAX);
    Ok(Stopwatch::new()?.during(WINDOW.min(PACKET.saturating_mul(packets)), turn))
}

/// Opens flows by their first segment. Their second comes after the clock was read.
fn opening(driver: &mut Driver<'_>, plan: &Plan, index: usize, flows: std::ops::Range<u32>) -> Result<f64, BenchError> {
    let mut watch = Stopwatch::new()?;
    let service = plan.service(index);
    for chunk in chunks(flows) {
        for (segment, is_timed, first) in [(plan.opening(), true, 0), (plan.later(), false, 1)] {
            let templates = plan.templates(Sender::Client, service, segment);
            let requests = Stream::new(&templates, Order::Each(chunk.clone())).beginning(first);
            driver.worker.ports_mut().load(Some(requests), None);
            if is_timed {
                watch.repeat(u64::MAX, || driver.worker.turn(clock::since_boot()));
            } else {
                while driver.worker.turn(clock::since_boot()) > 0 {}
            }
        }
    }
    let cost = watch.cost().ok_or(BenchError::NoWorker(index))?;
    Ok(1e9 / cost.median)
}

/// Packets or flows a second, medians of the repetitions.
struct Rates {
    /// Of one worker while the others wait, on average.
    alone: f64,
    /// Of all at once.
    together: f64,
    /// The second by the first, of the same repetition.
    ratio: f64,
}

/// Lets each worker work alone and then all at once, again and again.
fn contest<'a>(plan: &Plan, make: impl Fn(usize) -> Result<Load<'a>, BenchError> + Sync) -> Result<Rates, BenchError> {
    let workers = plan.cores.len();
    let barrier = Barrier::new(workers);
    let rates: Vec<Result<Vec<[f64; 2]>, BenchError>> = thread::scope(|scope| {
        let start = |index| {
            let (make, barrier) = (&make, &barrier);
            scope.spawn(move || alternate(plan, index, make(index), barrier))
        };
        let threads: Vec<_> = (0..workers).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(BenchError::Panicked))).collect()
    });
    let rates: Vec<Vec<[f64; 2]>> = rates.into_iter().collect::<Result<_, _>>()?;
    let sum = |round: usize, which: usize| rates.iter().filter_map(|one| Some(one.get(round)?[which])).sum::<f64>();
    let rounds = 1..=plan.repetitions as usize;
    let alone = |round| sum(round, 0) / workers as f64;
    Ok(Rates {
        alone: median(rounds.clone().map(alone).collect()),
        together: median(rounds.clone().map(|round| sum(round, 1)).collect()),
        ratio: median(rounds.map(|round| sum(round, 1) / alone(round)).collect()),
    })
}

/// One worker's part: its rates alone and together, of each round; the first is not to be used.
fn alternate(
    plan: &Plan,
    index: usize,
    load: Result<Load<'_>, BenchError>,
    barrier: &Barrier,
) -> Result<Vec<[f64; 2]>, BenchError> {
    // Nobody is left waiting when one worker fails: it waits with the others to the end.
    let mut load = load;
    let mut work = || match &mut load {
        Ok(load) => load(),
        Err(_) => Ok(0.0),
    };
    let mut rates = Vec::new();
    for _ in 0..=plan.repetitions {
        let mut alone = Ok(0.0);
        for turn in 0..plan.cores.len() {
            barrier.wait();
            if turn == index {
                alone = work();
            }
        }
        barrier.wait();
        rates.push((alone, work()));
    }
    drop(load?);
    rates.into_iter().map(|(alone, together)| Ok([alone?, together?])).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
