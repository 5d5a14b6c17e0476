//! What `status` shows, gathered from the parts of a running director.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use dataplane::clock;
use dataplane::counters::{Counter, Drop, Event, Traffic};
use dataplane::ident::Weight;
use dataplane::next_hop::Hop;
use dataplane::port::ChecksumMode;
use dataplane::port::xsk::{CopyMode, statistics};
use dataplane::rules::{Rule, RuleState};
use dataplane::service::{AddressFamily, Destination, MatchPoint, Method, Persistence, Service, ServiceName};
use dataplane::steer::{AttachMode, Steer};
use dataplane::worker::{Board, Shared};

use super::workers::{WorkerThread, Workers};
use crate::api::view;
use crate::compile::{Compiled, PortPlan};

/// The parts.
pub(super) struct Parts<'a> {
    pub(super) started: Instant,
    pub(super) guard_pid: Option<u32>,
    pub(super) configuration: view::Configuration,
    pub(super) compiled: &'a Compiled,
    pub(super) shared: &'a Shared,
    pub(super) workers: &'a Workers,
    pub(super) steer: &'a Steer,
    /// Where the program runs on each port, by index.
    pub(super) modes: &'a [AttachMode],
    /// More findings than those of the compilation.
    pub(super) findings: Vec<String>,
}

/// The whole status.
pub(super) fn status(parts: Parts<'_>) -> view::Status {
    let Parts { compiled, shared, .. } = parts;
    let now = clock::since_boot();
    let table = |family: &str, flows: u32, capacity: u32| view::FlowTable {
        family: family.to_owned(),
        flows: flows.into(),
        capacity: capacity.into(),
    };
    view::Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        guard_pid: parts.guard_pid,
        uptime_seconds: parts.started.elapsed().as_secs(),
        configuration: parts.configuration,
        ports: compiled.ports.iter().map(|port| port_view(port, parts.modes, &shared.boards)).collect(),
        workers: parts.workers.threads().iter().map(|thread| worker_view(thread, &shared.boards, now)).collect(),
        services: compiled.snapshot.services.iter().map(|service| service_view(service, compiled)).collect(),
        flows: vec![
            table("IPv4", shared.flows4.len(), shared.flows4.capacity()),
            table("IPv6", shared.flows6.len(), shared.flows6.capacity()),
        ],
        rules: rules(compiled),
        findings: compiled.findings.iter().map(ToString::to_string).chain(parts.findings).collect(),
        counters: counters(&shared.boards, parts.steer),
    }
}

fn port_view(port: &PortPlan, modes: &[AttachMode], boards: &[Board]) -> view::Port {
    let index = port.index.0 as usize;
    let mut traffic = view::PortTraffic::default();
    for counters in boards.iter().filter_map(|board| board.counters.ports().get(index)) {
        traffic.received_packets += counters.received.packets.read();
        traffic.received_bytes += counters.received.bytes.read();
        traffic.sent_packets += counters.sent.packets.read();
        traffic.sent_bytes += counters.sent.bytes.read();
    }
    let mode = match modes.get(index) {
        Some(AttachMode::Native) => "native",
        Some(AttachMode::Generic) => "generic",
        None => "absent",
    };
    let checksum = match port.checksum {
        ChecksumMode::Offload => "offload",
        ChecksumMode::Full => "full",
    };
    view::Port {
        name: port.name.clone(),
        ifindex: port.link.0,
        mac: port.mac.to_string(),
        mtu: port.mtu,
        queues: port.queues,
        mode: mode.to_owned(),
        checksum: checksum.to_owned(),
        why: port.why.clone(),
        traffic,
    }
}

fn worker_view(thread: &WorkerThread, boards: &[Board], now: Duration) -> view::Worker {
    let beat = boards.get(thread.index.0 as usize).map(Board::heartbeat).filter(|beat| !beat.is_zero());
    // A socket whose worker ended cannot be asked, and the director ends with its worker.
    let lost = |fd| statistics(fd).map_or(0, |counted| counted.rx_dropped + counted.rx_ring_full);
    let sockets = thread.sockets.iter().map(|socket| view::Socket {
        lost: lost(socket.fd),
        port: socket.place.interface.clone(),
        queue: socket.place.queue.0,
        mode: match socket.mode {
            CopyMode::Copy => "copy".to_owned(),
            CopyMode::ZeroCopy => "zero-copy".to_owned(),
        },
    });
    view::Worker {
        core: thread.core.map(|core| core.0),
        heartbeat_age_ms: beat.map(|beat| now.saturating_sub(beat).as_millis() as u64),
        sockets: sockets.collect(),
    }
}

