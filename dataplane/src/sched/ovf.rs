//! `ovf`: overflow (`ip_vs_ovf`): as `fo`, but a destination with more active connections than its weight is full.

use super::fo::heaviest;
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination]) -> Option<&Destination> {
    let has_room = |d: &&Destination| d.counts.active() <= d.weight.value();
    heaviest(destinations.iter().filter(|d| d.takes_flows()).filter(has_room))
}
