//! What became of the packets: loss, order, latency.

mod collector;
mod latency;
mod tally;

pub(crate) use collector::{Collector, Received, Runs};
pub(crate) use latency::{Latency, LatencyLog, LatencyResult, Recorder};
pub(crate) use tally::Tally;
