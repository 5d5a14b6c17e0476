//! `sed`: the shortest expected delay (`ip_vs_sed`): the fewest active connections for its weight, the new one
//! included.

use super::load::Weights;
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination], weights: Weights) -> Option<&Destination> {
    weights.least(destinations.iter().filter(|d| d.takes_flows()), |d| u64::from(d.counts.active()) + 1)
}
