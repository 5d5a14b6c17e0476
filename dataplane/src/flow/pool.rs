//! Numbers of records that are handed out and come back: the shared free list, a worker's reserve, and those that
//! wait for a grace period. The entries of the table are one such pool, its extension records another.
//!
//! A number that was retired may still be held by workers that found it before. It is tagged with the epoch and comes
//! back two epochs later; `reclaim.rs` says when an epoch ends.

use arrayvec::ArrayVec;

use super::storage::Line;
use super::sync::{AtomicU32, AtomicU64, Ordering};

/// Numbers that a worker takes from the free list at once, as long as there are plenty.
const BATCH: u32 = if cfg!(loom) { 1 } else { 32 };

/// How many numbers ahead a record is asked for: written one after the other, they would wait for one another if asked for
/// at once.
const REACH: usize = 8;

/// What all workers share of a pool.
#[repr(C)]
#[derive(Debug)]
pub(super) struct List {
    /// The free list: first number plus one (bits 0–31), count of changes (32–63).
    pub(super) head: Line<AtomicU64>,
    pub(super) counts: Line<Counts>,
}

/// Counts that change together with the free list, and the place of a walk over the records.
#[derive(Debug)]
pub(super) struct Counts {
    /// Numbers on the free list or never used; never less than there are.
    pub(super) free: AtomicU32,
    /// Numbers from this one on were never used and are on no list.
    pub(super) fresh: AtomicU32,
    /// Where the next sweep begins, modulo the numbers in use.
    pub(super) cursor: AtomicU32,
}

#[cfg(any(test, loom))]
impl List {
    /// A list of `capacity` numbers that were never used.
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            head: Line(AtomicU64::new(0)),
            counts: Line(Counts {
                free: AtomicU32::new(capacity),
                fresh: AtomicU32::new(0),
                cursor: AtomicU32::new(0),
            }),
        }
    }
}

/// A pool: its list, the links of it (for each number on the free list, the next one plus one, or 0), and its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool<'s> {
    pub(super) list: &'s List,
    pub(super) links: &'s [AtomicU32],
    pub(super) capacity: u32,
    pub(super) workers: u32,
}

/// What one worker holds of a pool.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    cache: ArrayVec<u32, { BATCH as usize }>,
    limbo: [Chain; 3],
}

/// Retired numbers of one epoch, linked by the links of the free list.
#[derive(Clone, Copy, Debug, Default)]
struct Chain {
    epoch: u64,
    first: u32,
    last: u32,
    count: u32,
}

impl Reserve {
    /// Numbers that wait for a grace period.
    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.limbo.iter().map(|chain| chain.count).sum()
    }

    /// Numbers held back from the free list.
    #[inline]
    pub(super) fn held(&self) -> u32 {
        self.waiting() + self.cache.len() as u32
    }

    /// The free numbers in reserve that have come within reach, in the order in which they will be taken, now that one was
    /// taken of `before`: the next one, or, if there were none, all the first.
    #[inline]
    pub(super) fn ahead(&self, before: usize) -> impl Iterator<Item = u32> {
        let skipped = if before > 0 { REACH - 1 } else { 0 };
        self.cache.iter().rev().take(REACH).skip(skipped).copied()
    }

    /// How many free numbers are in reserve.
    #[inline]
    pub(super) fn stock(&self) -> usize {
        self.cache.len()
    }

    /// Whether there are free numbers in reserve.
    #[inline]
    pub(super) fn is_stocked(&self) -> bool {
        !self.cache.is_empty()
    }
}

