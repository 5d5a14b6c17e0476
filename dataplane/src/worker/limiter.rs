//! A token bucket over the coarse clock: what a worker may send on its own account, or give to the kernel.

use crate::clock::Tick;

/// Tokens refill evenly; a full bucket is a tenth of a second's worth, at least one.
#[derive(Debug)]
pub(super) struct Limiter {
    // In hundredths of a token: a tick adds `rate` of them.
    level: u64,
    last: Tick,
}

impl Limiter {
    pub(super) const fn new(now: Tick) -> Self {
        Self { level: u64::MAX, last: now }
    }

    /// Takes one token of a bucket that refills with `rate` tokens a second.
    pub(super) fn take(&mut self, now: Tick, rate: u32) -> bool {
        let full = (u64::from(rate) * u64::from(Tick::PER_SECOND) / 10).max(u64::from(Tick::PER_SECOND));
        let passed = u64::from(now.until(self.last).0);
        self.level = self.level.saturating_add(passed * u64::from(rate)).min(full);
        self.last = now;
        let has_token = rate > 0 && self.level >= u64::from(Tick::PER_SECOND);
        if has_token {
            self.level -= u64::from(Tick::PER_SECOND);
        }
        has_token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Ticks;

    #[test]
    fn a_second_gives_its_rate_and_no_more() {
        let start = Tick::new(u32::MAX - 50);
        let mut limiter = Limiter::new(start);
        let burst = (0..1000).filter(|_| limiter.take(start, 100)).count();
        assert_eq!(burst, 10);
        let later = (1..=100).map(|n| start.after(Ticks(n)));
        assert_eq!(later.map(|now| (0..10).filter(|_| limiter.take(now, 100)).count()).sum::<usize>(), 100);
    }

    #[test]
    fn a_rate_of_zero_gives_nothing() {
        let mut limiter = Limiter::new(Tick::new(0));
        assert!(!limiter.take(Tick::new(1000), 0));
    }
}
