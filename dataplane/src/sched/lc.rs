//! `lc`: the fewest connections, whatever the weights (`ip_vs_lc`). The first wins a tie.

use super::load::overhead;
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination]) -> Option<&Destination> {
    destinations.iter().filter(|d| d.takes_flows()).min_by_key(|d| overhead(d))
}
