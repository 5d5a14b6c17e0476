//! The guard: a small process above the director that starts it again when it dies.
//!
//! It holds the lock of the state directory and nothing else. When the director does not come back in time, the guard
//! takes program and addresses off the machine, so that a peer takes over. A director outlives its guard: it serves on.

pub mod line;
mod notify;
mod policy;

pub use policy::Limits;

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::director::cleanup;
use crate::director::options::RunOptions;
use crate::director::privilege::{self, PrivilegeError};
use crate::signals::{Signals, SignalsError};
use crate::state_dir::{StateDir, StateDirError};
use line::GuardEnd;
use notify::News;
use policy::{Policy, Step};

/// Tells the service manager that a director without a guard serves.
pub(crate) fn tell_ready() {
    notify::tell(News::Ready);
}

/// How long a director may take to stop before it is killed and its traces are removed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Why the guard could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// Not permitted.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// Signals cannot be received.
    #[error(transparent)]
    Signals(#[from] SignalsError),
    /// The director's process cannot be made.
    #[error("cannot start the director's process")]
    Spawn(#[source] std::io::Error),
}

/// Runs a director below a guard until a signal stops it; the exit code is that of `sluice run`.
pub async fn run(options: &RunOptions, limits: Limits) -> Result<ExitCode, GuardError> {
    let state = StateDir::new(&options.state_dir);
    // Who may not write there may most likely not run a director either, which is the better answer.
    state
        .create()
        .map_err(|error| privilege::check().err().map_or(GuardError::StateDir(error), GuardError::Privilege))?;
    let lock = state.lock_after_death().await?;
    lock.share_with_children().map_err(GuardError::Spawn)?;
    let mut guard = Guard { options, state, signals: Signals::listen()?, policy: Policy::new(limits, Instant::now()) };
    guard.watch().await
    // The lock is given back here, after the director has ended.
}

struct Guard<'a> {
    options: &'a RunOptions,
    state: StateDir,
    signals: Signals,
    policy: Policy,
}

/// A director's process and the line to it.
struct Ward {
    child: Child,
    line: GuardEnd,
}

/// What a watched director did.
enum Happened {
    Ready,
    Ended(ExitStatus),
    Signal(Signal),
    Time,
}

impl Guard<'_> {
    async fn watch(&mut self) -> Result<ExitCode, GuardError> {
        let mut ward: Option<Ward> = None;
        let mut last = None;
        loop {
            match self.policy.next(Instant::now()) {
                Step::Spawn => ward = Some(self.spawn()?),
                Step::HandOver => self.hand_over(ward.take()).await,
                Step::GiveUp => {
                    tracing::error!("the director dies again and again: giving up; a peer may take over");
                    self.undo().await;
                    return Ok(ExitCode::FAILURE);
                }
                Step::Refused => return Ok(self.refused(last).await),
                Step::Wait(until) => match self.wait(ward.as_mut(), until).await {
                    Happened::Time => {}
                    Happened::Ready => {
                        self.policy.ready();
                        notify::tell(News::Ready);
                    }
                    Happened::Signal(signal @ (Signal::SIGTERM | Signal::SIGINT)) => {
                        return Ok(self.stop(ward.take(), signal).await);
                    }
                    Happened::Signal(signal) => forward(ward.as_ref(), signal),
                    // Somebody stopped the director itself in good order.
                    Happened::Ended(status) if status.success() => return Ok(ExitCode::SUCCESS),
                    Happened::Ended(status) => {
                        ward = None;
                        last = Some(status);
                        self.policy.died(Instant::now());
                        // A start that was refused has said why by itself.
                        if self.policy.was_ready() {
                            tracing::error!(%status, "the director died");
                            notify::tell(News::Restarting);
                        }
                    }
                },
            }
        }
    }

    /// Starts the director: this same program, told by a hidden command.
    fn spawn(&self) -> Result<Ward, GuardError> {
        let (line, directors_end) = line::pair().map_err(GuardError::Spawn)?;
        let mut command = std::process::Command::new("/proc/self/exe");
        // A group of its own: Ctrl-C reaches the director by its guard, once.
        command.arg0("sluice").args(self.options.director_arguments()).process_group(0);
        let child = Command::from(command).stdin(Stdio::from(directors_end)).spawn().map_err(GuardError::Spawn)?;
        tracing::debug!(pid = child.id(), "director started");
        Ok(Ward { child, line })
    }

    async fn wait(&mut self, ward: Option<&mut Ward>, until: Option<Instant>) -> Happened {
        let time = async {
            match until {
                Some(until) => sleep(until.saturating_duration_since(Instant::now())).await,
                None => std::future::pending().await,
            }
        };
        let director = async {
            match ward {
                Some(ward) => ward.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            signal = self.signals.next() => Happened::Signal(signal),
            happened = director => happened,
            () = time => Happened::Time,
        }
    }

    /// Passes the stop on and waits for it; kills a director that does not heed it.
    async fn stop(&self, ward: Option<Ward>, signal: Signal) -> ExitCode {
        notify::tell(News::Stopping);
        let Some(mut ward) = ward else {
            self.undo().await;
            return ExitCode::SUCCESS;
        };
        forward(Some(&ward), signal);
        match timeout(STOP_WITHIN, ward.child.wait()).await {
            Ok(Ok(status)) if status.success() => ExitCode::SUCCESS,
            Ok(_) => {
                tracing::error!("the director died while it stopped; removing what it left");
                self.undo().await;
                ExitCode::FAILURE
            }
            Err(_) => {
                tracing::error!("the director did not stop within {STOP_WITHIN:?}; killing it");
                kill(&mut ward).await;
                self.undo().await;
                ExitCode::FAILURE
            }
        }
    }

    async fn hand_over(&mut self, ward: Option<Ward>) {
        tracing::error!(
            "the director is not back in time: removing its program and addresses so that a peer takes over"
        );
        if let Some(mut ward) = ward {
            kill(&mut ward).await;
            self.policy.died(Instant::now());
        }
        self.undo().await;
    }

    /// The first start failed and the director has said why. One that was killed may have left something.
    async fn refused(&self, last: Option<ExitStatus>) -> ExitCode {
        let Some(status) = last else { return ExitCode::FAILURE };
        if status.signal().is_some() {
            self.undo().await;
        }
        ExitCode::FAILURE
    }

    async fn undo(&self) {
        match cleanup::undo(&self.state).await {
            Ok(report) => report.lines().iter().for_each(|line| tracing::info!("{line}")),
            Err(error) => tracing::error!("cannot clean up: {}", crate::error::chain(&error)),
        }
    }
}

impl Ward {
    async fn next(&mut self) -> Happened {
        tokio::select! {
            status = self.child.wait() => Happened::Ended(status.unwrap_or_else(|_| ExitStatus::from_raw(1 << 8))),
            () = self.line.ready() => Happened::Ready,
        }
    }
}

async fn kill(ward: &mut Ward) {
    if let Err(error) = ward.child.kill().await {
        tracing::error!(%error, "cannot kill the director");
    }
}

fn forward(ward: Option<&Ward>, signal: Signal) {
    let Some(pid) = ward.and_then(|ward| ward.child.id()) else { return };
    if let Err(error) = nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), signal) {
        tracing::warn!(%error, %signal, "cannot pass a signal on to the director");
    }
}
