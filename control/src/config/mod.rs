//! The language of `keepalived.conf`, with Sluice's block `dataplane`: from files to a typed [`Config`].
//!
//! Layers, each in a file of its own and each knowing only the one before: source → lexer → preprocess (includes,
//! `@id`, definitions) → block tree → lowering to the model. Every layer reports what is wrong and goes on, so that all
//! errors are shown at once. Nothing here looks at the machine, prints or panics.

mod diagnostics;
mod model;
mod source;

use std::path::PathBuf;

pub use diagnostics::{Diagnostic, Diagnostics, Location, MOST_SHOWN, Severity};
pub use model::{
    AddressFlags, Broadcast, BusyPoll, ChecksumPolicy, Config, CopyMode, DataplaneConfig, ForwardingMethod, GlobalDefs,
    Idle, InterfaceConfig, KernelPort, Queues, RealServer, SchedulerKind, StaticAddress, TimeoutOverrides,
    VirtualServer, Workers, XdpMode,
};
pub use source::{FileId, Place, SourceFile, SourceMap, Span};

/// What reading depends on besides the files.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The name that `@id` lines are compared with; keepalived's default is the host name up to the first dot.
    pub config_id: String,
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
    let _ = (files, options);
    Loaded { config: None, diagnostics: Diagnostics::default() }
}

/// Reads a text as if it were a file of that name. Includes are taken from the disk.
pub fn parse_text(name: &str, text: &[u8], options: &LoadOptions) -> Loaded {
    let _ = (name, text, options);
    Loaded { config: None, diagnostics: Diagnostics::default() }
}
