//! `send`: streams of packets, and what became of them where they come back or arrive.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dataplane::clock;
use dataplane::ident::MacAddr;
use dataplane::port::xsk::XskPorts;
use serde::Serialize;
use sluice_bench::machine::{Machine, Quiet};

use crate::cli::{Format, Hardware, IdleArg};
use crate::error::PktgenError;
use crate::generate::{Sent, Stream};
use crate::link::{self, LinkCounters, Place, PortRange, Receive};
use crate::measure::{LatencyLog, Received};
use crate::next_hop;
use crate::progress::{Progress, Show};
use crate::report::{self, LinkReport};
use crate::stop::{Bounds, Stop};
use crate::stream::{self, Endpoints, Rate, Spec};
use crate::trial::{self, Back, Ends};

/// Send streams of packets, and count what comes back
///
/// One stream by options, or several by a file. Without --receive somebody else counts, such as `sink`. With the sending
/// interface itself as --receive, what a `reflect` sends back is counted and the round trip measured; with another, in
/// any network namespace of this machine, one way.
///
/// A rate is kept as a schedule: a packet that leaves late carries the time when it was due, and its latency counts from
/// then.
#[derive(Args, Debug)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) way: Way,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    /// Write latency, second by second, as an HdrHistogram log
    #[arg(long, value_name = "FILE", requires = "receive")]
    latency_log: Option<PathBuf>,
    /// Print a line a second to standard error
    #[arg(long, value_enum, default_value_t = Show::Auto)]
    progress: Show,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// What is sent, from where and to where.
#[derive(Args, Debug)]
pub(crate) struct Way {
    /// Where packets leave: [NETNS/]INTERFACE[:QUEUE]
    at: Place,
    /// Where packets arrive or come back: [NETNS/]INTERFACE[:QUEUE[-QUEUE]]
    #[arg(long, value_name = "PLACE")]
    receive: Option<Place>,
    /// Take only what comes to these ports; the kernel keeps the rest. Default: those that streams are sent from (where
    /// packets come back) or to (where they arrive)
    #[arg(long, value_name = "PORT[-PORT]")]
    receive_ports: Option<PortRange>,
    /// The next hop's MAC. Default: what the kernel finds by route, ARP and ND
    #[arg(long, value_name = "MAC")]
    to_mac: Option<MacAddr>,
    /// A TOML file with a [[stream]] for each stream; its fields are the options of a stream
    #[arg(long, conflicts_with = "to")]
    file: Option<PathBuf>,
    #[command(flatten)]
    stream: Option<Spec>,
    /// Wait so long for packets that are under way after the last one that came
    #[arg(long, default_value = "200ms", value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) linger: Duration,
    /// What to do between packets; waking up from sleep is part of the latency
    #[arg(long, value_enum, default_value_t = IdleArg::Adaptive)]
    pub(crate) idle: IdleArg,
    #[command(flatten)]
    hardware: Hardware,
}

/// Everything that a run needs, open and resolved.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) ends: Ends<XskPorts>,
    pub(crate) streams: Vec<Stream>,
    pub(crate) names: Vec<String>,
    counters: Vec<LinkCounters>,
}

/// Ports that streams are sent from where none are given.
const SOURCE_PORTS: PortRange = PortRange { first: 10_000, last: 10_999 };

