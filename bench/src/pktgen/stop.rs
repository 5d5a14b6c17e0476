//! When a command ends: a time, a number of packets, or a signal. There is always a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use dataplane::clock;
use nix::sys::signal::{SigSet, Signal};

use crate::error::PktgenError;

/// How long a command runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct Bounds {
    /// End after this time, such as 500ms, 10s or 2m
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
    /// End after so many packets, such as 1000, 10k or 2M, if the time is not over before
    #[arg(long, value_parser = crate::number::count)]
    pub(crate) count: Option<u64>,
}

/// The moment and the signal that end a command.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    signal: Arc<AtomicBool>,
    deadline: Duration,
}

impl Stop {
    /// Ends `duration` from now, or on SIGINT or SIGTERM, after which the result so far is printed. To be called
    /// before other threads are started: they inherit which signals are blocked.
    pub(crate) fn after(duration: Duration) -> Result<Self, PktgenError> {
        let signal = Arc::new(AtomicBool::new(false));
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block().map_err(|e| PktgenError::Signals(e.into()))?;
        let stop = Arc::clone(&signal);
        std::thread::spawn(move || {
            if signals.wait().is_ok() {
                stop.store(true, Ordering::Relaxed);
            }
            // Who asks twice does not want to wait for the result.
            if signals.wait().is_ok() {
                std::process::exit(130);
            }
        });
        Ok(Self { signal, deadline: clock::since_boot() + duration })
    }

    /// The same signal with an earlier end: for one of several parts of a run.
    pub(crate) fn part(&self, deadline: Duration) -> Self {
        Self { signal: Arc::clone(&self.signal), deadline: deadline.min(self.deadline) }
    }

    /// Whether it is time, at `now` since boot.
    #[inline]
    pub(crate) fn is_reached(&self, now: Duration) -> bool {
        now >= self.deadline || self.signal.load(Ordering::Relaxed)
    }
}
