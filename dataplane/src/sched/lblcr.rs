//! `lblcr`: as `lblc`, with a set of caches for each VIP: the least loaded of them gets the flow; the set grows when
//! that one is too loaded, and loses its most loaded member when it did not change for a day (`ip_vs_lblcr`).

use super::load::{Weights, is_to_be_relieved, least_for_weight, overhead};
use super::{Arrival, wlc};
use crate::service::{Destination, ServiceState};

pub(super) fn pick<'d>(
    destinations: &'d [Destination],
    state: &ServiceState,
    arrival: Arrival,
) -> Option<&'d Destination> {
    let Some(affinity) = state.affinity() else { return wlc::pick(destinations, Weights::Differing) };
    let Some(entry) = affinity.touch(arrival.vip, arrival.now) else {
        let next = wlc::pick(destinations, Weights::Differing)?;
        affinity.assign(arrival.vip, next.slot, arrival.now);
        return Some(next);
    };
    let usable = || entry.members(destinations).filter(|d| d.takes_flows());
    let least = least_for_weight(usable(), overhead);
    if entry.is_stale(arrival.now)
        && entry.members(destinations).nth(1).is_some()
        && let Some(most) = most_for_weight(usable())
    {
        entry.leave(most.slot, arrival.now);
    }
    if let Some(cache) = least.filter(|d| !is_to_be_relieved(d, destinations)) {
        return Some(cache);
    }
    let next = wlc::pick(destinations, Weights::Differing)?;
    entry.join(next.slot, arrival.now);
    Some(next)
}

/// The destination with the highest load for its weight; the first wins a tie.
fn most_for_weight<'d>(candidates: impl Iterator<Item = &'d Destination>) -> Option<&'d Destination> {
    let weighed = |load: u64, by: &Destination| u128::from(load) * u128::from(by.weight.value());
    let most = candidates.map(|next| (next, overhead(next))).reduce(|(best, most), (next, load)| {
        if weighed(most, next) < weighed(load, best) { (next, load) } else { (best, most) }
    });
    most.map(|(destination, _)| destination)
}
