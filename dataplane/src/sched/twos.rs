//! `twos`: of two destinations drawn by weight, the one with fewer connections for its weight (`ip_vs_twos`;
//! Mitzenmacher 2001).
//!
//! The draws come from the service's cursor, counted up and mixed: a replay of the same arrivals gives the same
//! result.

use std::sync::atomic::Ordering;

use super::load::{least_for_weight, overhead};
use crate::service::{Destination, ServiceState};

/// What the cursor goes up by: 2^64 over the golden ratio (Steele, Lea and Flood 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

pub(super) fn pick<'d>(destinations: &'d [Destination], state: &ServiceState) -> Option<&'d Destination> {
    let eligible = || destinations.iter().filter(|d| d.takes_flows());
    let total: u64 = eligible().map(|d| u64::from(d.weight.value())).sum();
    let seed = state.cursor.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
    let [first, second] = [seed, !seed].map(|seed| drawn(eligible(), below(mixed(seed), total)));
    least_for_weight(first.into_iter().chain(second), overhead)
}

/// The destination at `place` of the weights laid end to end.
fn drawn<'d>(mut destinations: impl Iterator<Item = &'d Destination>, place: u64) -> Option<&'d Destination> {
    let mut end = 0;
    destinations.find(|d| {
        end += u64::from(d.weight.value());
        place < end
    })
}

/// A number from 0 to `end` - 1, by multiplication (Lemire 2019).
fn below(random: u64, end: u64) -> u64 {
    ((u128::from(random) * u128::from(end)) >> 64) as u64
}

/// The finalizer of `SplitMix64`.
fn mixed(seed: u64) -> u64 {
    let x = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
