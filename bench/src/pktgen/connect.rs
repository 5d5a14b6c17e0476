//! `connect`: TCP connections with a real handshake, as many a second as asked for or as can be.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dataplane::clock;
use dataplane::ident::{MacAddr, PortIndex};
use dataplane::port::Ports;
use dataplane::worker::Idle;
use serde::Serialize;
use sluice_bench::machine::{Machine, Quiet};

use crate::cli::{Format, Run};
use crate::error::PktgenError;
use crate::link::{self, Place, PortRange, Receive};
use crate::measure::{LatencyLog, LatencyResult};
use crate::next_hop::{self, NextHop};
use crate::progress::{Progress, Show};
use crate::report::{self, LinkReport};
use crate::stop::Stop;
use crate::stream::{BadStream, Endpoints, Link, Rate};
use crate::tcp::{Client, ClientCounts, Plan};

/// Open and end TCP connections, and count how many a second
///
/// Each one has a handshake, with --get a request and its answer, and an orderly end. What is lost is sent again.
/// Latency counts from when a connection was due, so what waited for a free place counts, too. The servers may be real
/// ones, or `serve` at the other end.
#[derive(Args, Debug)]
pub(crate) struct ConnectArgs {
    /// Where packets leave and come back: [NETNS/]INTERFACE[:QUEUE[-QUEUE]]
    at: Place,
    /// Servers: ADDRESSES:PORTS, such as 10.20.0.100:80
    #[arg(long, value_name = "ENDPOINTS")]
    to: Endpoints,
    /// Sources: as many connections are possible at once. The kernel must not use these ports here. Default: the
    /// interface's own address, ports 10000 to 29999
    #[arg(long, value_name = "ENDPOINTS")]
    from: Option<Endpoints>,
    /// The next hop's MAC. Default: what the kernel finds by route, ARP and ND
    #[arg(long, value_name = "MAC")]
    to_mac: Option<MacAddr>,
    /// Connections a second, such as 10k, or max
    #[arg(long, default_value_t)]
    rate: Rate,
    /// Connections at once, at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    concurrency: u32,
    /// Ask for this by HTTP/1.0 and wait for the server to end the connection. Default: end it as soon as it is open
    #[arg(long, value_name = "PATH")]
    get: Option<String>,
    /// A connection that did not end within this time has failed
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Write latency of whole connections, second by second, as an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    latency_log: Option<PathBuf>,
    /// Print a line a second to standard error
    #[arg(long, value_enum, default_value_t = Show::Auto)]
    progress: Show,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Serialize)]
struct ConnectReport {
    command: &'static str,
    /// From the first SYN to the end of the last connection.
    seconds: f64,
    cpu_seconds: f64,
    #[serde(flatten)]
    counts: ClientCounts,
    connections_per_second: f64,
    /// To the end of the handshake.
    handshake: Option<LatencyResult>,
    /// To the end of the connection.
    whole: Option<LatencyResult>,
    link: LinkReport,
    machine: Machine,
    warnings: Vec<String>,
}

const PORT: PortIndex = PortIndex(0);
const SOURCE_PORTS: PortRange = PortRange { first: 10_000, last: 29_999 };
/// A wait that is worth sleeping for, and the longest: timers are looked at.
const SHORTEST_WAIT: Duration = Duration::from_micros(100);
const LONGEST_WAIT: Duration = Duration::from_millis(10);

