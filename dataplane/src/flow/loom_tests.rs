//! The flow table's own code under loom, with two-slot buckets. Each test runs every interleaving with up to three
//! preemptions (one for three workers; and every value that the memory model lets a load return):
//!
//!     RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom \
//!         cargo test -p sluice-dataplane --no-default-features --lib --profile lab flow::loom

use std::net::Ipv4Addr;

use loom::sync::Arc;
use loom::thread;

use super::heap::Heap;
use super::slot::SlotWord;
use super::storage::Geometry;
use super::sync::Ordering;
use super::*;
use crate::clock::Tick;
use crate::ident::{NetPort, Protocol, WorkerIndex};

type Small = Table<V4, Heap<V4, 2>, 2>;

fn model(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

fn table(flows: u32, workers: usize) -> Arc<Small> {
    sized(Geometry::new(flows, flows, 2), workers)
}

fn sized(geometry: Geometry, workers: usize) -> Arc<Small> {
    let key = std::array::from_fn(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Arc::new(Small::over(Heap::new(geometry, workers), geometry, workers, key))
}

fn key(source: u32, destination: u32) -> FlowKey<Ipv4Addr> {
    FlowKey {
        source: Ipv4Addr::from(source),
        destination: Ipv4Addr::from(destination),
        source_port: NetPort::new(1000),
        destination_port: NetPort::new(80),
        protocol: Protocol::Tcp,
    }
}

fn flow(forward: FlowKey<Ipv4Addr>, reverse: Option<FlowKey<Ipv4Addr>>) -> NewFlow<V4> {
    NewFlow {
        forward,
        reverse,
        destination: 0,
        state: 1,
        flags: 0,
        deadline: Tick::new(100),
        client_mac: None,
        return_hop: 0,
        extension: None,
        controller: None,
    }
}

/// The number of committed slots that hold a key; a tentative one must not be left.
fn committed(table: &Small, key: FlowKey<Ipv4Addr>) -> usize {
    let words = V4::pack(&key);
    let slots = table.buckets_of(table.hash(&key)).into_iter().flat_map(|bucket| &bucket.0);
    let found = slots.map(|cell| SlotWord(cell.load(Ordering::Acquire))).filter(|word| {
        assert!(word.is_empty() || word.is_committed(), "a tentative slot is left");
        !word.is_empty() && table.entry_at(word.index()).words(word.direction()) == words
    });
    found.count()
}

/// Inserts flows at once, one on each thread.
fn race(table: &Arc<Small>, flows: &[NewFlow<V4>]) -> Vec<Insert> {
    let insert = |worker: usize, new: NewFlow<V4>| {
        let table = table.clone();
        move || {
            let mut w = table.register(WorkerIndex(worker as u8)).unwrap();
            table.insert(&mut w, &new)
        }
    };
    let threads: Vec<_> =
        flows.iter().enumerate().skip(1).map(|(worker, new)| thread::spawn(insert(worker, *new))).collect();
    let mut results = vec![insert(0, flows[0])()];
    results.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
    results
}

fn created(results: &[Insert]) -> usize {
    results.iter().filter(|result| matches!(result, Insert::Created(_))).count()
}

#[test]
fn the_same_flow_on_two_workers_is_one() {
    model(3, || {
        let table = table(2, 2);
        let (forward, reverse) = (key(1, 2), key(3, 1));
        let results = race(&table, &[flow(forward, Some(reverse)); 2]);
        assert_eq!(created(&results), 1, "{results:?}");
        assert!(!results.contains(&Insert::ReverseTaken), "{results:?}");
        assert_eq!((committed(&table, forward), committed(&table, reverse)), (1, 1));
    });
}

#[test]
fn a_one_way_flow_on_two_workers_is_one() {
    model(3, || {
        let table = table(2, 2);
        let results = race(&table, &[flow(key(1, 2), None); 2]);
        assert_eq!(created(&results), 1, "{results:?}");
        assert_eq!(committed(&table, key(1, 2)), 1);
    });
}

#[test]
fn a_one_way_flow_on_three_workers_is_one() {
    model(1, || {
        let table = table(3, 3);
        let results = race(&table, &[flow(key(1, 2), None); 3]);
        assert_eq!(created(&results), 1, "{results:?}");
        assert_eq!(committed(&table, key(1, 2)), 1);
    });
}

/// Workers that see the buckets alike claim the same slot. Here one of them has just emptied a slot that the other may
/// still see taken, so that they claim different ones and meet only by their second reading.
#[test]
fn workers_that_see_the_buckets_differently_make_one_flow() {
    model(3, || {
        let table = sized(Geometry { flows: 4, buckets: 2, extensions: 0 }, 2);
        let first = |key| table.hash(&key).buckets(2)[0];
        let gone = key(9, 9);
        let wanted = (0..).map(|n| key(n, 2)).find(|key| first(*key) == first(gone)).unwrap();
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let Insert::Created(old) = table.insert(&mut w, &flow(gone, None)) else { panic!() };
        let other = table.clone();
        let inserter = thread::spawn(move || {
            let mut w = other.register(WorkerIndex(1)).unwrap();
            other.insert(&mut w, &flow(wanted, None))
        });
        assert!(table.end(&mut w, old));
        let results = [table.insert(&mut w, &flow(wanted, None)), inserter.join().unwrap()];
        assert_eq!(created(&results), 1, "{results:?}");
        assert_eq!(committed(&table, wanted), 1);
    });
}

#[test]
fn one_client_sent_to_two_servers_gets_one() {
    model(3, || {
        let table = table(2, 2);
        let forward = key(1, 2);
        let results = race(&table, &[flow(forward, Some(key(3, 1))), flow(forward, Some(key(4, 1)))]);
        assert_eq!(created(&results), 1, "{results:?}");
        assert_eq!(committed(&table, forward), 1);
        let reverse = committed(&table, key(3, 1)) + committed(&table, key(4, 1));
        assert_eq!(reverse, 1, "the loser's reverse key is gone");
        for (result, server) in results.iter().zip([key(3, 1), key(4, 1)]) {
            if let Insert::Created(flow) = result {
                assert_eq!(table.lookup(&server), Find::Hit { flow: *flow, direction: Direction::Reverse });
            }
        }
    });
}

#[test]
fn two_flows_with_one_reverse_key_are_not_both_made() {
    model(3, || {
        let table = table(2, 2);
        let reverse = key(3, 1);
        let results = race(&table, &[flow(key(1, 2), Some(reverse)), flow(key(1, 5), Some(reverse))]);
        assert_eq!(created(&results), 1, "{results:?}");
        assert_eq!(committed(&table, reverse), 1);
        assert_eq!(committed(&table, key(1, 2)) + committed(&table, key(1, 5)), 1);
        assert!(!results.iter().any(|result| matches!(result, Insert::Adopted(_))), "{results:?}");
    });
}

#[test]
fn an_insert_against_the_expiry_of_the_same_flow() {
    model(3, || {
        let table = table(2, 2);
        let (forward, reverse) = (key(1, 2), key(3, 1));
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let Insert::Created(old) = table.insert(&mut w, &flow(forward, Some(reverse))) else { panic!() };
        let other = table.clone();
        let inserter = thread::spawn(move || {
            let mut w = other.register(WorkerIndex(1)).unwrap();
            other.insert(&mut w, &flow(forward, Some(reverse)))
        });
        let mut ended = 0;
        table.sweep(&mut w, Tick::new(100), 1, |_, _| ended += 1);
        assert_eq!(ended, 1, "no one but the sweep ends it");
        match inserter.join().unwrap() {
            Insert::Created(new) => {
                assert_eq!((committed(&table, forward), committed(&table, reverse)), (1, 1));
                assert_eq!(table.lookup(&forward), Find::Hit { flow: new, direction: Direction::Forward });
            }
            result => {
                assert!(matches!(result, Insert::Contended) || result == Insert::Adopted(old), "{result:?}");
                assert_eq!((committed(&table, forward), committed(&table, reverse)), (0, 0));
            }
        }
    });
}

#[test]
fn two_workers_end_one_flow_once() {
    model(3, || {
        let table = table(2, 2);
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let Insert::Created(old) = table.insert(&mut w, &flow(key(1, 2), Some(key(3, 1)))) else { panic!() };
        let other = table.clone();
        let ender = thread::spawn(move || {
            let mut w = other.register(WorkerIndex(1)).unwrap();
            other.end(&mut w, old)
        });
        let mine = table.end(&mut w, old);
        assert!(mine ^ ender.join().unwrap());
        assert_eq!((committed(&table, key(1, 2)), committed(&table, key(3, 1))), (0, 0));
    });
}

#[test]
fn the_loser_of_two_extended_inserts_gives_its_record_back() {
    model(2, || {
        let table = sized(Geometry::new(2, 2, 2), 2);
        let extended = |n| {
            let extension = NewExtension { shifts: [Shift::by(n), Shift::default()], ..NewExtension::default() };
            NewFlow { extension: Some(extension), ..flow(key(1, 2), None) }
        };
        let results = race(&table, &[extended(1), extended(2)]);
        assert_eq!(created(&results), 1, "{results:?}");
        let Find::Hit { flow, .. } = table.lookup(&key(1, 2)) else { panic!() };
        let winner = results.iter().position(|result| *result == Insert::Created(flow)).unwrap();
        let record = table.extension(table.entry(flow)).unwrap();
        assert_eq!(record.shifts()[0], Shift::by(winner as u32 + 1), "the record is the winner's own");
    });
}

#[test]
fn a_record_is_not_another_flows_while_it_is_held() {
    model(2, || {
        let table = sized(Geometry::new(2, 1, 2), 2);
        let extended = |source| {
            let extension = NewExtension { shifts: [Shift::by(source); 2], ..NewExtension::default() };
            NewFlow { extension: Some(extension), ..flow(key(source, 2), None) }
        };
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let mut reader = table.register(WorkerIndex(1)).unwrap();
        let Insert::Created(old) = table.insert(&mut w, &extended(1)) else { panic!() };
        let other = table.clone();
        let read = thread::spawn(move || {
            if let Find::Hit { flow, .. } = other.lookup(&key(1, 2)) {
                let record = other.extension(other.entry(flow)).unwrap();
                assert_eq!(record.shifts()[1], Shift::by(1), "reused under the reader");
            }
            other.offline(&mut reader);
        });
        assert!(table.end(&mut w, old));
        for _ in 0..2 {
            table.quiesce(&mut w);
        }
        if let Insert::Created(new) = table.insert(&mut w, &extended(7)) {
            assert_eq!(table.extension(table.entry(new)).unwrap().shifts()[0], Shift::by(7));
        }
        read.join().unwrap();
    });
}

#[test]
fn a_shift_is_read_whole() {
    model(3, || {
        let record = Arc::new(Extension::free());
        let other = record.clone();
        let writer = thread::spawn(move || {
            other.set_shift(Direction::Reverse, Shift { from: 1, before: 1, after: 1 });
        });
        if let Some([_, Shift { from, before, after }]) = record.try_shifts() {
            assert!(from == before && before == after, "{from} {before} {after}");
        }
        writer.join().unwrap();
        assert_eq!(record.shifts()[1], Shift { from: 1, before: 1, after: 1 });
    });
}

#[test]
fn a_reader_keeps_its_flow_until_its_quiet_point() {
    model(2, || {
        let table = table(1, 2);
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let mut reader = table.register(WorkerIndex(1)).unwrap();
        assert!(matches!(table.insert(&mut w, &flow(key(1, 2), None)), Insert::Created(_)));
        let other = table.clone();
        let read = thread::spawn(move || {
            for _ in 0..2 {
                if let Find::Hit { flow, .. } = other.lookup(&key(1, 2)) {
                    assert_eq!(other.entry(flow).forward(), key(1, 2), "reused under the reader");
                    assert_eq!(other.entry(flow).state().generation(), flow.generation());
                }
                other.quiesce(&mut reader);
            }
            other.offline(&mut reader);
        });
        let Find::Hit { flow: old, .. } = table.lookup(&key(1, 2)) else { panic!() };
        assert!(table.end(&mut w, old));
        for _ in 0..2 {
            table.quiesce(&mut w);
        }
        // The one entry: only to be had when the reader has moved on.
        if let Insert::Created(new) = table.insert(&mut w, &flow(key(7, 8), None)) {
            assert_ne!(new.generation(), old.generation());
            assert_eq!(table.current(old.index(), old.generation()), None);
        }
        read.join().unwrap();
    });
}

#[test]
fn a_reader_comes_online_while_a_flow_ends() {
    model(2, || {
        let table = table(1, 2);
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let Insert::Created(old) = table.insert(&mut w, &flow(key(1, 2), None)) else { panic!() };
        let other = table.clone();
        let read = thread::spawn(move || {
            let mut reader = other.register(WorkerIndex(1)).unwrap();
            if let Find::Hit { flow, .. } = other.lookup(&key(1, 2)) {
                assert_eq!(other.entry(flow).forward(), key(1, 2), "reused under the reader");
                assert_eq!(other.entry(flow).state().generation(), flow.generation());
            }
            other.offline(&mut reader);
        });
        assert!(table.end(&mut w, old));
        for _ in 0..2 {
            table.quiesce(&mut w);
        }
        table.insert(&mut w, &flow(key(7, 8), None));
        read.join().unwrap();
    });
}

#[test]
fn the_free_list_gives_each_entry_once() {
    model(3, || {
        let table = table(3, 2);
        let mut w = table.register(WorkerIndex(0)).unwrap();
        let all: Vec<u32> = (0..3).filter_map(|_| table.take(&mut w)).collect();
        for index in all {
            table.retire(&mut w, index);
        }
        table.quiesce(&mut w);
        table.quiesce(&mut w);
        assert_eq!(table.free(), 3);
        let other = table.clone();
        // It looks nothing up, so it need not be online.
        let taker = thread::spawn(move || {
            let mut w = other.register(WorkerIndex(1)).unwrap();
            other.offline(&mut w);
            other.take(&mut w)
        });
        // The first entry comes back above others than those that the other may have seen below it.
        let (first, second) = (table.take(&mut w).unwrap(), table.take(&mut w).unwrap());
        table.retire(&mut w, first);
        for _ in 0..3 {
            table.quiesce(&mut w);
        }
        let third = table.take(&mut w);
        let mut taken: Vec<u32> = [Some(second), third, taker.join().unwrap()].into_iter().flatten().collect();
        let count = taken.len();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), count, "{taken:?}");
        assert!(count >= 2, "{taken:?}");
    });
}
