//! Rates of new flows: the generic cell rate algorithm (ITU-T I.371) in one word that all workers share.
//!
//! The word is the time at which what was spent so far will have been earned. The coarse clock moves in steps of 10 ms, so
//! a burst is never less than what the rate earns in one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Tick;

/// Nanoseconds in a tick of the coarse clock.
const TICK: u64 = 1_000_000_000 / Tick::PER_SECOND as u64;
/// How often a word is tried that other workers write too. When all fail, the packet passes.
const TRIES: u32 = 8;

/// Flows a second, and how many may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    /// The highest rate, a second.
    pub const MAX: u32 = 10_000_000;

    /// A rate and burst of 1 to [`Rate::MAX`]; none outside of it.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let range = 1..=Self::MAX;
        (range.contains(&per_second) && range.contains(&burst)).then_some(Self { per_second, burst })
    }

    /// Flows a second.
    pub const fn per_second(self) -> u32 {
        self.per_second
    }

    /// How many may come at once.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// The rate in nanoseconds.
    pub fn pace(self) -> Pace {
        let interval = 1_000_000_000 / u64::from(self.per_second);
        Pace { interval, tolerance: (interval * u64::from(self.burst)).max(TICK + interval) }
    }
}

/// A rate as times, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two flows.
    interval: u64,
    /// How far what is spent may be ahead of what is earned.
    tolerance: u64,
}

impl Pace {
    /// The new value of a word after one more flow, if there may be one. Times are nanoseconds.
    #[inline]
    pub(super) fn step(self, spent: u64, now: u64) -> Option<u64> {
        // What is further ahead than can be was written before the clock wrapped.
        let is_ahead = spent > now && spent - now <= self.tolerance;
        let next = if is_ahead { spent } else { now } + self.interval;
        (next - now <= self.tolerance).then_some(next)
    }

    /// Spends one flow of a word; false when there is none to spend.
    pub(super) fn spend(self, word: &AtomicU64, now: Tick) -> bool {
        let now = nanoseconds(now);
        let mut spent = word.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            let Some(next) = self.step(spent, now) else { return false };
            match word.compare_exchange_weak(spent, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => spent = other,
            }
        }
        true
    }
}

/// The coarse time in nanoseconds since the clock's start.
pub(super) const fn nanoseconds(now: Tick) -> u64 {
    now.raw() as u64 * TICK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(rate: Rate, word: &AtomicU64, ticks: std::ops::Range<u32>, tries: u32) -> usize {
        ticks
            .flat_map(|tick| (0..tries).map(move |_| tick))
            .filter(|tick| rate.pace().spend(word, Tick::new(*tick)))
            .count()
    }

    #[test]
    fn a_second_gives_its_rate_after_the_burst() {
        let word = AtomicU64::new(0);
        let rate = Rate::new(100, 20).unwrap();
        assert_eq!(passed(rate, &word, 500..501, 1000), 20);
        assert_eq!(passed(rate, &word, 501..601, 10), 100);
        assert_eq!(passed(rate, &word, 100_000..100_001, 1000), 20, "a pause earns no more than a burst");
    }

    #[test]
    fn a_high_rate_is_kept_though_the_clock_is_coarse() {
        let word = AtomicU64::new(0);
        let rate = Rate::new(10_000, 1).unwrap();
        let count = passed(rate, &word, 500..600, 1000);
        assert!((10_000..=10_200).contains(&count), "{count}");
    }

    #[test]
    fn a_clock_that_wrapped_starts_anew() {
        let word = AtomicU64::new(u64::from(u32::MAX) * TICK);
        assert_eq!(passed(Rate::new(1, 2).unwrap(), &word, 3..4, 10), 2);
    }

    #[test]
    fn what_is_out_of_range_is_no_rate() {
        assert!(Rate::new(0, 1).is_none() && Rate::new(1, 0).is_none() && Rate::new(Rate::MAX + 1, 1).is_none());
    }
}
