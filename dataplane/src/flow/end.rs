//! The ends of flows: by decision, by their timer, or early because the table is nearly full.

use std::sync::PoisonError;

use super::entry::{FlowEntry, FlowRef, StateWord, flag};
use super::key::Family;
use super::reclaim::FlowWorker;
use super::slot::Direction;
use super::storage::Storage;
use super::sync::Ordering;
use super::table::Table;
use crate::clock::{Tick, Ticks};

/// Entries that control reads between two quiet points.
const CONTROL_STEP: usize = 256;

/// Why a sweep ended a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its deadline had passed.
    Expired,
    /// It was embryonic and the table nearly full.
    Evicted,
}

impl<F: Family, S: Storage<F, N>, const N: usize> Table<F, S, N> {
    /// Ends a flow: true for the one caller that did, who also settles its accounts. Its entry stays readable until
    /// the next quiet point.
    pub fn end(&self, w: &mut FlowWorker<F>, flow: FlowRef) -> bool {
        let entry = self.entry(flow);
        loop {
            let seen = entry.state();
            if seen.generation() != flow.generation || !seen.is_live() {
                return false;
            }
            if entry.kill(seen) {
                self.bury(w, entry, flow.index);
                return true;
            }
        }
    }

    /// Looks at the next `budget` entries (of all workers' common round) and ends the flows whose deadline has passed;
    /// while fewer entries are free than [`Table::low_water`], embryonic ones too. `expired` gets each, ended.
    pub fn sweep(&self, w: &mut FlowWorker<F>, now: Tick, budget: u32, mut expired: impl FnMut(&FlowEntry<F>, Ended)) {
        let used = self.used();
        let budget = budget.min(used);
        if budget == 0 {
            return;
        }
        let mut short = self.shortage(w);
        let mut index = self.store.shared().entries.counts.0.cursor.fetch_add(budget, Ordering::Relaxed) % used;
        for _ in 0..budget {
            let entry = self.entry_at(index);
            let seen = entry.state();
            if let Some(why) = judge(entry, seen, now, short > 0)
                && !self.is_prolonged(entry, seen, now, why)
                // Whoever changed it meanwhile has had a packet of it.
                && entry.kill(seen)
            {
                self.bury(w, entry, index);
                short = short.saturating_sub(1);
                expired(entry, why);
            }
            index = if index + 1 < used { index + 1 } else { 0 };
        }
    }

    /// Whether something that should end stays, because flows hang on it. Its time is then prolonged.
    #[inline]
    fn is_prolonged(&self, entry: &FlowEntry<F>, seen: StateWord, now: Tick, why: Ended) -> bool {
        let is_held = seen.flags() & (flag::TEMPLATE | flag::FTP) != 0 && self.is_held(entry, seen.flags());
        if is_held && why == Ended::Expired {
            entry.set_deadline(now.after(HELD));
        }
        is_held
    }

    /// How many entries are missing at which sweeps evict embryonic flows; 0 while there are enough.
    #[inline]
    pub fn shortage(&self, w: &FlowWorker<F>) -> u32 {
        self.low_water().saturating_sub(self.free_soon(w))
    }

    /// Fewer free entries than this, and sweeps evict embryonic flows.
    #[inline]
    pub fn low_water(&self) -> u32 {
        (self.capacity / 32).max(1)
    }

    /// Shows every live flow once, for the control thread. Flows that come or go meanwhile may be left out.
    pub fn for_each(&self, mut show: impl FnMut(&FlowEntry<F>)) {
        let _one = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.store.shared().entries.counts.0.fresh.load(Ordering::Acquire) as usize;
        let entries = self.store.entries();
        for step in entries[..used.min(entries.len())].chunks(CONTROL_STEP) {
            self.as_control(|| step.iter().filter(|entry| entry.state().is_live()).for_each(&mut show));
        }
    }

    /// Unlinks both keys of a flow that this worker ended, and retires its entry.
    #[inline]
    fn bury(&self, w: &mut FlowWorker<F>, entry: &FlowEntry<F>, index: u32) {
        if entry.state().flags() & flag::CONTROLLED != 0 {
            self.let_go(entry);
        }
        self.unlink(entry, index, Direction::Forward);
        if entry.words(Direction::Reverse) != F::Words::default() {
            self.unlink(entry, index, Direction::Reverse);
        }
        self.retire(w, index);
    }
}

/// How long what flows hang on stays beyond its time, again and again: as IPVS.
const HELD: Ticks = Ticks::seconds(60);

/// Whether a sweep should end a flow, and why.
#[inline]
fn judge<F: Family>(entry: &FlowEntry<F>, seen: StateWord, now: Tick, pressed: bool) -> Option<Ended> {
    if !seen.is_live() {
        return None;
    }
    if entry.deadline().reached(now) {
        return Some(Ended::Expired);
    }
    (pressed && seen.flags() & flag::EMBRYONIC != 0).then_some(Ended::Evicted)
}
