//! The command line: what can be measured, and how long it takes.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dataplane::ident::Protocol;
use dataplane::service::Method;

use crate::instructions::{self, Part};
use crate::loop_ports::LoopPorts;
use crate::packets::{Family, Size};
use crate::plan::{Flowing, Plan};
use crate::scene::Handshake;

/// Measures what a packet costs in Sluice, beside its limits.
///
/// Packets come from memory and go nowhere; between lies the worker loop that forwards in production. Build with
/// --release, and let nothing else run. The times in brackets are those of two cores of an AMD EPYC with the defaults.
#[derive(Parser, Debug)]
#[command(name = "sluice-bench", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How to print the result
    #[arg(long, value_enum, global = true, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// A packet of an established flow (10 s; 10 million flows: 20 s)
    ///
    /// Opens the flows by real segments, then forwards packets of flows chosen at random. Beside it: the bare port in
    /// the same loop, and the least that memory of the table's size allows.
    Pipeline(PipelineArgs),
    /// A packet that opens a flow: wlc over 10 servers, both keys inserted (3 s)
    NewFlow(NewFlowArgs),
    /// A SYN answered by a cookie, the acknowledgement that brings it back, the server's answer (15 s)
    Cookie(CookieArgs),
    /// Workers over one table, each alone and all at once: own flows, one flow, one service (15 s)
    Scaling(ScalingArgs),
    /// The flow table from 10 % full to 95 %: inserts, hits, misses (3 s)
    Fill(FlowsArgs),
    /// An entry that expiry looks at, and a flow that it ends (2 s)
    Expiry(ExpiryArgs),
    /// Bytes of a flow, with and without an extension record (2 s)
    Memory(FlowsArgs),
    /// Snapshots of many services swapped while packets flow (8 s)
    Swap(SwapArgs),
    /// Instructions and mispredicted branches a packet, counted by callgrind (20 s; needs valgrind)
    Instructions(InstructionsArgs),
    /// A frame in the XDP program that decides whose it is, by the kernel's own trial runs (2 s; needs root)
    #[cfg(feature = "afxdp")]
    Steer(SteerArgs),
    /// dpdk-testpmd between two in-memory ports, for comparison (5 s; needs dpdk-dev)
    NullPort(NullPortArgs),
    /// All of these, each written to a file (15 min; with --quick 5 min)
    Report(ReportArgs),
    /// Makes docs/performance.md and its pictures of the files that `report` and scripts/compare wrote (1 s)
    Document(DocumentArgs),
    /// What `instructions` runs under callgrind
    #[command(hide = true)]
    Forward(ForwardArgs),
}

/// What packets are.
#[derive(Args, Debug)]
pub(crate) struct PacketArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Flows in the table
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) flows: u32,
    /// What the flows are
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    pub(crate) protocol: Transport,
    /// Whose packets are forwarded; only NAT and FULLNAT see replies
    #[arg(long, value_enum, default_value_t = Direction::Request)]
    pub(crate) direction: Direction,
    /// Bytes of a frame without FCS, or `imix`
    #[arg(long, default_value = "64", value_parser = parse_size)]
    pub(crate) size: Size,
}

#[derive(Args, Debug)]
pub(crate) struct InstructionsArgs {
    #[command(flatten)]
    pub(crate) packet: PacketArgs,
    /// Packets of the short run; the long one has eight times as many, and the difference is told
    #[arg(long, default_value_t = instructions::FEW, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) few: u64,
}

#[derive(Args, Debug)]
pub(crate) struct ForwardArgs {
    #[command(flatten)]
    pub(crate) packet: PacketArgs,
    /// What is run
    #[arg(long, value_enum)]
    pub(crate) part: Part,
    /// Packets, to the end of the burst
    #[arg(long)]
    pub(crate) packets: u64,
}

#[derive(Args, Debug)]
pub(crate) struct ScalingArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Established flows of all workers together
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) flows: u32,
    /// Workers, each on a core of its own
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=64))]
    pub(crate) workers: u8,
    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args, Debug)]
pub(crate) struct FlowsArgs {
    /// Address family, 4 or 6
    #[arg(long, value_enum, default_value_t = FamilyArg::V4)]
    pub(crate) family: FamilyArg,
    /// Flows that fit
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=100_000_000))]
    pub(crate) flows: u32,
}

#[derive(Args, Debug)]
pub(crate) struct ExpiryArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Flows in the table
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) flows: u32,
}

