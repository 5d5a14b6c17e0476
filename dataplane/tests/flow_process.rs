//! One table's file in two processes, one of which is killed at whatever it is doing: the other goes on, and the next
//! start finds every flow that was made and none twice.

// The lint knows tests, not their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{HashMap, HashSet};
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dataplane::clock::Tick;
use dataplane::flow::{
    Capacity, Find, FlowKey, FlowTable, FlowWorker, Insert, NewExtension, NewFlow, Opened, Shift, V4,
};
use dataplane::ident::{NetPort, Protocol, WorkerIndex};

const FLOWS: u32 = 20_000;
/// Every fourth flow has an extension record.
const CAPACITY: Capacity = Capacity { flows: FLOWS, extensions: FLOWS / 4 };
const ROUNDS: u32 = 12;
const CHILD: &str = "the_other_process";
const NOW: Tick = Tick::new(5);
/// Where the parent tells its child the table's file.
const VARIABLE: &str = "SLUICE_TEST_FLOW_TABLE";

fn key(source: u32, destination: u32) -> FlowKey<Ipv4Addr> {
    FlowKey {
        source: Ipv4Addr::from(source),
        destination: Ipv4Addr::from(destination),
        source_port: NetPort::new(1),
        destination_port: NetPort::new(2),
        protocol: Protocol::Tcp,
    }
}

/// The flow of client `n`, by `server`: the two processes choose different ones.
fn flow(n: u32, server: u32) -> NewFlow<V4> {
    NewFlow {
        forward: key(n, 1 << 30),
        reverse: Some(key(1 << 31 | server, n)),
        destination: server,
        state: 0,
        flags: 0,
        deadline: Tick::new(1000),
        client_mac: None,
        return_hop: 0,
        extension: extension(n, server),
        controller: None,
    }
}

/// The record of a flow that has one.
fn extension(n: u32, server: u32) -> Option<NewExtension> {
    let shifts = [Shift::by(n), Shift::by(server)];
    n.is_multiple_of(4).then_some(NewExtension { shifts, ..NewExtension::default() })
}

fn made(table: &FlowTable<V4>, w: &mut FlowWorker<V4>, n: u32, server: u32) -> bool {
    table.quiesce(w);
    match table.insert(w, &flow(n, server)) {
        Insert::Created(_) => true,
        Insert::Adopted(_) | Insert::Contended | Insert::Full | Insert::NoExtension => false,
        Insert::ReverseTaken => panic!("nobody else has this reverse key"),
    }
}

#[test]
#[ignore = "started by the other test, as its second process"]
fn the_other_process() {
    let path = env::var_os(VARIABLE).expect("run by the other test only");
    let table = FlowTable::<V4>::join(Path::new(&path), CAPACITY, 2).unwrap();
    let mut w = table.register(WorkerIndex(1)).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "ready").unwrap();
    for n in 0..FLOWS {
        if made(&table, &mut w, n, 2) {
            writeln!(out, "made {n}").unwrap();
        }
    }
    // To be killed, never to end by itself.
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn second_process(path: &Path) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args([CHILD, "--exact", "--ignored", "--nocapture", "--test-threads", "1"])
        .env(VARIABLE, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the second process ended early");
    }
    (child, out)
}

/// Runs both until the second is killed after about `kill_at` of the first's inserts. Gives who made which flow.
fn run(path: &Path, kill_at: u32) -> HashMap<u32, u32> {
    let (table, opened) = FlowTable::<V4>::open(path, CAPACITY, 2, NOW).unwrap();
    assert!(matches!(opened, Opened::Created), "{opened:?}");
    let mut w = table.register(WorkerIndex(0)).unwrap();
    let (mut child, out) = second_process(path);
    let reader = std::thread::spawn(move || {
        let lines = out.lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix("made ")?.parse().ok()).collect::<Vec<u32>>()
    });
    let mut owners = HashMap::new();
    for n in 0..FLOWS {
        if n == kill_at {
            child.kill().unwrap();
        }
        if made(&table, &mut w, n, 1) {
            owners.insert(n, 1);
        }
    }
    child.wait().unwrap();
    for n in reader.join().unwrap() {
        assert_eq!(owners.insert(n, 2), None, "flow {n} was made twice");
    }
    owners
}

fn check(path: &Path, owners: &HashMap<u32, u32>) {
    let (table, opened) = FlowTable::<V4>::open(path, CAPACITY, 2, NOW).unwrap();
    let mut seen = HashSet::new();
    table.for_each(|entry| assert!(seen.insert(entry.forward()), "{:?} is there twice", entry.forward()));
    assert_eq!(opened, Opened::Reopened { flows: seen.len() as u32 });
    for (n, server) in owners {
        let new = flow(*n, *server);
        let Find::Hit { flow, .. } = table.lookup(&new.forward) else { panic!("flow {n} is lost") };
        assert_eq!(table.entry(flow).destination(), *server);
        let record = table.extension(table.entry(flow)).map(dataplane::flow::Extension::shifts);
        assert_eq!(record, new.extension.map(|new| new.shifts), "the record of flow {n}");
        assert!(matches!(table.lookup(&new.reverse.unwrap()), Find::Hit { flow: same, .. } if same == flow));
    }
    // What was made but not told of, because the process died between the two, may be there: one flow.
    assert!(seen.len() <= owners.len() + 1, "{} flows, {} were made", seen.len(), owners.len());
    // Every other entry is free, and every other record.
    let extended = seen.iter().filter(|key| u32::from(key.source).is_multiple_of(4)).count();
    assert_eq!(table.extensions_used() as usize, extended);
    let mut w = table.register(WorkerIndex(0)).unwrap();
    for n in 0..FLOWS - seen.len() as u32 {
        // The records go to the first of them.
        let with_record = n < CAPACITY.extensions - extended as u32;
        let n = FLOWS + if with_record { 4 * n } else { 4 * n + 1 };
        assert!(made(&table, &mut w, n, 1), "entry or record {n} is lost");
    }
    assert_eq!(table.insert(&mut w, &flow(FLOWS * 9, 1)), Insert::Full);
}

#[test]
fn a_killed_process_leaves_a_table_that_is_whole() {
    for round in 0..ROUNDS {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = directory.path().join("flows");
        let owners = run(&path, FLOWS / (ROUNDS + 1) * (round + 1) + round);
        check(&path, &owners);
    }
}
