//! Giving snapshots to the workers, and freeing those that no worker has any more: never on a worker.

use std::sync::Arc;

use dataplane::snapshot::Snapshot;
use dataplane::watch::Watch;
use dataplane::worker::Shared;

/// The way of snapshots to the workers.
#[derive(Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
    retired: Vec<Arc<Snapshot>>,
    /// What is looked at, in whatever snapshot, and what shows that somebody still looks.
    watch: Option<(Arc<Watch>, Arc<()>)>,
}

impl Publisher {
    /// For these workers.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, retired: Vec::new(), watch: None }
    }

    /// Makes a snapshot the one that workers go by from their next turn on.
    pub fn publish(&mut self, mut snapshot: Snapshot) {
        snapshot.watch = self.watch.as_ref().map(|(watch, _)| Arc::clone(watch));
        self.retired.push(self.shared.snapshot.swap(Arc::new(snapshot)));
        self.collect();
    }

    /// Lets the workers see what somebody wants to look at, for as long as `lease` is held. False when somebody looks
    /// already.
    pub fn begin_watch(&mut self, watch: Arc<Watch>, lease: Arc<()>) -> bool {
        self.end_watch();
        if self.watch.is_some() {
            return false;
        }
        self.watch = Some((watch, lease));
        self.publish_again();
        true
    }

    /// Ends a watch that nobody looks at any more.
    pub fn end_watch(&mut self) {
        if self.watch.take_if(|(_, lease)| Arc::strong_count(lease) == 1).is_some() {
            self.publish_again();
        }
    }

    fn publish_again(&mut self) {
        let snapshot = Snapshot::clone(&self.shared.snapshot.load());
        self.publish(snapshot);
    }

    /// Frees the snapshots that only this has. Workers only ever take the newest, so a count of one stays one.
    pub fn collect(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
    }
}
