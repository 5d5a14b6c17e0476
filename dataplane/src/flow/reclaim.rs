//! Free entries and extension records, and when one is free: grace periods.
//!
//! An entry whose keys were unlinked may still be held by workers that found it before. It is tagged with the epoch
//! and comes back two epochs later; the epoch advances only when every online reader announced it at a quiet point,
//! where it holds no flow. This is epoch-based reclamation (Fraser 2004) with one announcement a burst at most.

use std::marker::PhantomData;

use super::key::Family;
use super::memory::prefetch;
use super::pool::{Pool, Reserve};
use super::storage::{CONTROL, Reader, Storage};
use super::sync::{Ordering, fence};
use super::table::Table;
use crate::ident::WorkerIndex;

/// The epoch of a reader that is not online.
const OFFLINE: u64 = 0;

/// One worker's handle on a table: its reserves of free entries and extension records, and those of ended flows that
/// wait for their grace period. It belongs to the table that made it.
#[derive(Debug)]
pub struct FlowWorker<F: Family> {
    reader: usize,
    epoch: u64,
    entries: Reserve,
    extensions: Reserve,
    /// What the table was last told that this worker holds back: entries, extension records.
    told: [u32; 2],
    family: PhantomData<F>,
}

impl<F: Family> FlowWorker<F> {
    #[inline]
    fn is_waiting(&self) -> bool {
        self.entries.waiting() + self.extensions.waiting() > 0
    }
}

impl<F: Family, S: Storage<F, N>, const N: usize> Table<F, S, N> {
    /// The handle of a worker, online. `None` if it has one already or there can be no such worker.
    pub fn register(&self, worker: WorkerIndex) -> Option<FlowWorker<F>> {
        let reader = CONTROL + 1 + worker.0 as usize;
        let line = self.readers().get(reader)?;
        line.registered.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        let mut handle = FlowWorker {
            reader,
            epoch: OFFLINE,
            entries: Reserve::default(),
            extensions: Reserve::default(),
            told: [0; 2],
            family: PhantomData,
        };
        self.online(&mut handle);
        Some(handle)
    }

    /// A quiet point: the worker holds no [`FlowRef`](super::FlowRef) of before. Called once a burst; frees the
    /// entries whose grace period passed. Costs one load when there is nothing to do.
    #[inline]
    pub fn quiesce(&self, w: &mut FlowWorker<F>) {
        if w.epoch == OFFLINE {
            return;
        }
        let now = self.store.shared().epoch.0.load(Ordering::Acquire);
        if now != w.epoch {
            self.announce(w, now);
        }
        if w.is_waiting() {
            self.advance(w);
            self.entries().reclaim(&mut w.entries, w.epoch);
            self.extensions().reclaim(&mut w.extensions, w.epoch);
        }
        if w.entries.is_stocked() && self.entries().is_scarce() {
            self.entries().give_back(&mut w.entries);
        }
        if w.extensions.is_stocked() && self.extensions().is_scarce() {
            self.extensions().give_back(&mut w.extensions);
        }
        self.tell(w);
    }

    /// The worker is about to sleep or stop: it holds no flow, and grace periods do not wait for it.
    pub fn offline(&self, w: &mut FlowWorker<F>) {
        if w.epoch == OFFLINE {
            return;
        }
        self.quiesce(w);
        self.entries().give_back(&mut w.entries);
        self.extensions().give_back(&mut w.extensions);
        self.tell(w);
        w.epoch = OFFLINE;
        self.reader(w).epoch.store(OFFLINE, Ordering::Release);
    }

    /// The worker is back, and may look flows up again.
    pub fn online(&self, w: &mut FlowWorker<F>) {
        while w.epoch != self.store.shared().epoch.0.load(Ordering::Acquire) {
            self.announce(w, self.store.shared().epoch.0.load(Ordering::Acquire));
        }
    }

    /// Holds off reclamation for the control thread while `read` runs, which must be short.
    pub(super) fn as_control<T>(&self, read: impl FnOnce() -> T) -> T {
        let line = &self.store.readers()[CONTROL].epoch;
        let mut epoch = OFFLINE;
        while epoch != self.store.shared().epoch.0.load(Ordering::Acquire) {
            epoch = self.store.shared().epoch.0.load(Ordering::Acquire);
            line.store(epoch, Ordering::Release);
            fence(Ordering::SeqCst);
        }
        let result = read();
        line.store(OFFLINE, Ordering::Release);
        result
    }