/// Runs the command and prints its result.
pub(crate) fn run(args: &ConnectArgs) -> Result<(), PktgenError> {
    if args.to.ports().is_none() {
        return Err(BadStream::NoPort { name: "connect".into() }.into());
    }
    let hop = next_hop::find(&args.at, args.to.first(), args.to_mac)?;
    let from = args.from.unwrap_or(Endpoints::of(hop.source, SOURCE_PORTS)).or_ports(SOURCE_PORTS);
    if from.first().is_ipv4() != args.to.first().is_ipv4() {
        return Err(BadStream::Families { name: "connect".into() }.into());
    }
    let ports = from.ports().unwrap_or(SOURCE_PORTS);
    let mut opened = link::open(std::slice::from_ref(&args.at), Receive::Ports(ports), args.run.idle.into())?;
    let mac = opened.macs.first().copied().ok_or_else(|| PktgenError::NoInterface { place: args.at.to_string() })?;
    args.run.hardware.pin()?;
    let stop = Stop::after(args.run.bounds.duration)?;
    let quiet = Quiet::watch();
    let began = clock::since_boot();
    let mut client = Client::new(plan(args, from, hop, mac), began)?;
    let mut log = LatencyLog::new(began);
    report::ready("connect")?;
    drive(args, &mut client, &mut opened.ports, &stop, &mut log)?;
    let seconds = clock::since_boot().saturating_sub(began).as_secs_f64();
    if let Some(path) = &args.latency_log {
        log.write(path).map_err(|source| PktgenError::Log { file: path.clone(), source })?;
    }
    let counts = client.counts();
    let result = ConnectReport {
        command: "connect",
        seconds,
        cpu_seconds: report::cpu_seconds(),
        counts,
        connections_per_second: report::Rate::of(counts.completed, 0, seconds).packets_per_second,
        handshake: client.handshake.result(),
        whole: client.whole.result(),
        link: LinkReport::of(&opened.counters)?,
        machine: Machine::here(),
        warnings: quiet.disturbance(seconds).into_iter().collect(),
    };
    print(&result, args.run.format)
}

fn plan(args: &ConnectArgs, from: Endpoints, hop: NextHop, mac: MacAddr) -> Plan {
    let request = args.get.as_ref().map(|path| format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", args.to.first()));
    Plan {
        from,
        to: args.to,
        link: Link { from: mac, to: hop.mac },
        rate: args.rate,
        most: args.concurrency as usize,
        count: args.run.bounds.count.unwrap_or(u64::MAX),
        request: request.unwrap_or_default().into_bytes(),
        timeout: args.timeout,
    }
}

/// Turns until all connections have ended. After the time is over, or a signal, no more are begun.
fn drive(
    args: &ConnectArgs,
    client: &mut Client,
    ports: &mut impl Ports,
    stop: &Stop,
    log: &mut LatencyLog,
) -> Result<(), PktgenError> {
    let mut progress = Progress::new(args.progress, clock::since_boot());
    let idle: Idle = args.run.idle.into();
    while !client.is_done() {
        let now = clock::since_boot();
        if stop.is_reached(now) {
            client.finish();
        }
        let work = client.turn(ports, PORT, now);
        if progress.is_due(now) {
            let counts = client.counts();
            client.whole.interval(|latency| log.interval(latency, now));
            let failed = counts.refused + counts.reset + counts.timed_out;
            progress.tell(now, &[("begun", counts.begun), ("completed", counts.completed)], ("failed", failed))?;
        }
        if work == 0 && idle != Idle::Busy {
            // The next one may be due and only wait for a place: then it is an answer that is waited for.
            let wait = client.next(now).saturating_sub(now).max(SHORTEST_WAIT).min(LONGEST_WAIT);
            ports.wait(wait);
        }
    }
    client.whole.interval(|latency| log.interval(latency, clock::since_boot()));
    Ok(())
}

fn print(result: &ConnectReport, format: Format) -> Result<(), PktgenError> {
    for warning in &result.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    if let Format::Json = format {
        return report::json(result);
    }
    let mut out = io::stdout().lock();
    let ConnectReport { seconds, cpu_seconds: cpu, counts: c, connections_per_second: rate, .. } = result;
    writeln!(out, "connect: {seconds:.2} s, {rate:.0} connections a second, {cpu:.2} s of processor time")?;
    writeln!(out, "  begun {}, opened {}, completed {}, {} bytes received", c.begun, c.opened, c.completed, c.bytes)?;
    let failed = (c.refused, c.reset, c.timed_out);
    writeln!(
        out,
        "  refused {}, reset {}, timed out {}; sent again {}",
        failed.0, failed.1, failed.2, c.retransmitted
    )?;
    for (what, latency) in [("handshake", result.handshake), ("whole", result.whole)] {
        if let Some(latency) = latency {
            writeln!(out, "  µs {what:<9}  {}", latency.corrected_ns)?;
        }
    }
    result.link.text(&mut out)?;
    Ok(())
}
