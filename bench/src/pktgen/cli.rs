//! The command line: one command for each thing that the generator does.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::PktgenError;
use crate::wire;

/// Sends, receives and measures packets by AF_XDP, on both sides of a director.
///
/// Places are written [NETNS/]INTERFACE[:QUEUE[-QUEUE]]: with a namespace of `ip netns` in front, one process has its
/// ends on both sides. Every command ends by itself, see --duration; SIGINT or SIGTERM ends it sooner, with its result.
#[derive(Parser, Debug)]
#[command(name = "sluice-pktgen", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Wire(wire::WireArgs),
}

/// What a result is printed as.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Where the work is done.
#[derive(Args, Clone, Debug)]
pub(crate) struct Hardware {
    /// The core that the working thread is bound to. Default: wherever the kernel lets it run
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

impl Hardware {
    /// Binds the calling thread.
    pub(crate) fn pin(&self) -> Result<(), PktgenError> {
        let Some(core) = self.core else { return Ok(()) };
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let id = cores.into_iter().find(|id| id.id == core).ok_or(PktgenError::NoCore(core))?;
        if core_affinity::set_for_current(id) { Ok(()) } else { Err(PktgenError::NoCore(core)) }
    }
}
