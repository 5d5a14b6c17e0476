//! What a worker shows of itself to control: counters and a heartbeat.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::counters::WorkerCounters;

/// One worker's board. Only the worker writes to it.
#[derive(Debug)]
pub struct Board {
    /// Drops, events and port traffic.
    pub counters: WorkerCounters,
    heartbeat: AtomicU64,
}

impl Board {
    /// An empty board for a worker with `ports` ports.
    pub fn new(ports: usize) -> Self {
        Self { counters: WorkerCounters::new(ports), heartbeat: AtomicU64::new(0) }
    }

    /// When the worker last began a turn, since boot, to the millisecond. Zero before the first.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat.load(Ordering::Relaxed))
    }

    pub(super) fn beat(&self, now: Duration) {
        self.heartbeat.store(now.as_millis() as u64, Ordering::Relaxed);
    }
}
