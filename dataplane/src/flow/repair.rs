//! Making whole what a killed process left: run at start, before any worker.
//!
//! A flow is kept if it is live, its deadline has not passed and each of its keys is committed. Everything else in the
//! index is emptied; the free lists, the counts and the epochs are made anew. An extended flow whose record is missing or
//! another flow's goes too; records of no flow are free.

use super::entry::{FlowEntry, Life, flag};
use super::extension::HOLDERS;
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
        let records = self.repair_extensions(&mut seen);
        let kept = |index: u32| seen.get(index as usize) == Some(&(WANTED | ALL));
        self.each_slot(|word| kept(word.index()));
        let flows = self.entries().rebuild(kept, |index| self.entry_at(index).set_life(Life::Free));
        self.repair_templates();
        self.extensions().rebuild(|record| records.get(record as usize) == Some(&true), |_| {});
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

    /// Which records belong to flows that are kept. A flow that needs one and has none is not kept.
    fn repair_extensions(&self, seen: &mut [u8]) -> Vec<bool> {
        let mut records = vec![false; self.store.extension_links().len()];
        for (entry, seen) in self.store.entries().iter().zip(seen.iter_mut()) {
            if *seen != WANTED | ALL || entry.state().flags() & flag::EXTENDED == 0 {
                continue;
            }
            match entry.extension().and_then(|number| records.get_mut(number as usize)) {
                Some(record) if !*record => *record = true,
                _ => *seen = 0,
            }
        }
        records
    }

    /// Counts anew how many flows hang on each template. A flow whose template is gone hangs on none.
    fn repair_templates(&self) {
        let live = |entry: &&FlowEntry<F>| entry.state().is_live();
        let is_template = |entry: &FlowEntry<F>| entry.state().flags() & flag::TEMPLATE != 0;
        for entry in self.store.entries().iter().filter(live) {
            if is_template(entry) {
                entry.set_holders(0);
            } else if entry.state().flags() & flag::FTP != 0
                && let Some(record) = self.extension(entry)
            {
                record.change_bits(0, HOLDERS);
            }
        }
        for entry in self.store.entries().iter().filter(live) {
            if entry.state().flags() & flag::CONTROLLED == 0 {
                continue;
            }
            match self.controller(entry).filter(|on| on.state().is_live() && is_template(on)) {
                Some(template) => template.set_holders(template.holders() + 1),
                None => entry.orphan(),
            }
        }
    }

    fn reset_readers(&self) {
        for reader in self.store.readers() {
            reader.epoch.store(0, Ordering::Relaxed);
            reader.registered.store(0, Ordering::Relaxed);
            reader.held.store(0, Ordering::Relaxed);
            reader.held_extensions.store(0, Ordering::Relaxed);
        }
        self.store.shared().epoch.0.store(1, Ordering::Release);
    }
}

