//! The journal: what the director has changed on the machine, written before each change, so that whoever comes after
//! a `kill -9` (the next director, or `sluice cleanup`) can undo it.
//!
//! Invariant: whatever of ours is on the machine stands in the file. The file may name more than is there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::namespace::Namespace;
use crate::kernel::AddedAddress;

/// Why the journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("cannot read the journal {0}: {1}")]
    Read(PathBuf, #[source] io::Error),
    /// It cannot be written; nothing was changed on the machine.
    #[error("cannot write the journal {0}: {1}")]
    Write(PathBuf, #[source] io::Error),
    /// The changes are in another namespace.
    #[error(
        "the journal {0} is about another network namespace ({1}); work there: \
         `nsenter --net={1} sluice …`, or `ip netns exec`"
    )]
    AnotherNamespace(PathBuf, PathBuf),
    /// It is no journal of this version.
    #[error("the journal {0} is damaged ({1}); remove it after looking for leftovers with `ip -d link` and `ip addr`")]
    Damaged(PathBuf, #[source] serde_json::Error),
}

/// What may be on the machine because of a director.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Entries {
    /// The director that wrote it.
    pub pid: u32,
    /// The network namespace in which all of it is.
    pub namespace: Option<Namespace>,
    /// Interfaces that got the XDP program.
    pub interfaces: BTreeSet<String>,
    /// Addresses that were not there before.
    pub addresses: Vec<AddedAddress>,
    /// Whether the pair of the kernel port was made.
    pub kernel_port: KernelPair,
    /// Numbers of queues that were changed.
    pub queues: Vec<ChangedQueues>,
    /// Interfaces that stripped VLAN tags from received frames before.
    pub stripped_tags: BTreeSet<String>,
    /// Directory of the flow tables.
    pub flow_dir: Option<PathBuf>,
}

impl Entries {
    /// Whether nothing has to be undone.
    pub fn is_empty(&self) -> bool {
        *self == Self { pid: self.pid, namespace: self.namespace, ..Self::default() }
    }
}

/// Whether there may be a kernel port of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KernelPair {
    /// None was made.
    #[default]
    Absent,
    /// One was, or was about to be.
    Made,
}

/// A number of queues that the director changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedQueues {
    /// The interface.
    pub interface: String,
    /// How many it had.
    pub before: u32,
}

/// The journal's file with what stands in it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    entries: Entries,
}

impl Journal {
    /// Reads the journal at `path`; a file that is not there is an empty journal.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let entries = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| JournalError::Damaged(path.clone(), e))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Entries::default(),
            Err(error) => return Err(JournalError::Read(path, error)),
        };
        Ok(Self { path, entries })
    }

    /// What stands in it.
    pub fn entries(&self) -> &Entries {
        &self.entries
    }

    /// Changes it, in the file first: when this returns, the side effect may be done. Unchanged entries are not written.
    pub fn record(&mut self, change: impl FnOnce(&mut Entries)) -> Result<(), JournalError> {
        let mut entries = self.entries.clone();
        change(&mut entries);
        if entries == self.entries {
            return Ok(());
        }
        replace(&self.path, &entries).map_err(|e| JournalError::Write(self.path.clone(), e))?;
        self.entries = entries;
        Ok(())
    }

    /// Makes sure that this process is where the changes were made. Changes in a namespace that ended went with it and are
    /// struck out.
    pub fn enter_namespace(&mut self) -> Result<(), JournalError> {
        let here = Namespace::current();
        let there = self.entries.namespace.filter(|there| Some(*there) != here);
        match there.map(Namespace::found) {
            Some(Some(path)) => Err(JournalError::AnotherNamespace(self.path.clone(), path)),
            Some(None) => self.record(|e| {
                let flow_dir = e.flow_dir.take();
                *e = Entries { namespace: here, flow_dir, ..Entries::default() };
            }),
            None => self.record(|e| e.namespace = here),
        }
    }

    /// Removes the file: everything is undone.
    pub fn close(self) -> Result<(), JournalError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(JournalError::Write(self.path, error)),
            _ => Ok(()),
        }
    }
}

/// Writes `value` as JSON to a file beside `path` and renames it there, so that a reader finds the old or the new.
pub fn replace(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    file.write_all(b"\n")?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_found_again_and_close_removes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut journal = Journal::open(&path).unwrap();
        assert!(journal.entries().is_empty());
        let added = AddedAddress { interface: "eth0".into(), address: "10.0.0.1/32".parse().unwrap(), peer: None };
        journal
            .record(|e| {
                e.pid = 7;
                e.interfaces.insert("eth0".into());
                e.addresses.push(added.clone());
            })
            .unwrap();
        let again = Journal::open(&path).unwrap();
        assert!(!again.entries().is_empty());
        assert!(again.entries().addresses.contains(&added));
        again.close().unwrap();
        assert!(!path.exists());
        journal.close().unwrap();
    }

    #[test]
    fn changes_in_a_namespace_that_ended_are_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, r#"{"namespace": 1, "interfaces": ["eth0"], "flow_dir": "/dev/shm/x"}"#).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        journal.enter_namespace().unwrap();
        assert!(journal.entries().interfaces.is_empty());
        assert_eq!(journal.entries().flow_dir.as_deref(), Some(Path::new("/dev/shm/x")));
        assert_eq!(Journal::open(&path).unwrap().entries().namespace, Namespace::current());
    }

    #[test]
    fn a_failed_write_leaves_the_entries_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path().join("gone/state.json")).unwrap();
        assert!(matches!(journal.record(|e| e.pid = 1), Err(JournalError::Write(..))));
        assert_eq!(journal.entries().pid, 0);
    }

    #[test]
    fn damage_is_said_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "{\"pid\": ").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Damaged(..))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"pid\": ");
    }
}
