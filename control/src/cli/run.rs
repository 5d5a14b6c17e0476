//! `sluice run`: the guard with a director below it, or the director alone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{StateArguments, block_on, check, fail};
use crate::director::options::RunOptions;
use crate::{director, guard, logging};

#[derive(Debug, Args)]
#[command(after_help = "\
SIGTERM and SIGINT stop it and leave the machine as it was found, SIGHUP reads the configuration again.
Should the director be killed, established connections go on when the guard has started it again.

Examples:
  sluice run -f /etc/keepalived/keepalived.conf
  sluice run -f services.conf -f dataplane.conf --state-dir /run/sluice-test --log debug")]
pub(super) struct RunArguments {
    #[command(flatten)]
    director: DirectorArguments,
    /// Run the director alone: nobody starts it again
    #[arg(long)]
    no_guard: bool,
    /// Seconds after which a director that died must serve again; later, its addresses are removed for a peer to take over
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    respawn_limit: u64,
}

#[derive(Debug, Args)]
pub(super) struct DirectorArguments {
    /// Configuration file; several are read as one configuration
    #[arg(short, long = "file", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A file for the block `dataplane`, read after FILE if it exists
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/dataplane.conf")]
    dataplane_file: PathBuf,
    /// What `@id` lines are compared with; default: the host name up to the first dot
    #[arg(long, value_name = "ID")]
    config_id: Option<String>,
    #[command(flatten)]
    state: StateArguments,
    /// What to log: error, warn, info, debug, trace, or by module; default `$RUST_LOG` or info
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
}

impl DirectorArguments {
    fn options(&self) -> RunOptions {
        RunOptions {
            files: self.files.clone(),
            dataplane_file: self.dataplane_file.clone(),
            config_id: self.config_id.clone().unwrap_or_else(check::host_id),
            state_dir: self.state.state_dir.clone(),
            log: self.log.clone(),
        }
    }
}

pub(super) fn run(arguments: &RunArguments) -> ExitCode {
    let options = arguments.director.options();
    if let Err(error) = logging::init(options.log.as_deref()) {
        return fail("cannot start", &error);
    }
    if arguments.no_guard {
        return alone(&options);
    }
    let limits =
        guard::Limits { back_within: Duration::from_secs(arguments.respawn_limit), ..guard::Limits::default() };
    match block_on(guard::run(&options, limits)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => fail("cannot start", &error),
        Err(error) => fail("cannot start", &error),
    }
}

/// The director below a guard, which holds the lock.
pub(super) fn director(arguments: &DirectorArguments) -> ExitCode {
    let options = arguments.options();
    if let Err(error) = logging::init(options.log.as_deref()) {
        return fail("cannot start", &error);
    }
    finish(block_on(director::run(&options, director::Guarded::ByStdin)))
}

fn alone(options: &RunOptions) -> ExitCode {
    finish(block_on(director::run(options, director::Guarded::Alone)))
}

fn finish(result: Result<Result<(), director::DirectorError>, std::io::Error>) -> ExitCode {
    match result {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => fail("cannot start", &error),
        Err(error) => fail("cannot start", &error),
    }
}
