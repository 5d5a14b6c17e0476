//! The table of flows that all workers share: what it is made of and how it is made.
//!
//! Invariants: no key is in the index twice; a live flow has all its keys in the index; an entry is written only while
//! no worker can hold it. `lookup.rs`, `insert.rs`, `end.rs` and `reclaim.rs` are the algorithms.

use std::sync::Mutex;

use super::entry::{FlowEntry, FlowRef};
use super::extension::Extension;
use super::hash::{Hasher, KEY_WORDS, KeyHash};
use super::key::{Family, FlowKey};
use super::storage::{Geometry, Storage};
use super::sync::Ordering;
use crate::siphash::Hash;

/// What the key of marks is derived for; others have numbers from 0 on.
const MARK: u8 = 0x80;

/// A flow table of family `F` kept in `S`, with buckets of `N` slots. Directors use [`FlowTable`](super::FlowTable).
#[derive(Debug)]
pub struct Table<F: Family, S, const N: usize> {
    pub(super) store: S,
    pub(super) hasher: Hasher,
    /// What marks of keys begin with.
    mark: Hash,
    pub(super) capacity: u32,
    pub(super) buckets: u32,
    pub(super) workers: u32,
    /// Control's one line of epochs has one user at a time.
    pub(super) control: Mutex<()>,
    family: std::marker::PhantomData<F>,
}

impl<F: Family, S: Storage<F, N>, const N: usize> Table<F, S, N> {
    /// A table over storage that holds an empty or repaired one of these sizes.
    pub(super) fn over(store: S, geometry: Geometry, workers: usize, key: [u64; KEY_WORDS]) -> Self {
        let hasher = Hasher::new(key);
        Self {
            store,
            mark: Hash::new(hasher.derive(MARK)),
            hasher,
            capacity: geometry.flows,
            buckets: geometry.buckets,
            workers: workers as u32,
            control: Mutex::new(()),
            family: std::marker::PhantomData,
        }
    }

    /// Flows that fit.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Entries that flows have ever had: what sweeps go through.
    pub fn used(&self) -> u32 {
        self.store.shared().entries.counts.0.fresh.load(Ordering::Relaxed)
    }

    /// Flows in it now; exact when no worker is between two quiet points.
    pub fn len(&self) -> u32 {
        let held: u32 = self.readers().iter().map(|reader| reader.held.load(Ordering::Relaxed)).sum();
        self.capacity.saturating_sub(self.free()).saturating_sub(held)
    }

    /// Whether there is no flow in it; as exact as [`Table::len`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Extension records that fit.
    pub fn extension_capacity(&self) -> u32 {
        self.store.extension_links().len() as u32
    }

    /// Extension records in use; as exact as [`Table::len`].
    pub fn extensions_used(&self) -> u32 {
        let held: u32 = self.readers().iter().map(|reader| reader.held_extensions.load(Ordering::Relaxed)).sum();
        self.extension_capacity().saturating_sub(self.extensions().free()).saturating_sub(held)
    }

    /// Bytes of memory, all in.
    pub fn memory(&self) -> usize {
        self.store.bytes()
    }

    /// A key for another hash, drawn with this table and kept with it. `purpose` tells several apart.
    pub fn derive_key(&self, purpose: u8) -> [u64; 2] {
        self.hasher.derive(purpose)
    }

    /// A value for a key that tells nobody anything of others, the same as long as the table lasts. A table outlives the
    /// process: whoever changes how marks are made lets the numbers of each local port step back once.
    ///
    /// It is `SipHash-2-4`, under a key of its own, of seven bytes of the key's hash in this table: as much as goes into one word
    /// with the length. A universal hash in front of a pseudorandom function is one itself, but for two keys whose seven bytes
    /// are equal, which any two are with a probability of some 2^-56 over the table's hash key.
    pub fn mark(&self, key: &FlowKey<F::Addr>) -> u64 {
        self.mark_hashed(self.hash(key))
    }

    /// As [`Table::mark`], of a key's hash.
    #[inline]
    pub(crate) fn mark_hashed(&self, hash: KeyHash) -> u64 {
        self.mark.end(hash.seven_bytes(), 7)
    }

    /// The hash of a key in this table.
    #[inline]
    pub fn hash(&self, key: &FlowKey<F::Addr>) -> KeyHash {
        self.hash_words(&F::pack(key))
    }

    #[inline]
    pub(crate) fn hash_words(&self, words: &F::Words) -> KeyHash {
        self.hasher.hash::<F>(words)
    }

    /// A flow's entry. Valid until the finder's next quiet point; after it the entry may hold another flow.
    #[inline]
    pub fn entry(&self, flow: FlowRef) -> &FlowEntry<F> {
        self.entry_at(flow.index)
    }

    /// The extension record of a flow that has one. Valid as long as its entry is.
    #[inline]
    pub fn extension(&self, entry: &FlowEntry<F>) -> Option<&Extension> {
        self.store.extensions().get(entry.extension()? as usize)
    }

    /// As [`Table::extension`], of a flow that was seen to be extended.
    #[inline]
    pub fn extension_beside(&self, entry: &FlowEntry<F>) -> Option<&Extension> {
        // No record has the number that stands for none.
        self.store.extensions().get(entry.number_beside().wrapping_sub(1) as usize)
    }

    /// The flow that was found earlier, for holders across bursts; `None` once it ended.
    #[inline]
    pub fn current(&self, index: u32, generation: u32) -> Option<FlowRef> {
        let state = self.store.entries().get(index as usize)?.state();
        (state.is_live() && state.generation() == generation).then_some(FlowRef { index, generation })
    }

    /// The entry of a number, which is below the capacity in every slot and reference that this table made.
    #[inline]
    pub(super) fn entry_at(&self, index: u32) -> &FlowEntry<F> {
        // A reference of another table must not panic: it gets some entry.
        let entries = self.store.entries();
        &entries[(index as usize).min(entries.len() - 1)]
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use siphasher::sip::SipHasher24;

    use super::super::{FlowTable, V4, V6};
    use super::*;
    use crate::ident::{NetPort, Protocol};

    fn key<A>(source: A, destination: A, port: u16) -> FlowKey<A> {
        let (source_port, destination_port) = (NetPort::new(80), NetPort::new(port));
        FlowKey { source, destination, source_port, destination_port, protocol: Protocol::Tcp }
    }

    #[test]
    fn a_mark_is_siphash_of_seven_bytes_of_the_hash() {
        let table = FlowTable::<V6>::anonymous(1, 1).unwrap();
        let key = key("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap(), 5001);
        let [k0, k1] = table.derive_key(MARK);
        let input = table.hash(&key).seven_bytes().to_le_bytes();
        assert_eq!(table.mark(&key), SipHasher24::new_with_keys(k0, k1).hash(&input[..7]));
    }

    #[test]
    fn marks_differ_by_port_address_and_table() {
        let tables = [0; 2].map(|_| FlowTable::<V4>::anonymous(1, 1).unwrap());
        let mut marks = std::collections::BTreeSet::new();
        for (table, port, host) in (0..2).flat_map(|t| (1..50).flat_map(move |p| (1..5u8).map(move |h| (t, p, h)))) {
            let key = key([10, 0, 0, host].into(), [10, 0, 1, 1].into(), port);
            let mark = tables[table].mark(&key);
            assert_eq!(mark, tables[table].mark(&key));
            assert!(marks.insert(mark));
        }
    }
}
