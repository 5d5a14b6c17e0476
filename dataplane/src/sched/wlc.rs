//! `wlc`: the fewest connections for its weight (`ip_vs_wlc`).
//!
//! An active connection counts 256, an inactive one 1; loads are compared by cross-multiplication; the first wins a tie.

use super::is_eligible;
use crate::service::Destination;

pub(super) fn pick(destinations: &[Destination]) -> Option<&Destination> {
    let mut eligible = destinations.iter().filter(|d| is_eligible(d));
    let first = eligible.next()?;
    let least = eligible.fold((first, overhead(first)), |(best, load), next| {
        let next_load = overhead(next);
        let is_less = load * u128::from(next.weight.value()) > next_load * u128::from(best.weight.value());
        if is_less { (next, next_load) } else { (best, load) }
    });
    Some(least.0)
}

fn overhead(destination: &Destination) -> u128 {
    (u128::from(destination.counts.active()) << 8) + u128::from(destination.counts.inactive())
}
