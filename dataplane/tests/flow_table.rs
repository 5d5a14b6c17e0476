//! The flow table as one worker sees it: capacity, pressure, expiry, reuse, memory, files.

// The lint knows tests, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::clock::{Tick, Ticks};
use dataplane::flow::{
    Capacity, Direction, Ended, Family, Find, FlowKey, FlowRef, FlowTable, FlowWorker, Insert, NewExtension, NewFlow,
    Opened, Shift, TableError, Unfit, V4, V6, flag,
};
use dataplane::ident::{MacAddr, NetPort, PortIndex, Protocol, WorkerIndex};

const NOW: Tick = Tick::new(1000);
const LATER: Tick = Tick::new(2000);

fn key<A>(source: A, destination: A, source_port: u16, destination_port: u16) -> FlowKey<A> {
    FlowKey {
        source,
        destination,
        source_port: NetPort::new(source_port),
        destination_port: NetPort::new(destination_port),
        protocol: Protocol::Tcp,
    }
}

fn new<F: Family>(forward: FlowKey<F::Addr>, reverse: Option<FlowKey<F::Addr>>) -> NewFlow<F> {
    NewFlow {
        forward,
        reverse,
        destination: 5,
        state: 1,
        flags: 0,
        deadline: LATER,
        client_mac: None,
        return_hop: 9,
        extension: None,
        controller: None,
    }
}

/// The n-th flow of a NAT service.
fn nat(n: u32) -> NewFlow<V4> {
    let client = Ipv4Addr::from(0x0a00_0000 + n / 50_000);
    let port = 1024 + (n % 50_000) as u16;
    let (vip, server) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(10, 1, 0, 1));
    new(key(client, vip, port, 80), Some(key(server, client, 8080, port)))
}

fn table(flows: u32) -> (FlowTable<V4>, FlowWorker<V4>) {
    let table = FlowTable::anonymous(flows, 1).unwrap();
    let worker = table.register(WorkerIndex(0)).unwrap();
    (table, worker)
}

fn create<F: Family>(table: &FlowTable<F>, w: &mut FlowWorker<F>, new: &NewFlow<F>) -> FlowRef {
    match table.insert(w, new) {
        Insert::Created(flow) => flow,
        other => panic!("{other:?}"),
    }
}

fn hit(flow: FlowRef, direction: Direction) -> Find {
    Find::Hit { flow, direction }
}

/// Lets the grace period of everything that ended pass.
fn settle<F: Family>(table: &FlowTable<F>, w: &mut FlowWorker<F>) {
    for _ in 0..3 {
        table.quiesce(w);
    }
}

#[test]
fn a_flow_is_found_in_both_directions_and_holds_what_was_put_in() {
    let (table, mut w) = table(100);
    let mac = MacAddr([2, 0, 0, 0, 0, 0xfe]);
    let put = NewFlow { client_mac: Some((mac, PortIndex(63))), flags: 0x0234, ..nat(7) };
    let flow = create(&table, &mut w, &put);
    assert_eq!(table.lookup(&put.forward), hit(flow, Direction::Forward));
    assert_eq!(table.lookup(&put.reverse.unwrap()), hit(flow, Direction::Reverse));
    let entry = table.entry(flow);
    assert_eq!((entry.forward(), entry.reverse()), (put.forward, put.reverse));
    assert_eq!((entry.state().state(), entry.state().flags()), (1, 0x0234));
    assert_eq!((entry.destination(), entry.return_hop(), entry.deadline()), (5, 9, LATER));
    assert_eq!(entry.client_mac(), Some((mac, PortIndex(63))));
    entry.set_client_mac(None);
    assert_eq!(entry.client_mac(), None);
    assert_eq!(table.lookup(&nat(8).forward), Find::Miss);
}

#[test]
fn ipv6_flows_and_flows_of_one_direction() {
    let table = FlowTable::<V6>::anonymous(100, 1).unwrap();
    let mut w = table.register(WorkerIndex(0)).unwrap();
    let (client, vip) = (Ipv6Addr::from(1 << 127), Ipv6Addr::from(0x2001_0db8u128 << 96));
    let put = new::<V6>(key(client, vip, 1, 2), None);
    let flow = create(&table, &mut w, &put);
    assert_eq!(table.lookup(&put.forward), hit(flow, Direction::Forward));
    assert_eq!(table.lookup(&key(vip, client, 2, 1)), Find::Miss);
    assert_eq!(table.entry(flow).reverse(), None);
    assert!(table.end(&mut w, flow));
    assert_eq!(table.lookup(&put.forward), Find::Miss);
}

