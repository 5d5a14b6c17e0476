//! The flow table against a `HashMap` model, under random operations on few keys.

// The lint knows tests, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::net::Ipv4Addr;

use dataplane::clock::{Tick, Ticks};
use dataplane::flow::{
    Capacity, Direction, Ended, Find, FlowKey, FlowRef, FlowTable, Insert, NewExtension, NewFlow, Shift, V4, flag,
};
use dataplane::ident::{NetPort, Protocol, WorkerIndex};
use proptest::prelude::*;

const FLOWS: u32 = 24;
const RECORDS: u32 = 7;

#[derive(Clone, Debug)]
enum Op {
    /// Client number, server number (none: one-way), life in ticks, embryonic, extended.
    Insert(u8, Option<u8>, u8, bool, bool),
    Lookup(u8, u8),
    End(u8),
    Refresh(u8, u8),
    Sweep(u8),
    Wait(u8),
    Quiesce,
    Sleep,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..40u8, prop::option::of(0..3u8), 0..80u8, any::<bool>(), any::<bool>())
            .prop_map(|(client, server, life, embryonic, extended)| Op::Insert(client, server, life, embryonic, extended)),
        4 => (0..40u8, 0..3u8).prop_map(|(client, server)| Op::Lookup(client, server)),
        2 => (0..40u8).prop_map(Op::End),
        1 => (0..40u8, 0..80u8).prop_map(|(client, life)| Op::Refresh(client, life)),
        2 => (0..60u8).prop_map(Op::Sweep),
        2 => (0..30u8).prop_map(Op::Wait),
        3 => Just(Op::Quiesce),
        1 => Just(Op::Sleep),
    ]
}

fn forward(client: u8) -> FlowKey<Ipv4Addr> {
    FlowKey {
        source: Ipv4Addr::new(10, 0, 0, client / 2),
        destination: Ipv4Addr::new(192, 0, 2, 1),
        source_port: NetPort::new(5000),
        destination_port: NetPort::new(80 + u16::from(client % 2)),
        protocol: Protocol::Tcp,
    }
}

/// Two clients of one address come back with the same reverse key, whatever the service.
fn reverse(client: u8, server: u8) -> FlowKey<Ipv4Addr> {
    FlowKey {
        source: Ipv4Addr::new(10, 1, 0, server),
        destination: Ipv4Addr::new(10, 0, 0, client / 2),
        source_port: NetPort::new(8080),
        destination_port: NetPort::new(5000),
        protocol: Protocol::Tcp,
    }
}

#[derive(Clone, Copy, Debug)]
struct Known {
    flow: FlowRef,
    reverse: Option<FlowKey<Ipv4Addr>>,
    deadline: Tick,
    embryonic: bool,
    /// What its extension record is to say.
    shift: Option<u32>,
}

/// What should be in the table.
#[derive(Default)]
struct Model {
    flows: HashMap<FlowKey<Ipv4Addr>, Known>,
}

impl Model {
    fn by_reverse(&self, key: FlowKey<Ipv4Addr>) -> Option<Known> {
        self.flows.values().find(|known| known.reverse == Some(key)).copied()
    }

    fn check(&self, key: FlowKey<Ipv4Addr>, found: Find) {
        let expected = match (self.flows.get(&key), self.by_reverse(key)) {
            (Some(known), None) => Find::Hit { flow: known.flow, direction: Direction::Forward },
            (None, Some(known)) => Find::Hit { flow: known.flow, direction: Direction::Reverse },
            (None, None) => Find::Miss,
            (Some(_), Some(_)) => panic!("the model itself has a key twice"),
        };
        assert_eq!(found, expected);
    }
}

struct Run {
    table: FlowTable<V4>,
    worker: dataplane::flow::FlowWorker<V4>,
    model: Model,
    now: Tick,
    /// Flows that ended since their grace period may have passed: only then may the table be full early.
    ended: u32,
    /// Flows inserted so far: each record says which one it is of.
    inserted: u32,
}