/// What an entry needs to be kept, before its slots are seen: one-way flows need no reverse key.
fn expected<F: Family>(entry: &FlowEntry<F>, now: Tick) -> u8 {
    // Flows may hang on a template whose time is up: if none does, it ends at the first sweep.
    let is_over = entry.deadline().reached(now) && entry.state().flags() & flag::TEMPLATE == 0;
    if !entry.state().is_live() || is_over || entry.words(Direction::Forward) == F::Words::default() {
        return 0;
    }
    if entry.reverse().is_some() { WANTED } else { WANTED | REVERSE }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::flow::heap::Heap;
    use crate::flow::storage::Geometry;
    use crate::flow::{Find, FlowKey, FlowLink, FlowWorker, Insert, NewExtension, NewFlow, Rule, V4};
    use crate::ident::{NetPort, Protocol, WorkerIndex};

    const FLOWS: u32 = 8;
    const RECORDS: u32 = 4;
    const NOW: Tick = Tick::new(0);

    type Small = Table<V4, Heap<V4, 4>, 4>;

    fn key(source: u32, port: u16) -> FlowKey<Ipv4Addr> {
        FlowKey {
            source: Ipv4Addr::from(source),
            destination: Ipv4Addr::LOCALHOST,
            source_port: NetPort::new(port),
            destination_port: NetPort::new(80),
            protocol: Protocol::Udp,
        }
    }

    fn new(n: u32) -> NewFlow<V4> {
        NewFlow {
            forward: key(n, 1),
            reverse: Some(key(n, 2)),
            destination: n,
            state: 0,
            flags: 0,
            deadline: Tick::new(100 + n),
            client_mac: None,
            return_hop: 0,
            extension: None,
            controller: None,
        }
    }

    /// A table of flows 0 to 5 that are whole; 0 and 1 have extension records.
    fn table() -> (Small, FlowWorker<V4>) {
        let geometry = Geometry::new(FLOWS, RECORDS, 4);
        let table = Small::over(Heap::new(geometry, 1), geometry, 1, std::array::from_fn(|i| 77 << i));
        let mut w = table.register(WorkerIndex(0)).unwrap();
        for n in 0..6 {
            let extension = (n < 2).then(NewExtension::default);
            assert!(matches!(table.insert(&mut w, &NewFlow { extension, ..new(n) }), Insert::Created(_)));
        }
        (table, w)
    }

    /// Writes into the first empty slot.
    fn plant(table: &Small, plant: impl Fn(SlotWord) -> SlotWord) {
        let mut cells = table.store.buckets().iter().flat_map(|bucket| &bucket.0);
        let cell = cells.find(|cell| SlotWord(cell.load(Ordering::Relaxed)).is_empty()).unwrap();
        cell.store(plant(SlotWord(cell.load(Ordering::Relaxed))).0, Ordering::Relaxed);
    }

    /// Repairs, and checks that exactly `whole` are there and all other entries and slots are free.
    fn check(mut table: Small, whole: &[u32], now: Tick) {
        assert_eq!(table.repair(now) as usize, whole.len());
        let mut slots = 0;
        table.each_slot(|_| {
            slots += 1;
            true
        });
        assert_eq!(slots, 2 * whole.len());
        for n in 0..6 {
            let there = whole.contains(&n);
            for key in [Some(new(n).forward), new(n).reverse].into_iter().flatten() {
                assert_eq!(matches!(table.lookup(&key), Find::Hit { .. }), there, "{n}");
            }
        }
        let extended = whole.iter().filter(|n| **n < 2).count() as u32;
        assert_eq!(table.extensions_used(), extended);
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let records: Vec<u32> = (0..RECORDS).filter_map(|_| table.take_extension(&mut w)).collect();
        assert_eq!(records.len() as u32, RECORDS - extended);
        for n in whole.len() as u32..FLOWS {
            assert!(matches!(table.insert(&mut w, &new(100 + n)), Insert::Created(_)), "{n}");
        }
        assert_eq!(table.insert(&mut w, &new(200)), Insert::Full);
    }

    #[test]
    fn a_whole_table_stays_as_it_is() {
        check(table().0, &[0, 1, 2, 3, 4, 5], NOW);
    }

    #[test]
    fn a_half_inserted_flow_goes() {
        let (table, mut w) = table();
        let index = table.take(&mut w).unwrap();
        table.entry_at(index).write(&new(50).pack(), None);
        plant(&table, |slot| slot.claimed(index, 3, Direction::Reverse).committed());
        plant(&table, |slot| slot.claimed(index, 4, Direction::Forward));
        plant(&table, |slot| slot.claimed(u32::MAX, 6, Direction::Forward).committed());
        check(table, &[0, 1, 2, 3, 4, 5], NOW);
    }

    #[test]
    fn a_half_ended_flow_goes() {
        let (table, _) = table();
        let entry = table.entry_at(0);
        let gone = entry.destination();
        assert!(entry.kill(entry.state()));
        table.unlink(entry, 0, Direction::Forward);
        let rest: Vec<u32> = (0..6).filter(|n| *n != gone).collect();
        check(table, &rest, NOW);
    }

    #[test]
    fn an_extended_flow_without_its_record_goes() {
        let (table, _) = table();
        let entry = |n: u32| match table.lookup(&new(n).forward) {
            Find::Hit { flow, .. } => table.entry(flow),
            other => panic!("{other:?}"),
        };
        entry(1).set_extension(entry(0).extension());
        check(table, &[0, 2, 3, 4, 5], NOW);

        let (table, _) = self::table();
        let Find::Hit { flow, .. } = table.lookup(&new(0).forward) else { panic!() };
        table.entry(flow).set_extension(Some(RECORDS));
        check(table, &[1, 2, 3, 4, 5], NOW);
    }

    #[test]
    fn expired_flows_go() {
        check(table().0, &[4, 5], Tick::new(103));
    }

    #[test]
    fn flows_hang_on_their_templates_again() {
        let (table, mut w) = table();
        let template = NewFlow { flags: flag::TEMPLATE, state: 1, deadline: NOW, reverse: None, ..new(60) };
        let Insert::Created(held) = table.insert(&mut w, &template) else { panic!() };
        let link = |index| Some(FlowLink { index, generation: 1 });
        let hanging = |n, on| NewFlow { flags: flag::CONTROLLED, controller: link(on), ..new(n) };
        assert!(table.entry(held).hold());
        let Insert::Created(on_it) = table.insert(&mut w, &hanging(61, held.index)) else { panic!() };
        let mut table = table;
        table.repair(Tick::new(1));
        assert_eq!(table.entry(held).holders(), 1, "its time is up, but it is in use");
        let mut w = table.register(WorkerIndex(0)).unwrap();
        assert!(table.end(&mut w, on_it));
        assert_eq!(table.entry(held).holders(), 0);
        table.sweep(&mut w, Tick::new(1), FLOWS, |_, _| {});
        assert!(!table.entry(held).state().is_live());
        assert_eq!(table.find_rule(Rule::Persistence, &template.forward), Find::Miss);
    }

    #[test]
    fn a_flow_whose_template_is_gone_hangs_on_none() {
        let (table, mut w) = table();
        let orphan =
            NewFlow { flags: flag::CONTROLLED, controller: Some(FlowLink { index: 0, generation: 1 }), ..new(61) };
        let Insert::Created(flow) = table.insert(&mut w, &orphan) else { panic!() };
        let mut table = table;
        table.repair(NOW);
        assert_eq!(table.entry(flow).state().flags() & flag::CONTROLLED, 0);
    }
}
