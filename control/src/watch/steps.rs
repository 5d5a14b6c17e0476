//! The steps of a traced packet in words, in the order of its way: parsed, looked up, scheduled, rewritten, sent or dropped.

use std::collections::HashMap;
use std::time::Duration;

use dataplane::counters::Event;
use dataplane::flow::Direction;
use dataplane::ident::{MacAddr, PortIndex, Protocol};
use dataplane::service::DestinationSlot;
use dataplane::state::TcpState;
use dataplane::watch::{FlowSeen, Found, Record, Step};
use dataplane::wire::{self, Fragment, Headers, IpVersion, TcpFlags, number};
use dataplane::worker::Shared;
use serde::{Deserialize, Serialize};

/// A packet, as a trace shows it. Also what was lost so far, in lines without steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPacket {
    /// Seconds since the epoch, to the microsecond.
    pub time: String,
    /// Which worker had it.
    pub worker: u8,
    /// Its number at that worker.
    pub packet: u64,
    /// What happened to it.
    pub steps: Vec<StepLine>,
    /// Packets and steps that matched and could not be shown so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// One step in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLine {
    /// `arrived`, `lookup`, `flow`, `schedule`, `rewrite`, `left`, `dropped` or `counted`.
    pub step: String,
    /// What is to be said of it.
    pub text: String,
}

/// Collects the steps of packets until each is complete.
pub(super) struct Tracer {
    boot: Duration,
    ports: Vec<String>,
    open: HashMap<(u8, u64), Packet>,
}

/// What is known of a packet so far.
#[derive(Default)]
struct Packet {
    lines: Vec<(u8, StepLine)>,
    arrived: Option<Ends>,
    protocol: Option<Protocol>,
}

/// What a rewrite can change.
#[derive(Clone, PartialEq, Eq)]
struct Ends {
    source: String,
    destination: String,
    ttl: u8,
}

impl Tracer {
    pub(super) fn new(boot: Duration, ports: Vec<String>) -> Self {
        Self { boot, ports, open: HashMap::new() }
    }

    /// Adds a step to its packet.
    pub(super) fn add(&mut self, record: &Record, shared: &Shared) {
        let packet = self.open.entry((record.worker.0, record.packet)).or_default();
        let mut say = |order, step: &str, text| packet.lines.push((order, StepLine { step: step.to_owned(), text }));
        let name = |port: PortIndex| self.ports.get(usize::from(port.0)).cloned().unwrap_or_default();
        let frame = record.bytes();
        match record.step {
            Step::Arrived => {
                say(0, "arrived", format!("{}: {}", name(record.port), describe(frame)));
                packet.arrived = ends(frame);
                packet.protocol = wire::parse(frame).ok().and_then(|headers| Protocol::from_number(headers.protocol));
            }
            Step::LookedUp(found) => say(1, "lookup", looked_up(found, packet.protocol)),
            Step::Flow(flow) => {
                for (order, step, text) in flow_lines(&flow, shared) {
                    say(order, step, text);
                }
            }
            Step::Left => {
                if let (Some(before), Some(after)) = (&packet.arrived, ends(frame))
                    && let Some(text) = rewritten(before, &after)
                {
                    packet.lines.push((4, StepLine { step: "rewrite".to_owned(), text }));
                }
                let text = format!("{} {}: {}", name(record.port), macs(frame), describe(frame));
                packet.lines.push((5, StepLine { step: "left".to_owned(), text }));
            }
            Step::Dropped(reason) => say(6, "dropped", format!("{}: {}", reason.name(), reason.describe())),
            Step::Noted(Event::FlowCreated) => say(2, "schedule", "a new flow".to_owned()),
            Step::Noted(event) => say(7, "counted", format!("{}: {}", event.name(), event.describe())),
        }
    }

    /// Writes a packet that has all its steps as a line.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>, last: &Record) {
        let mut packet = self.open.remove(&(last.worker.0, last.packet)).unwrap_or_default();
        packet.lines.sort_by_key(|(order, _)| *order);
        let time = self.boot + last.time;
        write(
            out,
            &TracedPacket {
                time: format!("{}.{:06}", time.as_secs(), time.subsec_micros()),
                worker: last.worker.0,
                packet: last.packet,
                steps: packet.lines.into_iter().map(|(_, line)| line).collect(),
                lost: None,
            },
        );
    }
}

/// Writes how many were lost so far as a line.
pub(super) fn write_lost(out: &mut Vec<u8>, lost: u64) {
    write(out, &TracedPacket { lost: Some(lost), ..TracedPacket::default() });
}

fn write(out: &mut Vec<u8>, packet: &TracedPacket) {
    // Nothing in it can fail to be written to memory.
    let _ = serde_json::to_writer(&mut *out, packet);
    out.push(b'\n');
}

fn looked_up(found: Found, protocol: Option<Protocol>) -> String {
    match found {
        Found::Flow { direction, state } => {
            let side = match direction {
                Direction::Forward => "from the client",
                Direction::Reverse => "from the server",
            };
            let state = protocol.map(|protocol| state_name(protocol, state)).unwrap_or_default();
            format!("a flow, {side}, in state {state}")
        }
        Found::None => "no flow".to_owned(),
        Found::Unsettled => "a flow that other workers are inserting".to_owned(),
        Found::NoPorts => "no ports to look up by: a later fragment, ICMP, or no transport of a service".to_owned(),
    }
}

