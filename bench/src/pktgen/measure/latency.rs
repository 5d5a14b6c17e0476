//! Latency: from when a packet was due, and from when it was written; as percentiles and as HdrHistogram logs.
//!
//! The first is corrected for coordinated omission: what the sender could not send in time was kept waiting, and its
//! wait counts. The second is what a sender that excuses itself would report. Where both agree, the sender kept up.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use serde::Serialize;

/// The largest latency that is told from larger ones.
const LONGEST: Duration = Duration::from_secs(100);
/// Figures that are kept of each value.
const DIGITS: u8 = 3;

/// Both histograms of a run, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    corrected: Histogram<u64>,
    uncorrected: Histogram<u64>,
    /// Packets that came before they were sent: the clocks of two machines.
    impossible: u64,
}

/// The percentiles of a histogram, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) min: u64,
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    #[serde(rename = "p99.9")]
    pub(crate) p999: u64,
    #[serde(rename = "p99.99")]
    pub(crate) p9999: u64,
    pub(crate) max: u64,
}

/// What is told of a run's latency.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct LatencyResult {
    /// From when a packet was due.
    pub(crate) corrected_ns: Percentiles,
    /// From when it was written.
    pub(crate) uncorrected_ns: Percentiles,
    /// Packets left out: they came before they were sent, so the clocks are two machines'.
    pub(crate) impossible: u64,
}

impl Latency {
    /// Empty histograms.
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let corrected = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS)?;
        Ok(Self { uncorrected: corrected.clone(), corrected, impossible: 0 })
    }

    /// Notes a packet that was due at `due`, written `late` after that, and came at `now`.
    #[inline]
    pub(crate) fn note(&mut self, now: Duration, due: Duration, late: Duration) {
        match now.checked_sub(due + late) {
            Some(uncorrected) => {
                self.uncorrected.saturating_record(uncorrected.as_nanos() as u64);
                self.corrected.saturating_record((uncorrected + late).as_nanos() as u64);
            }
            None => self.impossible += 1,
        }
    }

    /// Adds what another one noted. Both have the same bounds, so nothing is lost.
    pub(crate) fn add(&mut self, other: &Self) {
        // The only error is a value beyond the bounds, which are the same.
        let _ = self.corrected.add(&other.corrected);
        let _ = self.uncorrected.add(&other.uncorrected);
        self.impossible += other.impossible;
    }

    /// Empties the histograms.
    pub(crate) fn clear(&mut self) {
        self.corrected.clear();
        self.uncorrected.clear();
        self.impossible = 0;
    }

    /// The percentiles; `None` when nothing was noted.
    pub(crate) fn result(&self) -> Option<LatencyResult> {
        (!self.corrected.is_empty() || self.impossible > 0).then(|| LatencyResult {
            corrected_ns: Percentiles::of(&self.corrected),
            uncorrected_ns: Percentiles::of(&self.uncorrected),
            impossible: self.impossible,
        })
    }
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |percent| histogram.value_at_quantile(percent);
        Self {
            min: histogram.min(),
            mean: histogram.mean(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: histogram.max(),
        }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |ns: u64| ns as f64 / 1e3;
        let Self { p50, p99, p999, p9999, max, .. } = *self;
        write!(f, "p50 {:.1}, p99 {:.1}, p99.9 {:.1}", us(p50), us(p99), us(p999))?;
        write!(f, ", p99.99 {:.1}, max {:.1}", us(p9999), us(max))
    }
}

impl LatencyResult {
    /// Two lines, in microseconds.
    pub(crate) fn text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "  µs since due   {}", self.corrected_ns)?;
        writeln!(out, "  µs since sent  {}", self.uncorrected_ns)?;
        if self.impossible > 0 {
            writeln!(out, "  {} packets came before they were sent: are these two machines?", self.impossible)?;
        }
        Ok(())
    }
}

/// Latency since the last interval, and of all intervals before it.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    recent: Latency,
    before: Latency,
}

impl Recorder {
    /// Nothing noted yet.
    pub(crate) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let recent = Latency::new()?;
        Ok(Self { before: recent.clone(), recent })
    }

    /// As [`Latency::note`].
    #[inline]
    pub(crate) fn note(&mut self, now: Duration, due: Duration, late: Duration) {
        self.recent.note(now, due, late);
    }

    /// Ends the interval, which `visit` may keep.
    pub(crate) fn interval(&mut self, visit: impl FnOnce(&Latency)) {
        visit(&self.recent);
        self.before.add(&self.recent);
        self.recent.clear();
    }

    /// The percentiles of all intervals; ends the last one.
    pub(crate) fn result(&mut self) -> Option<LatencyResult> {
        self.interval(|_| ());
        self.before.result()
    }
}

