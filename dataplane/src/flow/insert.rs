//! Insert or adopt: however many workers insert the same key at once, it ends up in the index once.
//!
//! A key is first claimed in an empty slot (tentative), then both buckets are read again, then the slot is committed.
//! Of two workers that claim the same key, at least one sees the other's claim (each orders its claim before its
//! reading for all: Dekker's argument). Then the lower position wins: the higher one's owner retracts by itself, or the
//! lower one's owner *kills* the higher claim. Committing is a compare-and-swap of the claim, so a claim that was killed
//! cannot be committed, and one that was committed cannot be killed: whoever comes second at that word knows it.
//! A worker that finds the key committed gives up and adopts that flow.
//!
//! The reverse key goes first, then the forward key, then the flow is live. A worker waits (bounded) only while it
//! holds no tentative slot, so waits form no circle.

use super::entry::{FlowEntry, FlowRef, Life, NewFlow, PackedFlow};
use super::extension::{FlowLink, NewExtension};
use super::key::Family;
use super::lookup::{Probe, slot};
use super::reclaim::FlowWorker;
use super::slot::{Bucket, Direction, MATCH, SlotWord};
use super::storage::Storage;
use super::sync::{AtomicU64, Ordering, RETRIES, fence_after_swap, pause};
use super::table::Table;

/// How often a key is claimed anew after a lost contest.
const ATTEMPTS: u32 = if cfg!(loom) { 3 } else { 16 };

/// What became of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// The flow is in the table.
    Created(FlowRef),
    /// Another worker had inserted a flow with this forward key; this is it.
    Adopted(FlowRef),
    /// Another flow has the reverse key (or the key is its own reverse): take another server or port.
    ReverseTaken,
    /// Another worker was inserting one of the keys and did not finish in time, or the forward key is another flow's
    /// reverse key.
    Contended,
    /// No entry is free, or both buckets of a key are full.
    Full,
    /// The flow needs an extension record, and none is free.
    NoExtension,
}

/// A key on its way into the index.
struct Claim<'t, F: Family, const N: usize> {
    words: &'t F::Words,
    /// Where it may stand.
    buckets: [&'t Bucket<N>; 2],
    tag: u16,
    index: u32,
    direction: Direction,
}

impl<F: Family, const N: usize> Claim<'_, F, N> {
    #[inline]
    fn pattern(&self) -> u64 {
        SlotWord::pattern(self.tag)
    }
}

/// What became of a key.
enum Placed {
    Committed,
    /// A live flow has it, by this key.
    Has(FlowRef, Direction),
    Contended,
    Full,
}

/// How a claim stands against the others for the same key.
enum Contest {
    Won,
    /// A committed slot of this entry has the key.
    Lost(SlotWord),
    /// A claim in a lower slot goes first.
    Yield,
}

/// Where a claim may go.
enum Room<'a> {
    Slot(&'a AtomicU64, SlotWord),
    /// The key is committed already.
    Taken(SlotWord),
    /// Another key was faster.
    Moved,
    Full,
}

impl<F: Family, S: Storage<F, N>, const N: usize> Table<F, S, N> {
    /// Inserts a flow, unless its forward key is there already: then gives that flow.
    pub fn insert(&self, w: &mut FlowWorker<F>, new: &NewFlow<F>) -> Insert {
        let packed = new.pack();
        let forward = self.aim(&packed.forward);
        let reverse = if packed.is_two_way() { self.aim(&packed.reverse) } else { forward };
        self.insert_aimed(w, &packed, [&forward, &reverse])
    }

