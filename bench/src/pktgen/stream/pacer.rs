//! Pacing: when each packet is due. The schedule never shifts, whatever holds the sender up.
//!
//! That is what corrects for coordinated omission: a packet that leaves late, because the sender was held up, carries
//! the time when it should have left, and its latency counts from then.

use std::time::Duration;

use super::Rate;

/// The schedule of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pacer {
    rate: Rate,
    /// Since boot.
    begin: Duration,
}

impl Pacer {
    /// A schedule whose first packet is due at `begin`.
    pub(crate) const fn new(rate: Rate, begin: Duration) -> Self {
        Self { rate, begin }
    }

    /// How many packets are due at `now`, of which `sent` are sent; `u64::MAX` where there is no limit.
    #[inline]
    pub(crate) fn due(&self, now: Duration, sent: u64) -> u64 {
        match self.rate {
            Rate::Max => u64::MAX,
            Rate::PerSecond(rate) => {
                let Some(elapsed) = now.checked_sub(self.begin) else { return 0 };
                // The first is due at once.
                ((elapsed.as_secs_f64() * rate) as u64 + 1).saturating_sub(sent)
            }
        }
    }

    /// When packet `number` is due. Without a rate: `now`, for nobody waits for it.
    #[inline]
    pub(crate) fn time_of(&self, number: u64, now: Duration) -> Duration {
        match self.rate {
            Rate::Max => now,
            Rate::PerSecond(rate) => self.begin + Duration::from_secs_f64(number as f64 / rate),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Duration = Duration::from_secs(1000);

    fn at(milliseconds: u64) -> Duration {
        BEGIN + Duration::from_millis(milliseconds)
    }

    #[test]
    fn as_many_are_due_as_the_time_allows() {
        let pacer = Pacer::new(Rate::PerSecond(1000.0), BEGIN);
        assert_eq!(pacer.due(at(0).saturating_sub(Duration::from_nanos(1)), 0), 0);
        assert_eq!(pacer.due(at(0), 0), 1);
        assert_eq!(pacer.due(at(0), 1), 0);
        assert_eq!(pacer.due(at(10), 1), 10);
        assert_eq!(pacer.due(at(3_600_000), 0), 3_600_001);
        assert_eq!(Pacer::new(Rate::Max, BEGIN).due(at(0), 10), u64::MAX);
    }

    #[test]
    fn a_pause_of_the_sender_shifts_no_later_packet() {
        let pacer = Pacer::new(Rate::PerSecond(1000.0), BEGIN);
        // Held up for 50 ms after packet 9: all of these were due meanwhile, each at its own time.
        assert_eq!(pacer.due(at(60), 10), 51);
        assert_eq!(pacer.time_of(10, at(60)), at(10));
        assert_eq!(pacer.time_of(60, at(60)), at(60));
    }
}
