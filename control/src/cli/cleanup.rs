//! `sluice cleanup`: takes away what a director that was killed left on this machine.

use std::process::ExitCode;

use clap::Args;

use super::{StateArguments, block_on, fail, output};
use crate::director::cleanup;
use crate::state_dir::StateDir;

#[derive(Debug, Args)]
#[command(after_help = "\
Removes the XDP program from the interfaces that have it, the addresses that the director had added, its veth pair, and its files.
Programs and addresses of others are left alone. It may be repeated. It refuses while a director runs on the state directory.")]
pub(super) struct CleanupArguments {
    #[command(flatten)]
    state: StateArguments,
}

pub(super) fn run(arguments: &CleanupArguments) -> ExitCode {
    if let Err(error) = crate::logging::init(None) {
        return fail("cannot clean up", &error);
    }
    let state = StateDir::new(&arguments.state.state_dir);
    let report = match block_on(cleanup::after_death(&state)) {
        Ok(Ok(report)) => report,
        Ok(Err(error)) => return fail("cannot clean up", &error),
        Err(error) => return fail("cannot clean up", &error),
    };
    if let Err(error) = output::print(&report.text()) {
        return fail("cannot print", &error);
    }
    if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
