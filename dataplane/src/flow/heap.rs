//! A flow table's storage in plain vectors, for loom (whose atomics cannot live in a mapping) and for model tests.

use super::entry::FlowEntry;
use super::extension::Extension;
use super::key::Family;
use super::pool::List;
use super::slot::Bucket;
use super::storage::{Geometry, Line, READERS, Reader, Shared, Storage};
use super::sync::{AtomicU32, AtomicU64};

/// Storage in vectors.
#[derive(Debug)]
pub(super) struct Heap<F: Family, const N: usize> {
    shared: Shared,
    readers: Vec<Reader>,
    buckets: Vec<Bucket<N>>,
    entries: Vec<FlowEntry<F>>,
    links: Vec<AtomicU32>,
    extensions: Vec<Extension>,
    extension_links: Vec<AtomicU32>,
}

impl<F: Family, const N: usize> Heap<F, N> {
    /// An empty table's storage, with epochs for the control thread and `workers` ones.
    pub(super) fn new(geometry: Geometry, workers: usize) -> Self {
        let each = 0..geometry.flows;
        let reader = |_| Reader {
            epoch: AtomicU64::new(0),
            registered: AtomicU32::new(0),
            held: AtomicU32::new(0),
            held_extensions: AtomicU32::new(0),
        };
        Self {
            shared: Shared {
                epoch: Line(AtomicU64::new(1)),
                entries: List::new(geometry.flows),
                extensions: List::new(geometry.extensions),
            },
            readers: (0..READERS.min(workers + 1)).map(reader).collect(),
            buckets: (0..geometry.buckets).map(|_| Bucket(std::array::from_fn(|_| AtomicU64::new(0)))).collect(),
            entries: each.clone().map(|_| FlowEntry::free()).collect(),
            links: each.map(|_| AtomicU32::new(0)).collect(),
            extensions: (0..geometry.extensions).map(|_| Extension::free()).collect(),
            extension_links: (0..geometry.extensions).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl<F: Family, const N: usize> Storage<F, N> for Heap<F, N> {
    fn shared(&self) -> &Shared {
        &self.shared
    }

    fn readers(&self) -> &[Reader] {
        &self.readers
    }

    fn buckets(&self) -> &[Bucket<N>] {
        &self.buckets
    }

    fn entries(&self) -> &[FlowEntry<F>] {
        &self.entries
    }

    fn links(&self) -> &[AtomicU32] {
        &self.links
    }

    fn extensions(&self) -> &[Extension] {
        &self.extensions
    }

    fn extension_links(&self) -> &[AtomicU32] {
        &self.extension_links
    }

    fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + size_of_val(&*self.entries) + size_of_val(&*self.extensions)
    }
}
