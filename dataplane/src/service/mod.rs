//! Services: what clients connect to, and the destinations behind it.
//!
//! A [`Services`] is immutable. Control builds a new one for every change and swaps it whole; what must outlive a
//! swap (connection counts, scheduler cursors) is shared by `Arc` from one to the next.

mod access;
mod client_address;
mod counts;
mod datagrams;
mod expire_reset;
mod ftp;
mod limits;
mod locals;
mod mss_clamp;
mod name;
mod persistence;
mod points;
mod settings;
mod table;
mod tcp_timestamps;
mod thresholds;
mod tunnel;

pub use access::{Access, AccessLists};
pub use client_address::{ClientAddress, ProxyVersion, Toa};
pub use counts::{Activity, DestinationCounts, FlowTraffic, ServiceState};
pub use datagrams::Datagrams;
pub use expire_reset::ExpireReset;
pub use ftp::Ftp;
pub use limits::{Begun, ConnectionLimits, Limit, Refusal};
pub(crate) use locals::below;
pub use locals::{Local, LocalPair, LocalPorts, PairKey, ServerLocals};
pub use mss_clamp::MssClamp;
pub use name::{AddressFamily, AddressRange, Mark, MatchPoint, ServiceName};
pub use persistence::Persistence;
pub use settings::ServiceSettings;
pub use table::{Brief, DuplicateService, ServiceSpec, Services, ServicesBuilder};
pub use tcp_timestamps::TcpTimestamps;
pub use thresholds::Thresholds;
pub use tunnel::{Encapsulation, GreChecksum, GueChecksum, Tunnel};

use std::net::IpAddr;
use std::sync::Arc;

use crate::ident::{Endpoint, Weight};
use crate::sched::Scheduler;
use crate::wire::IpVersion;

/// The number of a destination, the same from snapshot to snapshot and over a restart: flows keep it.
///
/// Control gives it out and never reuses it while a flow refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationSlot(pub u32);

/// Position of a service in its [`Services`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceIndex(pub u32);

/// How packets reach a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Destination address and port are rewritten; replies come back through the director ("Masq").
    Nat,
    /// Only the Ethernet addresses change ("Route").
    Dr,
    /// An outer header goes in front, of either family over either: IP in IP, GRE or GUE ("Tunnel").
    Tun,
    /// As NAT, and the source becomes a local address of the director's, so that servers anywhere answer to it.
    FullNat,
}

impl Method {
    /// Whether the director sees the replies.
    pub const fn is_two_way(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
    }
}

/// A real server of one service.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its number.
    pub slot: DestinationSlot,
    /// The service it stands behind.
    pub service: ServiceIndex,
    /// Where packets go. In DR and TUN the port is the service's.
    pub at: Endpoint,
    /// How they get there.
    pub method: Method,
    /// Its share; zero takes no new connection.
    pub weight: Weight,
    /// When it is overloaded.
    pub thresholds: Thresholds,
    /// For TUN: the outer source address. For NAT to a local server: the source that brings replies back here.
    pub local_source: Option<IpAddr>,
    /// For TUN: the form of its tunnel.
    pub tunnel: Tunnel,
    /// For FULLNAT: the addresses that its connections come from.
    pub locals: Option<Arc<ServerLocals>>,
    /// Connections, kept over swaps.
    pub counts: Arc<DestinationCounts>,
}

impl Destination {
    /// A destination of a service that it is about to be added to, without a source of its own.
    pub const fn new(
        slot: DestinationSlot,
        at: Endpoint,
        method: Method,
        weight: Weight,
        counts: Arc<DestinationCounts>,
    ) -> Self {
        Self {
            slot,
            service: ServiceIndex(0),
            at,
            method,
            weight,
            thresholds: Thresholds { upper: 0, lower: 0 },
            local_source: None,
            tunnel: Tunnel::IPIP,
            locals: None,
            counts,
        }
    }

    /// The most bytes that go in front of each packet to it.
    #[inline]
    pub const fn overhead(&self) -> usize {
        let outer = match (self.method, self.at.address) {
            (Method::Tun, IpAddr::V4(_)) => IpVersion::V4.header_length(),
            (Method::Tun, IpAddr::V6(_)) => IpVersion::V6.header_length(),
            _ => return 0,
        };
        outer + self.tunnel.encapsulation.longest()
    }

    /// Whether it takes new flows.
    #[inline]
    pub fn takes_flows(&self) -> bool {
        self.weight > Weight::ZERO && !self.counts.is_overloaded()
    }
}

/// A virtual service.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What packets find it by, at least one.
    pub points: Vec<MatchPoint>,
    /// Picks a destination for each new flow.
    pub scheduler: Scheduler,
    /// Its destinations as IPVS keeps them: the one added last stands first.
    pub destinations: Vec<Destination>,
    /// Whether packets to any of them are translated to the other family.
    pub is_mixed: bool,
    /// Whether its new flows need nothing but a server.
    pub is_plain: bool,
    /// Removed ones that serve their flows to the end, with weight 0; no scheduler sees them.
    pub draining: Vec<Destination>,
    /// What the scheduler remembers, kept over swaps.
    pub state: Arc<ServiceState>,
    /// How its flows are treated.
    pub settings: ServiceSettings,
}

impl Service {
    /// Flows of all its destinations; not of those that were removed and do not drain.
    pub fn flows(&self) -> u64 {
        self.destinations.iter().chain(&self.draining).map(|d| u64::from(d.counts.all())).sum()
    }
}