#[derive(Args, Debug)]
pub(crate) struct SwapArgs {
    #[command(flatten)]
    pub(crate) what: What,
    /// Flows in the table
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) flows: u32,
    /// Services, with 10 servers each
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(1..=50_000))]
    pub(crate) services: u16,
    /// Seconds without swaps, and with
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
}

#[cfg(feature = "afxdp")]
#[derive(Args, Debug)]
pub(crate) struct SteerArgs {
    /// Services, real servers and local addresses in the program's maps, of each family
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=2_000))]
    pub(crate) entries: u16,
    /// Runs of the program that one figure is the mean of
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) runs: u32,
    /// Repetitions, of which the median is told
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) repetitions: u32,
}

#[derive(Args, Debug)]
pub(crate) struct NullPortArgs {
    /// Bytes of a frame
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(64..=1514))]
    pub(crate) size: u16,
    /// Seconds
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
}

#[derive(Args, Debug)]
pub(crate) struct DocumentArgs {
    /// Where the results are, with the page's template; pictures are written beside them
    #[arg(long, default_value = "docs/performance")]
    pub(crate) results: PathBuf,
    /// The page
    #[arg(long, default_value = "docs/performance.md")]
    pub(crate) page: PathBuf,
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
    /// Where the files are written
    #[arg(long, default_value = "target/performance")]
    pub(crate) out: PathBuf,
    /// Fewer packets and repetitions
    #[arg(long)]
    pub(crate) quick: bool,
    /// Only these of: pipeline kinds sizes new-flow cookie scaling fill expiry memory swap instructions null-port
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Numbers of flows that a packet's cost is measured at
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000, 10_000_000])]
    pub(crate) flows: Vec<u32>,
    /// Flows in the table of all other measurements
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub(crate) usual: u32,
    /// Packets of each measurement. Default: 20 000 000, with --quick 4 000 000
    #[arg(long)]
    pub(crate) packets: Option<u64>,
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct What {
    /// How packets reach the real servers
    #[arg(long, value_enum, default_value_t = Mode::Nat)]
    pub(crate) mode: Mode,
    /// Address family, 4 or 6
    #[arg(long, value_enum, default_value_t = FamilyArg::V4)]
    pub(crate) family: FamilyArg,
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
    pub(crate) fn plan(self, what: What, flows: u32, workers: usize) -> Plan {
        // The last cores: interrupts and other programs like the first.
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let first = self.core.unwrap_or_else(|| count.saturating_sub(workers));
        Plan {
            size: self.size,
            packets: self.packets,
            cores: (first..first + workers).collect(),
            repetitions: self.repetitions,
            ..what.plan(flows)
        }
    }
}

impl What {
    /// How `forward` is told mode and family.
    pub(crate) fn arguments(self) -> Vec<String> {
        vec!["--mode".into(), name(self.mode), "--family".into(), name(self.family)]
    }

    /// A plan of a few packets for one worker on the last core.
    pub(crate) fn plan(self, flows: u32) -> Plan {
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Plan {
            method: self.mode.method(),
            family: self.family.family(),
            protocol: Protocol::Tcp,
            handshake: Handshake::Direct,
            direction: Flowing::Request,
            flows,
            size: Size::Fixed(64),
            packets: 1,
            cores: vec![count.saturating_sub(1)],
            repetitions: 1,
            services: 1,
        }
    }
}

impl PacketArgs {
    /// How `forward` is told the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let size = match self.size {
            Size::Fixed(bytes) => bytes.to_string(),
            Size::Imix => "imix".to_owned(),
        };
        let mut arguments = self.what.arguments();
        arguments.extend(["--flows".into(), self.flows.to_string(), "--size".into(), size]);
        arguments.extend(["--protocol".into(), name(self.protocol), "--direction".into(), name(self.direction)]);
        arguments
    }

    /// The plan of these packets.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            protocol: self.protocol.protocol(),
            direction: self.direction.flowing(),
            size: self.size,
            ..self.what.plan(self.flows)
        }
    }
}

/// A value as it stands on the command line.
fn name(value: impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn parse_size(text: &str) -> Result<Size, String> {
    if text == "imix" {
        return Ok(Size::Imix);
    }
    let largest = LoopPorts::largest();
    let size: usize = text.parse().map_err(|_| "neither a number of bytes nor `imix`".to_owned())?;
    if size <= largest { Ok(Size::Fixed(size)) } else { Err(format!("frames have at most {largest} bytes")) }
}
