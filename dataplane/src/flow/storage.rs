//! What the flow table's algorithms work on: index, entries, links of the free list, epochs; wherever they are kept.

use super::entry::FlowEntry;
use super::extension::Extension;
use super::key::Family;
use super::pool::List;
use super::slot::{Bucket, OCCUPIED};
use super::sync::{AtomicU32, AtomicU64};
use crate::ident::MAX_WORKERS;

/// Lines of epochs: the first for the control thread, then one for each worker.
pub(super) const READERS: usize = MAX_WORKERS + 1;
/// The control thread's line.
pub(super) const CONTROL: usize = 0;

/// Words that every worker writes, each group on a line of its own.
#[repr(C)]
#[derive(Debug)]
pub struct Shared {
    /// The epoch of reclamation; starts at 1.
    pub(super) epoch: Line<AtomicU64>,
    /// The pool of entries.
    pub(super) entries: List,
    /// The pool of extension records.
    pub(super) extensions: List,
}

/// A cache line of its own.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Line<T>(pub(super) T);

/// One reader's line.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Reader {
    /// The epoch at its last quiet point, or 0 when it is offline and holds no flow.
    pub(super) epoch: AtomicU64,
    /// 1 when a worker was registered.
    pub(super) registered: AtomicU32,
    /// Entries that it holds back from the free list: its cache and what waits for a grace period.
    pub(super) held: AtomicU32,
    /// The same of extension records.
    pub(super) held_extensions: AtomicU32,
}

/// Where a table of family `F` with buckets of `N` slots is kept. All slices keep their place and length.
pub trait Storage<F: Family, const N: usize>: Send + Sync {
    /// The words shared by all.
    fn shared(&self) -> &Shared;
    /// The epochs of control and of the workers, at least as many as the table has workers.
    fn readers(&self) -> &[Reader];
    /// The index.
    fn buckets(&self) -> &[Bucket<N>];
    /// The flows.
    fn entries(&self) -> &[FlowEntry<F>];
    /// For each entry on the free list, the next one's number plus one, or 0.
    fn links(&self) -> &[AtomicU32];
    /// The extension records.
    fn extensions(&self) -> &[Extension];
    /// As [`Storage::links`], for extension records: as many as there are.
    fn extension_links(&self) -> &[AtomicU32];
    /// A bit for each slot of two buckets whose word is `pattern` under `mask`, both of which have only bits of its
    /// upper half. The lower bits are the first bucket's. Reads as relaxed loads do.
    #[inline]
    fn matches(&self, [one, two]: [&Bucket<N>; 2], pattern: u64, mask: u64) -> u32 {
        one.matches(pattern, mask) | two.matches(pattern, mask) << N
    }
    /// As [`Storage::matches`], and the bits of the slots that are empty, by the same reading.
    #[inline]
    fn survey(&self, buckets: [&Bucket<N>; 2], pattern: u64, mask: u64) -> (u32, u32) {
        (self.matches(buckets, pattern, mask), self.matches(buckets, 0, OCCUPIED))
    }
    /// Bytes, all in.
    fn bytes(&self) -> usize;
}

/// Sizes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Flows that fit.
    pub(super) flows: u32,
    /// Buckets of the index.
    pub(super) buckets: u32,
    /// Flows with an extension record that fit.
    pub(super) extensions: u32,
}

impl Geometry {
    /// Most flows of one table: two keys each must fit 2^32 slots.
    pub(super) const MAX_FLOWS: u32 = 1 << 30;
    /// How full the index is when the table is, in per cent. Two-choice buckets of 8 that are only filled refuse their
    /// first key at 69; but where keys come and go for long, keys that left gaps have made the rest uneven: simulated
    /// over 60 lives of the table, 65 % refuses 1.6e-4 of all inserts, 60 % 5.5e-6, 55 % 8e-8 and 50 % none of 5e7.
    const LOAD: u64 = 50;

    /// The sizes of a table for so many flows, some of them extended, with buckets of `slots`.
    pub(super) fn new(flows: u32, extensions: u32, slots: u32) -> Self {
        let keys = 2 * u64::from(flows);
        let buckets = (keys * 100).div_ceil(Self::LOAD * u64::from(slots)).max(2);
        Self { flows, buckets: buckets as u32, extensions }
    }
}
