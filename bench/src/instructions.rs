//! Instructions and mispredicted branches for each packet, counted by callgrind: the same on every machine and however
//! busy it is.
//!
//! The program runs itself under valgrind, once with few packets and once with more; the difference is free of what
//! it takes to begin.

use std::io;
use std::process::Command;

use clap::ValueEnum;
use dataplane::clock;

use crate::drive::Driver;
use crate::error::BenchError;
use crate::loop_ports::{LoopPorts, bare_turn};
use crate::plan::Plan;
use crate::results::{Measured, Results, Row};

/// What is run under valgrind.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The worker and its port.
    Worker,
    /// The bare port.
    Port,
}

impl Part {
    const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Port => "port",
        }
    }
}

/// Packets of the short run, where not asked otherwise.
pub(crate) const FEW: u64 = 1 << 14;
/// How many times as many the long one has.
const TIMES: u64 = 8;

/// What callgrind counted.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    packets: f64,
    instructions: f64,
    mispredictions: f64,
}

/// Counts for the plan's packets, by runs of `few` and of more; `arguments` say the same plan on the command line of
/// `forward`.
///
/// # Errors
/// When valgrind is not installed, or its answer is not understood.
pub(crate) fn run(plan: &Plan, few: u64, arguments: &[String]) -> Result<Measured, BenchError> {
    let worker = per_packet(Part::Worker, few, arguments)?;
    let port = per_packet(Part::Port, few, arguments)?;
    let row = plan
        .describe()
        .with("direction", plan.direction.name())
        .with("flows", plan.flows)
        .with("size", plan.length())
        .with("instructions_per_packet", worker.instructions)
        .with("port_instructions", port.instructions)
        .with("net_instructions", worker.instructions - port.instructions)
        .with("mispredictions_per_packet", worker.mispredictions);
    Ok(Measured::one(row, Vec::new()))
}

/// Opens the plan's flows and lets `packets` through: what is counted.
///
/// # Errors
/// When it cannot be set up.
pub(crate) fn forward(plan: &Plan, part: Part, packets: u64) -> Result<Measured, BenchError> {
    let mut driver = Driver::new(plan, 0, plan.scene().shared()?)?;
    driver.open(0..plan.flows)?;
    let (requests, replies) = driver.streams()?;
    let mut bare = LoopPorts::new();
    bare.load(requests.clone(), replies.clone());
    driver.worker.ports_mut().load(requests, replies);
    let mut done = 0;
    while done < packets {
        done += match part {
            Part::Worker => driver.worker.turn(clock::since_boot()),
            Part::Port => bare_turn(&mut bare),
        } as u64;
    }
    Ok(Measured::one(Row::default().with("packets", done), Vec::new()))
}

fn per_packet(part: Part, few: u64, arguments: &[String]) -> Result<Counts, BenchError> {
    let (short, long) = (counted(part, few, arguments)?, counted(part, few * TIMES, arguments)?);
    // Each ends with the burst that reaches its number.
    let packets = long.packets - short.packets;
    Ok(Counts {
        packets,
        instructions: (long.instructions - short.instructions) / packets,
        mispredictions: (long.mispredictions - short.mispredictions) / packets,
    })
}

/// Runs this program under callgrind.
fn counted(part: Part, packets: u64, arguments: &[String]) -> Result<Counts, BenchError> {
    let program = std::env::current_exe()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--branch-sim=yes", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["forward", "--format", "json", "--part", part.name(), "--packets", &packets.to_string()])
        .args(arguments)
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BenchError::NotInstalled { program: "valgrind", package: "valgrind" },
            _ => BenchError::Output(error),
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    counts(&told, &said).ok_or_else(|| BenchError::Unexpected { program: "valgrind", said: said.into_owned() })
}

/// Reads what `forward` told and the last lines of callgrind: the names of what it counted and the sums.
fn counts(told: &str, said: &str) -> Option<Counts> {
    let forwarded: Results = serde_json::from_str(told).ok()?;
    let packets = forwarded.rows.first()?.number("packets")?;
    let words = |name: &str| -> Option<Vec<String>> {
        let line = said.lines().find_map(|line| line.split_once(name)?.1.split_once(':'))?;
        Some(line.1.split_whitespace().map(str::to_owned).collect())
    };
    let (names, sums) = (words("Events")?, words("Collected")?);
    let sum = |wanted: &str| -> Option<f64> { sums.get(names.iter().position(|name| name == wanted)?)?.parse().ok() };
    Some(Counts { packets, instructions: sum("Ir")?, mispredictions: sum("Bcm")? + sum("Bim")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_by_the_names_of_events() {
        let said = "==7== Events    : Ir Bc Bcm Bi Bim\n==7== Collected : 1000 200 30 40 5\n";
        let row = Row::default().with("packets", 64);
        let told = serde_json::to_string(&Results::new("forward", "", Measured::one(row, Vec::new()))).unwrap();
        let expected = Counts { packets: 64.0, instructions: 1000.0, mispredictions: 35.0 };
        assert_eq!(counts(&told, said), Some(expected));
        assert_eq!(counts(&told, "==7== Collected : 1000\n"), None);
    }
}