    /// As [`Table::insert`], of a flow whose keys were aimed, so that their buckets are here by now; where there is no
    /// reverse key, its aim does not matter.
    #[inline]
    pub(crate) fn insert_aimed(&self, w: &mut FlowWorker<F>, new: &PackedFlow<'_, F>, aims: [&Probe; 2]) -> Insert {
        if F::are_same(&new.reverse, &new.forward) {
            return Insert::ReverseTaken;
        }
        let Some(index) = self.take(w) else {
            return Insert::Full;
        };
        let entry = self.entry_at(index);
        let extension = new.extension.and_then(|extension| self.extend(w, extension, new.controller));
        let flow = FlowRef { index, generation: entry.write(new, extension) };
        if new.extension.is_some() && extension.is_none() {
            entry.set_life(Life::Dead);
            self.retire(w, index);
            return Insert::NoExtension;
        }
        let result = self.place_both(entry, flow, new, aims);
        if !matches!(result, Insert::Created(_)) {
            entry.set_life(Life::Dead);
            self.retire(w, index);
        }
        result
    }

    /// Takes an extension record and writes it, of a flow that hangs on `controller`.
    #[inline]
    fn extend(&self, w: &mut FlowWorker<F>, new: &NewExtension, controller: Option<FlowLink>) -> Option<u32> {
        let number = self.take_extension(w)?;
        self.store.extensions().get(number as usize)?.write(new, controller.or(new.link));
        Some(number)
    }

    #[inline]
    fn place_both(&self, entry: &FlowEntry<F>, flow: FlowRef, new: &PackedFlow<'_, F>, aims: [&Probe; 2]) -> Insert {
        let [Some(forward), Some(reverse)] = aims.map(|aim| self.aimed(aim)) else { return Insert::Full };
        let claim = |words, buckets, aim: &Probe, direction| Claim {
            words,
            buckets,
            tag: aim.tag(),
            index: flow.index,
            direction,
        };
        if new.is_two_way() {
            match self.place(&claim(&new.reverse, reverse, aims[1], Direction::Reverse)) {
                Placed::Committed => {}
                Placed::Has(other, Direction::Reverse)
                    if self.entry_at(other.index).holds(Direction::Forward, &new.forward) =>
                {
                    return Insert::Adopted(other);
                }
                Placed::Has(..) => return Insert::ReverseTaken,
                Placed::Contended => return Insert::Contended,
                Placed::Full => return Insert::Full,
            }
        }
        let failed = match self.place(&claim(&new.forward, forward, aims[0], Direction::Forward)) {
            Placed::Committed => {
                entry.set_life(Life::Live);
                return Insert::Created(flow);
            }
            Placed::Has(other, Direction::Forward) => Insert::Adopted(other),
            Placed::Has(_, Direction::Reverse) | Placed::Contended => Insert::Contended,
            Placed::Full => Insert::Full,
        };
        if new.is_two_way() {
            self.unlink(entry, flow.index, Direction::Reverse);
        }
        failed
    }

    /// Puts a key into the index, or finds the live flow that has it.
    #[inline]
    fn place(&self, claim: &Claim<'_, F, N>) -> Placed {
        for _ in 0..ATTEMPTS {
            let (cell, empty) = match self.room(claim) {
                Room::Slot(cell, empty) => (cell, empty),
                Room::Full => return Placed::Full,
                Room::Moved => continue,
                Room::Taken(word) => match self.settled(word) {
                    Some(flow) => return Placed::Has(flow, word.direction()),
                    None => continue,
                },
            };
            let mine = empty.claimed(claim.index, claim.tag, claim.direction);
            if !swap(cell, empty, mine) {
                continue;
            }
            fence_after_swap();
            match self.contest(claim, cell) {
                // If this fails, a lower claim has killed ours and will be found.
                Contest::Won => {
                    if swap(cell, mine, mine.committed()) {
                        return Placed::Committed;
                    }
                }
                Contest::Lost(word) => {
                    swap(cell, mine, mine.emptied());
                    if let Some(flow) = self.settled(word) {
                        return Placed::Has(flow, word.direction());
                    }
                }
                Contest::Yield => {
                    swap(cell, mine, mine.emptied());
                    pause();
                }
            }
        }
        Placed::Contended
    }