#[derive(Debug, Serialize)]
struct SendReport {
    command: &'static str,
    seconds: f64,
    cpu_seconds: f64,
    /// What the schedules asked for; none where a stream has no rate.
    asked_packets_per_second: Option<f64>,
    sent: Sent,
    rate: report::Rate,
    streams: Vec<StreamReport>,
    received: Option<Received>,
    link: Vec<LinkReport>,
    machine: Machine,
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct StreamReport {
    name: String,
    sent: u64,
}

/// Runs the command and prints its result.
pub(crate) fn run(args: &SendArgs) -> Result<(), PktgenError> {
    let mut prepared = args.way.prepare()?;
    let stop = Stop::after(args.bounds.duration)?;
    let now = clock::since_boot();
    let (mut progress, mut log) = (Progress::new(args.progress, now), LatencyLog::new(now));
    let quiet = Quiet::watch();
    report::ready("send")?;
    let order = trial::Order {
        run: run_number(),
        streams: &prepared.streams,
        count: args.bounds.count.unwrap_or(u64::MAX),
        linger: args.way.linger,
        idle: args.way.idle.into(),
    };
    let outcome = trial::run(&mut prepared.ends, order, &stop, &mut progress, &mut log)?;
    if let Some(path) = &args.latency_log {
        log.write(path).map_err(|source| PktgenError::Log { file: path.clone(), source })?;
    }
    let rate = report::Rate::of(outcome.sent.packets, outcome.sent.bytes, outcome.seconds);
    let asked = asked(&prepared.streams);
    let mut warnings: Vec<String> = quiet.disturbance(outcome.seconds).into_iter().collect();
    warnings.extend(asked.and_then(|asked| short_of(asked, rate.packets_per_second, outcome.sent.packets)));
    let names = prepared.names.iter().zip(&outcome.by_stream);
    let result = SendReport {
        command: "send",
        seconds: outcome.seconds,
        cpu_seconds: report::cpu_seconds(),
        asked_packets_per_second: asked,
        sent: outcome.sent,
        rate,
        streams: names.map(|(name, sent)| StreamReport { name: name.clone(), sent: *sent }).collect(),
        received: outcome.received,
        link: prepared.link()?,
        machine: Machine::here(),
        warnings,
    };
    print(&result, args.format)
}

/// What all schedules ask for; `None` where one has no limit.
fn asked(streams: &[Stream]) -> Option<f64> {
    let rate = |stream: &Stream| match stream.rate {
        Rate::Max => None,
        Rate::PerSecond(rate) => Some(rate),
    };
    streams.iter().map(rate).sum()
}

/// A warning where the generator did not send what it was asked for. A few packets more or less are the schedule's ends.
pub(crate) fn short_of(asked: f64, sent_per_second: f64, sent: u64) -> Option<String> {
    let is_short = sent > 100 && sent_per_second < 0.99 * asked;
    is_short
        .then(|| format!("{sent_per_second:.0} of {asked:.0} packets a second were sent: the generator is the limit"))
}

/// Distinguishes a run from the one before it.
fn run_number() -> u8 {
    clock::since_boot().as_millis() as u8
}

fn print(result: &SendReport, format: Format) -> Result<(), PktgenError> {
    for warning in &result.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    if let Format::Json = format {
        return report::json(result);
    }
    let mut out = io::stdout().lock();
    let Sent { packets, stalls, .. } = result.sent;
    let (seconds, cpu) = (result.seconds, result.cpu_seconds);
    writeln!(out, "send: {seconds:.2} s, {packets} packets, {}, {cpu:.2} s of processor time", result.rate)?;
    if result.streams.len() > 1 {
        result.streams.iter().try_for_each(|s| writeln!(out, "  {}: {} packets", s.name, s.sent))?;
    }
    if stalls > 0 {
        writeln!(out, "  {stalls} times the ring was full")?;
    }
    if let Some(received) = &result.received {
        received.text(&mut out, seconds)?;
    }
    result.link.iter().try_for_each(|link| link.text(&mut out))?;
    Ok(())
}

impl Way {
    /// Opens the places and finds the way to every destination.
    pub(crate) fn prepare(&self) -> Result<Prepared, PktgenError> {
        let specs = match (&self.file, &self.stream) {
            (Some(file), _) => stream::read(file)?,
            (None, Some(spec)) => vec![spec.clone()],
            (None, None) => return Err(PktgenError::NoStream),
        };
        specs.iter().try_for_each(Spec::check)?;
        // The way is asked for while the kernel still receives what comes.
        let streams = specs.iter().map(|spec| self.resolve(spec)).collect::<Result<Vec<_>, _>>()?;
        let (out, back) = self.open(&streams)?;
        for spec in &specs {
            spec.check_size(out.mtu)?;
        }
        let mut counters = vec![out.counters];
        let back = match (back, &self.receive) {
            (Some(back), _) => {
                counters.push(back.counters);
                Back::Other(back.ports)
            }
            (None, Some(_)) => Back::Same,
            (None, None) => Back::Elsewhere,
        };
        let mac = out.macs.first().copied().ok_or_else(|| PktgenError::NoInterface { place: self.at.to_string() })?;
        self.hardware.pin()?;
        let names = specs.into_iter().map(|spec| spec.name).collect();
        Ok(Prepared { ends: Ends { out: out.ports, back, mac }, streams, names, counters })
    }

