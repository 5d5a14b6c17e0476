//! The flow table under threads that insert, look up and end the same few keys as fast as they can.

// The lint knows tests, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use dataplane::clock::Tick;
use dataplane::flow::{Find, FlowKey, FlowTable, FlowWorker, Insert, NewFlow, V4};
use dataplane::ident::{NetPort, Protocol, WorkerIndex};

const WORKERS: u8 = 4;
const KEYS: u32 = 48;
const ROUNDS: u32 = 60_000;
const DEADLINE: Tick = Tick::new(10);

fn key(source: u32, destination: u32) -> FlowKey<Ipv4Addr> {
    FlowKey {
        source: Ipv4Addr::from(source),
        destination: Ipv4Addr::from(destination),
        source_port: NetPort::new(1),
        destination_port: NetPort::new(2),
        protocol: Protocol::Udp,
    }
}

/// A flow of client `n` to one of four servers; `n` and `n + 1` share their reverse keys for even `n`.
fn flow(n: u32, server: u32) -> NewFlow<V4> {
    NewFlow {
        forward: key(n, 1_000_000),
        reverse: Some(key(2_000_000 + server, n / 2)),
        destination: n,
        state: 0,
        flags: 0,
        deadline: DEADLINE,
        client_mac: None,
        return_hop: 0,
        extension: None,
        controller: None,
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as u32 % limit
    }
}

/// What the workers did.
#[derive(Default)]
struct Told {
    created: AtomicU64,
    ended: AtomicU64,
}

fn work(table: &FlowTable<V4>, worker: u8, told: &Told) -> FlowWorker<V4> {
    let mut w = table.register(WorkerIndex(worker)).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(worker) << 40);
    for round in 0..ROUNDS {
        let n = random.below(KEYS);
        let new = flow(n, random.below(4));
        match random.below(3) {
            0 => match table.insert(&mut w, &new) {
                Insert::Created(flow) => {
                    told.created.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(table.entry(flow).forward(), new.forward);
                }
                Insert::Adopted(flow) => assert_eq!(table.entry(flow).forward(), new.forward),
                Insert::ReverseTaken | Insert::Contended | Insert::Full | Insert::NoExtension => {}
            },
            1 => {
                if let Find::Hit { flow, .. } = table.lookup(&new.forward) {
                    let entry = table.entry(flow);
                    assert_eq!((entry.forward(), entry.destination()), (new.forward, n), "never another flow");
                    if table.end(&mut w, flow) {
                        told.ended.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            _ => {
                let reverse = new.reverse.unwrap();
                if let Find::Hit { flow, .. } = table.lookup(&reverse) {
                    assert_eq!(table.entry(flow).reverse(), Some(reverse), "never another flow");
                    assert_eq!(table.entry(flow).destination() / 2, n / 2);
                }
            }
        }
        if round % 8 == 0 {
            table.quiesce(&mut w);
        }
        if round % 1024 == u32::from(worker) {
            table.offline(&mut w);
            thread::yield_now();
            table.online(&mut w);
        }
        if round % 4096 == 0 {
            table.sweep(&mut w, DEADLINE, 16, |entry, _| {
                assert!(entry.destination() < KEYS);
                told.ended.fetch_add(1, Ordering::Relaxed);
            });
        }
    }
    table.offline(&mut w);
    w
}

/// Looks at a table that stands still: no key twice, and each found under its own flow. Gives the number of flows.
fn no_key_twice(table: &FlowTable<V4>) -> u32 {
    let (mut forward, mut reverse) = (HashSet::new(), HashSet::new());
    table.for_each(|entry| {
        assert!(forward.insert(entry.forward()), "{:?} is there twice", entry.forward());
        if let Some(key) = entry.reverse() {
            assert!(reverse.insert(key), "{key:?} is there twice");
        }
        for key in [Some(entry.forward()), entry.reverse()].into_iter().flatten() {
            let Find::Hit { flow, .. } = table.lookup(&key) else { panic!("{key:?} is lost") };
            assert!(std::ptr::eq(table.entry(flow), entry));
        }
    });
    forward.len() as u32
}

#[test]
fn no_key_is_ever_there_twice() {
    const FLOWS: u32 = 200;
    let table = FlowTable::<V4>::anonymous(FLOWS, WORKERS as usize).unwrap();
    let told = Told::default();
    let mut workers: Vec<_> = thread::scope(|scope| {
        let start = |worker| {
            let (table, told) = (&table, &told);
            scope.spawn(move || work(table, worker, told))
        };
        let threads: Vec<_> = (0..WORKERS).map(start).collect();
        for _ in 0..2000 {
            table.for_each(|entry| assert!(entry.destination() < KEYS));
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let live = no_key_twice(&table);
    let (created, ended) = (told.created.into_inner(), told.ended.into_inner());
    assert_eq!(created - ended, u64::from(live), "every flow was created once and ended once");
    assert!(created > u64::from(ROUNDS) / 10, "{created}: they did meet");
    for w in &mut workers {
        table.online(w);
        (0..3).for_each(|_| table.quiesce(w));
        table.offline(w);
    }
    assert_eq!(table.len(), live);

    // No entry was lost or is on the free list twice: the table takes exactly as many flows as it should.
    let w = &mut workers[0];
    table.online(w);
    for n in live..FLOWS {
        let more = NewFlow { reverse: None, ..flow(1000 + n, 0) };
        assert!(matches!(table.insert(w, &more), Insert::Created(_)), "{n}");
    }
    assert_eq!(table.insert(w, &flow(5000, 0)), Insert::Full);
    assert_eq!(no_key_twice(&table), FLOWS);
}
