//! Everything at once: each measurement's rows in a file of its own.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use dataplane::ident::Protocol;
use dataplane::service::Method;

use crate::cli::{Direction, FamilyArg, Mode, PacketArgs, ReportArgs, Transport, What};
use crate::error::BenchError;
use crate::packets::{Family, Size};
use crate::plan::{Flowing, Plan};
use crate::results::{Measured, Results};
use crate::{apart, cookie, expiry, fill, instructions, memory, new_flow, null_port, pipeline, scaling, swap};

/// One file of the report.
pub(crate) struct Item {
    pub(crate) name: &'static str,
    about: &'static str,
    run: fn(&Scope) -> Result<Measured, BenchError>,
}

/// All of them, in the order in which they are measured.
pub(crate) const ITEMS: [Item; 12] = [
    Item {
        name: "pipeline",
        about: "Packets of established TCP flows in random order, requests, one worker.",
        run: modes_and_flows,
    },
    Item { name: "kinds", about: "The same for UDP, and for replies, where the method has any.", run: kinds },
    Item {
        name: "sizes",
        about: "The same for frames of other sizes; the last is IMIX, with 361 bytes on average.",
        run: sizes,
    },
    Item { name: "new-flow", about: "Packets that open flows; wlc over 10 servers.", run: new_flows },
    Item { name: "cookie", about: "The SYN proxy, with proxied connections in the table.", run: cookies },
    Item { name: "scaling", about: "Two workers over one table, each alone and both at once.", run: scaled },
    Item { name: "fill", about: "The flow table alone, the fuller it is (IPv4, two keys a flow).", run: filled },
    Item { name: "expiry", about: "Expiry without packets.", run: expired },
    Item { name: "memory", about: "What a flow takes of memory.", run: |scope| memory::run(scope.usual) },
    Item { name: "swap", about: "Turns of a worker while snapshots of 10 000 services are swapped.", run: swapped },
    Item {
        name: "instructions",
        about: "Instructions and mispredicted branches a packet, counted by callgrind, with 1 000 flows.",
        run: counted,
    },
    Item { name: "null-port", about: "DPDK's in-memory port, in the same run.", run: null_ports },
];

/// How much of everything.
struct Scope {
    flows: Vec<u32>,
    /// Flows where only one number of them is measured.
    usual: u32,
    packets: u64,
    repetitions: u32,
    /// Of what is measured for a time.
    time: Duration,
}

impl Scope {
    fn of(args: &ReportArgs) -> Self {
        let (packets, repetitions, seconds) = if args.quick { (4_000_000, 3, 1.5) } else { (20_000_000, 5, 4.0) };
        let packets = args.packets.unwrap_or(packets);
        // Who asks for few packets wants to see it work.
        let seconds = if packets < 1_000_000 { 0.1 } else { seconds };
        let time = Duration::from_secs_f64(seconds);
        Self { flows: args.flows.clone(), usual: args.usual, packets, repetitions, time }
    }

    fn plan(&self, mode: Mode, family: FamilyArg, flows: u32) -> Plan {
        let plan = What { mode, family }.plan(flows);
        Plan { packets: self.packets, repetitions: self.repetitions, ..plan }
    }
}

/// Measures, writes the files, and says how long each took. What cannot be measured here, for want of a program or of a
/// second core, says so in its file.
///
/// # Errors
/// When a measurement fails or a file cannot be written.
pub(crate) fn run(args: &ReportArgs) -> Result<(), BenchError> {
    let scope = Scope::of(args);
    fs::create_dir_all(&args.out).map_err(|source| file("create", &args.out, source))?;
    if let Some(unknown) = args.only.iter().find(|only| ITEMS.iter().all(|item| item.name != *only)) {
        return Err(BenchError::NoItem(unknown.clone()));
    }
    for item in ITEMS.iter().filter(|item| args.only.is_empty() || args.only.iter().any(|only| only == item.name)) {
        let begin = Instant::now();
        let measured = match (item.run)(&scope) {
            Err(absent @ (BenchError::NotInstalled { .. } | BenchError::NoCore { .. })) => {
                Measured { rows: Vec::new(), warnings: vec![absent.to_string()] }
            }
            other => other?,
        };
        let results = Results::new(item.name, item.about, measured);
        write(&args.out.join(format!("{}.json", item.name)), &results)?;
        let mut out = io::stdout().lock();
        writeln!(out, "{} ({:.0} s)", item.name, begin.elapsed().as_secs_f64())?;
        results.text(&mut out)?;
        results.warnings.iter().try_for_each(|warning| writeln!(io::stderr(), "warning: {}: {warning}", item.name))?;
        writeln!(out)?;
    }
    Ok(())
}

