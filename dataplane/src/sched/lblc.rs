//! `lblc`: the cache that had the VIP last, as long as it takes flows and is not too loaded, else the least loaded one
//! (`ip_vs_lblc`). For caches behind a service of many addresses.

use super::load::{Weights, is_to_be_relieved};
use super::{Arrival, wlc};
use crate::service::{Destination, ServiceState};

pub(super) fn pick<'d>(
    destinations: &'d [Destination],
    state: &ServiceState,
    arrival: Arrival,
) -> Option<&'d Destination> {
    let Some(affinity) = state.affinity() else { return wlc::pick(destinations, Weights::Differing) };
    let known = affinity.touch(arrival.vip, arrival.now).and_then(|entry| entry.members(destinations).next());
    if let Some(cache) = known.filter(|d| d.takes_flows() && !is_to_be_relieved(d, destinations)) {
        return Some(cache);
    }
    let next = wlc::pick(destinations, Weights::Differing)?;
    affinity.assign(arrival.vip, next.slot, arrival.now);
    Some(next)
}
