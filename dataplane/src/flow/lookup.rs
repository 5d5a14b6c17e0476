//! Finding a flow by a packet's key, in steps that a worker takes for a whole burst each, so that waits overlap:
//! hash and prefetch buckets, probe buckets and prefetch entries, compare keys.

use super::entry::{FlowRef, Life};
use super::hash::KeyHash;
use super::key::{Family, FlowKey};
use super::memory::prefetch;
use super::slot::{Bucket, Direction, MATCH, SlotWord};
use super::storage::Storage;
use super::sync::{AtomicU64, Ordering, RETRIES, pause};
use super::table::Table;

/// What the two buckets of a key hold for its tag.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    hash: KeyHash,
    /// Slots whose tag matches: the lower bits for the first bucket, then the second's.
    matching: u32,
    /// The first of them.
    first: SlotWord,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// A live flow, and which of its keys the packet has.
    Hit {
        /// The flow.
        flow: FlowRef,
        /// Its key that matched.
        direction: Direction,
    },
    /// No flow has the key.
    Miss,
    /// Another worker is inserting a flow with this key and did not finish in time.
    Unsettled,
}

/// What one slot says about a key.
enum Look {
    Hit(FlowRef, Direction),
    Other,
    /// A flow with this key is being inserted.
    Coming,
    /// A flow with this key has just ended; another one may have come since.
    Gone,
}

impl<F: Family, S: Storage<F, N>, const N: usize> Table<F, S, N> {
    /// Asks for both bucket lines ahead of [`Table::probe`].
    #[inline]
    pub fn prefetch(&self, hash: KeyHash) {
        for bucket in hash.buckets(self.buckets) {
            prefetch(&self.store.buckets()[bucket]);
        }
    }

    /// Reads both buckets and asks for the line of the first entry that may be it.
    #[inline]
    pub fn probe(&self, hash: KeyHash) -> Probe {
        let pattern = SlotWord::pattern(hash.tag());
        let buckets = self.buckets_of(hash);
        let matching = self.store.matches(buckets, pattern, MATCH);
        let mut first = SlotWord(0);
        if matching != 0 {
            let bit = matching.trailing_zeros() as usize;
            first = SlotWord(slot(buckets, bit).load(Ordering::Acquire));
            prefetch(self.entry_at(first.index()));
        }
        Probe { hash, matching, first }
    }

    /// Finds the flow of a key that was probed. Retries a bounded number of times what others are about to finish.
    #[inline]
    pub fn find(&self, key: &FlowKey<F::Addr>, probe: &Probe) -> Find {
        self.find_words(&F::pack(key), probe)
    }

    /// As [`Table::find`], of a packed key.
    #[inline]
    pub fn find_words(&self, words: &F::Words, probe: &Probe) -> Find {
        if probe.matching == 0 {
            return Find::Miss;
        }
        // It may have been emptied between the two reads of the probe: `look` sees that the key is another's or dead.
        match self.look(probe.first, words) {
            Look::Hit(flow, direction) => Find::Hit { flow, direction },
            _ => self.find_again(words, probe.hash),
        }
    }

    /// Finds the flow of a key, in one go.
    pub fn lookup(&self, key: &FlowKey<F::Addr>) -> Find {
        self.find(key, &self.probe(self.hash(key)))
    }

    /// A key's two buckets.
    #[inline]
    pub(super) fn buckets_of(&self, hash: KeyHash) -> [&Bucket<N>; 2] {
        // Within bounds: `buckets` reduces to below the number of buckets.
        hash.buckets(self.buckets).map(|bucket| &self.store.buckets()[bucket])
    }

    #[cold]
    fn find_again(&self, words: &F::Words, hash: KeyHash) -> Find {
        let pattern = SlotWord::pattern(hash.tag());
        let mut result = Find::Miss;
        for _ in 0..RETRIES {
            result = Find::Miss;
            let mut again = false;
            for cell in self.buckets_of(hash).into_iter().flat_map(|bucket| &bucket.0) {
                let word = SlotWord(cell.load(Ordering::Acquire));
                if !word.matches(pattern) {
                    continue;
                }
                match self.look(word, words) {
                    Look::Hit(flow, direction) => return Find::Hit { flow, direction },
                    Look::Other => {}
                    Look::Coming => result = Find::Unsettled,
                    Look::Gone => again = true,
                }
            }
            if !again && result == Find::Miss {
                return Find::Miss;
            }
            pause();
        }
        result
    }

    #[inline]
    fn look(&self, word: SlotWord, words: &F::Words) -> Look {
        let entry = self.entry_at(word.index());
        let direction = word.direction();
        if word.is_empty() || !entry.holds(direction, words) {
            return Look::Other;
        }
        let state = entry.state();
        match state.life() {
            Life::Live => Look::Hit(FlowRef { index: word.index(), generation: state.generation() }, direction),
            Life::Inserting => Look::Coming,
            Life::Dead | Life::Free => Look::Gone,
        }
    }
}

/// The slot of a bit of [`Storage::matches`].
#[inline]
pub(super) fn slot<const N: usize>([one, two]: [&Bucket<N>; 2], bit: usize) -> &AtomicU64 {
    &if bit < N { one } else { two }.0[bit % N]
}
