//! Why a benchmark has no result.

use dataplane::flow::TableError;
use dataplane::next_hop::TooManyHops;
use dataplane::service::DuplicateService;

use crate::verify::BadFrame;

/// A benchmark that could not be run, or whose result would mean nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    Service(#[from] DuplicateService),
    #[error(transparent)]
    Hops(#[from] TooManyHops),
    #[error("cannot reserve memory for the memory limit: {0}")]
    Memory(std::io::Error),
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error(transparent)]
    Frame(#[from] BadFrame),
    #[error("core {core} is not among this machine's {cores}; choose others with --core")]
    NoCore { core: usize, cores: usize },
    #[error("in DR and TUN no reply comes back through the director; measure --direction request")]
    OneWay,
    #[error("in DR and TUN there is no SYN proxy; measure --mode nat or --mode fullnat")]
    NoProxy,
    #[error("worker {0} could not be registered")]
    NoWorker(usize),
    #[error("{what}: {expected} expected, {found} found{drops}")]
    Wrong { what: &'static str, expected: u64, found: u64, drops: String },
    #[error("the report has no part {0:?}; `sluice-bench report --help` names them")]
    NoItem(String),
    #[error("{program} is not installed; install the package {package}, or leave this measurement out")]
    NotInstalled { program: &'static str, package: &'static str },
    #[error("{program} did not say what was expected; it said:\n{said}")]
    Unexpected { program: &'static str, said: String },
    #[error("cannot {what} {}: {source}", path.display())]
    File { what: &'static str, path: std::path::PathBuf, source: std::io::Error },
    #[error("{}: {what}", path.display())]
    Page { path: std::path::PathBuf, what: String },
    #[error("cannot draw {}: {what}", path.display())]
    Plot { path: std::path::PathBuf, what: String },
    #[cfg(feature = "afxdp")]
    #[error(transparent)]
    Steer(#[from] dataplane::steer::SteerError),
    #[cfg(feature = "afxdp")]
    #[error(transparent)]
    Socket(#[from] dataplane::port::xsk::XskError),
    #[cfg(feature = "afxdp")]
    #[error("{what}: the steering program decided {decision:?}")]
    Steered { what: String, decision: dataplane::steer::Decision },
    #[cfg(feature = "afxdp")]
    #[error("the embedded object has no program {0}")]
    NoProgram(&'static str),
    #[cfg(feature = "afxdp")]
    #[error("the programs to compare with: {0}")]
    Program(#[from] libbpf_rs::Error),
    #[cfg(feature = "afxdp")]
    #[error("cannot {what}: {source} (it needs root)")]
    Loopback { what: &'static str, source: std::io::Error },
    #[error("a thread of the benchmark panicked")]
    Panicked,
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
    #[error("cannot write the result: {0}")]
    Json(#[from] serde_json::Error),
}
