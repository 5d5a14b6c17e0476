//! Making whole what a killed process left: run at start, before any worker.
//!
//! A flow is kept if it is live, its deadline has not passed and each of its keys is committed. Everything else in the
//! index is emptied; the free list, the counts and the epochs are made anew.

use super::entry::{FlowEntry, Life};
use super::key::Family;
use super::slot::{Direction, SlotWord};
use super::storage::Storage;
use super::sync::Ordering;
use super::table::Table;
use crate::clock::Tick;

/// Bits for each entry of what was seen of it.
const FORWARD: u8 = 1;
const REVERSE: u8 = 2;
const ALL: u8 = FORWARD | REVERSE;
const WANTED: u8 = 4;

impl<F: Family, S: Storage<F, N>, const N: usize> Table<F, S, N> {
    /// Repairs the table. Gives the number of flows in it.
    pub(super) fn repair(&mut self, now: Tick) -> u32 {
        let mut seen: Vec<u8> = self.store.entries().iter().map(|entry| expected(entry, now)).collect();
        self.each_slot(|word| {
            let bit = if word.direction() == Direction::Forward { FORWARD } else { REVERSE };
            match seen.get_mut(word.index() as usize) {
                // A second slot for the same key is one too many.
                Some(seen) if *seen & WANTED != 0 && *seen & bit == 0 && word.is_committed() => {
                    *seen |= bit;
                    true
                }
                _ => false,
            }
        });
        let kept = |index: u32| seen.get(index as usize) == Some(&(WANTED | ALL));
        self.each_slot(|word| kept(word.index()));
        let flows = self.rebuild_free_list(kept);
        self.reset_readers();
        flows
    }

    /// Empties the slots that `keep` refuses.
    fn each_slot(&self, mut keep: impl FnMut(SlotWord) -> bool) {
        for cell in self.store.buckets().iter().flat_map(|bucket| &bucket.0) {
            let word = SlotWord(cell.load(Ordering::Relaxed));
            if !word.is_empty() && !keep(word) {
                cell.store(word.emptied().0, Ordering::Relaxed);
            }
        }
    }

    /// Frees every entry that is not kept. Gives the number of those that are.
    fn rebuild_free_list(&self, kept: impl Fn(u32) -> bool) -> u32 {
        let shared = self.store.shared();
        let fresh = (0..self.capacity).rfind(|index| kept(*index)).map_or(0, |last| last + 1);
        let mut flows = 0;
        let mut head = 0;
        for (index, entry) in (0..self.capacity).zip(self.store.entries()).rev() {
            if kept(index) {
                flows += 1;
                continue;
            }
            entry.set_life(Life::Free);
            if index < fresh {
                self.store.links()[index as usize].store(head, Ordering::Relaxed);
                head = index + 1;
            }
        }
        shared.free.0.store(u64::from(head), Ordering::Relaxed);
        shared.numbers.0.free.store(self.capacity - flows, Ordering::Relaxed);
        shared.numbers.0.fresh.store(fresh, Ordering::Relaxed);
        shared.numbers.0.cursor.store(0, Ordering::Relaxed);
        flows
    }

    fn reset_readers(&self) {
        for reader in self.store.readers() {
            reader.epoch.store(0, Ordering::Relaxed);
            reader.registered.store(0, Ordering::Relaxed);
            reader.held.store(0, Ordering::Relaxed);
        }
        self.store.shared().epoch.0.store(1, Ordering::Release);
    }
}

/// What an entry needs to be kept, before its slots are seen: one-way flows need no reverse key.
fn expected<F: Family>(entry: &FlowEntry<F>, now: Tick) -> u8 {
    if !entry.state().is_live()
        || entry.deadline().reached(now)
        || entry.words(Direction::Forward) == F::Words::default()
    {
        return 0;
    }
    if entry.reverse().is_some() { WANTED } else { WANTED | REVERSE }
}
