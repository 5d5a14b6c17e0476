//! Undoing what a director did, from its journal: by the command `cleanup`, and by the guard when it gives up.
//!
//! Every step is idempotent and goes on after a failure; the journal is removed only when all of it is undone.

use std::fs;
use std::io;
use std::path::Path;

use dataplane::steer::{self, Cleaned, Interface};

use super::journal::{ChangedQueues, Entries, Journal, JournalError, KernelPair};
use crate::compile::kernel_port::DATAPLANE_END;
use crate::error::chain;
use crate::kernel::{self, Addresses, KernelError, Netlink};
use crate::state_dir::{Holder, StateDir, StateDirError};

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
    #[error(transparent)]
    Netlink(#[from] KernelError),
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

    /// What could not be undone.
    pub fn failures(&self) -> &[String] {
        &self.failures
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
    if !state.path().exists() {
        return Ok(Report::default());
    }
    let _lock = match state.lock_after_death().await {
        Err(StateDirError::Taken { path, holder }) => return Err(CleanupError::Alive(path, holder)),
        result => result?,
    };
    // The pid file stays: who unlinks a lock file lets two hold it.
    undo(state).await
}

/// Undoes everything that the journal names.
pub async fn undo(state: &StateDir) -> Result<Report, CleanupError> {
    let mut journal = Journal::open(state.journal())?;
    journal.enter_namespace()?;
    let entries = journal.entries().clone();
    let mut report = Report::default();
    if !entries.is_empty() {
        let netlink = Netlink::connect()?;
        // Addresses first: while the program is there, nobody's segment is answered by a reset of the kernel.
        remove_addresses(&mut report, &netlink, &entries).await;
        detach(&mut report, &entries);
        remove_kernel_port(&mut report, &netlink, &entries).await;
        restore_queues(&mut report, &entries);
        restore_tags(&mut report, &entries);
    }
    remove_files(&mut report, state, &entries);
    if !report.failed() {
        journal.close()?;
    }
    Ok(report)
}

async fn remove_addresses(report: &mut Report, netlink: &Netlink, entries: &Entries) {
    let mut addresses = Addresses::new(netlink.clone());
    for added in entries.addresses.iter().rev() {
        if Interface::by_name(&added.interface).is_none() {
            continue;
        }
        let what = format!("{} from {}", added.address, added.interface);
        report.note(match addresses.remove(added).await {
            Ok(()) => Ok(Some(format!("removed {what}"))),
            Err(error) => Err(chain(&error)),
        });
    }
}

fn detach(report: &mut Report, entries: &Entries) {
    for name in &entries.interfaces {
        // An interface that is gone took the program with it.
        let Some(interface) = Interface::by_name(name) else { continue };
        match steer::cleanup(&interface) {
            Ok(Cleaned::Nothing) => {}
            Ok(Cleaned::Removed) => report.done.push(format!("took the XDP program off {name}")),
            Ok(Cleaned::Foreign { id, name: program }) => {
                report.left.push(format!("the XDP program '{program}' (id {id}) on {name} is not Sluice's"));
            }
            Err(error) => report.failures.push(chain(&error)),
        }
    }
}

async fn remove_kernel_port(report: &mut Report, netlink: &Netlink, entries: &Entries) {
    if entries.kernel_port == KernelPair::Absent || Interface::by_name(DATAPLANE_END).is_none() {
        return;
    }
    report.note(match kernel::remove_kernel_port(netlink).await {
        Ok(()) => Ok(Some("removed the kernel port's veth pair".to_owned())),
        Err(error) => Err(chain(&error)),
    });
}

fn restore_queues(report: &mut Report, entries: &Entries) {
    for ChangedQueues { interface, before } in &entries.queues {
        if Interface::by_name(interface).is_none() {
            continue;
        }
        report.note(match kernel::set_queues(interface, *before) {
            Ok(()) => Ok(Some(format!("set {interface} back to {before} queue(s)"))),
            Err(error) => Err(chain(&error)),
        });
    }
}

fn restore_tags(report: &mut Report, entries: &Entries) {
    for interface in entries.stripped_tags.iter().filter(|name| Interface::by_name(name).is_some()) {
        report.note(match kernel::strip_vlan_tags(interface) {
            Ok(()) => Ok(Some(format!("turned rx-vlan-offload of {interface} on again"))),
            Err(error) => Err(chain(&error)),
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
        let mut journal = Journal::open(state.journal()).unwrap();
        journal.record(|e| e.flow_dir = Some(flows.clone())).unwrap();
        let report = after_death(&state).await.unwrap();
        assert!(!report.failed(), "{}", report.text());
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
