//! The network namespace that a director works in: what it changed can be undone only there.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A network namespace by its number in the kernel. The number of one that ended may come to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace(u64);

impl Namespace {
    /// That of this process; `None` where /proc is not mounted.
    pub fn current() -> Option<Self> {
        Self::of(Path::new("/proc/self/ns/net"))
    }

    /// A file that leads to it, if anybody still uses it: the names of `ip netns` first, then processes.
    pub fn found(self) -> Option<PathBuf> {
        let named = entries("/run/netns");
        let used = entries("/proc").map(|process| process.join("ns/net"));
        named.chain(used).find(|path| Self::of(path) == Some(self))
    }

    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self(metadata.ino()))
    }
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_is_found_and_an_unknown_one_is_not() {
        let ours = Namespace::current().unwrap();
        assert!(ours.found().is_some());
        assert_eq!(Namespace(1).found(), None);
    }
}
