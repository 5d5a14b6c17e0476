//! The command line: what can be measured, and how long it takes.

use clap::{Args, Parser, Subcommand, ValueEnum};
use dataplane::ident::Protocol;
use dataplane::service::Method;

use crate::loop_ports::LoopPorts;
use crate::packets::{Family, Size};
use crate::plan::{Flowing, Plan};
use crate::scene::Handshake;

/// Measures what a packet costs in Sluice, beside its limits.
///
/// Packets come from memory and go nowhere; between lies the worker loop that forwards in production. Build with
/// --release, and let nothing else run. The times told are those of two cores at 4 GHz with the defaults.
#[derive(Parser, Debug)]
#[command(name = "sluice-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// A packet of an established flow (10 s)
    ///
    /// Opens the flows by real segments, then forwards packets of flows chosen at random. Beside it: the bare port in
    /// the same loop, and the least that memory of the table's size allows.
    Pipeline(PipelineArgs),
    /// A packet that opens a flow: wlc over 10 servers, both keys inserted (5 s)
    NewFlow(NewFlowArgs),
    /// A SYN answered by a cookie, the acknowledgement that brings it back, the server's answer (5 s)
    Cookie(CookieArgs),
    /// A markdown table of all modes, both families and several numbers of flows (5 min)
    Report(ReportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct PipelineArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Flows in the table, at most 1 000 000 000
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub(crate) flows: u32,
    /// What the flows are
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) protocol: Transport,
    /// Whose packets are forwarded; only NAT and FULLNAT see replies
    #[arg(long, value_enum, default_value_t = Direction::Request)]
    pub(crate) direction: Direction,
    #[command(flatten)]
    pub(crate) how: How,
    /// Workers over one table, each on a core of its own, with flows of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) workers: u8,
    /// Parse every frame that leaves with another library and verify its checksums, then measure
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Args, Debug)]
pub(crate) struct NewFlowArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Flows in the table before, at most 500 000 000
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=500_000_000))]
    pub(crate) flows: u32,
    /// What the flows are
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) protocol: Transport,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args, Debug)]
pub(crate) struct CookieArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Proxied connections in the table before, at most 500 000 000
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=500_000_000))]
    pub(crate) flows: u32,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Numbers of flows
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 1_000_000, 10_000_000])]
    pub(crate) flows: Vec<u32>,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args, Debug)]
pub(crate) struct What {
    /// How packets reach the real servers
    #[arg(long, value_enum, default_value_t = Mode::Nat)]
    pub(crate) mode: Mode,
    /// Address family, 4 or 6
    #[arg(long, value_enum, default_value_t = FamilyArg::V4)]
    pub(crate) family: FamilyArg,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct How {
    /// Bytes of a frame without FCS, no less than its headers; or `imix`: 64, 594 and 1514 bytes as 7 to 4 to 1
    #[arg(long, default_value = "64", value_parser = parse_size)]
    pub(crate) size: Size,
    /// Packets to measure, over all repetitions
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) packets: u64,
    /// Repetitions, of which the median is told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repetitions: u32,
    /// The core of the first worker; the others take those behind it. Default: the last ones
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Mode {
    Nat,
    Dr,
    Tun,
    Fullnat,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum FamilyArg {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Direction {
    /// Those of clients
    Request,
    /// Those of real servers
    Reply,
    /// As many of each
    Both,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Format {
    Text,
    Json,
}

impl Mode {
    pub(crate) const fn method(self) -> Method {
        match self {
            Self::Nat => Method::Nat,
            Self::Dr => Method::Dr,
            Self::Tun => Method::Tun,
            Self::Fullnat => Method::FullNat,
        }
    }
}

impl FamilyArg {
    pub(crate) const fn family(self) -> Family {
        match self {
            Self::V4 => Family::V4,
            Self::V6 => Family::V6,
        }
    }
}

impl Transport {
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Tcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
        }
    }
}

impl Direction {
    pub(crate) const fn flowing(self) -> Flowing {
        match self {
            Self::Request => Flowing::Request,
            Self::Reply => Flowing::Reply,
            Self::Both => Flowing::Both,
        }
    }
}

impl How {
    /// A plan for `workers` workers: TCP, requests, one service; the rest as asked for.
    pub(crate) fn plan(self, what: &What, flows: u32, workers: usize) -> Plan {
        // The last cores: interrupts and other programs like the first.
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let first = self.core.unwrap_or_else(|| count.saturating_sub(workers));
        Plan {
            method: what.mode.method(),
            family: what.family.family(),
            protocol: Protocol::Tcp,
            handshake: Handshake::Direct,
            direction: Flowing::Request,
            flows,
            size: self.size,
            packets: self.packets,
            cores: (first..first + workers).collect(),
            repetitions: self.repetitions,
            services: 1,
        }
    }
}

fn parse_size(text: &str) -> Result<Size, String> {
    if text == "imix" {
        return Ok(Size::Imix);
    }
    let largest = LoopPorts::largest();
    let size: usize = text.parse().map_err(|_| "neither a number of bytes nor `imix`".to_owned())?;
    if size <= largest { Ok(Size::Fixed(size)) } else { Err(format!("frames have at most {largest} bytes")) }
}