    /// Takes a free entry; `None` when there is none.
    #[inline]
    pub(super) fn take(&self, w: &mut FlowWorker<F>) -> Option<u32> {
        let before = w.entries.stock();
        let taken = self.entries().take(&mut w.entries);
        w.entries.ahead(before).for_each(|index| prefetch(self.store.entries(), index as usize));
        taken
    }

    /// Takes a free extension record; `None` when there is none.
    #[inline]
    pub(super) fn take_extension(&self, w: &mut FlowWorker<F>) -> Option<u32> {
        let before = w.extensions.stock();
        let taken = self.extensions().take(&mut w.extensions);
        w.extensions.ahead(before).for_each(|number| prefetch(self.store.extensions(), number as usize));
        taken
    }

    /// An entry that is in no slot any more (or never was) comes back after a grace period, and its extension record.
    #[inline]
    pub(super) fn retire(&self, w: &mut FlowWorker<F>, index: u32) {
        let epoch = self.retirement();
        if let Some(extension) = self.entry_at(index).extension() {
            self.extensions().retire(&mut w.extensions, extension, epoch);
        }
        self.entries().retire(&mut w.entries, index, epoch);
    }

    /// The epoch of what is retired now.
    #[inline]
    fn retirement(&self) -> u64 {
        // Whoever can still hold the entry read its slot before the unlinking: this fence and the one in `announce`
        // make the epoch read here no older than the one which that reader announced.
        fence(Ordering::SeqCst);
        self.store.shared().epoch.0.load(Ordering::Acquire)
    }

    /// Entries on the free list, about.
    #[inline]
    pub(super) fn free(&self) -> u32 {
        self.entries().free()
    }

    /// Free entries and those that this worker will free soon.
    #[inline]
    pub(super) fn free_soon(&self, w: &FlowWorker<F>) -> u32 {
        self.free().saturating_add(w.entries.waiting())
    }

    /// The pool of entries.
    #[inline]
    pub(super) fn entries(&self) -> Pool<'_> {
        let list = &self.store.shared().entries;
        Pool { list, links: self.store.links(), capacity: self.capacity, workers: self.workers }
    }

    /// The pool of extension records.
    #[inline]
    pub(super) fn extensions(&self) -> Pool<'_> {
        let links = self.store.extension_links();
        let list = &self.store.shared().extensions;
        Pool { list, links, capacity: links.len() as u32, workers: self.workers }
    }

    #[inline]
    fn reader(&self, w: &FlowWorker<F>) -> &Reader {
        &self.store.readers()[w.reader]
    }

    /// The lines that can be in use: control's and the workers'.
    #[inline]
    pub(super) fn readers(&self) -> &[Reader] {
        let readers = self.store.readers();
        readers.get(..=self.workers as usize).unwrap_or(readers)
    }

    fn announce(&self, w: &mut FlowWorker<F>, epoch: u64) {
        w.epoch = epoch;
        self.reader(w).epoch.store(epoch, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// Advances the epoch by one if every online reader announced the current one.
    fn advance(&self, w: &mut FlowWorker<F>) {
        let epoch = w.epoch;
        fence(Ordering::SeqCst);
        let behind = |e: u64| e != OFFLINE && e != epoch;
        if self.readers().iter().any(|reader| behind(reader.epoch.load(Ordering::Acquire))) {
            return;
        }
        let cell = &self.store.shared().epoch.0;
        if cell.compare_exchange(epoch, epoch + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.announce(w, epoch + 1);
        }
    }

    /// Tells how many entries and records the worker holds back, for the counts of those in use.
    #[inline]
    fn tell(&self, w: &mut FlowWorker<F>) {
        let held = [w.entries.held(), w.extensions.held()];
        if held != w.told {
            w.told = held;
            let reader = self.reader(w);
            reader.held.store(held[0], Ordering::Relaxed);
            reader.held_extensions.store(held[1], Ordering::Relaxed);
        }
    }
}
