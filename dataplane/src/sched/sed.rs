//! `sed`: the shortest expected delay (`ip_vs_sed`): the fewest active connections for its weight, the new one
//! included.

use super::load::least_for_weight;
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination]) -> Option<&Destination> {
    least_for_weight(destinations.iter().filter(|d| d.takes_flows()), |d| u64::from(d.counts.active()) + 1)
}
