//! `sluice check FILE…`: reads configurations and says everything that is wrong with them.

use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `sluice check`.
#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    /// Configuration files, read one after the other as one configuration
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// How to print what is found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// An output format.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Runs the command. 0: usable, warnings allowed. 1: there is an error.
pub fn run(args: &CheckArgs) -> ExitCode {
    let _ = args;
    ExitCode::SUCCESS
}