impl Run {
    fn insert(&mut self, client: u8, server: Option<u8>, life: u8, embryonic: bool, extended: bool) {
        let forward = forward(client);
        let reverse = server.map(|server| reverse(client, server));
        let deadline = self.now.after(Ticks(u32::from(life)));
        let flags = if embryonic { flag::EMBRYONIC } else { 0 };
        self.inserted += 1;
        let shift = extended.then_some(self.inserted);
        let extension =
            shift.map(|n| NewExtension { shifts: [Shift::by(n), Shift::default()], ..NewExtension::default() });
        let new = NewFlow {
            forward,
            reverse,
            destination: 1,
            state: 2,
            flags,
            deadline,
            client_mac: None,
            return_hop: 0,
            extension,
            controller: None,
        };
        let result = self.table.insert(&mut self.worker, &new);
        let known = self.model.flows.get(&forward);
        match result {
            Insert::Created(flow) => {
                assert!(known.is_none());
                assert!(reverse.is_none_or(|key| self.model.by_reverse(key).is_none()));
                self.model.flows.insert(forward, Known { flow, reverse, deadline, embryonic, shift });
                return;
            }
            Insert::Adopted(flow) => assert_eq!(known.map(|known| known.flow), Some(flow)),
            Insert::ReverseTaken => assert!(reverse.is_some_and(|key| self.model.by_reverse(key).is_some())),
            Insert::NoExtension => {
                let used = self.model.flows.values().filter(|known| known.shift.is_some()).count() as u32;
                assert!(extended && used + self.ended >= RECORDS, "no record too early");
            }
            Insert::Contended => panic!("there is one worker"),
            Insert::Full => {
                assert!(self.model.flows.len() as u32 + self.ended >= FLOWS, "full too early");
                return;
            }
        }
        self.ended += 1;
    }

    fn sweep(&mut self, budget: u8) {
        let (now, model, ended) = (self.now, &mut self.model, &mut self.ended);
        self.table.sweep(&mut self.worker, now, u32::from(budget), |entry, why| {
            let known = model.flows.remove(&entry.forward()).expect("a flow that is there");
            *ended += 1;
            match why {
                Ended::Expired => assert!(known.deadline.reached(now)),
                Ended::Evicted => assert!(known.embryonic && !known.deadline.reached(now)),
            }
        });
        if u32::from(budget) >= FLOWS {
            assert!(self.model.flows.values().all(|known| !known.deadline.reached(now)), "a whole round");
        }
    }

    fn step(&mut self, op: &Op) {
        match *op {
            Op::Insert(client, server, life, embryonic, extended) => {
                self.insert(client, server, life, embryonic, extended);
            }
            Op::Lookup(client, server) => {
                self.model.check(forward(client), self.table.lookup(&forward(client)));
                self.model.check(reverse(client, server), self.table.lookup(&reverse(client, server)));
            }
            Op::End(client) => {
                if let Some(known) = self.model.flows.remove(&forward(client)) {
                    assert!(self.table.end(&mut self.worker, known.flow));
                    assert!(!self.table.end(&mut self.worker, known.flow));
                    self.ended += 1;
                }
            }
            Op::Refresh(client, life) => {
                if let Some(known) = self.model.flows.get_mut(&forward(client)) {
                    known.deadline = self.now.after(Ticks(u32::from(life)));
                    self.table.entry(known.flow).set_deadline(known.deadline);
                }
            }
            Op::Sweep(budget) => self.sweep(budget),
            Op::Wait(ticks) => self.now = self.now.after(Ticks(u32::from(ticks))),
            Op::Quiesce => {
                for _ in 0..3 {
                    self.table.quiesce(&mut self.worker);
                }
                self.ended = 0;
            }
            Op::Sleep => {
                self.table.offline(&mut self.worker);
                self.table.online(&mut self.worker);
            }
        }
    }

    fn finish(&mut self) {
        self.step(&Op::Quiesce);
        assert_eq!(self.table.len() as usize, self.model.flows.len());
        let mut seen = 0;
        self.table.for_each(|entry| {
            let record = self.table.extension(entry).map(|record| record.shifts()[0].after);
            assert_eq!(self.model.flows[&entry.forward()].shift, record);
            seen += 1;
        });
        assert_eq!(seen, self.model.flows.len());
        let extended = self.model.flows.values().filter(|known| known.shift.is_some()).count();
        assert_eq!(self.table.extensions_used() as usize, extended);
        for client in 0..40 {
            for server in 0..3 {
                self.step(&Op::Lookup(client, server));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_table_does_what_a_map_does(ops in prop::collection::vec(op(), 1..300)) {
        let table = FlowTable::anonymous(Capacity { flows: FLOWS, extensions: RECORDS }, 1).unwrap();
        let worker = table.register(WorkerIndex(0)).unwrap();
        // Near the wrap of the clock.
        let mut run = Run { table, worker, model: Model::default(), now: Tick::new(u32::MAX - 300), ended: 0, inserted: 0 };
        for op in &ops {
            run.step(op);
        }
        run.finish();
    }
}
