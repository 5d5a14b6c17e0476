//! `wlc`: the fewest connections for its weight (`ip_vs_wlc`).

use super::load::{Weights, overhead};
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination], weights: Weights) -> Option<&Destination> {
    weights.least(destinations.iter().filter(|d| d.takes_flows()), overhead)
}
