//! The result file, written packet by packet, and the summary that people read.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use dataplane::counters::{Drop, Event, PortCounters, Traffic};
use dataplane::service::Destination;
use serde_json::{Map, Value, json};

use super::ReplayError;
use super::arrivals::Arrival;
use super::engine::Engine;
use super::fate::Fate;

/// How many packets had which fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Packets read.
    pub packets: usize,
    /// By fate (for drops, by reason).
    pub fates: BTreeMap<&'static str, usize>,
    /// Where packets left or arrived: interface, received, sent.
    pub ports: Vec<(String, u64, u64)>,
    /// What works only in part on this machine.
    pub findings: Vec<String>,
    /// The file with everything.
    pub file: PathBuf,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} packets", self.packets)?;
        for (fate, count) in &self.fates {
            let meaning = Drop::ALL.iter().find(|reason| reason.name() == *fate);
            match meaning {
                Some(reason) => writeln!(f, "{count:>10}  dropped: {fate} ({})", reason.describe())?,
                None => writeln!(f, "{count:>10}  {fate}")?,
            }
        }
        writeln!(f, "{:<16} {:>10} {:>10}", "interface", "received", "sent")?;
        for (name, received, sent) in &self.ports {
            writeln!(f, "{name:<16} {received:>10} {sent:>10}")?;
        }
        for finding in &self.findings {
            writeln!(f, "note: {finding}")?;
        }
        write!(f, "every packet's fate: {}", self.file.display())
    }
}

/// Writes `result.json`: packets first, one a line, then every counter.
pub(super) struct Writer {
    path: PathBuf,
    to: BufWriter<File>,
    summary: Summary,
}

impl Writer {
    /// Begins the file.
    pub(super) fn create(path: &Path) -> Result<Self, ReplayError> {
        let file = File::create(path).map_err(|e| super::file(path, e))?;
        let summary = Summary { file: path.to_owned(), ..Summary::default() };
        let mut writer = Self { path: path.to_owned(), to: BufWriter::new(file), summary };
        writer.put(|to| to.write_all(b"{\"packets\": ["))?;
        Ok(writer)
    }

    /// Adds a packet.
    pub(super) fn packet(&mut self, arrival: &Arrival, fate: &Fate) -> Result<(), ReplayError> {
        let separator: &[u8] = if self.summary.packets == 0 { b"\n" } else { b",\n" };
        self.summary.packets += 1;
        *self.summary.fates.entry(fate.label()).or_default() += 1;
        let time = arrival.time;
        let mut line = json!({
            "port": &*arrival.interface,
            "index": arrival.index,
            "time": format!("{}.{:09}", time.as_secs(), time.subsec_nanos()),
        });
        let fate = serde_json::to_value(fate).map_err(|e| super::file(&self.path, e.into()))?;
        if let (Value::Object(line), Value::Object(fate)) = (&mut line, fate) {
            line.extend(fate);
        }
        self.put(|to| {
            to.write_all(separator)?;
            serde_json::to_writer(to, &line).map_err(io::Error::from)
        })
    }

    /// Completes the file with the counters.
    pub(super) fn finish(mut self, engine: &Engine) -> Result<Summary, ReplayError> {
        let rest = [
            ("counters", counters(engine)),
            ("ports", ports(engine)),
            ("services", services(engine)),
            ("findings", engine.findings().iter().map(ToString::to_string).collect()),
        ];
        self.put(|to| {
            to.write_all(b"\n]")?;
            for (name, value) in &rest {
                write!(to, ",\n\"{name}\": ")?;
                serde_json::to_writer_pretty(&mut *to, value)?;
            }
            to.write_all(b"}\n")?;
            to.flush()
        })?;
        let mut summary = self.summary;
        summary.findings = engine.findings().iter().map(ToString::to_string).collect();
        summary.ports = engine
            .ports()
            .iter()
            .map(|port| {
                let (received, sent) = traffic(engine, port.index.0 as usize);
                (port.name.clone(), received.0, sent.0)
            })
            .collect();
        Ok(summary)
    }

    fn put(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), ReplayError> {
        write(&mut self.to).map_err(|e| super::file(&self.path, e))
    }
}

fn counters(engine: &Engine) -> Value {
    let boards = &engine.shared().boards;
    let drops: Map<String, Value> = Drop::ALL
        .iter()
        .map(|reason| (reason.name().to_owned(), boards.iter().map(|b| b.counters.drop(*reason).read()).sum()))
        .map(|(name, count): (String, u64)| (name, count.into()))
        .collect();
    let events: Map<String, Value> = Event::ALL
        .iter()
        .map(|event| (event.name().to_owned(), boards.iter().map(|b| b.counters.event(*event).read()).sum()))
        .map(|(name, count): (String, u64)| (name, count.into()))
        .collect();
    let steering: Map<String, Value> =
        engine.verdicts().map(|(verdict, count)| (verdict.name().to_owned(), count.into())).collect();
    json!({"drops": drops, "events": events, "steering": steering})
}

fn ports(engine: &Engine) -> Value {
    let port = |plan: &crate::compile::PortPlan| {
        let (received, sent) = traffic(engine, plan.index.0 as usize);
        json!({
            "name": plan.name,
            "received": {"packets": received.0, "bytes": received.1},
            "sent": {"packets": sent.0, "bytes": sent.1},
        })
    };
    engine.ports().iter().map(port).collect()
}

/// Frames and bytes received and sent on a port, of all workers.
fn traffic(engine: &Engine, port: usize) -> ((u64, u64), (u64, u64)) {
    let sum = |of: fn(&PortCounters) -> &Traffic| {
        let ports = engine.shared().boards.iter().filter_map(|board| board.counters.ports().get(port));
        ports.map(of).fold((0, 0), |(packets, bytes), t| (packets + t.packets.read(), bytes + t.bytes.read()))
    };
    (sum(|port| &port.received), sum(|port| &port.sent))
}

fn services(engine: &Engine) -> Value {
    let snapshot = engine.shared().snapshot.load();
    let service = |service: &dataplane::service::Service| {
        // The table has the one added last first.
        let destinations: Value = service.destinations.iter().rev().map(destination).collect();
        json!({
            "service": service.name.to_string(),
            "scheduler": service.scheduler.kind().name(),
            "destinations": destinations,
        })
    };
    snapshot.services.iter().map(service).collect()
}

fn destination(destination: &Destination) -> Value {
    let counts = &destination.counts;
    let sum = |of: fn(&dataplane::service::FlowTraffic) -> u64| counts.traffic().iter().map(of).sum::<u64>();
    json!({
        "server": destination.at.to_string(),
        "method": destination.method,
        "weight": destination.weight.value(),
        "active": counts.active(),
        "inactive": counts.inactive(),
        "connections": sum(|t| t.connections.read()),
        "inbound": {"packets": sum(|t| t.inbound.packets.read()), "bytes": sum(|t| t.inbound.bytes.read())},
        "outbound": {"packets": sum(|t| t.outbound.packets.read()), "bytes": sum(|t| t.outbound.bytes.read())},
    })
}
