//! The director: everything between a configuration and running workers, on one control thread.
//!
//! Whatever it changes on the machine stands in the journal first, so a stop, a failed start and `sluice cleanup` undo
//! it by the same code.

pub mod claim;
pub mod cleanup;
pub mod configuration;
pub mod cores;
pub mod flows;
pub mod journal;
pub mod machine;
pub mod namespace;
pub mod options;
pub mod privilege;
pub mod publish;
mod refusals;
mod report;
mod serve;
mod start;
pub mod workers;

pub use start::StartError;

use std::collections::BTreeSet;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::api::{Api, ApiError};
use crate::config::Config;
use crate::error::chain;
use crate::guard::line::DirectorEnd;
use crate::signals::{Signals, SignalsError};
use crate::state_dir::{Lock, StateDir, StateDirError};
use journal::{Journal, JournalError};
use machine::MachineError;
use options::RunOptions;
use refusals::Watch;
use serve::Director;

/// Questions of the API that may wait.
const QUESTIONS: usize = 64;

/// Whether a guard is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarded {
    /// A guard started this process, and standard input is the line to it.
    ByStdin,
    /// Nobody did: this process holds the lock itself.
    Alone,
}

/// Why the director could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DirectorError {
    /// Not permitted.
    #[error(transparent)]
    Privilege(#[from] privilege::PrivilegeError),
    /// A configuration that is not used.
    #[error(transparent)]
    Configuration(#[from] configuration::Refused),
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(#[from] SignalsError),
    /// The line to the guard.
    #[error("standard input is not the line to a guard; start the director with `sluice run`: {0}")]
    Line(#[source] std::io::Error),
    /// A step of the start.
    #[error(transparent)]
    Start(Box<StartError>),
    /// The API.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A worker's thread ended by itself.
    #[error("worker {0} ended by itself, which is a bug; the log before this line says where")]
    WorkerDied(u8),
    /// The machine could not be changed.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The traces of a director cannot be removed.
    #[error(transparent)]
    Cleanup(#[from] cleanup::CleanupError),
}

/// Runs a director until it is told to stop.
pub async fn run(options: &RunOptions, guarded: Guarded) -> Result<(), DirectorError> {
    // Signals that come during the start wait for its end.
    let mut signals = Signals::listen()?;
    let config = configuration::read(options)?;
    privilege::check()?;
    let state = StateDir::new(&options.state_dir);
    state.create()?;
    let (line, _lock) = Line::open(guarded, &state).await?;
    let mut journal = Journal::open(state.journal())?;
    journal.enter_namespace()?;
    let is_first = journal.entries().is_empty();
    let result = live(options, config, &state, journal, line, &mut signals).await;
    match &result {
        Ok(()) => undo(&state).await?,
        Err(Ended::Start(_)) if is_first => undo(&state).await?,
        Err(Ended::Start(_)) => {
            tracing::warn!("what an earlier director left is still there; `sluice cleanup` takes it away");
        }
        Err(Ended::Serving(_)) => {}
    }
    result.map_err(|ended| match ended {
        Ended::Start(error) | Ended::Serving(error) => error,
    })
}

/// When it went wrong: what a start leaves is undone, what a death leaves is for the next director.
enum Ended {
    Start(DirectorError),
    Serving(DirectorError),
}

async fn live(
    options: &RunOptions,
    config: Config,
    state: &StateDir,
    journal: Journal,
    line: Line,
    signals: &mut Signals,
) -> Result<(), Ended> {
    let started = Instant::now();
    let parts = start::start(&config, state, journal)
        .await
        .map_err(|error| Ended::Start(DirectorError::Start(Box::new(error))))?;
    let (sender, mut questions) = mpsc::channel(QUESTIONS);
    let api = Api::open(&state.socket(), sender).map_err(|error| Ended::Start(error.into()))?;
    let mut director = Director {
        parts,
        config,
        options: options.clone(),
        state: state.clone(),
        line,
        started,
        read: started,
        refused: None,
        compile_error: None,
        stalled: BTreeSet::new(),
        refusals: Watch::default(),
    };
    for finding in &director.parts.compiled.findings {
        tracing::warn!("{finding}");
    }
    director.line.say_ready().await;
    tracing::info!(ms = started.elapsed().as_millis(), "the director serves");
    director.serve(signals, &mut questions).await.map_err(Ended::Serving)?;
    tracing::info!("stopping");
    drop(api);
    director.stop().await.map_err(Ended::Serving)
}

async fn undo(state: &StateDir) -> Result<(), DirectorError> {
    let report = cleanup::undo(state).await?;
    report.lines().iter().for_each(|line| tracing::debug!("{line}"));
    report.failures().iter().for_each(|line| tracing::error!("cannot undo: {line}"));
    Ok(())
}

/// The line to the guard, where there is one.
enum Line {
    Guarded(DirectorEnd),
    Alone,
}

impl Line {
    /// Takes the lock where no guard holds it.
    async fn open(guarded: Guarded, state: &StateDir) -> Result<(Self, Option<Lock>), DirectorError> {
        match guarded {
            Guarded::ByStdin => Ok((Self::Guarded(DirectorEnd::from_stdin().map_err(DirectorError::Line)?), None)),
            Guarded::Alone => Ok((Self::Alone, Some(state.lock_after_death().await?))),
        }
    }

    async fn say_ready(&mut self) {
        let Self::Guarded(line) = self else {
            return crate::guard::tell_ready();
        };
        if let Err(error) = line.say_ready().await {
            tracing::warn!("the guard does not hear: {}", chain(&error));
        }
    }

    /// Returns once, when the guard is gone; from then on the director is alone.
    async fn guard_gone(&mut self) {
        match self {
            Self::Guarded(line) => line.guard_gone().await,
            Self::Alone => std::future::pending().await,
        }
        *self = Self::Alone;
    }

    fn guard_pid(&self) -> Option<u32> {
        match self {
            Self::Guarded(_) => Some(nix::unistd::getppid().as_raw().cast_unsigned()),
            Self::Alone => None,
        }
    }
}
