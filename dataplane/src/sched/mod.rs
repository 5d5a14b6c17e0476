//! Schedulers: which destination takes a new flow.
//!
//! Each is a file of its own and follows the module of IPVS with the same name; the order of destinations is IPVS's
//! (the one added last first). Which of them take new flows, [`Destination::takes_flows`] says.

mod affinity;
mod buckets;
mod dh;
mod fo;
mod hash_flags;
mod lblc;
mod lblcr;
mod lc;
mod load;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod twos;
mod wlc;
mod wrr;

use std::net::IpAddr;

use crate::clock::Tick;
use crate::ident::Endpoint;
use crate::service::{Destination, ServiceState};

pub use affinity::Affinity;
pub use hash_flags::{Fallback, HashFlags, HashPort};

/// Which scheduler a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections.
    Wlc,
    /// Failover: the heaviest.
    Fo,
    /// Overflow: the heaviest that has fewer connections than its weight.
    Ovf,
    /// Locality-based least connections: the cache that had the VIP last.
    Lblc,
    /// The same with a set of caches for each VIP.
    Lblcr,
    /// Hash of the VIP.
    Dh,
    /// Hash of the client's address.
    Sh(HashFlags),
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// The better of two random choices.
    Twos,
    /// Maglev hashing of the client's address.
    Mh(HashFlags),
}

impl SchedulerKind {
    /// All of them; those that hash do so with these flags.
    pub const fn all(flags: HashFlags) -> [Self; 14] {
        [
            Self::Rr,
            Self::Wrr,
            Self::Lc,
            Self::Wlc,
            Self::Fo,
            Self::Ovf,
            Self::Lblc,
            Self::Lblcr,
            Self::Dh,
            Self::Sh(flags),
            Self::Sed,
            Self::Nq,
            Self::Twos,
            Self::Mh(flags),
        ]
    }

    /// The name in keepalived.conf and ipvsadm.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh(_) => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Twos => "twos",
            Self::Mh(_) => "mh",
        }
    }

    /// Whether it remembers which destination had which VIP.
    pub const fn has_affinity(self) -> bool {
        matches!(self, Self::Lblc | Self::Lblcr)
    }
}

/// What a scheduler may know of a packet that opens a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Where it comes from.
    pub client: Endpoint,
    /// The address that it is for.
    pub vip: IpAddr,
    /// When it comes.
    pub now: Tick,
}

/// A scheduler made ready for one list of destinations.
#[derive(Debug)]
pub enum Scheduler {
    /// See [`SchedulerKind::Rr`].
    Rr,
    /// See [`SchedulerKind::Wrr`].
    Wrr(wrr::Weights),
    /// See [`SchedulerKind::Lc`].
    Lc,
    /// See [`SchedulerKind::Wlc`].
    Wlc(load::Weights),
    /// See [`SchedulerKind::Fo`].
    Fo,
    /// See [`SchedulerKind::Ovf`].
    Ovf,
    /// See [`SchedulerKind::Lblc`].
    Lblc,
    /// See [`SchedulerKind::Lblcr`].
    Lblcr,
    /// See [`SchedulerKind::Dh`].
    Dh(buckets::Buckets),
    /// See [`SchedulerKind::Sh`].
    Sh(sh::Sources),
    /// See [`SchedulerKind::Sed`].
    Sed(load::Weights),
    /// See [`SchedulerKind::Nq`].
    Nq,
    /// See [`SchedulerKind::Twos`].
    Twos,
    /// See [`SchedulerKind::Mh`].
    Mh(mh::Lookup),
}

impl Scheduler {
    /// Prepares a scheduler for `destinations`, which stand as IPVS keeps them.
    pub fn new(kind: SchedulerKind, destinations: &[Destination]) -> Self {
        match kind {
            SchedulerKind::Rr => Self::Rr,
            SchedulerKind::Wrr => Self::Wrr(wrr::Weights::new(destinations)),
            SchedulerKind::Lc => Self::Lc,
            SchedulerKind::Wlc => Self::Wlc(load::Weights::of(destinations)),
            SchedulerKind::Fo => Self::Fo,
            SchedulerKind::Ovf => Self::Ovf,
            SchedulerKind::Lblc => Self::Lblc,
            SchedulerKind::Lblcr => Self::Lblcr,
            SchedulerKind::Dh => Self::Dh(dh::buckets(destinations)),
            SchedulerKind::Sh(flags) => Self::Sh(sh::Sources::new(destinations, flags)),
            SchedulerKind::Sed => Self::Sed(load::Weights::of(destinations)),
            SchedulerKind::Nq => Self::Nq,
            SchedulerKind::Twos => Self::Twos,
            SchedulerKind::Mh(flags) => Self::Mh(mh::Lookup::new(destinations, flags)),
        }
    }

    /// Which kind this is.
    pub const fn kind(&self) -> SchedulerKind {
        match self {
            Self::Rr => SchedulerKind::Rr,
            Self::Wrr(_) => SchedulerKind::Wrr,
            Self::Lc => SchedulerKind::Lc,
            Self::Wlc(_) => SchedulerKind::Wlc,
            Self::Fo => SchedulerKind::Fo,
            Self::Ovf => SchedulerKind::Ovf,
            Self::Lblc => SchedulerKind::Lblc,
            Self::Lblcr => SchedulerKind::Lblcr,
            Self::Dh(_) => SchedulerKind::Dh,
            Self::Sh(sources) => SchedulerKind::Sh(sources.flags()),
            Self::Sed(_) => SchedulerKind::Sed,
            Self::Nq => SchedulerKind::Nq,
            Self::Twos => SchedulerKind::Twos,
            Self::Mh(lookup) => SchedulerKind::Mh(lookup.flags()),
        }
    }

    /// The destination for a new flow, or `None` when no destination takes it.
    ///
    /// `destinations` are those that the scheduler was made for; `state` is the service's, shared by all workers. Most
    /// schedulers never ask what arrived.
    pub fn pick<'d>(
        &self,
        destinations: &'d [Destination],
        state: &ServiceState,
        arrival: impl FnOnce() -> Arrival,
    ) -> Option<&'d Destination> {
        match self {
            Self::Rr => rr::pick(destinations, state),
            Self::Wrr(weights) => weights.pick(destinations, state),
            Self::Lc => lc::pick(destinations),
            Self::Wlc(weights) => wlc::pick(destinations, *weights),
            Self::Fo => fo::pick(destinations),
            Self::Ovf => ovf::pick(destinations),
            Self::Lblc => lblc::pick(destinations, state, arrival()),
            Self::Lblcr => lblcr::pick(destinations, state, arrival()),
            Self::Dh(buckets) => dh::pick(buckets, destinations, arrival().vip),
            Self::Sh(sources) => sources.pick(destinations, arrival().client),
            Self::Sed(weights) => sed::pick(destinations, *weights),
            Self::Nq => nq::pick(destinations),
            Self::Twos => twos::pick(destinations, state),
            Self::Mh(lookup) => lookup.pick(destinations, arrival().client),
        }
    }
}

/// An address folded into 32 bits as IPVS's hashing schedulers do: the xor of its 32-bit words, as numbers.
fn fold(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(a) => u32::from(a),
        IpAddr::V6(a) => {
            let bits = u128::from(a);
            (bits >> 96) as u32 ^ (bits >> 64) as u32 ^ (bits >> 32) as u32 ^ bits as u32
        }
    }
}

/// The greatest common divisor; that of 0 and `b` is `b`.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests;
