//! `wlc`: the fewest connections for its weight (`ip_vs_wlc`).

use super::load::{least_for_weight, overhead};
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination]) -> Option<&Destination> {
    least_for_weight(destinations.iter().filter(|d| d.takes_flows()), overhead)
}
