//! The program `sluice`.

use std::process::ExitCode;

use clap::Parser;
use control::cli::check::{self, CheckArgs};

/// A layer-4 director in userspace
#[derive(Parser)]
#[command(name = "sluice", version)]
enum Command {
    /// Check configuration files
    Check(CheckArgs),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Check(args) => check::run(&args),
    }
}
