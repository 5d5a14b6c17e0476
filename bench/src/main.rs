//! `sluice-bench`: what a packet costs in Sluice, beside its limits.

// Times and counts become figures to read; no digit that matters is lost.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod checked;
mod cli;
mod cookie;
mod document;
mod drive;
mod error;
mod expiry;
mod fill;
mod instructions;
mod limit;
mod loop_ports;
mod measure;
mod memory;
mod new_flow;
mod null_port;
mod packets;
mod pipeline;
mod plan;
mod report;
mod results;
mod scaling;
mod scene;
#[cfg(feature = "afxdp")]
mod steer;
mod swap;
mod sys;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use sluice_bench::machine;

use cli::{Cli, Command, FamilyArg, Format, Mode, PipelineArgs, What};
use error::BenchError;
use plan::Plan;
use results::{Measured, Results};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command, cli.format) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is closed.
            let _ = writeln!(io::stderr(), "sluice-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, format: Format) -> Result<(), BenchError> {
    let (name, about, measured) = match command {
        Command::Document(args) => return document::write(&args.results, &args.page),
        Command::Report(args) => return report::run(args),
        // These start other programs, which would inherit the one core of a thread that measures.
        Command::Instructions(args) => (
            "instructions",
            "Packets of established flows.",
            instructions::run(&args.packet.plan(), args.few, &args.packet.arguments())?,
        ),
        Command::NullPort(args) => {
            let core = What { mode: Mode::Nat, family: FamilyArg::V4 }.plan(1).cores[0];
            let time = Duration::from_secs_f64(args.seconds);
            ("null-port", "DPDK's in-memory port.", null_port::run(usize::from(args.size), core, time)?)
        }
        other => apart(|| measure(other))?,
    };
    let results = Results::new(name, about, measured);
    let mut out = io::stdout().lock();
    match format {
        Format::Text => results.text(&mut out)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, &results)?;
            writeln!(out)?;
        }
    }
    // To standard error, so that a result in a file stays a result.
    results.warnings.iter().try_for_each(|warning| writeln!(io::stderr(), "warning: {warning}"))?;
    Ok(())
}

/// In a thread of its own: measuring pins the thread that it is done in.
fn apart<T: Send>(work: impl FnOnce() -> Result<T, BenchError> + Send) -> Result<T, BenchError> {
    thread::scope(|scope| scope.spawn(work).join().unwrap_or(Err(BenchError::Panicked)))
}

type Named = (&'static str, &'static str, Measured);

fn measure(command: &Command) -> Result<Named, BenchError> {
    Ok(match command {
        Command::Pipeline(args) => ("pipeline", "Packets of established flows in random order.", pipeline(args)?),
        Command::NewFlow(args) => {
            let plan = Plan { protocol: args.protocol.protocol(), ..args.how.plan(args.what, args.flows, 1) };
            ("new-flow", "Packets that open flows; wlc over 10 servers.", new_flow::run(&plan)?)
        }
        Command::Cookie(args) => {
            let plan = args.how.plan(args.what, args.flows, 1);
            ("cookie", "The SYN proxy, with proxied connections in the table.", cookie::run(&plan)?)
        }
        Command::Scaling(args) => {
            let plan = args.how.plan(args.what, args.flows, usize::from(args.workers));
            ("scaling", "Workers over one table, each alone and all at once.", scaling::run(&plan)?)
        }
        Command::Fill(args) => {
            let plan = What { mode: Mode::Nat, family: args.family }.plan(args.flows);
            ("fill", "The flow table alone, the fuller it is.", fill::run(&plan)?)
        }
        Command::Expiry(args) => ("expiry", "Expiry without packets.", expiry::run(&args.what.plan(args.flows))?),
        Command::Memory(args) => ("memory", "What a flow takes of memory.", memory::run(args.flows)?),
        Command::Swap(args) => {
            let plan = args.what.plan(args.flows);
            let forwarder = plan.cores[0];
            let plan = Plan { cores: vec![0, forwarder], services: args.services, ..plan };
            let time = Duration::from_secs_f64(args.seconds);
            ("swap", "Turns of a worker while snapshots are swapped.", swap::run(&plan, time)?)
        }
        #[cfg(feature = "afxdp")]
        Command::Steer(args) => ("steer", "A frame in the program on the interface.", steer::run(args)?),
        Command::Forward(args) => (
            "forward",
            "Packets that were counted.",
            instructions::forward(&args.packet.plan(), args.part, args.packets)?,
        ),
        Command::Instructions(_) | Command::NullPort(_) | Command::Report(_) | Command::Document(_) => {
            ("", "", Measured::default())
        }
    })
}

fn pipeline(args: &PipelineArgs) -> Result<Measured, BenchError> {
    let plan = Plan {
        protocol: args.protocol.protocol(),
        direction: args.direction.flowing(),
        ..args.how.plan(args.what, args.flows, usize::from(args.workers))
    };
    if args.verify {
        let frames = pipeline::verify(&plan)?;
        writeln!(io::stderr(), "verified: {frames} frames parsed, every checksum and address right")?;
    }
    pipeline::run(&plan)
}
