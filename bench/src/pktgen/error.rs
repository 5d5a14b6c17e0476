//! Why the generator has no result.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use dataplane::port::xsk::XskError;

use crate::stream::{BadStream, FileError};
use crate::trial::TrialError;

/// What can go wrong between a command line and its result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PktgenError {
    #[error("there is no interface {place}; see `ip link` (or `ip -n NETNS link`)")]
    NoInterface { place: String },
    #[error("{place}: {source}")]
    Interface { place: String, source: io::Error },
    #[error("network namespace {name}: {source}; see `ip netns`, and be root")]
    Namespace { name: String, source: io::Error },
    #[error("{place} is in another network namespace than the place before it: a wire's ends share one")]
    TwoNamespaces { place: String },
    #[error(
        "cannot take frames from {interface}: {source:#} (root is needed, and no other XDP program may be there: ip link set {interface} xdp off)"
    )]
    Attach { interface: String, source: libbpf_rs::Error },
    #[error("the embedded program has no {0}; rebuild sluice-pktgen")]
    Embedded(&'static str),
    #[error("cannot find the way from {place} to {to}: {why}; give it with --to-mac and --from")]
    NoNextHop { place: String, to: IpAddr, why: String },
    #[error("nothing to send: give --to, or --file")]
    NoStream,
    #[error("a search has to know what is lost: say with --receive where packets arrive or come back")]
    NoReceiver,
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Stream(#[from] BadStream),
    #[error(transparent)]
    Trial(#[from] TrialError),
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("cannot write the latency log {file}: {source}")]
    Log { file: PathBuf, source: io::Error },
    #[error(transparent)]
    Xsk(#[from] XskError),
    #[error("core {0} is not among this machine's; choose another with --core")]
    NoCore(usize),
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    #[error("cannot write the result: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write the result: {0}")]
    Json(#[from] serde_json::Error),
}