    fn resolve(&self, spec: &Spec) -> Result<Stream, PktgenError> {
        let (from, to_mac) = match (spec.from, self.to_mac) {
            (Some(from), Some(mac)) => (from, mac),
            (from, mac) => {
                let hop = next_hop::find(&self.at, spec.to.first(), mac)?;
                (from.unwrap_or(Endpoints::of(hop.source, SOURCE_PORTS)), hop.mac)
            }
        };
        Ok(Stream {
            kind: spec.protocol,
            from: from.or_ports(SOURCE_PORTS),
            to: spec.to,
            sizes: spec.size.clone(),
            rate: spec.rate,
            order: spec.order,
            to_mac,
        })
    }

    /// Where packets leave, and where they arrive, if that is another place.
    fn open(&self, streams: &[Stream]) -> Result<(link::Opened, Option<link::Opened>), PktgenError> {
        let (out, idle) = (std::slice::from_ref(&self.at), self.idle.into());
        match &self.receive {
            None => Ok((link::open(out, Receive::Nothing, idle)?, None)),
            Some(place) if *place == self.at => {
                let ports = self.receive_ports.unwrap_or_else(|| span(streams.iter().map(|s| s.from)));
                Ok((link::open(out, Receive::Ports(ports), idle)?, None))
            }
            Some(place) => {
                let ports = self.receive_ports.unwrap_or_else(|| span(streams.iter().map(|s| s.to)));
                let back = link::open(std::slice::from_ref(place), Receive::Ports(ports), idle)?;
                Ok((link::open(out, Receive::Nothing, idle)?, Some(back)))
            }
        }
    }
}

/// The smallest range with the ports of all of them.
fn span(endpoints: impl Iterator<Item = Endpoints>) -> PortRange {
    let ports = endpoints.map(|e| e.ports().unwrap_or(PortRange::ALL));
    let join = |a: PortRange, b: PortRange| PortRange { first: a.first.min(b.first), last: a.last.max(b.last) };
    ports.reduce(join).unwrap_or(PortRange::ALL)
}

impl Prepared {
    /// What kernel and programs counted on each place.
    pub(crate) fn link(&self) -> Result<Vec<LinkReport>, PktgenError> {
        self.counters.iter().map(LinkReport::of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generator_that_is_too_slow_is_told_of() {
        assert_eq!(short_of(1000.0, 995.0, 10_000), None);
        assert_eq!(short_of(1000.0, 500.0, 10), None, "too few to judge");
        assert!(short_of(1000.0, 900.0, 10_000).unwrap().contains("900 of 1000"));
    }

    #[test]
    fn what_is_received_spans_the_ports_of_all_streams() {
        let ends = ["10.0.0.1:80", "10.0.0.1:53-99"].map(|text| text.parse().unwrap());
        assert_eq!(span(ends.into_iter()), PortRange { first: 53, last: 99 });
        assert_eq!(span(std::iter::empty()), PortRange::ALL);
    }
}