impl Pool<'_> {
    /// Takes a free number; `None` when there is none.
    #[inline]
    pub(super) fn take(self, reserve: &mut Reserve) -> Option<u32> {
        if reserve.cache.is_empty() {
            let wanted = if self.is_scarce() { 1 } else { BATCH };
            self.take_list(reserve, wanted);
            if reserve.cache.is_empty() {
                self.take_fresh(reserve, wanted);
            }
            self.list.counts.0.free.fetch_sub(reserve.cache.len() as u32, Ordering::Relaxed);
        }
        reserve.cache.pop()
    }

    /// A number that nobody can newly find comes back when `epoch`, the current one, is two epochs old.
    #[inline]
    pub(super) fn retire(self, reserve: &mut Reserve, index: u32, epoch: u64) {
        let place = (epoch % 3) as usize;
        if reserve.limbo[place].epoch != epoch {
            // Three epochs old at least.
            self.push(reserve.limbo[place]);
            reserve.limbo[place] = Chain { epoch, ..Chain::default() };
        }
        self.chain(&mut reserve.limbo[place], index);
    }

    /// Frees what waited until `epoch`.
    pub(super) fn reclaim(self, reserve: &mut Reserve, epoch: u64) {
        for chain in &mut reserve.limbo {
            if chain.count > 0 && chain.epoch + 2 <= epoch {
                self.push(*chain);
                *chain = Chain { epoch: chain.epoch, ..Chain::default() };
            }
        }
    }

    /// Puts a worker's free numbers back on the free list.
    pub(super) fn give_back(self, reserve: &mut Reserve) {
        let mut chain = Chain::default();
        for index in reserve.cache.drain(..) {
            self.chain(&mut chain, index);
        }
        self.push(chain);
    }

    /// Numbers on the free list, about.
    #[inline]
    pub(super) fn free(self) -> u32 {
        self.list.counts.0.free.load(Ordering::Relaxed)
    }

    /// Whether so few numbers are free that workers' reserves would matter.
    #[inline]
    pub(super) fn is_scarce(self) -> bool {
        self.free() <= 2 * BATCH * self.workers
    }

    /// Makes the list anew, of every number that `kept` refuses, which `free` gets. Gives how many are kept. No worker
    /// may be about.
    pub(super) fn rebuild(self, kept: impl Fn(u32) -> bool, mut free: impl FnMut(u32)) -> u32 {
        let fresh = (0..self.capacity).rfind(|index| kept(*index)).map_or(0, |last| last + 1);
        let (mut count, mut head) = (0, 0);
        for (index, link) in (0..self.capacity).zip(self.links).rev() {
            if kept(index) {
                count += 1;
                continue;
            }
            free(index);
            if index < fresh {
                link.store(head, Ordering::Relaxed);
                head = index + 1;
            }
        }
        let counts = &self.list.counts.0;
        self.list.head.0.store(u64::from(head), Ordering::Relaxed);
        counts.free.store(self.capacity - count, Ordering::Relaxed);
        counts.fresh.store(fresh, Ordering::Relaxed);
        counts.cursor.store(0, Ordering::Relaxed);
        count
    }

    /// Puts a number in front of a chain.
    #[inline]
    fn chain(self, chain: &mut Chain, index: u32) {
        if chain.count == 0 {
            chain.last = index;
        } else if let Some(link) = self.links.get(index as usize) {
            link.store(chain.first + 1, Ordering::Relaxed);
        }
        chain.first = index;
        chain.count += 1;
    }

    /// Puts a chain on the free list.
    fn push(self, chain: Chain) {
        let Some(last) = self.links.get(chain.last as usize).filter(|_| chain.count > 0) else { return };
        // Counted before they can be taken, so that the count never falls below zero.
        self.list.counts.0.free.fetch_add(chain.count, Ordering::Relaxed);
        let cell = &self.list.head.0;
        let mut head = cell.load(Ordering::Relaxed);
        loop {
            last.store(head as u32, Ordering::Relaxed);
            let next = changed(head, chain.first + 1);
            match cell.compare_exchange(head, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    /// Moves up to `wanted` numbers from the free list to the worker's cache.
    fn take_list(self, reserve: &mut Reserve, wanted: u32) {
        let cell = &self.list.head.0;
        let cache = &mut reserve.cache;
        let mut head = cell.load(Ordering::Acquire);
        loop {
            cache.clear();
            let mut next = head as u32;
            while next != 0 && (cache.len() as u32) < wanted {
                // Links may change under us, but then the list's head has changed too, and the swap below fails.
                let Some(link) = self.links.get(next as usize - 1) else { break };
                cache.push(next - 1);
                next = link.load(Ordering::Relaxed);
            }
            if cache.is_empty() {
                return;
            }
            match cell.compare_exchange(head, changed(head, next), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    /// Moves up to `wanted` numbers that were never used to the worker's cache.
    fn take_fresh(self, reserve: &mut Reserve, wanted: u32) {
        let cell = &self.list.counts.0.fresh;
        let mut fresh = cell.load(Ordering::Relaxed);
        while fresh < self.capacity {
            let end = fresh.saturating_add(wanted).min(self.capacity);
            match cell.compare_exchange(fresh, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return reserve.cache.extend((fresh..end).rev()),
                Err(seen) => fresh = seen,
            }
        }
    }
}

/// The free list's head with another first number (plus one), and its count of changes raised.
#[inline]
fn changed(head: u64, first: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | u64::from(first)
}
