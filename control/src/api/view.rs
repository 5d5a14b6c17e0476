//! What the API shows: plain data that the director writes and every client reads.
//!
//! Names are stable; fields are only added. Times are in the unit that the name ends with.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// `GET /v1/status`: everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// The director's process.
    pub pid: u32,
    /// The guard's process; none with `--no-guard`, or when the guard died.
    pub guard_pid: Option<u32>,
    /// How long this director has served.
    pub uptime_seconds: u64,
    /// The configuration in use.
    pub configuration: Configuration,
    /// The ports, by index.
    pub ports: Vec<Port>,
    /// The workers, by index.
    pub workers: Vec<Worker>,
    /// The services, in the order of the configuration.
    pub services: Vec<Service>,
    /// The flow tables.
    pub flows: Vec<FlowTable>,
    /// The rules, in their order.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// What keeps something from working, in words.
    pub findings: Vec<String>,
    /// What was counted.
    pub counters: Counters,
}

/// The configuration in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its files.
    pub files: Vec<String>,
    /// How long ago it was read.
    pub age_seconds: u64,
    /// Why the last reload was refused, if it was.
    pub refused: Option<String>,
}

/// A port: an interface with the XDP program and AF_XDP sockets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The interface.
    pub name: String,
    /// Its index in the kernel.
    pub ifindex: u32,
    /// Its Ethernet address.
    pub mac: String,
    /// Largest IP packet.
    pub mtu: u32,
    /// Receive queues that are served.
    pub queues: u32,
    /// Where the XDP program runs: `native` or `generic`.
    pub mode: String,
    /// `offload` or `full`.
    pub checksum: String,
    /// Why it is a port.
    pub why: String,
    /// Received and sent by all workers.
    pub traffic: PortTraffic,
}

/// Frames and bytes of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTraffic {
    /// Frames received.
    pub received_packets: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Frames sent.
    pub sent_packets: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
}

/// A worker thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The core that it is pinned to; none where pinning failed.
    pub core: Option<usize>,
    /// Time since its last turn; none before the first.
    pub heartbeat_age_ms: Option<u64>,
    /// Its sockets.
    pub sockets: Vec<Socket>,
}

/// An AF_XDP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Socket {
    /// The interface.
    pub port: String,
    /// The queue.
    pub queue: u32,
    /// `zero-copy` or `copy`.
    pub mode: String,
    /// Packets that steering gave to it and that the kernel dropped, for the worker had not taken those before them.
    #[serde(default)]
    pub lost: u64,
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// `TCP` or `UDP`; `FWM` for a service of a mark.
    pub protocol: String,
    /// The VIP; of a group its first; unspecified, of its family, for a mark.
    pub address: IpAddr,
    /// The port; 0 for all.
    pub port: u16,
    /// The mark whose packets it takes.
    #[serde(default)]
    pub mark: Option<u32>,
    /// The group whose addresses it has.
    #[serde(default)]
    pub group: Option<String>,
    /// The addresses and marks of the group, in its order.
    #[serde(default)]
    pub points: Vec<String>,
    /// The scheduler, by its name in keepalived.conf.
    pub scheduler: String,
    /// Whether clients stay with their servers.
    #[serde(default)]
    pub persistent: Option<Persistent>,
    /// Whether a VIP is on this machine, or a rule gives the mark, so that its packets are taken.
    pub local: bool,
    /// Its real servers, in IPVS's order: the one added last first.
    pub destinations: Vec<Destination>,
}

/// For how long clients stay with their servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistent {
    /// Seconds after the last new connection.
    pub timeout: u32,
    /// Which addresses are one client's: a netmask, or the length of an IPv6 prefix. None: each address by itself.
    pub mask: Option<String>,
}

/// A rule about new flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// As it stands in the configuration, with its defaults.
    pub rule: String,
    /// Packets that it matched.
    pub matched: u64,
}

/// A real server of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// `nat`, `dr` or `tun`.
    pub method: String,
    /// Its weight; 0 takes no new connection.
    pub weight: u32,
    /// Established connections.
    pub active: u32,
    /// All others.
    pub inactive: u32,
    /// Connections since the director started.
    pub connections: u64,
    /// From clients to it.
    pub inbound: Flowed,
    /// From it to clients; zero where the director does not see replies.
    pub outbound: Flowed,
    /// Whether it takes new connections: `serving`, `overloaded` (by its `uthreshold`), `quiet` (weight 0), or `draining`
    /// (removed; the connections that it has go on).
    #[serde(default)]
    pub standing: String,
    /// Whether the way to it is known: `resolved`, `unresolved`, `no route` or `local`.
    pub way: String,
}

/// Packets and bytes of one direction, from the IP header on, as IPVS counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flowed {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A flow table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTable {
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Flows in it.
    pub flows: u64,
    /// Flows that fit.
    pub capacity: u64,
}

/// `GET /v1/counters`: what was counted, by name. All workers together, since this director started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Dropped frames by reason.
    pub drops: BTreeMap<String, Count>,
    /// What else workers did.
    pub events: BTreeMap<String, Count>,
    /// What the XDP program decided, on all CPUs.
    pub steering: BTreeMap<String, u64>,
}

/// A number with its meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How often.
    pub count: u64,
    /// What it counts.
    pub meaning: String,
}

/// The answer to `POST /v1/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether the new configuration is in use.
    pub applied: bool,
    /// What there is to say: errors, or settings that wait for a restart.
    pub messages: Vec<String>,
}