/// A log of interval histograms in HdrHistogram's format (version 2, deflated): its tools read and plot it.
///
/// Held in memory and written at the end: a run has a few hundred intervals, and a disk would disturb it.
#[derive(Debug)]
pub(crate) struct LatencyLog {
    begin: Duration,
    wall: SystemTime,
    intervals: Vec<Interval>,
}

#[derive(Debug)]
struct Interval {
    begin: Duration,
    length: Duration,
    latency: Latency,
}

impl LatencyLog {
    /// A log that begins at `now`, since boot.
    pub(crate) fn new(now: Duration) -> Self {
        Self { begin: now, wall: SystemTime::now(), intervals: Vec::new() }
    }

    /// Keeps the latency of the time since the last interval, or since the begin.
    pub(crate) fn interval(&mut self, latency: &Latency, now: Duration) {
        let begin = self.intervals.last().map_or(self.begin, |i| i.begin + i.length);
        let length = now.saturating_sub(begin);
        self.intervals.push(Interval { begin, length, latency: latency.clone() });
    }

    /// Writes the file, with a tag for each of both histograms.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        let mut serializer = V2DeflateSerializer::new();
        let wall = |at: Duration| self.wall + at.saturating_sub(self.begin);
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("sluice-pktgen, latency in nanoseconds")
            .with_start_time(self.wall)
            .begin_log_with(&mut file, &mut serializer)?;
        for Interval { begin, length, latency } in &self.intervals {
            for (name, histogram) in [("corrected", &latency.corrected), ("uncorrected", &latency.uncorrected)] {
                let start = wall(*begin).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                log.write_histogram(histogram, start, *length, Tag::new(name)).map_err(io::Error::other)?;
            }
        }
        drop(log);
        file.flush()
    }
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;

    const fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_pause_of_the_sender_counts_from_when_packets_were_due() {
        let mut latency = Latency::new().unwrap();
        // 1000 packets, one a millisecond, each 10 µs under way; then the sender stops for 100 ms and catches up.
        for n in 0..1000 {
            latency.note(us(n * 1000 + 10), us(n * 1000), Duration::ZERO);
        }
        let resumed = us(1_100_000);
        for n in 1000..1100 {
            let due = us(n * 1000);
            latency.note(resumed + us(10), due, resumed.saturating_sub(due));
        }
        let result = latency.result().unwrap();
        assert!((9_900..10_100).contains(&result.uncorrected_ns.max), "{result:?}");
        // Those 100 waited 1 to 100 ms: a tenth of all packets.
        assert!((99_000_000..101_000_000).contains(&result.corrected_ns.max), "{result:?}");
        assert!(result.corrected_ns.p99 > 80_000_000 && result.corrected_ns.p50 < 10_100, "{result:?}");
    }

    #[test]
    fn packets_that_came_before_they_were_sent_are_told() {
        let mut latency = Latency::new().unwrap();
        assert!(latency.result().is_none());
        latency.note(us(5), us(10), Duration::ZERO);
        assert_eq!(latency.result().unwrap().impossible, 1);
        latency.clear();
        assert!(latency.result().is_none());
    }

    #[test]
    fn a_log_reads_as_it_was_written() {
        let mut log = LatencyLog::new(us(0));
        let mut latency = Latency::new().unwrap();
        let mut whole = Latency::new().unwrap();
        for second in 1..=2 {
            latency.clear();
            latency.note(us(second * 1_000_000), us(second * 1_000_000 - 50 * second), us(20));
            whole.add(&latency);
            log.interval(&latency, us(second * 1_000_000));
        }
        assert_eq!(whole.result().unwrap().corrected_ns.max / 1000, 100);
        let file = tempfile::NamedTempFile::new().unwrap();
        log.write(file.path()).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(&bytes) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                use base64::Engine;
                let text = interval.encoded_histogram();
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
                let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                found.push((interval.tag().unwrap().as_str().to_owned(), histogram.max() / 1000, interval.duration()));
            }
        }
        let second = Duration::from_secs(1);
        let entry = |tag: &str, us| (tag.to_owned(), us, second);
        assert_eq!(
            found,
            [entry("corrected", 50), entry("uncorrected", 30), entry("corrected", 100), entry("uncorrected", 80)]
        );
    }
}