fn rules(compiled: &Compiled) -> Vec<view::Rule> {
    let view = |(rule, state): (&Rule, &RuleState)| view::Rule { rule: rule.to_string(), matched: state.matched() };
    compiled.snapshot.gates.rules.iter().map(view).collect()
}

fn service_view(service: &Service, compiled: &Compiled) -> view::Service {
    let first = service.points.iter().find_map(|point| match point {
        MatchPoint::Addresses { range, port, .. } => Some((range.first, port.host())),
        MatchPoint::Mark(..) => None,
    });
    let (mark, family) = match service.name {
        ServiceName::Mark { mark, family } => (Some(mark.value()), family),
        _ => (None, AddressFamily::V4),
    };
    let unspecified = match family {
        AddressFamily::V4 => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::V6 => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (address, port) = first.unwrap_or((unspecified, 0));
    let group = match &service.name {
        ServiceName::Group { name, .. } => Some(name.to_string()),
        _ => None,
    };
    view::Service {
        protocol: service.name.kind().to_owned(),
        address,
        port,
        mark,
        points: if group.is_some() { service.points.iter().map(ToString::to_string).collect() } else { Vec::new() },
        group,
        scheduler: service.scheduler.kind().name().to_owned(),
        persistent: service.settings.persistence.map(|set| persistent(&set, address)),
        local: compiled.served.contains(&service.name),
        destinations: service
            .destinations
            .iter()
            .map(|server| destination_view(server, compiled, standing(server)))
            .chain(service.draining.iter().map(|server| destination_view(server, compiled, "draining")))
            .collect(),
    }
}

fn persistent(set: &Persistence, vip: IpAddr) -> view::Persistent {
    let mask = match vip {
        IpAddr::V4(_) => (!set.mask.is_broadcast()).then(|| set.mask.to_string()),
        IpAddr::V6(_) => (set.prefix < 128).then(|| set.prefix.to_string()),
    };
    view::Persistent { timeout: set.timeout.whole_seconds(), mask }
}

fn destination_view(server: &Destination, compiled: &Compiled, standing: &str) -> view::Destination {
    let traffic = server.counts.traffic();
    let flowed = |traffic: &Traffic| view::Flowed { packets: traffic.packets.read(), bytes: traffic.bytes.read() };
    let sum = |of: fn(&dataplane::service::FlowTraffic) -> &Traffic| {
        traffic.iter().map(of).map(flowed).fold(view::Flowed::default(), |a, b| view::Flowed {
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
        })
    };
    let way = match compiled.snapshot.hops.destination(server.slot) {
        Hop::Neighbour { .. } | Hop::Spread { .. } => "resolved",
        Hop::OnLink(_) | Hop::Unresolved(_) => "unresolved",
        Hop::Kernel => "local",
        Hop::NoRoute => "no route",
    };
    let method = match server.method {
        Method::Nat => "nat",
        Method::Dr => "dr",
        Method::Tun => "tun",
        Method::FullNat => "fullnat",
    };
    view::Destination {
        address: server.at.address,
        port: server.at.port.host(),
        method: method.to_owned(),
        weight: server.weight.value(),
        active: server.counts.active(),
        inactive: server.counts.inactive(),
        connections: traffic.iter().map(|worker| worker.connections.read()).sum(),
        inbound: sum(|worker| &worker.inbound),
        outbound: sum(|worker| &worker.outbound),
        standing: standing.to_owned(),
        way: way.to_owned(),
    }
}

fn standing(server: &Destination) -> &'static str {
    if server.weight == Weight::ZERO {
        "quiet"
    } else if server.counts.is_overloaded() {
        "overloaded"
    } else {
        "serving"
    }
}

fn counters(boards: &[Board], steer: &Steer) -> view::Counters {
    let sum = |of: &dyn Fn(&Board) -> &Counter| boards.iter().map(|board| of(board).read()).sum();
    let count = |count, meaning: &str| view::Count { count, meaning: meaning.to_owned() };
    let drops = Drop::ALL
        .iter()
        .map(|reason| (reason.name().to_owned(), count(sum(&|board| board.counters.drop(*reason)), reason.describe())));
    let events = Event::ALL
        .iter()
        .map(|event| (event.name().to_owned(), count(sum(&|board| board.counters.event(*event)), event.describe())));
    let steering = steer.counters().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the steering counters");
        Vec::new()
    });
    let steering: BTreeMap<_, _> = steering.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
    view::Counters { drops: drops.collect(), events: events.collect(), steering }
}
