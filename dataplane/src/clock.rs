//! The coarse clock of the workers: ticks of 10 ms in 32 bits, compared modulo wrap.
//!
//! A worker reads the time once a burst. 2^31 ticks are 248 days, above the longest IPVS timeout (31 days).

use std::time::Duration;

/// A moment on the coarse clock. Differences are right as long as they stay below 248 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Tick(u32);

/// How long a tick is.
pub const TICK: Duration = Duration::from_millis(1000 / Tick::PER_SECOND as u64);

impl Tick {
    /// Ticks in a second.
    pub const PER_SECOND: u32 = 100;

    /// From the number of ticks since the clock's start.
    pub const fn new(ticks: u32) -> Self {
        Self(ticks)
    }

    /// The tick of a time since the clock's start (for live directors: since boot; for replay: packet time).
    pub const fn at(since_start: Duration) -> Self {
        // Seconds by themselves: all milliseconds would be divided in 128 bits.
        let rest = since_start.subsec_nanos() / TICK.subsec_nanos();
        Self((since_start.as_secs() as u32).wrapping_mul(Self::PER_SECOND).wrapping_add(rest))
    }

    /// The number of ticks, for an atomic cell.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// This moment plus a span.
    #[must_use]
    pub const fn after(self, span: Ticks) -> Self {
        Self(self.0.wrapping_add(span.0))
    }

    /// Whether `self` has come at `now`.
    pub const fn reached(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) < 1 << 31
    }

    /// Time from `now` to `self`; zero when it is past.
    pub const fn until(self, now: Self) -> Ticks {
        if self.reached(now) { Ticks(0) } else { Ticks(self.0.wrapping_sub(now.0)) }
    }
}

/// A span on the coarse clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticks(pub u32);

impl Ticks {
    /// A span of whole seconds, at most 21474836 s.
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds.saturating_mul(Tick::PER_SECOND))
    }

    /// The span in whole seconds, rounded down.
    pub const fn whole_seconds(self) -> u32 {
        self.0 / Tick::PER_SECOND
    }

    /// The span as a [`Duration`].
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }
}

/// The time since boot (`CLOCK_MONOTONIC`), which outlives the process: flow deadlines stay right over a restart.
pub fn since_boot() -> Duration {
    crate::sys::monotonic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_survive_the_wrap() {
        let now = Tick::new(u32::MAX - 10);
        let deadline = now.after(Ticks::seconds(1));
        assert!(!deadline.reached(now));
        assert_eq!(deadline.until(now), Ticks(100));
        assert!(deadline.reached(now.after(Ticks(100))));
    }
}