fn write(path: &Path, results: &Results) -> Result<(), BenchError> {
    let text = serde_json::to_string_pretty(results)?;
    fs::write(path, text + "\n").map_err(|source| file("write", path, source))
}

pub(crate) fn file(what: &'static str, path: &Path, source: io::Error) -> BenchError {
    BenchError::File { what, path: path.into(), source }
}

const MODES: [Mode; 4] = [Mode::Nat, Mode::Dr, Mode::Tun, Mode::Fullnat];
const FAMILIES: [FamilyArg; 2] = [FamilyArg::V4, FamilyArg::V6];

/// Measures each plan and puts the rows below each other.
fn all(
    plans: impl IntoIterator<Item = Plan>,
    run: impl Fn(&Plan) -> Result<Measured, BenchError> + Sync,
) -> Result<Measured, BenchError> {
    let mut measured = Measured::default();
    for plan in plans {
        measured.extend(apart(|| run(&plan))?);
    }
    Ok(measured)
}

fn each_mode(scope: &Scope, flows: u32) -> Vec<Plan> {
    let of_mode = |mode| FAMILIES.into_iter().map(move |family| (mode, family));
    MODES.into_iter().flat_map(of_mode).map(|(mode, family)| scope.plan(mode, family, flows)).collect()
}

fn modes_and_flows(scope: &Scope) -> Result<Measured, BenchError> {
    let plans = each_mode(scope, 0);
    let plans = plans.iter().flat_map(|plan| scope.flows.iter().map(|flows| Plan { flows: *flows, ..plan.clone() }));
    all(plans, pipeline::run)
}

fn kinds(scope: &Scope) -> Result<Measured, BenchError> {
    let mut plans = Vec::new();
    for plan in each_mode(scope, scope.usual) {
        plans.push(Plan { protocol: Protocol::Udp, ..plan.clone() });
        if plan.method.is_two_way() {
            plans.push(Plan { direction: Flowing::Reply, ..plan.clone() });
            plans.push(Plan { direction: Flowing::Both, ..plan });
        }
    }
    all(plans, pipeline::run)
}

fn sizes(scope: &Scope) -> Result<Measured, BenchError> {
    let plan = scope.plan(Mode::Nat, FamilyArg::V4, scope.usual);
    let sizes = [Size::Fixed(64), Size::Fixed(512), Size::Fixed(1500), Size::Imix];
    all(sizes.map(|size| Plan { size, ..plan.clone() }), pipeline::run)
}

fn new_flows(scope: &Scope) -> Result<Measured, BenchError> {
    all(each_mode(scope, scope.usual), new_flow::run)
}

fn cookies(scope: &Scope) -> Result<Measured, BenchError> {
    let plans = FAMILIES.map(|family| scope.plan(Mode::Nat, family, scope.usual));
    all(plans, cookie::run)
}

fn scaled(scope: &Scope) -> Result<Measured, BenchError> {
    let plan = scope.plan(Mode::Nat, FamilyArg::V4, scope.usual);
    all([Plan { cores: vec![0, 1], ..plan }], scaling::run)
}

fn filled(scope: &Scope) -> Result<Measured, BenchError> {
    all([scope.plan(Mode::Nat, FamilyArg::V4, scope.usual)], fill::run)
}

fn expired(scope: &Scope) -> Result<Measured, BenchError> {
    let plans = [(Method::Nat, Family::V4), (Method::Nat, Family::V6), (Method::FullNat, Family::V4)];
    let plan = scope.plan(Mode::Nat, FamilyArg::V4, scope.usual);
    all(plans.map(|(method, family)| Plan { method, family, ..plan.clone() }), expiry::run)
}

fn swapped(scope: &Scope) -> Result<Measured, BenchError> {
    let plan = scope.plan(Mode::Nat, FamilyArg::V4, scope.usual.min(100_000));
    all([Plan { cores: vec![0, 1], services: 10_000, ..plan }], |plan| swap::run(plan, scope.time))
}

fn counted(scope: &Scope) -> Result<Measured, BenchError> {
    let mut measured = Measured::default();
    for mode in MODES {
        for family in FAMILIES {
            let what = What { mode, family };
            let packet = PacketArgs {
                what,
                flows: scope.usual.min(1_000),
                protocol: Transport::Tcp,
                direction: Direction::Request,
                size: Size::Fixed(64),
            };
            let few = instructions::FEW.min(scope.packets);
            measured.extend(instructions::run(&packet.plan(), few, &packet.arguments())?);
        }
    }
    Ok(measured)
}

fn null_ports(scope: &Scope) -> Result<Measured, BenchError> {
    let core = scope.plan(Mode::Nat, FamilyArg::V4, 1).cores[0];
    null_port::run(64, core, scope.time.max(Duration::from_secs(3)))
}