fn flow_lines(flow: &FlowSeen, shared: &Shared) -> Vec<(u8, &'static str, String)> {
    let snapshot = shared.snapshot.load();
    let destination = snapshot.services.destination(DestinationSlot(flow.destination));
    let service = destination.and_then(|destination| snapshot.services.service(destination.service));
    let mut lines = Vec::new();
    if let (Some(service), Some(destination)) = (service, destination) {
        let scheduler = service.scheduler.kind().name();
        let (method, weight) = (destination.method, destination.weight.value());
        let text = format!("{} by {scheduler} to {} ({method:?}, weight {weight})", service.name, destination.at);
        lines.push((2, "service", text));
    }
    let state = state_name(flow.protocol, flow.state);
    let server = flow.server_side.map(|(server, to)| format!(", server {server} answers to {to}")).unwrap_or_default();
    let text = format!("{} {} > {}{server}, now in state {state}", flow.protocol.name(), flow.client, flow.vip);
    lines.push((3, "flow", text));
    lines
}

fn state_name(protocol: Protocol, state: u8) -> String {
    if protocol == Protocol::Tcp { format!("{:?}", TcpState::from_u8(state)) } else { state.to_string() }
}

fn rewritten(before: &Ends, after: &Ends) -> Option<String> {
    let mut parts = Vec::new();
    if before.source != after.source {
        parts.push(format!("source {} to {}", before.source, after.source));
    }
    if before.destination != after.destination {
        parts.push(format!("destination {} to {}", before.destination, after.destination));
    }
    if before.ttl != after.ttl {
        parts.push(format!("ttl {} to {}", before.ttl, after.ttl));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn ends(frame: &[u8]) -> Option<Ends> {
    let headers = wire::parse(frame).ok()?;
    let (source, destination) = addresses(&headers, frame);
    Some(Ends { source, destination, ttl: headers.ttl })
}

fn macs(frame: &[u8]) -> String {
    let at = |offset: usize| frame.get(offset..).and_then(<[u8]>::first_chunk::<6>).map(|mac| MacAddr(*mac));
    match (at(6), at(0)) {
        (Some(from), Some(to)) => format!("{from} > {to}"),
        _ => "no Ethernet header".to_owned(),
    }
}

/// A frame in a line, what a tunnel carries included.
fn describe(frame: &[u8]) -> String {
    match wire::parse(frame) {
        Ok(headers) => describe_packet(&headers, frame),
        Err(reason) => format!("{} bytes that are no packet: {}", frame.len(), reason.describe()),
    }
}

fn describe_packet(headers: &Headers, frame: &[u8]) -> String {
    let (source, destination) = addresses(headers, frame);
    let transport = match headers.protocol {
        number::TCP => format!("TCP {}", flags(headers.tcp)),
        number::UDP => "UDP".to_owned(),
        number::ICMP | number::ICMPV6 => "ICMP".to_owned(),
        other => format!("protocol {other}"),
    };
    let fragment = match headers.fragment {
        Fragment::Whole => String::new(),
        Fragment::First { id } => format!(", first fragment of {id:#x}"),
        Fragment::Later { id } => format!(", later fragment of {id:#x}"),
    };
    let inner = match headers.protocol {
        // IP in IP (RFC 2003, RFC 2473).
        4 | 41 => frame.get(usize::from(headers.l4)..).and_then(|inner| Some((wire::parse_ip(inner).ok()?, inner))),
        _ => None,
    };
    let inner = inner.map(|(headers, inner)| format!(" [{}]", describe_packet(&headers, inner))).unwrap_or_default();
    let length = headers.ip_length();
    format!("{source} > {destination} {transport}, {length} bytes, ttl {}{fragment}{inner}", headers.ttl)
}

fn addresses(headers: &Headers, frame: &[u8]) -> (String, String) {
    let ports = (headers.source_port.host(), headers.destination_port.host());
    let has_ports = ports != (0, 0);
    let (source, destination): (std::net::IpAddr, std::net::IpAddr) = match headers.version {
        IpVersion::V4 => {
            let (source, destination) = headers.addresses_v4(frame);
            (source.into(), destination.into())
        }
        IpVersion::V6 => {
            let (source, destination) = headers.addresses_v6(frame);
            (source.into(), destination.into())
        }
    };
    let text = |address: std::net::IpAddr, port: u16| {
        if has_ports { std::net::SocketAddr::new(address, port).to_string() } else { address.to_string() }
    };
    (text(source, ports.0), text(destination, ports.1))
}

fn flags(flags: TcpFlags) -> String {
    let names = [(TcpFlags::SYN, "SYN"), (TcpFlags::FIN, "FIN"), (TcpFlags::RST, "RST"), (TcpFlags::ACK, "ACK")];
    let set: Vec<_> = names.into_iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| name).collect();
    if set.is_empty() { "no flags".to_owned() } else { set.join(" ") }
}
