//! A line a second on standard error, while a command runs.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;

use crate::report::Rate;

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
    sent: u64,
    received: u64,
}

const INTERVAL: Duration = Duration::from_secs(1);

/// What is told in a line; `None` for what the command does not do.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    pub(crate) sent: Option<u64>,
    pub(crate) received: Option<u64>,
    pub(crate) lost: Option<u64>,
}

impl Progress {
    /// Lines from `now` on.
    pub(crate) fn new(show: Show, now: Duration) -> Self {
        let is_shown = match show {
            Show::Auto => io::stderr().is_terminal(),
            Show::Always => true,
            Show::Never => false,
        };
        Self { is_shown, begin: now, next: now + INTERVAL, sent: 0, received: 0 }
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

    /// Prints the line of the interval that is over.
    pub(crate) fn tell(&mut self, now: Duration, told: Told) -> io::Result<()> {
        let since = |new: Option<u64>, old: &mut u64| new.map(|n| n - std::mem::replace(old, n));
        let (sent, received) = (since(told.sent, &mut self.sent), since(told.received, &mut self.received));
        if !self.is_shown {
            return Ok(());
        }
        let mut out = io::stderr().lock();
        write!(out, "{:4} s", now.saturating_sub(self.begin).as_secs())?;
        for (what, packets) in [("sent", sent), ("received", received)] {
            if let Some(packets) = packets {
                write!(out, "  {what} {}", Rate::of(packets, 0, INTERVAL.as_secs_f64()))?;
            }
        }
        if let Some(lost) = told.lost {
            write!(out, "  lost {lost}")?;
        }
        writeln!(out)
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
        let told = |sent| Told { sent: Some(sent), ..Told::default() };
        progress.tell(at(2500), told(10)).unwrap();
        assert_eq!(progress.sent, 10);
    }
}
