//! `sluice-bench`: what a packet costs in Sluice, beside its limits.

// Times and counts become figures to read; no digit that matters is lost.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod checked;
mod cli;
mod cookie;
mod drive;
mod error;
mod limit;
mod loop_ports;
mod measure;
mod new_flow;
mod packets;
mod pipeline;
mod plan;
mod report;
mod scene;
mod sys;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use sluice_bench::machine;

use cli::{Cli, Command, CookieArgs, FamilyArg, Format, Mode, NewFlowArgs, PipelineArgs, ReportArgs, What};
use error::BenchError;
use plan::Plan;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Pipeline(args) => measure_pipeline(&args),
        Command::NewFlow(args) => measure_new_flow(&args),
        Command::Cookie(args) => measure_cookie(&args),
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
    let plan = Plan {
        protocol: args.protocol.protocol(),
        direction: args.direction.flowing(),
        ..args.how.plan(&args.what, args.flows, usize::from(args.workers))
    };
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
    let plan = Plan { protocol: args.protocol.protocol(), ..args.how.plan(&args.what, args.flows, 1) };
    let outcome = new_flow::run(&plan)?;
    match args.what.format {
        Format::Text => report::new_flow_text(&mut io::stdout().lock(), &outcome)?,
        Format::Json => json(&outcome, &outcome.warnings)?,
    }
    Ok(())
}

fn measure_cookie(args: &CookieArgs) -> Result<(), BenchError> {
    let outcome = cookie::run(&args.how.plan(&args.what, args.flows, 1))?;
    match args.what.format {
        Format::Text => report::cookie_text(&mut io::stdout().lock(), &outcome)?,
        Format::Json => json(&outcome, &outcome.warnings)?,
    }
    Ok(())
}

fn print_report(args: &ReportArgs) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    report::table_head(&mut out)?;
    for mode in [Mode::Nat, Mode::Dr, Mode::Tun, Mode::Fullnat] {
        for family in [FamilyArg::V4, FamilyArg::V6] {
            for &flows in &args.flows {
                let what = What { mode, family, format: Format::Text };
                let outcome = pipeline::run(&args.how.plan(&what, flows, 1))?;
                report::table_line(&mut out, &outcome)?;
            }
        }
    }
    report::table_foot(&mut out)?;
    Ok(())
}

fn json(outcome: &impl Serialize, warnings: &[String]) -> Result<(), BenchError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, outcome)?;
    writeln!(out)?;
    report::warn(warnings)?;
    Ok(())
}