#[test]
fn a_key_that_is_there_is_adopted_or_refused() {
    let (table, mut w) = table(100);
    let flow = create(&table, &mut w, &nat(1));
    assert_eq!(table.insert(&mut w, &nat(1)), Insert::Adopted(flow));
    let elsewhere = NewFlow { reverse: nat(2).reverse, ..nat(1) };
    assert_eq!(table.insert(&mut w, &elsewhere), Insert::Adopted(flow), "another server, the same client");
    assert_eq!(table.lookup(&elsewhere.reverse.unwrap()), Find::Miss);
    let clash = NewFlow { forward: nat(3).forward, ..nat(1) };
    assert_eq!(table.insert(&mut w, &clash), Insert::ReverseTaken);
    assert_eq!(table.lookup(&clash.forward), Find::Miss);
    let itself = NewFlow { reverse: Some(nat(4).forward), ..nat(4) };
    assert_eq!(table.insert(&mut w, &itself), Insert::ReverseTaken);
    settle(&table, &mut w);
    table.offline(&mut w);
    assert_eq!(table.len(), 1, "what failed left nothing behind");
}

#[test]
fn a_transition_has_one_winner() {
    let (table, mut w) = table(10);
    let flow = create(&table, &mut w, &nat(1));
    let entry = table.entry(flow);
    let seen = entry.state();
    let next = entry.transition(seen, 3, 1).unwrap();
    assert_eq!((next.state(), next.flags()), (3, 1));
    assert_eq!(entry.transition(seen, 4, 0), Err(next));
    assert!(table.end(&mut w, flow));
    assert!(!table.end(&mut w, flow), "ended once");
    let dead = entry.transition(next, 4, 0).unwrap_err();
    assert!(!dead.is_live());
    assert!(entry.transition(dead, 4, 0).is_err(), "the dead stay dead");
}

#[test]
fn all_flows_fit_and_one_more_does_not() {
    for flows in [1, 2, 7, 100, 1000, 50_000] {
        let (table, mut w) = table(flows);
        assert_eq!(table.capacity(), flows);
        let made: Vec<_> = (0..flows).map(|n| create(&table, &mut w, &nat(n))).collect();
        assert_eq!(table.len(), flows);
        for n in flows..flows + 10 {
            assert_eq!(table.insert(&mut w, &nat(n)), Insert::Full, "{flows}");
        }
        for (n, flow) in (0..flows).zip(&made) {
            assert_eq!(table.lookup(&nat(n).forward), hit(*flow, Direction::Forward));
            assert_eq!(table.lookup(&nat(n).reverse.unwrap()), hit(*flow, Direction::Reverse));
        }
        assert!(table.end(&mut w, made[0]));
        settle(&table, &mut w);
        create(&table, &mut w, &nat(flows));
    }
}

#[test]
fn no_worker_hoards_entries_of_a_table_that_is_nearly_full() {
    let table = FlowTable::<V4>::anonymous(1000, 4).unwrap();
    let mut workers: Vec<_> = (0..4).map(|n| table.register(WorkerIndex(n)).unwrap()).collect();
    assert!(table.register(WorkerIndex(0)).is_none(), "registered already");
    assert!(table.register(WorkerIndex(4)).is_none(), "no such worker");
    for n in 0..1000 {
        create(&table, &mut workers[n as usize % 4], &nat(n));
        for w in &mut workers {
            table.quiesce(w);
        }
    }
    assert_eq!(table.insert(&mut workers[0], &nat(1000)), Insert::Full);
}

#[test]
fn a_full_table_that_churns_refuses_nothing() {
    const FLOWS: u32 = 20_000;
    let (table, mut w) = table(FLOWS);
    let mut live: std::collections::VecDeque<_> = (0..FLOWS).map(|n| create(&table, &mut w, &nat(n))).collect();
    for n in FLOWS..FLOWS * 20 {
        // Not in the order in which they came.
        let old = live.swap_remove_back((n as usize * 7919) % live.len()).unwrap();
        assert!(table.end(&mut w, old));
        settle(&table, &mut w);
        live.push_back(create(&table, &mut w, &nat(n)));
    }
    assert_eq!(table.len(), FLOWS);
}