    /// An empty slot in the emptier of the key's two buckets, unless the key is there.
    #[inline]
    fn room<'t>(&self, claim: &Claim<'t, F, N>) -> Room<'t> {
        let (buckets, pattern) = (claim.buckets, claim.pattern());
        let (matching, empty) = self.store.survey(buckets, pattern, MATCH);
        for bit in bits(matching) {
            let cell = slot(buckets, bit);
            let word = SlotWord(cell.load(Ordering::Acquire));
            if word.matches(pattern) && word.is_committed() && self.rivals(claim, word) {
                if self.entry_at(word.index()).state().life() != Life::Dead {
                    return Room::Taken(word);
                }
                swap(cell, word, word.emptied());
            }
        }
        let first = empty & ((1 << N) - 1);
        let second = empty & !first;
        let emptier = if first.count_ones() >= second.count_ones() { first } else { second };
        match bits(emptier).next() {
            None => Room::Full,
            Some(bit) => {
                let cell = slot(buckets, bit);
                let word = SlotWord(cell.load(Ordering::Acquire));
                if word.is_empty() { Room::Slot(cell, word) } else { Room::Moved }
            }
        }
    }

    /// Reads both buckets for others with the key of a claim that stands in `mine`.
    #[inline]
    fn contest(&self, claim: &Claim<'_, F, N>, mine: &AtomicU64) -> Contest {
        for bit in bits(self.store.matches(claim.buckets, claim.pattern(), MATCH)) {
            let cell = slot(claim.buckets, bit);
            if std::ptr::eq(cell, mine) {
                continue;
            }
            match self.challenge(claim, cell, mine) {
                Contest::Won => {}
                lost => return lost,
            }
        }
        Contest::Won
    }

    /// A claim in `mine` against whatever stands in another slot.
    #[cold]
    fn challenge(&self, claim: &Claim<'_, F, N>, cell: &AtomicU64, mine: &AtomicU64) -> Contest {
        let pattern = claim.pattern();
        for _ in 0..ATTEMPTS {
            let word = SlotWord(cell.load(Ordering::Acquire));
            if !word.matches(pattern) || !self.rivals(claim, word) {
                return Contest::Won;
            }
            if word.is_committed() && self.entry_at(word.index()).state().life() != Life::Dead {
                return Contest::Lost(word);
            }
            if !word.is_committed() && std::ptr::from_ref(cell) < std::ptr::from_ref(mine) {
                return Contest::Yield;
            }
            // A claim in a higher slot is killed; a dead flow's slot is emptied before its ender comes to it.
            swap(cell, word, word.emptied());
        }
        Contest::Yield
    }

    /// Whether a slot is taken by another flow with the key of this claim.
    #[inline]
    fn rivals(&self, claim: &Claim<'_, F, N>, word: SlotWord) -> bool {
        word.index() != claim.index && self.entry_at(word.index()).holds(word.direction(), claim.words)
    }

    /// Waits a bounded time for the flow of a committed slot to be live; `None` if it ended or is still on its way.
    fn settled(&self, word: SlotWord) -> Option<FlowRef> {
        let entry = self.entry_at(word.index());
        for _ in 0..RETRIES {
            let state = entry.state();
            match state.life() {
                Life::Live => return Some(FlowRef { index: word.index(), generation: state.generation() }),
                Life::Inserting => pause(),
                Life::Dead | Life::Free => return None,
            }
        }
        None
    }

    /// Takes a committed key of an ended or given up flow out of the index.
    pub(super) fn unlink(&self, entry: &FlowEntry<F>, index: u32, direction: Direction) {
        let hash = self.hash_words(&entry.words(direction));
        let buckets = self.buckets_of(hash);
        for bit in bits(self.store.matches(buckets, SlotWord::pattern(hash.tag()), MATCH)) {
            let cell = slot(buckets, bit);
            let word = SlotWord(cell.load(Ordering::Acquire));
            if !word.is_empty() && word.index() == index && word.direction() == direction {
                // It can only fail because another worker emptied the slot for us.
                swap(cell, word, word.emptied());
                return;
            }
        }
    }
}

/// The numbers of the bits that are set.
#[inline]
fn bits(mut set: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (set != 0).then_some(set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(bit)
    })
}

#[inline]
fn swap(cell: &AtomicU64, seen: SlotWord, next: SlotWord) -> bool {
    cell.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
}
