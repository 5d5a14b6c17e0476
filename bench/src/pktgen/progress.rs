//! A line a second on standard error, while a command runs.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;

use crate::report::scaled;

/// Whether the line is printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// When standard error is a terminal.
    Auto,
    Always,
    Never,
}

/// When the next line is due, and what the last one told.
#[derive(Debug)]
pub(crate) struct Progress {
    is_shown: bool,
    begin: Duration,
    next: Duration,
    last: Vec<u64>,
}

const INTERVAL: Duration = Duration::from_secs(1);

impl Progress {
    /// Lines from `now` on.
    pub(crate) fn new(show: Show, now: Duration) -> Self {
        let is_shown = match show {
            Show::Auto => io::stderr().is_terminal(),
            Show::Always => true,
            Show::Never => false,
        };
        Self { is_shown, begin: now, next: now + INTERVAL, last: Vec::new() }
    }

    /// Whether an interval is over at `now`: once for each.
    #[inline]
    pub(crate) fn is_due(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        self.next += INTERVAL;
        true
    }

    /// Prints the line of the interval that is over: of some counts the rate since the last line, of one the whole.
    pub(crate) fn tell(&mut self, now: Duration, rates: &[(&str, u64)], whole: (&str, u64)) -> io::Result<()> {
        self.last.resize(rates.len(), 0);
        let since = self.last.iter_mut().zip(rates).map(|(last, (name, count))| {
            let before = std::mem::replace(last, *count);
            (*name, (count - before) as f64 / INTERVAL.as_secs_f64())
        });
        let since: Vec<(&str, f64)> = since.collect();
        if !self.is_shown {
            return Ok(());
        }
        let mut out = io::stderr().lock();
        write!(out, "{:4} s", now.saturating_sub(self.begin).as_secs())?;
        since.iter().try_for_each(|(name, rate)| write!(out, "  {name} {}/s", scaled(*rate)))?;
        writeln!(out, "  {} {}", whole.0, whole.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_over_once() {
        let at = Duration::from_millis;
        let mut progress = Progress::new(Show::Never, at(0));
        assert!(!progress.is_due(at(999)));
        assert!(progress.is_due(at(1000)));
        assert!(!progress.is_due(at(1500)));
        assert!(progress.is_due(at(2500)));
        progress.tell(at(2500), &[("sent", 10), ("received", 7)], ("lost", 3)).unwrap();
        assert_eq!(progress.last, [10, 7]);
    }
}