#[test]
fn embryonic_flows_go_first_when_the_table_is_nearly_full() {
    let (table, mut w) = table(320);
    let embryonic = |n: u32| n % 2 == 1;
    for n in 0..320 {
        create(&table, &mut w, &NewFlow { flags: if embryonic(n) { flag::EMBRYONIC } else { 0 }, ..nat(n) });
    }
    let mut evicted = 0;
    table.sweep(&mut w, NOW, 320, |entry, why| {
        assert_eq!(why, Ended::Evicted);
        assert_ne!(entry.state().flags() & flag::EMBRYONIC, 0);
        evicted += 1;
    });
    assert_eq!(evicted, table.low_water(), "no more than needed");
    for n in (0..320).filter(|n| !embryonic(*n)) {
        assert!(matches!(table.lookup(&nat(n).forward), Find::Hit { .. }), "established flows stay");
    }
    settle(&table, &mut w);
    table.sweep(&mut w, NOW, 320, |_, _| panic!("there is room now"));
    for n in 320..320 + evicted {
        create(&table, &mut w, &nat(n));
    }
    assert_eq!(table.insert(&mut w, &nat(1000)), Insert::Full);
}

#[test]
fn flows_expire_at_their_deadline_within_a_round_of_the_sweep() {
    let (table, mut w) = table(1000);
    let flows: Vec<_> =
        (0..1000).map(|n| create(&table, &mut w, &NewFlow { deadline: NOW.after(Ticks(n)), ..nat(n) })).collect();
    table.entry(flows[3]).set_deadline(LATER);
    let mut ended = 0;
    for _ in 0..10 {
        table.sweep(&mut w, NOW.after(Ticks(499)), 100, |_, why| {
            assert_eq!(why, Ended::Expired);
            ended += 1;
        });
    }
    assert_eq!(ended, 499, "0 to 499 but the third");
    for (n, flow) in (0..1000).zip(&flows) {
        let there = n == 3 || n >= 500;
        assert_eq!(table.current(flow.index(), flow.generation()).is_some(), there);
        assert_eq!(matches!(table.lookup(&nat(n).forward), Find::Hit { .. }), there);
    }
    settle(&table, &mut w);
    table.offline(&mut w);
    assert_eq!(table.len(), 501);
    let mut seen = 0;
    table.for_each(|entry| {
        assert!(!entry.deadline().reached(NOW.after(Ticks(499))));
        seen += 1;
    });
    assert_eq!(seen, 501);
}

#[test]
fn an_entry_is_not_reused_before_every_worker_was_quiet_or_offline() {
    let table = FlowTable::<V4>::anonymous(1, 2).unwrap();
    let mut a = table.register(WorkerIndex(0)).unwrap();
    let mut b = table.register(WorkerIndex(1)).unwrap();
    let old = create(&table, &mut a, &nat(1));
    assert!(table.end(&mut a, old));
    settle(&table, &mut a);
    assert_eq!(table.insert(&mut a, &nat(2)), Insert::Full, "b may still hold it");
    table.offline(&mut b);
    settle(&table, &mut a);
    let new = create(&table, &mut a, &nat(2));
    assert_eq!(old.index(), new.index());
    assert_eq!(table.current(old.index(), old.generation()), None);
    assert!(!table.end(&mut a, old), "an old reference ends nothing");
    table.online(&mut b);
    assert!(table.end(&mut b, new));
}

#[test]
fn a_million_flows_stay_within_the_budget_of_memory() {
    let four = FlowTable::<V4>::anonymous(1_000_000, 1).unwrap();
    assert!(four.memory() / 1_000_000 < 128, "{}", four.memory());
    let six = FlowTable::<V6>::anonymous(1_000_000, 1).unwrap();
    assert!(six.memory() / 1_000_000 < 256, "{}", six.memory());
}

