//! `sluice-bench`: what a packet costs in Sluice, beside its limits.

// Times and counts become figures to read; no digit that matters is lost.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod checked;
mod error;
mod limit;
mod loop_ports;
mod measure;
mod new_flow;
mod packets;
mod pipeline;
mod report;
mod scene;
mod sys;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dataplane::ident::Protocol;
use dataplane::service::Method;
use serde::Serialize;
use sluice_bench::machine;

use error::BenchError;
use loop_ports::LoopPorts;
use packets::Family;
use pipeline::Plan;

/// Measures what a packet costs in Sluice, beside its limits.
///
/// Packets come from memory and go nowhere; between lies the worker loop that forwards in production. Build with
/// --release, and let nothing else run.
#[derive(Parser, Debug)]
#[command(name = "sluice-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// A packet of an established flow
    ///
    /// Opens the flows by real segments, then forwards packets of flows chosen at random. Beside it: the bare port in
    /// the same loop, and the least that memory of the table's size allows.
    Pipeline(PipelineArgs),
    /// A packet that opens a flow (wlc over 10 servers, both keys inserted)
    NewFlow(NewFlowArgs),
    /// A markdown table of all modes, both families and several numbers of flows
    Report(ReportArgs),
}

#[derive(Args, Debug)]
struct PipelineArgs {
    #[command(flatten)]
    what: What,
    /// Flows in the table, at most 1 000 000 000
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    flows: u32,
    /// What the flows are
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    protocol: Transport,
    #[command(flatten)]
    how: How,
    /// Workers over one table, each on a core of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    workers: u8,
    /// Parse every frame that leaves with another library and verify its checksums, then measure
    #[arg(long)]
    verify: bool,
}

#[derive(Args, Debug)]
struct NewFlowArgs {
    #[command(flatten)]
    what: What,
    /// Flows in the table before, at most 500 000 000
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=500_000_000))]
    flows: u32,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct ReportArgs {
    /// Numbers of flows
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_000_000, 10_000_000])]
    flows: Vec<u32>,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct What {
    /// How packets reach the real servers
    #[arg(long, value_enum, default_value_t = Mode::Nat)]
    mode: Mode,
    /// Address family, 4 or 6
    #[arg(long, value_enum, default_value_t = FamilyArg::V4)]
    family: FamilyArg,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Args, Debug)]
struct How {
    /// Bytes of a frame without FCS; no less than its headers
    #[arg(long, default_value_t = 64, value_parser = parse_size)]
    size: usize,
    /// Packets to measure, over all repetitions
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    packets: u64,
    /// Repetitions, of which the median is told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: u32,
    /// The core of the first worker; the others take those behind it. Default: the last ones
    #[arg(long)]
    core: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Mode {
    Nat,
    Dr,
    Tun,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum FamilyArg {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Transport {
    Tcp,
    Udp,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Format {
    Text,
    Json,
}

fn parse_size(text: &str) -> Result<usize, String> {
    let largest = LoopPorts::largest();
    let size: usize = text.parse().map_err(|_| "not a number of bytes".to_owned())?;
    if size <= largest { Ok(size) } else { Err(format!("frames have at most {largest} bytes")) }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Pipeline(args) => measure_pipeline(&args),
        Command::NewFlow(args) => measure_new_flow(&args),
        Command::Report(args) => print_report(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is closed.
            let _ = writeln!(io::stderr(), "sluice-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_pipeline(args: &PipelineArgs) -> Result<(), BenchError> {
    let protocol = match args.protocol {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    };
    let plan = Plan { protocol, ..plan(&args.what, args.flows, &args.how, usize::from(args.workers)) };
    if args.verify {
        let frames = pipeline::verify(&plan)?;
        writeln!(io::stderr(), "verified: {frames} frames parsed, every checksum and address right")?;
    }
    let outcome = pipeline::run(&plan)?;
    match args.what.format {
        Format::Text => report::pipeline_text(&mut io::stdout().lock(), &outcome)?,
        Format::Json => json(&outcome, &outcome.warnings)?,
    }
    Ok(())
}

fn measure_new_flow(args: &NewFlowArgs) -> Result<(), BenchError> {
    let outcome = new_flow::run(&plan(&args.what, args.flows, &args.how, 1))?;
    match args.what.format {
        Format::Text => report::new_flow_text(&mut io::stdout().lock(), &outcome)?,
        Format::Json => json(&outcome, &outcome.warnings)?,
    }
    Ok(())
}

fn print_report(args: &ReportArgs) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    report::table_head(&mut out)?;
    for mode in [Mode::Nat, Mode::Dr, Mode::Tun] {
        for family in [FamilyArg::V4, FamilyArg::V6] {
            for &flows in &args.flows {
                let what = What { mode, family, format: Format::Text };
                let outcome = pipeline::run(&plan(&what, flows, &args.how, 1))?;
                report::table_line(&mut out, &outcome)?;
            }
        }
    }
    report::table_foot(&mut out, args.how.size)?;
    Ok(())
}

fn plan(what: &What, flows: u32, how: &How, workers: usize) -> Plan {
    let method = match what.mode {
        Mode::Nat => Method::Nat,
        Mode::Dr => Method::Dr,
        Mode::Tun => Method::Tun,
    };
    let family = match what.family {
        FamilyArg::V4 => Family::V4,
        FamilyArg::V6 => Family::V6,
    };
    // The last cores: interrupts and other programs like the first.
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let first = how.core.unwrap_or_else(|| count.saturating_sub(workers));
    Plan {
        method,
        family,
        protocol: Protocol::Tcp,
        flows,
        size: how.size,
        packets: how.packets,
        cores: (first..first + workers).collect(),
        repetitions: how.repetitions,
    }
}

fn json(outcome: &impl Serialize, warnings: &[String]) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, outcome)?;
    writeln!(out)?;
    report::warn(warnings)?;
    Ok(())
}
