//! Finding a flow by a packet's key, in steps that a worker takes for a whole burst each, so that waits overlap:
//! hash and prefetch buckets, probe buckets and prefetch entries, compare keys.

use super::entry::{FlowEntry, FlowRef, Life, StateWord};
use super::hash::KeyHash;
use super::key::{Family, FlowKey};
use super::memory::prefetch;
use super::slot::{Bucket, Direction, MATCH, SlotWord};
use super::storage::Storage;
use super::sync::{AtomicU64, Ordering, RETRIES, pause};
use super::table::Table;

/// A lookup under way: where its key may stand, and then what is there.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    buckets: [u32; 2],
    tag: u16,
    /// Slots whose tag matches: the lower bits for the first bucket, then the second's.
    matching: u32,
    /// The first of them.
    first: SlotWord,
}

impl Probe {
    /// Whether no slot matched: there is no such flow.
    #[inline]
    pub(crate) fn is_miss(&self) -> bool {
        self.matching == 0
    }

    #[inline]
    pub(super) fn tag(&self) -> u16 {
        self.tag
    }
}

/// The flow of the first slot that matched: nearly always the one that is looked for.
#[derive(Debug)]
pub struct Likely<'t, F: Family> {
    /// Its entry.
    pub entry: &'t FlowEntry<F>,
    /// Its state and flags when they were read: it was live.
    pub state: StateWord,
    /// Its key that matched.
    pub direction: Direction,
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
    /// Begins the lookup of a packed key: asks for both its bucket lines.
    #[inline]
    pub fn aim(&self, words: &F::Words) -> Probe {
        self.aim_hashed(self.hash_words(words))
    }

    /// As [`Table::aim`], of a key's hash.
    #[inline]
    pub(crate) fn aim_hashed(&self, hash: KeyHash) -> Probe {
        let buckets = hash.buckets(self.buckets);
        for bucket in buckets {
            prefetch(self.store.buckets(), bucket);
        }
        Probe { buckets: buckets.map(|bucket| bucket as u32), tag: hash.tag(), matching: 0, first: SlotWord(0) }
    }

    /// Reads both buckets and asks for the line of the first entry that may be it.
    #[inline]
    pub fn probe(&self, probe: &mut Probe) {
        let Some(buckets) = self.aimed(probe) else { return };
        probe.matching = self.store.matches(buckets, SlotWord::pattern(probe.tag), MATCH);
        if probe.matching != 0 {
            let bit = probe.matching.trailing_zeros() as usize;
            probe.first = SlotWord(slot(buckets, bit).load(Ordering::Acquire));
            prefetch(self.store.entries(), probe.first.index() as usize);
        }
    }

    /// The flow of a packed key that was probed, if it is the first that matched, and live. `None` says nothing:
    /// [`Table::find_words`] does.
    #[inline]
    pub fn likely(&self, words: &F::Words, probe: &Probe) -> Option<Likely<'_, F>> {
        let (word, direction) = (probe.first, probe.first.direction());
        let entry = self.store.entries().get(word.index() as usize)?;
        if word.is_empty() || !entry.holds(direction, words) {
            return None;
        }
        let state = entry.state();
        state.is_live().then_some(Likely { entry, state, direction })
    }

    /// Asks for the extension record of the first entry that may be it, if that has one.
    #[inline]
    pub fn prefetch_extension(&self, probe: &Probe) {
        if probe.matching == 0 {
            return;
        }
        // Whether it has one is seen later: what else may stand there does no harm.
        let entry = self.store.entries().get(probe.first.index() as usize);
        let Some(number) = entry.map(|entry| entry.number_beside().wrapping_sub(1) as usize) else { return };
        if number < self.store.extensions().len() {
            prefetch(self.store.extensions(), number);
        }
    }

    /// Finds the flow of a packed key that was probed. Retries a bounded number of times what others are about to
    /// finish.
    #[inline]
    pub fn find_words(&self, words: &F::Words, probe: &Probe) -> Find {
        if probe.matching == 0 {
            return Find::Miss;
        }
        // It may have been emptied between the two reads of the probe: `look` sees that the key is another's or dead.
        match self.look(probe.first, words) {
            Look::Hit(flow, direction) => Find::Hit { flow, direction },
            _ => self.find_again(words, probe),
        }
    }

    /// Finds the flow of a key, in one go.
    pub fn lookup(&self, key: &FlowKey<F::Addr>) -> Find {
        self.lookup_words(&F::pack(key))
    }

    /// As [`Table::lookup`], of a packed key.
    pub(super) fn lookup_words(&self, words: &F::Words) -> Find {
        let mut probe = self.aim(words);
        self.probe(&mut probe);
        self.find_words(words, &probe)
    }

    /// The two buckets of a lookup of this table; none of another one's, which may be larger.
    #[inline]
    pub(super) fn aimed(&self, probe: &Probe) -> Option<[&Bucket<N>; 2]> {
        let [one, two] = probe.buckets;
        let buckets = self.store.buckets();
        Some([buckets.get(one as usize)?, buckets.get(two as usize)?])
    }

    /// A key's two buckets.
    #[inline]
    pub(super) fn buckets_of(&self, hash: KeyHash) -> [&Bucket<N>; 2] {
        // Within bounds: `buckets` reduces to below the number of buckets.
        hash.buckets(self.buckets).map(|bucket| &self.store.buckets()[bucket])
    }

    #[cold]
    fn find_again(&self, words: &F::Words, probe: &Probe) -> Find {
        let (pattern, Some(buckets)) = (SlotWord::pattern(probe.tag), self.aimed(probe)) else { return Find::Miss };
        let mut result = Find::Miss;
        for _ in 0..RETRIES {
            result = Find::Miss;
            let mut again = false;
            for cell in buckets.into_iter().flat_map(|bucket| &bucket.0) {
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
