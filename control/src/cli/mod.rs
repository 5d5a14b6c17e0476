//! The commands of the program `sluice`, one a file.
//!
//! Exit codes: 0 done, 1 failed (the reason stands on standard error), 2 wrong usage, 3 no director answers.

mod capture;
pub mod check;
#[cfg(feature = "afxdp")]
mod cleanup;
mod doctor;
mod output;
mod reload;
pub mod replay;
#[cfg(feature = "afxdp")]
mod run;
mod status;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::state_dir::StateDir;

/// Exit code of a command that needs a running director and finds none.
pub const NO_DIRECTOR: u8 = 3;

const EXAMPLES: &str = "\
Examples:
  sluice check /etc/keepalived/keepalived.conf     what is wrong with a configuration, all at once
  sluice doctor -f /etc/keepalived/keepalived.conf what on this machine is in the way: firewall rules, privilege, MTU …
  sluice run -f /etc/keepalived/keepalived.conf    run the director in the foreground (under systemd: Type=notify)
  sluice status                                    services, servers, workers, ports, drops and their reasons
  sluice reload                                    read the configuration again; also: kill -HUP
  sluice trace host 192.0.2.1 and port 80          what becomes of these packets, step by step, and why
  sluice capture drop -w dropped.pcapng            packets that are dropped, with the reason
  sluice replay --help                             where would these captured packets go, and why?
  sluice cleanup                                   take away what a killed director left: program, addresses, veth

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no director is running.";

/// A layer-4 director in userspace: what LVS does (NAT, DR, TUN), on AF_XDP, from a keepalived.conf.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the director, with a guard above it that starts it again should it die
    #[cfg(feature = "afxdp")]
    Run(run::RunArguments),
    /// Say everything that is wrong with configuration files; nothing is changed
    Check(check::CheckArgs),
    /// Say what on this machine is in a director's way: privilege, kernel, interfaces, firewall rules; nothing is changed
    Doctor(doctor::DoctorArgs),
    /// Show what the running director does
    Status(status::StatusArguments),
    /// Let the running director read its configuration again, whole or not at all
    Reload(StateArguments),
    /// Show what becomes of packets in the running director, step by step
    Trace(trace::TraceArguments),
    /// Write packets of the running director to a pcapng file, as they come, leave or are dropped
    Capture(capture::CaptureArguments),
    /// Send captured packets through the director and show where each would go; needs no privilege
    Replay(replay::ReplayArgs),
    /// Take away what a director that was killed left on this machine
    #[cfg(feature = "afxdp")]
    Cleanup(cleanup::CleanupArguments),
    /// What the guard starts
    #[cfg(feature = "afxdp")]
    #[command(hide = true)]
    Director(run::DirectorArguments),
}

/// Which director is meant.
#[derive(Debug, Args)]
struct StateArguments {
    /// The director's state directory
    #[arg(long, value_name = "DIR", default_value = StateDir::DEFAULT)]
    state_dir: PathBuf,
}

/// Runs the program with the command line of this process.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        #[cfg(feature = "afxdp")]
        Command::Run(arguments) => run::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Reload(arguments) => reload::run(&arguments),
        Command::Trace(arguments) => trace::run(&arguments),
        Command::Capture(arguments) => capture::run(&arguments),
        Command::Replay(arguments) => replay::run(&arguments),
        #[cfg(feature = "afxdp")]
        Command::Cleanup(arguments) => cleanup::run(&arguments),
        #[cfg(feature = "afxdp")]
        Command::Director(arguments) => run::director(&arguments),
    }
}

/// Says on standard error why a command failed, by its whole chain of causes.
fn fail(what: &str, error: &dyn std::error::Error) -> ExitCode {
    say(&format!("{what}: {}", crate::error::chain(error)));
    ExitCode::FAILURE
}

/// One line on standard error.
fn say(text: &str) {
    use std::io::Write;
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "sluice: {text}");
}

/// Runs a future on a single thread.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, std::io::Error> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
