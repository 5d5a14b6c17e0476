//! `sink`: receives, counts loss and reordering by the sequence numbers of `send`, and measures latency.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dataplane::clock;
use dataplane::ident::PortIndex;
use dataplane::port::Ports;
use dataplane::worker::Patience;
use serde::Serialize;
use sluice_bench::machine::Machine;

use crate::cli::{Format, Run};
use crate::error::PktgenError;
use crate::link::{self, Place, PortRange, Receive};
use crate::measure::{Collector, LatencyLog, Received, Runs};
use crate::progress::{Progress, Show};
use crate::report::{self, LinkReport};
use crate::stop::Stop;

/// Receive, count what is lost or out of order, measure latency
///
/// Datagrams of `send` carry a number and a time. Latency is that of one way, so both ends have to be on one machine.
/// What was lost after the last packet that came, a sink cannot know: compare with the sender's count.
#[derive(Args, Debug)]
pub(crate) struct SinkArgs {
    /// Where packets come in: [NETNS/]INTERFACE[:QUEUE[-QUEUE]]
    at: Place,
    /// Take only what comes to these ports; the kernel keeps the rest
    #[arg(long, default_value = "0-65535", value_name = "PORT[-PORT]")]
    ports: PortRange,
    /// End when nothing came for so long after the first packet
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    until_idle: Option<Duration>,
    /// Write latency, second by second, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    latency_log: Option<PathBuf>,
    /// Print a line a second to standard error
    #[arg(long, value_enum, default_value_t = Show::Auto)]
    progress: Show,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Serialize)]
struct SinkReport {
    command: &'static str,
    /// From the first frame to the last.
    seconds: f64,
    cpu_seconds: f64,
    received: Received,
    rate: report::Rate,
    link: LinkReport,
    machine: Machine,
}

const PORT: PortIndex = PortIndex(0);

/// When the first and the last frame came, since boot.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: Duration,
    last: Duration,
}

/// Runs the command and prints its result.
pub(crate) fn run(args: &SinkArgs) -> Result<(), PktgenError> {
    let mut opened = link::open(std::slice::from_ref(&args.at), Receive::Ports(args.ports), args.run.idle.into())?;
    args.run.hardware.pin()?;
    let stop = Stop::after(args.run.bounds.duration)?;
    let mut collector = Collector::new(Runs::All)?;
    let mut log = LatencyLog::new(clock::since_boot());
    report::ready("sink")?;
    let span = collect(args, &mut opened.ports, &mut collector, &mut log, &stop)?;
    collector.interval(|latency| log.interval(latency, clock::since_boot()));
    let seconds = span.map_or(0.0, |s| s.last.saturating_sub(s.first).as_secs_f64());
    let received = collector.result(None);
    let result = SinkReport {
        command: "sink",
        seconds,
        cpu_seconds: report::cpu_seconds(),
        rate: report::Rate::of(received.frames, received.bytes, seconds),
        received,
        link: LinkReport::of(&opened.counters)?,
        machine: Machine::here(),
    };
    if let Some(path) = &args.latency_log {
        log.write(path).map_err(|source| PktgenError::Log { file: path.clone(), source })?;
    }
    if let Format::Json = args.run.format {
        return report::json(&result);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "sink: {seconds:.2} s from the first packet to the last")?;
    result.received.text(&mut out, seconds)?;
    result.link.text(&mut out)?;
    Ok(())
}

fn collect(
    args: &SinkArgs,
    ports: &mut impl Ports,
    collector: &mut Collector,
    log: &mut LatencyLog,
    stop: &Stop,
) -> Result<Option<Span>, PktgenError> {
    let mut patience = Patience::of(args.run.idle.into());
    let mut progress = Progress::new(args.progress, clock::since_boot());
    let most = args.run.bounds.count.unwrap_or(u64::MAX);
    let until_idle = args.until_idle.unwrap_or(Duration::MAX);
    let mut span: Option<Span> = None;
    loop {
        let now = clock::since_boot();
        let is_idle = span.is_some_and(|s| now.saturating_sub(s.last) > until_idle);
        if is_idle || stop.is_reached(now) || collector.frames >= most {
            return Ok(span);
        }
        let taken = collector.turn(ports, PORT);
        if taken > 0 {
            span = Some(Span { first: span.map_or(now, |s| s.first), last: now });
        }
        if progress.is_due(now) {
            collector.interval(|latency| log.interval(latency, now));
            progress.tell(now, &[("received", collector.frames)], ("lost", collector.lost()))?;
        }
        if patience.is_over(taken) {
            ports.wait(Patience::NAP);
        }
    }
}
