//! Flow tables in mappings: anonymous ones, and files that outlive the process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::key::Family;
use super::memory::{Content, Mapping, random_key};
use super::storage::Geometry;
use super::table::Table;
use crate::clock::Tick;
use crate::ident::MAX_WORKERS;

/// The flow table of a director: in a mapping, with buckets of one cache line.
pub type FlowTable<F> = Table<F, Mapping<F>, 8>;

/// How much fits into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Flows, 1 to 2^30.
    pub flows: u32,
    /// Those of them that can have an extension record, 0 to 2^30.
    pub extensions: u32,
}

impl From<u32> for Capacity {
    /// So many flows, a quarter of which can be extended.
    fn from(flows: u32) -> Self {
        Self { flows, extensions: flows / 4 }
    }
}

/// A flow table that cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The number of flows is out of range.
    #[error("a flow table for {0} connections is not possible: choose 1 to {max}", max = Geometry::MAX_FLOWS)]
    Flows(u32),
    /// The number of extension records is out of range.
    #[error("a flow table for {0} extended connections is not possible: choose 0 to {max}", max = Geometry::MAX_FLOWS)]
    Extensions(u32),
    /// The number of workers is out of range.
    #[error("a flow table for {0} workers is not possible: choose 1 to {MAX_WORKERS}")]
    Workers(usize),
    /// The memory cannot be had.
    #[error(
        "cannot reserve {mib} MiB of memory for a flow table of {flows} connections: {source}; lower `connections`"
    )]
    Memory {
        /// MiB that were asked for.
        mib: usize,
        /// Flows that were asked for.
        flows: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file cannot be opened or sized.
    #[error("cannot open the flow table {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another process has the table.
    #[error("the flow table {path} is in use by another process: stop that director first")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no table as asked for.
    #[error("{path} does not hold a flow table as asked for: {why}")]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What it holds.
        why: Unfit,
    },
    /// The kernel gives no random numbers.
    #[error("cannot draw a hash key for the flow table: {0}")]
    Random(io::Error),
}

/// Why a file's flow table cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It holds no table, or one that was never finished.
    #[error("it holds no finished table")]
    NoTable,
    /// Another version of the program made it.
    #[error("its layout version is {0}")]
    Version(u32),
    /// It is of another family.
    #[error("it is for IPv{0}")]
    Family(u32),
    /// It is of another size.
    #[error("it is for {0} connections")]
    Flows(u32),
    /// It has another number of extension records.
    #[error("it is for {0} extended connections")]
    Extensions(u32),
    /// It is older than the machine's last boot.
    #[error("it was made before the machine was last booted")]
    Boot,
}

/// What was found where a table was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing: the table is new.
    Created,
    /// A table, which was repaired.
    Reopened {
        /// Flows that live on.
        flows: u32,
    },
    /// Something else: the table is new, and what was there is lost.
    Replaced {
        /// Why it could not be used.
        why: Unfit,
    },
}

impl<F: Family> FlowTable<F> {
    /// A table of this capacity (or number of flows) for `workers` workers (1 to [`MAX_WORKERS`]) that ends with the
    /// process.
    pub fn anonymous(capacity: impl Into<Capacity>, workers: usize) -> Result<Self, TableError> {
        let geometry = geometry(capacity.into(), workers)?;
        let key = random_key().map_err(TableError::Random)?;
        let mapping = Mapping::anonymous(geometry).map_err(|source| memory::<F>(geometry, source))?;
        mapping.found(key);
        Ok(Self::over(mapping, geometry, workers, key))
    }

