//! `connection_limit` and `connection_rate`: how many flows a service takes, at once and in a second.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Tick;

/// What a service takes; each for all workers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ConnectionLimits {
    /// Flows at once.
    pub flows: Option<Limit>,
    /// New flows in each second of the clock.
    pub rate: Option<Limit>,
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many are taken.
    pub most: u32,
    /// What those hear that are not.
    pub refusal: Refusal,
}

/// What the client of a flow hears that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Refusal {
    /// Nothing: TCP tries again, later and later.
    #[default]
    Silence,
    /// A TCP reset, within the worker's limit on replies; nothing to others.
    Reset,
}

/// Flows begun in the present second, counted by all workers: the second above their number.
#[derive(Debug, Default)]
pub struct Begun(AtomicU64);

impl Begun {
    /// Counts one more, unless `most` began in this second.
    pub(crate) fn take(&self, now: Tick, most: u32) -> bool {
        let second = u64::from(now.raw() / Tick::PER_SECOND) << 32;
        let next = |seen: u64| {
            let count = if seen >> 32 == second >> 32 { seen & u64::from(u32::MAX) } else { 0 };
            (count < u64::from(most)).then_some(second | (count + 1))
        };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Ticks;

    #[test]
    fn each_second_takes_as_many() {
        let (begun, start) = (Begun::default(), Tick::new(0));
        let taken = |now| (0..10).filter(|_| begun.take(now, 3)).count();
        assert_eq!(taken(start), 3);
        assert_eq!(taken(start.after(Ticks(99))), 0);
        assert_eq!(taken(start.after(Ticks(100))), 3);
        assert!(!begun.take(start.after(Ticks(300)), 0));
    }
}
