//! Replay: captures through the real worker loop, on a machine described by a text, with time from the packets.
//!
//! What a live director would steer, look up, forward, answer or drop, happens here to the same packets by the same
//! code; only steering is a model of the XDP program. Needs no privilege, touches nothing but its output directory,
//! and gives the same result each time: no value of the machine it runs on has a part in it.

mod arrivals;
mod engine;
mod fate;
mod machine;
mod outputs;
mod result;
mod tally;

use std::path::PathBuf;

use dataplane::flow::TableError;
use dataplane::port::NoRoom;
use dataplane::port::capture::CaptureError;

use crate::compile::CompileError;
use crate::config::{self, LoadOptions};
use crate::topology::batch::BatchErrors;

pub use result::Summary;

/// What to replay.
#[derive(Clone, Debug)]
pub struct Request {
    /// Configuration files, read as one.
    pub configs: Vec<PathBuf>,
    /// How they are read.
    pub options: LoadOptions,
    /// The machine, in the words of `ip -batch`.
    pub topology: PathBuf,
    /// Interface names with the captures of what arrives there.
    pub inputs: Vec<Input>,
    /// Where the results go; made if it is not there. Older results in it are overwritten.
    pub out_dir: PathBuf,
    /// Workers, 1 to 64. Packets are dealt to them in turn, as by a network card that splits flows over its queues.
    pub workers: usize,
}

/// A capture and the interface on which its packets arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The interface's name.
    pub interface: String,
    /// The pcap or pcapng file.
    pub file: PathBuf,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The configuration is wrong; the text shows each place.
    #[error("the configuration cannot be used:\n{0}")]
    Config(String),
    /// A file that cannot be read or a directory that cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The topology has wrong lines.
    #[error("{}: {errors}", path.display())]
    Topology {
        /// The file.
        path: PathBuf,
        /// Line by line.
        errors: BatchErrors,
    },
    /// The configuration does not fit the machine.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// An input that is no capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// An input for an interface that the topology does not have.
    #[error("--in {name}: the topology has no interface of this name; it has {there}")]
    NoInterface {
        /// The name.
        name: String,
        /// The names that there are.
        there: String,
    },
    /// Two inputs for one interface.
    #[error("--in {0}: this interface has an input already; merge the two captures with mergecap")]
    InputTwice(String),
    /// No memory for flows.
    #[error(transparent)]
    Table(#[from] TableError),
    /// More workers than can be.
    #[error("{0} workers are not possible; choose 1 to 64")]
    Workers(usize),
    /// A defect: the worker did not take or give back a frame.
    #[error("a worker kept a frame that it should have handled: {0}")]
    Stuck(#[from] NoRoom),
}

/// Replays, writes the result files and gives a summary.
///
/// # Errors
/// [`ReplayError`]; the output directory may then hold a part of the results.
pub fn run(request: &Request) -> Result<Summary, ReplayError> {
    let loaded = config::load(&request.configs, &request.options);
    let Some(config) = loaded.config else {
        return Err(ReplayError::Config(loaded.diagnostics.render_plain()));
    };
    let text = std::fs::read_to_string(&request.topology).map_err(|e| file(&request.topology, e))?;
    let topology = machine::describe(&request.topology, text, &config)?;
    let arrivals = arrivals::read(&request.inputs, &topology)?;
    let mut engine = engine::Engine::new(&config, &topology, request.workers, &arrivals)?;
    std::fs::create_dir_all(&request.out_dir).map_err(|e| file(&request.out_dir, e))?;
    let mut outputs = outputs::Outputs::create(&request.out_dir, &topology, engine.ports())?;
    let mut writer = result::Writer::create(&request.out_dir.join("result.json"))?;
    for arrival in &arrivals {
        for departure in engine.wait_until(arrival.time) {
            outputs.write(departure)?;
        }
        let fate = engine.handle(arrival, &mut outputs)?;
        writer.packet(arrival, &fate)?;
    }
    outputs.finish()?;
    writer.finish(&engine)
}

fn file(path: &std::path::Path, source: std::io::Error) -> ReplayError {
    ReplayError::File { path: path.to_owned(), source }
}
