//! Undoing what a director did, from its journal: by the command `cleanup`, and by the guard when it gives up.
//!
//! Every step is idempotent and goes on after a failure; the journal is removed only when all of it is undone.

use std::fs;
use std::io;
use std::path::Path;

use super::journal::{ChangedSysctl, Entries, Journal, JournalError};
use super::state_dir::{Holder, StateDir, StateDirError};

/// Why nothing was undone.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// A director runs.
    #[error("a director is running on {0} ({1}); stop it first with `kill -TERM`, that cleans up too")]
    Alive(std::path::PathBuf, Holder),
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel cannot be talked to.
    #[error("cannot open a netlink socket: {0}")]
    Netlink(#[source] io::Error),
}

/// What was done, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    done: Vec<String>,
    left: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    /// One line for each thing that was undone, left alone, or could not be undone.
    pub fn lines(&self) -> Vec<String> {
        let prefix =
            |kind: &'static str, lines: &[String]| lines.iter().map(|l| format!("{kind}{l}")).collect::<Vec<_>>();
        [prefix("", &self.done), prefix("left alone: ", &self.left), prefix("FAILED: ", &self.failures)].concat()
    }

    /// The lines as a text; never empty.
    pub fn text(&self) -> String {
        let lines = self.lines();
        if lines.is_empty() { "nothing to clean up\n".to_owned() } else { lines.join("\n") + "\n" }
    }

    /// Whether something could not be undone.
    pub fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    fn note(&mut self, result: Result<Option<String>, String>) {
        match result {
            Ok(Some(done)) => self.done.push(done),
            Ok(None) => {}
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// [`undo`], unless a director lives.
pub async fn after_death(state: &StateDir) -> Result<Report, CleanupError> {
    if let Some(holder) = state.holder() {
        return Err(CleanupError::Alive(state.path().to_owned(), holder));
    }
    if !state.path().exists() {
        return Ok(Report::default());
    }
    let _lock = state.lock()?;
    // The pid file stays: who unlinks a lock file lets two hold it.
    undo(state).await
}

/// Undoes everything that the journal names.
pub async fn undo(state: &StateDir) -> Result<Report, CleanupError> {
    let mut journal = Journal::open(state.journal())?;
    let entries = journal.entries().clone();
    let mut report = Report::default();
    restore_settings(&mut report, &entries);
    remove_files(&mut report, state, &entries);
    if report.failed() {
        // What is undone must not be undone again: somebody else may have the same address by then.
        journal.record(|e| *e = entries)?;
    } else {
        journal.close()?;
    }
    Ok(report)
}

fn restore_settings(report: &mut Report, entries: &Entries) {
    // Last change first, so that what was changed twice ends as it began.
    for ChangedSysctl { path, before } in entries.sysctls.iter().rev() {
        report.note(match fs::write(path, before) {
            Ok(()) => Ok(Some(format!("set {} back to {before}", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("set {} back to {before}: {error}", path.display())),
        });
    }
}

fn remove_files(report: &mut Report, state: &StateDir, entries: &Entries) {
    if let Some(directory) = &entries.flow_dir {
        report.note(match fs::remove_dir_all(directory) {
            Ok(()) => Ok(Some(format!("removed the flow tables in {}", directory.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("remove {}: {error}", directory.display())),
        });
    }
    for path in [state.socket(), state.destinations()] {
        report.note(remove_file(&path));
    }
}

fn remove_file(path: &Path) -> Result<Option<String>, String> {
    match fs::remove_file(path) {
        Ok(()) => Ok(Some(format!("removed {}", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("remove {}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_go_and_a_second_time_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        state.create().unwrap();
        let flows = dir.path().join("flows");
        fs::create_dir(&flows).unwrap();
        fs::write(flows.join("flows4"), "x").unwrap();
        let setting = dir.path().join("rp_filter");
        fs::write(&setting, "0").unwrap();
        let mut journal = Journal::open(state.journal()).unwrap();
        journal
            .record(|e| {
                e.flow_dir = Some(flows.clone());
                e.sysctls = vec![ChangedSysctl { path: setting.clone(), before: "2".into() }];
            })
            .unwrap();
        let report = after_death(&state).await.unwrap();
        assert!(!report.failed(), "{}", report.text());
        assert_eq!(fs::read_to_string(&setting).unwrap(), "2");
        assert!(!flows.exists() && !state.journal().exists());
        assert_eq!(after_death(&state).await.unwrap(), Report::default());
    }

    #[tokio::test]
    async fn a_living_director_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path());
        let _lock = state.lock().unwrap();
        assert!(matches!(after_death(&state).await, Err(CleanupError::Alive(..))));
    }
}