    /// Opens the table in a file (on tmpfs or hugetlbfs), or makes it. A table that a dead process left is repaired:
    /// flows that were not whole yet, or whose deadline passed, are gone; all others are there.
    ///
    /// # Errors
    /// Also [`TableError::InUse`], when another process has it open.
    pub fn open(
        path: &Path,
        capacity: impl Into<Capacity>,
        workers: usize,
        now: Tick,
    ) -> Result<(Self, Opened), TableError> {
        let geometry = geometry(capacity.into(), workers)?;
        let file = owned(path)?;
        let failed = |source| TableError::File { path: path.to_owned(), source };
        let before = file.metadata().map_err(failed)?.len();
        size::<F>(&file, geometry).map_err(failed)?;
        let again = file.try_clone().map_err(failed)?;
        let mapping = Mapping::file(file, geometry).map_err(|source| memory::<F>(geometry, source))?;
        let Some(why) = unfit(mapping.content()) else {
            let key = mapping.hash_key();
            let mut table = Self::over(mapping, geometry, workers, key);
            let flows = table.repair(now);
            return Ok((table, Opened::Reopened { flows }));
        };
        drop(mapping);
        again.set_len(0).map_err(failed)?;
        size::<F>(&again, geometry).map_err(failed)?;
        let key = random_key().map_err(TableError::Random)?;
        let mapping = Mapping::file(again, geometry).map_err(|source| memory::<F>(geometry, source))?;
        mapping.found(key);
        let opened = if before == 0 { Opened::Created } else { Opened::Replaced { why } };
        Ok((Self::over(mapping, geometry, workers, key), opened))
    }

    /// Joins the table that another process owns, as it is: for a second process on the same flows. The owner must
    /// have it open, and the two must register different workers.
    pub fn join(path: &Path, capacity: impl Into<Capacity>, workers: usize) -> Result<Self, TableError> {
        let geometry = geometry(capacity.into(), workers)?;
        let failed = |source| TableError::File { path: path.to_owned(), source };
        let file = options().open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() < Mapping::<F>::size(geometry) as u64 {
            return Err(TableError::Unfit { path: path.to_owned(), why: Unfit::NoTable });
        }
        let mapping = Mapping::file(file, geometry).map_err(|source| memory::<F>(geometry, source))?;
        match unfit(mapping.content()) {
            None => {
                let key = mapping.hash_key();
                Ok(Self::over(mapping, geometry, workers, key))
            }
            Some(why) => Err(TableError::Unfit { path: path.to_owned(), why }),
        }
    }
}

fn geometry(Capacity { flows, extensions }: Capacity, workers: usize) -> Result<Geometry, TableError> {
    if !(1..=Geometry::MAX_FLOWS).contains(&flows) {
        return Err(TableError::Flows(flows));
    }
    if extensions > Geometry::MAX_FLOWS {
        return Err(TableError::Extensions(extensions));
    }
    if !(1..=MAX_WORKERS).contains(&workers) {
        return Err(TableError::Workers(workers));
    }
    Ok(Geometry::new(flows, extensions, 8))
}

fn memory<F: Family>(geometry: Geometry, source: io::Error) -> TableError {
    TableError::Memory { mib: Mapping::<F>::size(geometry) >> 20, flows: geometry.flows, source }
}

fn unfit(content: Content) -> Option<Unfit> {
    match content {
        Content::Table => None,
        Content::Nothing => Some(Unfit::NoTable),
        Content::Version(version) => Some(Unfit::Version(version)),
        Content::Family(family) => Some(Unfit::Family(family)),
        Content::Flows(flows) => Some(Unfit::Flows(flows)),
        Content::Extensions(extensions) => Some(Unfit::Extensions(extensions)),
        Content::Boot => Some(Unfit::Boot),
    }
}

/// Opens a table's file, or makes it, and locks it for as long as it is open.
fn owned(path: &Path) -> Result<File, TableError> {
    let failed = |source| TableError::File { path: path.to_owned(), source };
    let file = options().create(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TableError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options
}

/// Makes a file long enough for a table, in the file system's pages (huge ones on hugetlbfs).
fn size<F: Family>(file: &File, geometry: Geometry) -> io::Result<()> {
    let found = file.metadata()?;
    let page = found.blksize().max(1);
    let length = (Mapping::<F>::size(geometry) as u64).next_multiple_of(page);
    if found.len() < length { file.set_len(length) } else { Ok(()) }
}
