//! `sluice-pktgen`: load for a director, by AF_XDP, and what became of it.

// Times and counts become figures to read; no digit that matters is lost.
#![allow(clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod cli;
mod error;
mod link;
mod number;
mod report;
mod stop;
mod wire;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Wire(args) => wire::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do when standard error is closed.
            let _ = writeln!(io::stderr(), "sluice-pktgen: {error}");
            ExitCode::FAILURE
        }
    }
}
