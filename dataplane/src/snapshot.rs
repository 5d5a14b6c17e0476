//! What control has decided, as workers see it: one immutable value, swapped whole, read once a burst.

use std::sync::Arc;

use crate::ident::{MacAddr, PortIndex};
use crate::next_hop::{LinkHeader, NextHops};
use crate::port::ChecksumMode;
use crate::rss::Rss;
use crate::rules::Gates;
use crate::service::Services;
use crate::state::Timeouts;
use crate::watch::Watch;

/// Everything that a worker needs to know to forward. Cheap to build from unchanged parts.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Services and destinations.
    pub services: Arc<Services>,
    /// Routes and neighbours.
    pub hops: Arc<NextHops>,
    /// Each port, by index.
    pub ports: Arc<[PortSettings]>,
    /// The way into the kernel, where there is one.
    pub kernel: Option<KernelPort>,
    /// How flows are treated.
    pub policy: Policy,
    /// What is looked at, while somebody looks.
    pub watch: Option<Arc<Watch>>,
    /// What new flows have to pass.
    pub gates: Gates,
}

/// What a worker has to know of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// Its name, for results and logs.
    pub name: String,
    /// Its own Ethernet address.
    pub mac: MacAddr,
    /// What state checksums arrive in.
    pub checksum: ChecksumMode,
    /// How it spreads what it receives over its queues, where that is known.
    pub rss: Option<Arc<Rss>>,
}

/// The port whose other end is the director's own kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPort {
    /// The port.
    pub port: PortIndex,
    /// Link header of frames to the kernel.
    pub header: LinkHeader,
    /// Frames a second that may go there, per worker.
    pub rate: u32,
}

/// What becomes of a TCP segment without SYN that belongs to no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StraySegments {
    /// Answered by a reset, within a limit: what a client of IPVS sees.
    #[default]
    Reset,
    /// It opens a flow (`sloppy_tcp`), unless it is a reset itself.
    Open,
    /// Dropped, and nobody is told (`defence_tcp_drop`).
    Silence,
}

/// Whether packets are dropped that IPVS would leave to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Defended {
    /// The kernel gets them.
    #[default]
    Off,
    /// They are dropped and counted.
    On,
}

/// What is dropped of packets to the addresses of services, as Alibaba's fork of LVS does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Defence {
    /// `defence_tcp_drop`: TCP to a port of no service.
    pub tcp: Defended,
    /// `defence_udp_drop`: UDP to a port of no service.
    pub udp: Defended,
    /// `defence_frag_drop`: fragments, of any flow.
    pub fragments: Defended,
}

/// What becomes of a flow whose server was removed and does not drain, at its next packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RemovedServers {
    /// Its packets are dropped until its time is up or the server is back.
    #[default]
    Silent,
    /// It ends with the packet, so that the client's next try is scheduled anew (`expire_nodest_conn`).
    EndFlows,
}

/// When a SYN from the port of an older connection is scheduled anew, by that connection's state (`conn_reuse_mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum PortReuse {
    /// 0: never, unless its server was removed.
    Keep,
    /// 1: when it is over (`TIME_WAIT`, `CLOSE`), or was not established and its server takes no connections any more.
    #[default]
    Closed,
    /// 2 and 3: in DR and TUN, which do not see the server's FIN, also after the client's (`FIN_WAIT`).
    ClosedOrFinished,
}

/// What becomes of an SCTP packet without INIT that belongs to no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum StraySctp {
    /// It is dropped.
    #[default]
    Drop,
    /// It opens a flow (`sloppy_sctp`), unless it is an ABORT.
    Open,
}

/// What becomes of a persistence template whose server takes no new connections (weight 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum QuiescentTemplates {
    /// Its clients still go there.
    #[default]
    Keep,
    /// They are scheduled anew (`expire_quiescent_template`).
    Reschedule,
}

/// How flows are treated, as `ipvsadm --set` and the sysctls of IPVS say.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Segments of no flow.
    pub stray: StraySegments,
    /// Flows of servers that were removed.
    pub removed: RemovedServers,
    /// SYNs from ports that have a flow.
    pub port_reuse: PortReuse,
    /// SCTP packets of no flow.
    pub stray_sctp: StraySctp,
    /// Persistence templates of drained servers.
    pub quiescent_templates: QuiescentTemplates,
    /// What is dropped rather than left to the kernel.
    pub defence: Defence,
    /// Idle times by state.
    pub timeouts: Timeouts,
    /// Resets and ICMP errors that each worker may send per second, together. Zero means none.
    pub replies_per_second: u32,
}
