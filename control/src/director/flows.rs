//! The flow tables' files and the directory of real servers' numbers, which belong together: the one is read by the other.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dataplane::clock::{self, Tick};
use dataplane::flow::{FlowTable, Opened, TableError, V4, V6};

use crate::compile::SlotDirectory;
use crate::config::DataplaneConfig;
use crate::state_dir::StateDir;

/// Open flow tables, with the numbers that they refer to.
#[derive(Debug)]
pub struct Flows {
    /// IPv4.
    pub v4: FlowTable<V4>,
    /// IPv6.
    pub v6: FlowTable<V6>,
    /// Numbers of real servers.
    pub slots: SlotDirectory,
}

/// Why flow tables cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FlowsError {
    /// Their directory cannot be made.
    #[error("cannot create {path} for the flow tables: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A table.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Opens the tables that a director of this state directory left, or makes new ones. Flows whose real servers cannot be
/// told any more are given up.
pub fn open(state: &StateDir, config: &DataplaneConfig, workers: usize) -> Result<Flows, FlowsError> {
    let directory = state.flow_dir();
    let slots = numbers(&state.destinations(), &directory, workers);
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
    made.map_err(|source| FlowsError::Directory { path: directory.clone(), source })?;
    let now = Tick::at(clock::since_boot());
    let [capacity4, capacity6] = config.capacities();
    let (v4, opened) = FlowTable::<V4>::open(&directory.join("flows4"), capacity4, workers, now)?;
    tell("IPv4", opened);
    let (v6, opened) = FlowTable::<V6>::open(&directory.join("flows6"), capacity6, workers, now)?;
    tell("IPv6", opened);
    tracing::info!(bytes = v4.memory() + v6.memory(), "flow tables are open");
    Ok(Flows { v4, v6, slots })
}

/// The numbers in the file; none, and no flows either, where the file is not there or of no use.
fn numbers(path: &Path, flows: &Path, workers: usize) -> SlotDirectory {
    let why = match SlotDirectory::load(path, workers) {
        Ok(slots) if path.exists() => return slots,
        Ok(_) => None,
        Err(error) => Some(crate::error::chain(&error)),
    };
    if flows.exists() {
        let why = why.unwrap_or_else(|| format!("{} is gone", path.display()));
        tracing::warn!("connections of an earlier director are given up, for their servers cannot be told: {why}");
        if let Err(error) = fs::remove_dir_all(flows) {
            tracing::warn!(%error, "cannot remove {}", flows.display());
        }
    }
    SlotDirectory::new(workers)
}

fn tell(family: &str, opened: Opened) {
    match opened {
        Opened::Created => tracing::debug!(family, "new flow table"),
        Opened::Reopened { flows } => tracing::info!(family, flows, "connections of an earlier director go on"),
        Opened::Replaced { why } => tracing::warn!(family, %why, "the flow table of an earlier director is given up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_without_numbers_are_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let (numbers_file, flows) = (dir.path().join("destinations.json"), dir.path().join("flows"));
        fs::create_dir(&flows).unwrap();
        numbers(&numbers_file, &flows, 1);
        assert!(!flows.exists());
        SlotDirectory::new(1).save(&numbers_file).unwrap();
        fs::create_dir(&flows).unwrap();
        numbers(&numbers_file, &flows, 1);
        assert!(flows.exists());
        fs::write(&numbers_file, "garbage").unwrap();
        numbers(&numbers_file, &flows, 1);
        assert!(!flows.exists());
    }
}
