//! How loaded a destination is, as the schedulers that look at connections count it.

use crate::service::Destination;

/// Connections with IPVS's weights: an active one counts 256, an inactive one 1.
pub(super) fn overhead(destination: &Destination) -> u64 {
    (u64::from(destination.counts.active()) << 8) + u64::from(destination.counts.inactive())
}

/// The destination with the least load for its weight; the first wins a tie. Loads are compared by
/// cross-multiplication.
pub(super) fn least_for_weight<'d>(
    candidates: impl Iterator<Item = &'d Destination>,
    load: impl Fn(&Destination) -> u64,
) -> Option<&'d Destination> {
    let weighed = |load: u64, by: &Destination| u128::from(load) * u128::from(by.weight.value());
    let least = candidates.map(|next| (next, load(next))).reduce(|(best, least), (next, load)| {
        if weighed(least, next) > weighed(load, best) { (next, load) } else { (best, least) }
    });
    least.map(|(destination, _)| destination)
}

/// Whether a destination has more active connections than its weight while another has less than half of its own:
/// then `lblc` and `lblcr` give up locality.
pub(super) fn is_to_be_relieved(destination: &Destination, all: &[Destination]) -> bool {
    let is_half_idle = |d: &Destination| u64::from(d.counts.active()) * 2 < u64::from(d.weight.value());
    destination.counts.active() > destination.weight.value() && all.iter().any(is_half_idle)
}
