//! What a new snapshot costs the packets that flow meanwhile: 10 000 services with 10 servers each, swapped as a
//! reload does.
//!
//! One worker forwards on one core; on another the snapshot is built and swapped, and the old one freed when the
//! worker has moved on. Turns that took long are told by percentiles, beside those of a time without swaps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dataplane::clock;
use dataplane::snapshot::Snapshot;
use dataplane::worker::Shared;
use hdrhistogram::Histogram;

use crate::drive::{Driver, expect, pin};
use crate::error::BenchError;
use crate::plan::Plan;
use crate::results::{Measured, Row};

/// A turn longer than this is told as this: a second.
const LONGEST_NS: u64 = 1_000_000_000;
/// What the worker does: opens flows, forwards, forwards while snapshots are swapped.
const OPENING: u8 = 0;
const QUIET: u8 = 1;
const SWAPPING: u8 = 2;

/// Measures for `time` without swaps and for as long with a swap after the other. The plan's first core builds, its
/// second forwards.
///
/// # Errors
/// When it cannot be set up, or a packet was lost.
pub(crate) fn run(plan: &Plan, time: Duration) -> Result<Measured, BenchError> {
    let [builder, forwarder, ..] = plan.cores[..] else {
        return Err(BenchError::NoCore { core: 1, cores: plan.cores.len() });
    };
    let one = &Plan { cores: vec![forwarder], ..plan.clone() };
    let shared = one.scene().shared()?;
    let (phase, stop) = (AtomicU8::new(OPENING), AtomicBool::new(false));
    let (turns, swaps) = thread::scope(|scope| {
        let worker = scope.spawn(|| forward(one, Arc::clone(&shared), &phase, &stop));
        // Not before: a thread begins on the cores of the one that starts it.
        let pinned = pin(builder);
        // How long the flows take to be opened is not known beforehand: the worker says when it forwards.
        while phase.load(Ordering::Acquire) == OPENING && !worker.is_finished() {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(time);
        phase.store(SWAPPING, Ordering::Release);
        let swaps = pinned.and_then(|()| swap(one, &shared, time));
        stop.store(true, Ordering::Release);
        (worker.join().unwrap_or(Err(BenchError::Panicked)), swaps)
    });
    let (quiet, busy) = turns?;
    let swaps = swaps?;
    let row = |what, turns: &Turns| {
        let at = |percentile| turns.times.value_at_quantile(percentile) as f64 / 1000.0;
        Row::default()
            .with("what", what)
            .with("services", one.services)
            .with("flows", one.flows)
            .with("ns_per_packet", turns.busy.as_secs_f64() * 1e9 / turns.packets.max(1) as f64)
            .with("turn_p50_us", at(0.5))
            .with("turn_p99_us", at(0.99))
            .with("turn_p99.9_us", at(0.999))
            .with("turn_p99.99_us", at(0.9999))
            .with("turn_max_us", turns.times.max() as f64 / 1000.0)
    };
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times.get(times.len() / 2).map_or(0.0, Duration::as_secs_f64)
    };
    let count = swaps.len();
    let (built, moved): (Vec<Duration>, Vec<Duration>) = swaps.into_iter().unzip();
    let swapping = row("swaps all the time", &busy)
        .with("swaps", count)
        .with("build_ms", median(built) * 1e3)
        .with("worker_moved_on_us", median(moved) * 1e6);
    Ok(Measured { rows: vec![row("no swap", &quiet), swapping], warnings: Vec::new() })
}

/// Turns of the worker in one phase.
struct Turns {
    times: Histogram<u64>,
    packets: u64,
    busy: Duration,
}

impl Turns {
    fn new() -> Result<Self, BenchError> {
        Ok(Self { times: Histogram::new_with_bounds(1, LONGEST_NS, 3)?, packets: 0, busy: Duration::ZERO })
    }
}

/// Forwards until it is told to stop: turns before and after the second phase began.
fn forward(
    plan: &Plan,
    shared: Arc<Shared>,
    phase: &AtomicU8,
    stop: &AtomicBool,
) -> Result<(Turns, Turns), BenchError> {
    let mut driver = Driver::new(plan, 0, shared)?;
    driver.open(0..plan.flows)?;
    let (requests, replies) = driver.streams()?;
    driver.worker.ports_mut().load(requests, replies);
    let (mut quiet, mut busy) = (Turns::new()?, Turns::new()?);
    let sent = driver.worker.ports_mut().sent();
    phase.store(QUIET, Ordering::Release);
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let turns = if phase.load(Ordering::Relaxed) == SWAPPING { &mut busy } else { &mut quiet };
        turns.packets += driver.worker.turn(clock::since_boot()) as u64;
        let now = Instant::now();
        turns.times.saturating_record((now - last).as_nanos() as u64);
        turns.busy += now - last;
        last = now;
    }
    let forwarded = driver.worker.ports_mut().sent() - sent;
    expect("packets forwarded", quiet.packets + busy.packets, forwarded, driver.counters())?;
    Ok((quiet, busy))
}

/// Builds and swaps for `time`: how long each was built, and until the worker had left the one before.
fn swap(plan: &Plan, shared: &Shared, time: Duration) -> Result<Vec<(Duration, Duration)>, BenchError> {
    let begin = Instant::now();
    let mut swaps = Vec::new();
    while begin.elapsed() < time || swaps.is_empty() {
        let building = Instant::now();
        let new = plan.scene().snapshot()?;
        let built = building.elapsed();
        let swapping = Instant::now();
        let old = shared.snapshot.swap(new);
        swaps.push((built, leave(old, swapping)));
    }
    Ok(swaps)
}

/// Waits until nobody has an old snapshot any more, and frees it here.
fn leave(old: Arc<Snapshot>, since: Instant) -> Duration {
    // A worker that ended keeps its last one.
    while Arc::strong_count(&old) > 1 && since.elapsed() < Duration::from_secs(1) {
        std::hint::spin_loop();
    }
    since.elapsed()
}