#[test]
fn extended_flows_have_a_record_until_they_end() {
    let extended = |n: u32| {
        let extension = NewExtension { shifts: [Shift::by(n), Shift::default()], ..NewExtension::default() };
        NewFlow { extension: Some(extension), ..nat(n) }
    };
    let table = FlowTable::<V4>::anonymous(Capacity { flows: 10, extensions: 2 }, 1).unwrap();
    let mut w = table.register(WorkerIndex(0)).unwrap();
    let first = create(&table, &mut w, &extended(1));
    let plain = create(&table, &mut w, &nat(2));
    create(&table, &mut w, &extended(3));
    assert_eq!(table.insert(&mut w, &extended(4)), Insert::NoExtension);
    assert_eq!(table.lookup(&nat(4).forward), Find::Miss);
    assert_eq!(table.insert(&mut w, &extended(1)), Insert::NoExtension, "before it is known that the flow is there");
    assert!(table.extension(table.entry(plain)).is_none());
    assert_eq!(table.entry(first).state().flags() & flag::EXTENDED, flag::EXTENDED);
    let record = table.extension(table.entry(first)).unwrap();
    assert_eq!(record.shifts(), [Shift::by(1), Shift::default()]);
    assert!(table.end(&mut w, first));
    assert_eq!(record.shifts()[0], Shift::by(1), "readable until the next quiet point");
    settle(&table, &mut w);
    assert_eq!(table.extensions_used(), 1);
    let again = create(&table, &mut w, &extended(4));
    assert_eq!(table.extension(table.entry(again)).unwrap().shifts()[0], Shift::by(4));
    assert_eq!(table.len(), 3);
}

#[test]
fn impossible_sizes_are_refused() {
    assert!(matches!(FlowTable::<V4>::anonymous(0, 1), Err(TableError::Flows(0))));
    assert!(matches!(FlowTable::<V4>::anonymous(u32::MAX, 1), Err(TableError::Flows(u32::MAX))));
    let many = Capacity { flows: 1, extensions: u32::MAX };
    assert!(matches!(FlowTable::<V4>::anonymous(many, 1), Err(TableError::Extensions(u32::MAX))));
    assert!(matches!(FlowTable::<V4>::anonymous(1, 0), Err(TableError::Workers(0))));
    assert!(matches!(FlowTable::<V4>::anonymous(1, 65), Err(TableError::Workers(65))));
}

#[test]
fn a_file_keeps_the_flows_and_drops_the_expired() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows");
    let (table, opened) = FlowTable::<V4>::open(&path, 1000, 1, NOW).unwrap();
    assert_eq!(opened, Opened::Created);
    let mut w = table.register(WorkerIndex(0)).unwrap();
    for n in 0..1000 {
        create(&table, &mut w, &NewFlow { deadline: NOW.after(Ticks(1 + n)), ..nat(n) });
    }
    assert!(matches!(FlowTable::<V4>::open(&path, 1000, 1, NOW), Err(TableError::InUse { .. })));
    drop(table);

    let (table, opened) = FlowTable::<V4>::open(&path, 1000, 1, NOW.after(Ticks(300))).unwrap();
    assert_eq!(opened, Opened::Reopened { flows: 700 });
    assert_eq!(table.len(), 700);
    let mut w = table.register(WorkerIndex(0)).unwrap();
    for n in 0..1000 {
        assert_eq!(matches!(table.lookup(&nat(n).forward), Find::Hit { .. }), n >= 300, "{n}");
        assert_eq!(matches!(table.lookup(&nat(n).reverse.unwrap()), Find::Hit { .. }), n >= 300, "{n}");
    }
    for n in 0..300 {
        create(&table, &mut w, &nat(n));
    }
    assert_eq!(table.insert(&mut w, &nat(1000)), Insert::Full);
}

#[test]
fn a_file_of_something_else_is_replaced_and_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows");
    std::fs::write(&path, vec![0xff; 1 << 20]).unwrap();
    let opened = |flows| FlowTable::<V4>::open(&path, flows, 1, NOW).unwrap().1;
    assert_eq!(opened(100), Opened::Replaced { why: Unfit::NoTable });
    assert_eq!(opened(100), Opened::Reopened { flows: 0 });
    assert_eq!(opened(2000), Opened::Replaced { why: Unfit::Flows(100) });
    let fewer = Capacity { flows: 2000, extensions: 7 };
    let replaced = FlowTable::<V4>::open(&path, fewer, 1, NOW).unwrap().1;
    assert_eq!(replaced, Opened::Replaced { why: Unfit::Extensions(500) });
    let (six, opened) = FlowTable::<V6>::open(&path, 2000, 1, NOW).unwrap();
    assert_eq!(opened, Opened::Replaced { why: Unfit::Family(4) });
    drop(six);
    let error = FlowTable::<V4>::join(&path, 2000, 1).unwrap_err();
    assert!(matches!(error, TableError::Unfit { why: Unfit::Family(6), .. }), "{error}");
    let error = FlowTable::<V4>::open(directory.path(), 1, 1, NOW).unwrap_err();
    assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
}
