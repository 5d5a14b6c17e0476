//! What expiry costs: looking at an entry whose time has not come, and ending a flow whose time has.
//!
//! The worker gets no packets and a clock that goes as the measurement wants: a tenth of a second a turn, in which it
//! looks at ten thousand entries.

use std::time::{Duration, Instant};

use dataplane::clock;
use dataplane::counters::Event;

use crate::drive::{Driver, established, expect};
use crate::error::BenchError;
use crate::plan::Plan;
use crate::results::Measured;

/// Time between two turns, and how many entries a worker looks at in a turn that is so long after the last.
const STEP: Duration = Duration::from_millis(100);
const SWEPT: u64 = 10_000;
/// Longer than an established connection may idle.
const PAST: Duration = Duration::from_secs(1000);
/// Turns in which nothing ends: with all before, shorter than a connection may idle.
const LIVING: u32 = 2_000;

/// Measures with the plan's first core.
///
/// # Errors
/// When it cannot be set up, or flows did not end.
pub(crate) fn run(plan: &Plan) -> Result<Measured, BenchError> {
    let mut driver = Driver::new(plan, 0, plan.scene().shared()?)?;
    driver.open(0..plan.flows)?;
    driver.worker.ports_mut().load(None, None);
    let flows = u64::from(plan.flows);
    let mut now = clock::since_boot();
    let begin = Instant::now();
    for _ in 0..LIVING {
        now += STEP;
        driver.worker.turn(now);
    }
    let looked_at = per(begin.elapsed(), u64::from(LIVING) * SWEPT.min(flows));
    expect("flows left", flows, established(&driver.shared, plan.family), driver.counters())?;
    now += PAST;
    let expired = |driver: &Driver<'_>| driver.counters().event(Event::FlowExpired).read();
    // Twice round the table at most: by then every entry was looked at.
    let most = 2 * (flows / SWEPT + 1);
    let begin = Instant::now();
    for _ in 0..most {
        now += STEP;
        driver.worker.turn(now);
        if expired(&driver) == flows {
            break;
        }
    }
    let ended = per(begin.elapsed(), flows);
    expect("flows ended", flows, expired(&driver), driver.counters())?;
    let row = |what, ns: f64| plan.describe().with("flows", plan.flows).with("what", what).with("ns", ns);
    let rows = vec![row("an entry looked at", looked_at), row("a flow ended", ended)];
    Ok(Measured { rows, warnings: Vec::new() })
}

/// Nanoseconds for each.
fn per(time: Duration, count: u64) -> f64 {
    time.as_secs_f64() * 1e9 / count as f64
}
