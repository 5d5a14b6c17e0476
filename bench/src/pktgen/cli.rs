//! The command line: one command for each thing that the generator does.

use clap::{Args, Parser, Subcommand, ValueEnum};
use dataplane::worker::Idle;

use crate::error::PktgenError;
use crate::stop::Bounds;
use crate::{connect, reflect, search, send, serve, sink, wire};

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
    Send(Box<send::SendArgs>),
    Sink(sink::SinkArgs),
    Reflect(reflect::ReflectArgs),
    Search(Box<search::SearchArgs>),
    Connect(Box<connect::ConnectArgs>),
    Serve(serve::ServeArgs),
    Wire(wire::WireArgs),
}

/// What a result is printed as.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Format {
    Text,
    Json,
}

/// What to do while no frames come.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum IdleArg {
    /// Spin for ever: the least delay, a whole core
    Busy,
    /// Spin for a while, then sleep until frames come
    Adaptive,
    /// Sleep at once
    Sleep,
}

impl From<IdleArg> for Idle {
    fn from(idle: IdleArg) -> Self {
        match idle {
            IdleArg::Busy => Self::Busy,
            IdleArg::Adaptive => Self::Adaptive,
            IdleArg::Sleep => Self::Sleep,
        }
    }
}

/// How a command with one working loop runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    /// What to do while no frames come, as the director's `idle`; waking up from sleep is part of any latency
    #[arg(long, value_enum, default_value_t = IdleArg::Adaptive)]
    pub(crate) idle: IdleArg,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    #[command(flatten)]
    pub(crate) hardware: Hardware,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
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
