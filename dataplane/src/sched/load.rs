//! How loaded a destination is, as the schedulers that look at connections count it.

use std::hint::select_unpredictable;

use crate::ident::Weight;
use crate::service::Destination;

/// Connections with IPVS's weights: an active one counts 256, an inactive one 1.
#[inline]
pub(super) fn overhead(destination: &Destination) -> u64 {
    destination.counts.load()
}

/// Whether the weights of a list make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// All that may take flows have the same.
    Equal,
    /// Not all, or it is not known.
    Differing,
}

impl Weights {
    /// Those of a list of destinations.
    pub(super) fn of(destinations: &[Destination]) -> Self {
        let mut weights = destinations.iter().map(|d| d.weight).filter(|weight| *weight > Weight::ZERO);
        let first = weights.next();
        if weights.all(|weight| Some(weight) == first) { Self::Equal } else { Self::Differing }
    }

    /// The destination with the least load for its weight; the first wins a tie.
    #[inline]
    pub(super) fn least<'d>(
        self,
        candidates: impl Iterator<Item = &'d Destination>,
        load: impl Fn(&Destination) -> u64,
    ) -> Option<&'d Destination> {
        match self {
            Self::Equal => least(candidates, load),
            Self::Differing => least_for_weight(candidates, load),
        }
    }
}

/// The destination with the least load; the first wins a tie. No load is as large as `u64::MAX`.
fn least<'d>(
    candidates: impl Iterator<Item = &'d Destination>,
    load: impl Fn(&Destination) -> u64,
) -> Option<&'d Destination> {
    let mut best: Option<&Destination> = None;
    let mut least = u64::MAX;
    for next in candidates {
        let next_load = load(next);
        // By moves, as below, and so that the next comparison waits for nothing but the lesser of two numbers.
        best = select_unpredictable(next_load < least, Some(next), best);
        least = select_unpredictable(next_load < least, next_load, least);
    }
    best
}

/// The destination with the least load for its weight; the first wins a tie. Loads are compared by
/// cross-multiplication.
pub(super) fn least_for_weight<'d>(
    candidates: impl Iterator<Item = &'d Destination>,
    load: impl Fn(&Destination) -> u64,
) -> Option<&'d Destination> {
    let mut best: Option<&Destination> = None;
    let (mut least, mut weight) = (0, 0);
    for next in candidates {
        let (next_load, next_weight) = (load(next), u64::from(next.weight.value()));
        let is_less = u128::from(least) * u128::from(next_weight) > u128::from(next_load) * u128::from(weight);
        // Which destination wins cannot be foreseen, so it is chosen by moves, not by jumps.
        let is_less = best.is_none() | is_less;
        best = select_unpredictable(is_less, Some(next), best);
        least = select_unpredictable(is_less, next_load, least);
        weight = select_unpredictable(is_less, next_weight, weight);
    }
    best
}

/// Whether a destination has more active connections than its weight while another has less than half of its own:
/// then `lblc` and `lblcr` give up locality.
pub(super) fn is_to_be_relieved(destination: &Destination, all: &[Destination]) -> bool {
    let is_half_idle = |d: &Destination| u64::from(d.counts.active()) * 2 < u64::from(d.weight.value());
    destination.counts.active() > destination.weight.value() && all.iter().any(is_half_idle)
}
