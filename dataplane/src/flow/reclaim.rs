//! Free entries and when one is free: the shared free list, workers' caches, and grace periods.
//!
//! An entry whose keys were unlinked may still be held by workers that found it before. It is tagged with the epoch
//! and comes back two epochs later; the epoch advances only when every online reader announced it at a quiet point,
//! where it holds no flow. This is epoch-based reclamation (Fraser 2004) with one announcement a burst at most.

use std::marker::PhantomData;

use arrayvec::ArrayVec;

use super::key::Family;
use super::storage::{CONTROL, Reader, Storage};
use super::sync::{Ordering, fence};
use super::table::Table;
use crate::ident::WorkerIndex;

/// Entries that a worker takes from the free list at once, as long as there are plenty.
const BATCH: u32 = if cfg!(loom) { 1 } else { 32 };

/// The epoch of a reader that is not online.
const OFFLINE: u64 = 0;

/// One worker's handle on a table: its reserve of free entries and the ended flows that wait for their grace period.
/// It belongs to the table that made it.
#[derive(Debug)]
pub struct FlowWorker<F: Family> {
    reader: usize,
    epoch: u64,
    cache: ArrayVec<u32, { BATCH as usize }>,
    limbo: [Chain; 3],
    /// What the table was last told that this worker holds back.
    told: u32,
    family: PhantomData<F>,
}

/// Ended entries of one epoch, linked by the links of the free list.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    epoch: u64,
    first: u32,
    last: u32,
    count: u32,
}

impl<F: Family> FlowWorker<F> {
    #[inline]
    fn waiting(&self) -> u32 {
        self.limbo.iter().map(|chain| chain.count).sum()
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
            cache: ArrayVec::new(),
            limbo: [Chain::default(); 3],
            told: 0,
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
        if w.waiting() > 0 {
            self.advance(w);
            self.reclaim(w);
        }
        if !w.cache.is_empty() && self.is_scarce() {
            self.give_back(w);
        }
        self.tell(w);
    }

    /// The worker is about to sleep or stop: it holds no flow, and grace periods do not wait for it.
    pub fn offline(&self, w: &mut FlowWorker<F>) {
        if w.epoch == OFFLINE {
            return;
        }
        self.quiesce(w);
        self.give_back(w);
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
        if w.cache.is_empty() {
            let wanted = if self.is_scarce() { 1 } else { BATCH };
            self.take_list(w, wanted);
            if w.cache.is_empty() {
                self.take_fresh(w, wanted);
            }
            self.store.shared().numbers.0.free.fetch_sub(w.cache.len() as u32, Ordering::Relaxed);
        }
        w.cache.pop()
    }

    /// An entry that is in no slot any more (or never was) comes back after a grace period.
    #[inline]
    pub(super) fn retire(&self, w: &mut FlowWorker<F>, index: u32) {
        // Whoever can still hold the entry read its slot before the unlinking: this fence and the one in `announce`
        // make the epoch read here no older than the one which that reader announced.
        fence(Ordering::SeqCst);
        let epoch = self.store.shared().epoch.0.load(Ordering::Acquire);
        let place = (epoch % 3) as usize;
        if w.limbo[place].epoch != epoch {
            // Three epochs old at least.
            self.push(w.limbo[place]);
            w.limbo[place] = Chain { epoch, ..Chain::default() };
        }
        let chain = &mut w.limbo[place];
        if chain.count == 0 {
            chain.last = index;
        } else {
            self.store.links()[index as usize].store(chain.first + 1, Ordering::Relaxed);
        }
        chain.first = index;
        chain.count += 1;
    }

    /// Entries on the free list, about.
    #[inline]
    pub(super) fn free(&self) -> u32 {
        self.store.shared().numbers.0.free.load(Ordering::Relaxed)
    }

    /// Free entries and those that this worker will free soon.
    #[inline]
    pub(super) fn free_soon(&self, w: &FlowWorker<F>) -> u32 {
        self.free().saturating_add(w.waiting())
    }

    /// Whether so few entries are free that workers' reserves would matter.
    #[inline]
    fn is_scarce(&self) -> bool {
        self.free() <= 2 * BATCH * self.workers
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

    /// Frees the chains whose grace period passed.
    fn reclaim(&self, w: &mut FlowWorker<F>) {
        for chain in &mut w.limbo {
            if chain.count > 0 && chain.epoch + 2 <= w.epoch {
                self.push(*chain);
                *chain = Chain { epoch: chain.epoch, ..Chain::default() };
            }
        }
    }

    /// Puts the worker's reserve back on the free list.
    fn give_back(&self, w: &mut FlowWorker<F>) {
        let links = self.store.links();
        let mut chain = Chain::default();
        for index in w.cache.drain(..) {
            if chain.count == 0 {
                chain.last = index;
            } else {
                links[index as usize].store(chain.first + 1, Ordering::Relaxed);
            }
            chain.first = index;
            chain.count += 1;
        }
        self.push(chain);
    }

    /// Tells how many entries the worker holds back, for the count of flows.
    #[inline]
    fn tell(&self, w: &mut FlowWorker<F>) {
        let held = w.waiting() + w.cache.len() as u32;
        if held != w.told {
            w.told = held;
            self.reader(w).held.store(held, Ordering::Relaxed);
        }
    }

    /// Puts a chain on the free list.
    fn push(&self, chain: Chain) {
        if chain.count == 0 {
            return;
        }
        let shared = self.store.shared();
        // Counted before they can be taken, so that the count never falls below zero.
        shared.numbers.0.free.fetch_add(chain.count, Ordering::Relaxed);
        let mut head = shared.free.0.load(Ordering::Relaxed);
        loop {
            self.store.links()[chain.last as usize].store(head as u32, Ordering::Relaxed);
            let next = changed(head, chain.first + 1);
            match shared.free.0.compare_exchange(head, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    /// Moves up to `wanted` entries from the free list to the worker's cache.
    fn take_list(&self, w: &mut FlowWorker<F>, wanted: u32) {
        let cell = &self.store.shared().free.0;
        let mut head = cell.load(Ordering::Acquire);
        loop {
            w.cache.clear();
            let mut next = head as u32;
            while next != 0 && (w.cache.len() as u32) < wanted {
                // Links may change under us, but then the list's head has changed too, and the swap below fails.
                let Some(link) = self.store.links().get(next as usize - 1) else { break };
                w.cache.push(next - 1);
                next = link.load(Ordering::Relaxed);
            }
            if w.cache.is_empty() {
                return;
            }
            match cell.compare_exchange(head, changed(head, next), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    /// Moves up to `wanted` entries that were never used to the worker's cache.
    fn take_fresh(&self, w: &mut FlowWorker<F>, wanted: u32) {
        let cell = &self.store.shared().numbers.0.fresh;
        let mut fresh = cell.load(Ordering::Relaxed);
        while fresh < self.capacity {
            let end = fresh.saturating_add(wanted).min(self.capacity);
            match cell.compare_exchange(fresh, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return w.cache.extend((fresh..end).rev()),
                Err(seen) => fresh = seen,
            }
        }
    }
}

/// The free list's head with another first entry (number plus one), and its count of changes raised.
#[inline]
fn changed(head: u64, first: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(first)
}
