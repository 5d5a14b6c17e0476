//! `nq`: never queue (`ip_vs_nq`): the first destination without an active connection, else as `sed`.

use super::load::Weights;
use super::sed;
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination]) -> Option<&Destination> {
    destinations
        .iter()
        .find(|d| d.takes_flows() && d.counts.active() == 0)
        .or_else(|| sed::pick(destinations, Weights::Differing))
}
