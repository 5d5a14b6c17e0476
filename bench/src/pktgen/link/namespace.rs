//! Work in another network namespace: a generator has its ends on both sides of a director.

use std::fs::File;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::error::PktgenError;

/// Where `ip netns add` keeps namespaces.
const NAMED: &str = "/run/netns";

/// Calls `work` with this thread in a namespace, and brings the thread back.
pub(crate) fn within<T>(name: Option<&str>, work: impl FnOnce() -> Result<T, PktgenError>) -> Result<T, PktgenError> {
    let Some(name) = name else { return work() };
    let failed = |source| PktgenError::Namespace { name: name.to_owned(), source };
    let own = File::open("/proc/thread-self/ns/net").map_err(failed)?;
    let there = File::open(Path::new(NAMED).join(name)).map_err(failed)?;
    setns(there, CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
    let result = work();
    setns(own, CloneFlags::CLONE_NEWNET).map_err(|e| failed(e.into()))?;
    result
}
