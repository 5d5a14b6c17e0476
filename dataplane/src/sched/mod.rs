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

pub use mh::{Fallback, HashPort, MhFlags};

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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;
    use crate::ident::NetPort;
    use crate::service::{Activity, DestinationCounts, DestinationSlot, Method};

    /// Destinations A, B, C… with these weights, added in this order: kept last first.
    fn list(weights: &[u32]) -> Vec<Destination> {
        let mut list: Vec<_> = (0..).zip(weights).map(|(n, w)| destination(n, *w)).collect();
        list.reverse();
        list
    }

    fn destination(n: u8, weight: u32) -> Destination {
        let at = Endpoint { address: IpAddr::from([10, 0, 0, n + 1]), port: NetPort::new(80) };
        let (slot, weight) = (DestinationSlot(u32::from(n)), Weight::new(weight).unwrap());
        Destination::new(slot, at, Method::Nat, weight, Arc::new(DestinationCounts::new(1)))
    }

    fn client(n: u16) -> Endpoint {
        let [a, b] = n.to_be_bytes();
        Endpoint { address: IpAddr::from([192, 0, a, b]), port: NetPort::new(40_000) }
    }

    fn letter(destination: &Destination) -> char {
        char::from(b'A' + destination.slot.0 as u8)
    }

    fn sequence(kind: SchedulerKind, weights: &[u32], length: usize) -> String {
        let list = list(weights);
        let (scheduler, state) = (Scheduler::new(kind, &list), ServiceState::default());
        let pick = |_| scheduler.pick(&list, &state, client(1)).map_or('-', letter).to_string();
        (0..length).map(pick).collect::<Vec<_>>().join(" ")
    }

    /// The answers of IPVS itself, as scripts/vm/sequences.sh took them in the virtual machine.
    fn ipvs(fixture: &str) -> &str {
        fixture.lines().find(|line| !line.starts_with('#')).unwrap()
    }

    #[test]
    fn rr_and_wrr_give_the_sequences_of_ipvs() {
        let rr = ipvs(include_str!("../../../scripts/vm/fixtures/rr-1-1-1.txt"));
        assert_eq!(sequence(SchedulerKind::Rr, &[1, 1, 1], 18), rr);
        for (weights, fixture) in [
            ([1, 1, 1], include_str!("../../../scripts/vm/fixtures/wrr-1-1-1.txt")),
            ([1, 2, 3], include_str!("../../../scripts/vm/fixtures/wrr-1-2-3.txt")),
            ([3, 2, 1], include_str!("../../../scripts/vm/fixtures/wrr-3-2-1.txt")),
            ([4, 2, 2], include_str!("../../../scripts/vm/fixtures/wrr-4-2-2.txt")),
        ] {
            assert_eq!(sequence(SchedulerKind::Wrr, &weights, 18), ipvs(fixture), "{weights:?}");
        }
    }

    #[test]
    fn weight_zero_drains_under_every_scheduler() {
        let kinds = [
            SchedulerKind::Rr,
            SchedulerKind::Wrr,
            SchedulerKind::Wlc,
            SchedulerKind::Mh(MhFlags { fallback: mh::Fallback::Walk, ..MhFlags::default() }),
        ];
        for kind in kinds {
            assert!(!sequence(kind, &[1, 0, 5], 50).contains('B'), "{kind:?}");
            assert_eq!(sequence(kind, &[0, 0], 1), "-", "{kind:?}");
            assert_eq!(sequence(kind, &[], 1), "-", "{kind:?}");
        }
    }

    #[test]
    fn rr_keeps_its_place_when_the_list_changes() {
        let (state, before) = (ServiceState::default(), list(&[1, 1, 1]));
        assert_eq!(Scheduler::Rr.pick(&before, &state, client(1)).map(letter), Some('C'));
        let after: Vec<_> = before.iter().filter(|d| letter(d) != 'A').cloned().collect();
        assert_eq!(Scheduler::Rr.pick(&after, &state, client(1)).map(letter), Some('B'));
        assert_eq!(Scheduler::Rr.pick(&after, &state, client(1)).map(letter), Some('C'));
    }

    #[test]
    fn wrr_ends_for_any_weights() {
        for weights in [&[Weight::MAX, 1][..], &[Weight::MAX, 0], &[7, 7, 3], &[65_536, 256]] {
            assert!(!sequence(SchedulerKind::Wrr, weights, 100).contains('-'), "{weights:?}");
        }
    }

    #[test]
    fn wlc_prefers_the_least_loaded_for_its_weight() {
        let list = list(&[1, 2]);
        let pick = || Scheduler::Wlc.pick(&list, &ServiceState::default(), client(1)).map(letter);
        assert_eq!(pick(), Some('B'), "a tie goes to the first in the list");
        list[0].counts.begin(Activity::Active);
        assert_eq!(pick(), Some('A'));
        list[1].counts.begin(Activity::Active);
        assert_eq!(pick(), Some('B'), "one of weight 2 against one of weight 1");
        list[0].counts.shift(Activity::Active, Activity::Inactive);
        assert_eq!(pick(), Some('B'), "an inactive connection weighs a 256th");
    }

    #[test]
    fn mh_balances_by_weight_and_moves_little_when_one_leaves() {
        let all = list(&[1, 1, 2]);
        let kind = SchedulerKind::Mh(MhFlags::default());
        let picks = |list: &[Destination]| -> Vec<_> {
            let (mh, state) = (Scheduler::new(kind, list), ServiceState::default());
            (0..2000).map(|n| mh.pick(list, &state, client(n)).map(letter)).collect()
        };
        let before = picks(&all);
        let mut share = HashMap::new();
        for destination in &before {
            *share.entry(*destination).or_insert(0) += 1;
        }
        assert!((900..1100).contains(&share[&Some('C')]), "{share:?}");
        let after = picks(&all.iter().filter(|d| letter(d) != 'A').cloned().collect::<Vec<_>>());
        let moved = before.iter().zip(&after).filter(|(was, is)| **was != Some('A') && was != is).count();
        assert!(moved < 200, "{moved} of 2000 flows moved between servers that stayed");
    }
}
