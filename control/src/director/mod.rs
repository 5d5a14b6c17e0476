//! The director: everything between a configuration and running workers, on one control thread.

pub mod cleanup;
pub mod journal;
pub mod options;
pub mod privilege;
pub mod state_dir;

use options::RunOptions;

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
}

/// Runs a director until it is told to stop.
pub async fn run(options: &RunOptions, guarded: Guarded) -> Result<(), DirectorError> {
    privilege::check()?;
    let _ = (options, guarded);
    Ok(())
}
