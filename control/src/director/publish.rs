//! Giving snapshots to the workers, and freeing those that no worker has any more: never on a worker.

use std::sync::Arc;

use dataplane::snapshot::Snapshot;
use dataplane::worker::Shared;

/// The way of snapshots to the workers.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    retired: Vec<Arc<Snapshot>>,
}

impl Publisher {
    /// For these workers.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, retired: Vec::new() }
    }

    /// Makes a snapshot the one that workers go by from their next turn on.
    pub fn publish(&mut self, snapshot: Snapshot) {
        self.retired.push(self.shared.snapshot.swap(Arc::new(snapshot)));
        self.collect();
    }

    /// Frees the snapshots that only this has. Workers only ever take the newest, so a count of one stays one.
    pub fn collect(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}
