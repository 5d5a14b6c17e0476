//! Timing: batches of turns by the monotonic clock, into a histogram, several repetitions of which the best and the
//! middle one are told.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// Turns between two looks at the clock: a look costs about half a packet, a batch holds 4096.
const TURNS: usize = 64;
/// The histogram's unit is a picosecond a packet; ten microseconds a packet is its end.
const MOST_PICOSECONDS: u64 = 10_000_000;

/// Costs of one thing, in nanoseconds a packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost {
    /// The median of the repetitions' means.
    pub(crate) median: f64,
    /// The lowest of the repetitions' means.
    pub(crate) min: f64,
    /// The highest of the repetitions' means.
    pub(crate) max: f64,
    /// Percentiles of the batches of all repetitions.
    pub(crate) batches: Percentiles,
}

/// How the times of batches of 4096 packets are distributed, in nanoseconds a packet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Percentiles {
    pub(crate) p1: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// Collects repetitions of one measurement.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    batches: Histogram<u64>,
    means: Vec<f64>,
}

impl Stopwatch {
    /// Nothing measured yet.
    ///
    /// # Errors
    /// Never for these bounds; the histogram's constructor has a result.
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self { batches: Histogram::new_with_bounds(1, MOST_PICOSECONDS, 3)?, means: Vec::new() })
    }

    /// One repetition: turns (each gives the packets that it handled) until `packets` are done, or none come any more.
    pub(crate) fn repeat(&mut self, packets: u64, mut turn: impl FnMut() -> usize) -> u64 {
        let (mut done, begin) = (0, Instant::now());
        let mut last = begin;
        while done < packets {
            let batch: usize = (0..TURNS).map(|_| turn()).sum();
            if batch == 0 {
                break;
            }
            let now = Instant::now();
            self.batches.saturating_record(per_packet(now - last, batch as u64, 1e12) as u64);
            last = now;
            done += batch as u64;
        }
        if done > 0 {
            self.means.push(per_packet(last - begin, done, 1e9));
        }
        done
    }

    /// One repetition: turns until `time` is over. The rate, in packets a second.
    pub(crate) fn during(&mut self, time: Duration, mut turn: impl FnMut() -> usize) -> f64 {
        let (mut done, begin) = (0, Instant::now());
        let mut last = begin;
        while last - begin < time {
            let batch: usize = (0..TURNS).map(|_| turn()).sum();
            let now = Instant::now();
            self.batches.saturating_record(per_packet(now - last, batch.max(1) as u64, 1e12) as u64);
            last = now;
            done += batch as u64;
        }
        self.means.push(per_packet(last - begin, done.max(1), 1e9));
        done as f64 / (last - begin).as_secs_f64()
    }

    /// The costs; `None` when nothing was measured.
    pub(crate) fn cost(&self) -> Option<Cost> {
        let mut means = self.means.clone();
        means.sort_by(f64::total_cmp);
        let at = |percentile: f64| self.batches.value_at_percentile(percentile) as f64 / 1000.0;
        Some(Cost {
            median: *means.get(means.len() / 2)?,
            min: *means.first()?,
            max: *means.last()?,
            batches: Percentiles { p1: at(1.0), p50: at(50.0), p99: at(99.0) },
        })
    }
}

impl Cost {
    /// Whether the repetitions differ by more than a fifth: then something else was running.
    pub(crate) fn is_unsteady(&self) -> bool {
        self.max > self.min * 1.2
    }
}

fn per_packet(time: Duration, packets: u64, units: f64) -> f64 {
    time.as_secs_f64() * units / packets as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_end_when_packets_do() {
        let mut watch = Stopwatch::new().unwrap();
        assert!(watch.cost().is_none());
        let mut left = 1000;
        let done = watch.repeat(1_000_000, || {
            let take = usize::min(left, 64);
            left -= take;
            take
        });
        assert_eq!(done, 1000);
        assert_eq!(watch.repeat(100, || 64), 64 * TURNS as u64);
        let cost = watch.cost().unwrap();
        assert!(cost.min <= cost.median && cost.median <= cost.max, "{cost:?}");
    }
}
