//! Schedulers: which destination takes a new flow.
//!
//! Each is a file of its own and follows the module of IPVS with the same name; the order of destinations is IPVS's
//! (the one added last first). A destination takes new flows while its weight is above zero.

mod mh;
mod rr;
mod wlc;
mod wrr;

use std::net::IpAddr;

use crate::ident::{Endpoint, Weight};
use crate::service::{Destination, ServiceState};

pub use mh::MhFlags;

/// Which scheduler a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedulerKind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Weighted least connections.
    Wlc,
    /// Maglev hashing of the client's address.
    Mh(MhFlags),
}

impl SchedulerKind {
    /// The name in keepalived.conf and ipvsadm.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Wlc => "wlc",
            Self::Mh(_) => "mh",
        }
    }
}

/// A scheduler made ready for one list of destinations.
#[derive(Debug)]
pub enum Scheduler {
    /// See [`SchedulerKind::Rr`].
    Rr,
    /// See [`SchedulerKind::Wrr`].
    Wrr(wrr::Weights),
    /// See [`SchedulerKind::Wlc`].
    Wlc,
    /// See [`SchedulerKind::Mh`].
    Mh(Box<mh::Lookup>),
}

impl Scheduler {
    /// Prepares a scheduler for `destinations`, which stand as IPVS keeps them.
    pub fn new(kind: SchedulerKind, destinations: &[Destination]) -> Self {
        match kind {
            SchedulerKind::Rr => Self::Rr,
            SchedulerKind::Wrr => Self::Wrr(wrr::Weights::new(destinations)),
            SchedulerKind::Wlc => Self::Wlc,
            SchedulerKind::Mh(flags) => Self::Mh(Box::new(mh::Lookup::new(destinations, flags))),
        }
    }

    /// Which kind this is.
    pub const fn kind(&self) -> SchedulerKind {
        match self {
            Self::Rr => SchedulerKind::Rr,
            Self::Wrr(_) => SchedulerKind::Wrr,
            Self::Wlc => SchedulerKind::Wlc,
            Self::Mh(lookup) => SchedulerKind::Mh(lookup.flags()),
        }
    }

    /// The destination for a new flow from `client`, or `None` when no destination takes flows.
    ///
    /// `destinations` are those that the scheduler was made for; `state` is the service's cursor, shared by all workers.
    pub fn pick<'d>(
        &self,
        destinations: &'d [Destination],
        state: &ServiceState,
        client: Endpoint,
    ) -> Option<&'d Destination> {
        match self {
            Self::Rr => rr::pick(destinations, state),
            Self::Wrr(weights) => weights.pick(destinations, state),
            Self::Wlc => wlc::pick(destinations),
            Self::Mh(lookup) => lookup.pick(destinations, client),
        }
    }
}

/// Whether a destination takes new flows.
fn is_eligible(destination: &Destination) -> bool {
    destination.weight > Weight::ZERO
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
