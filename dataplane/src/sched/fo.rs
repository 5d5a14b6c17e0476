//! `fo`: failover (`ip_vs_fo`): all to the destination of the highest weight that takes flows. The first wins a tie.

use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination]) -> Option<&Destination> {
    heaviest(destinations.iter().filter(|d| d.takes_flows()))
}

/// The first of those with the highest weight.
pub(super) fn heaviest<'d>(candidates: impl Iterator<Item = &'d Destination>) -> Option<&'d Destination> {
    candidates.reduce(|best, next| if next.weight > best.weight { next } else { best })
}
