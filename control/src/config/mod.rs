//! The language of `keepalived.conf`, with Sluice's block `dataplane`: from files to a typed [`Config`].
//!
//! Layers, each in a file of its own and each knowing only the one before: source → lexer → preprocess (includes,
//! `@id`, definitions) → block tree → lowering to the model. Every layer reports what is wrong and goes on, so that all
//! errors are shown at once. Nothing here looks at the machine, prints or panics.

mod block;
mod dataplane;
mod definitions;
mod diagnostics;
mod ftp;
mod global_defs;
mod heading;
mod include;
mod keywords;
mod lexer;
mod limits;
mod line;
mod local_addresses;
mod lower;
mod match_points;
mod method;
mod model;
mod mss_clamp;
mod persistence;
mod prefix_list;
mod preprocess;
mod real_server;
mod render;
mod rules;
mod scheduler;
mod sequence;
mod sorry_server;
mod source;
mod static_ipaddress;
mod syn_proxy;
mod timeouts;
mod towards_servers;
mod tunnel;
mod virtual_server;
mod virtual_server_group;

use std::path::{Path, PathBuf};

use lower::Lower;
use preprocess::Preprocessor;

pub use diagnostics::{Diagnostic, Diagnostics, Location, MOST_SHOWN, Severity};
pub use model::{
    AddressFlags, Broadcast, BusyPoll, ChecksumPolicy, Config, CopyMode, DataplaneConfig, ForwardingMethod, GlobalDefs,
    Idle, InterfaceConfig, KernelPort, LocalAddress, Queues, RealServer, SorryServer, StaticAddress, TimeoutOverrides,
    TowardsServers, VirtualServer, Workers, XdpMode,
};
pub use source::{FileId, Place, SourceFile, SourceMap, Span};

/// What reading depends on besides the files.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The name that `@id` lines are compared with; keepalived's default is the host name up to the first dot.
    pub config_id: String,
    /// The instance name, for `${_INSTANCE}`.
    pub instance: Option<String>,
    /// A file for the block `dataplane` that is read after the others if it exists.
    pub dataplane_file: Option<PathBuf>,
    /// Whether `include` reads files.
    pub includes: Includes,
}

/// What becomes of `include`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Includes {
    /// Files are read from the disk.
    #[default]
    Follow,
    /// An include is an error: for text that is not trusted.
    Refuse,
}

/// What came of reading.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration; `None` when there is any error.
    pub config: Option<Config>,
    /// All errors and warnings.
    pub diagnostics: Diagnostics,
}

/// Reads files, and what they include, as one configuration.
pub fn load(files: &[PathBuf], options: &LoadOptions) -> Loaded {
    let mut preprocessor = Preprocessor::new(options);
    for file in files {
        preprocessor.file(file);
    }
    if let Some(file) = options.dataplane_file.as_deref().filter(|file| file.exists()) {
        preprocessor.file(file);
    }
    complete(preprocessor)
}

/// Reads a text as if it were a file of that name.
pub fn parse_text(name: &str, text: &[u8], options: &LoadOptions) -> Loaded {
    let mut preprocessor = Preprocessor::new(options);
    preprocessor.text(name, Path::new(name), text);
    complete(preprocessor)
}

fn complete(preprocessor: Preprocessor<'_>) -> Loaded {
    let (sources, builder, mut report) = preprocessor.finish();
    let tree = builder.finish(&mut report);
    let config = Lower { sources: &sources, report: &mut report }.config(&tree);
    let diagnostics = report.seal(sources);
    Loaded { config: (diagnostics.error_count() == 0).then_some(config), diagnostics }
}
