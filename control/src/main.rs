//! The program `sluice`.

use std::process::ExitCode;

fn main() -> ExitCode {
    control::cli::main()
}
