//! The state directory: where the files of one director lie, and the lock that keeps a second one away.
//!
//! The lock is a `flock` on the pid file. Guard and director share the open file, so it holds as long as either lives.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, Flock, FlockArg, fcntl};

/// Where a director keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir {
    path: PathBuf,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another director has it.
    #[error(
        "a director is already running on {path} ({holder}); stop it with `kill -TERM`, or give this one a --state-dir of its own"
    )]
    Taken {
        /// The directory.
        path: PathBuf,
        /// Who holds it, in words.
        holder: Holder,
    },
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The process that holds a state directory, as its pid file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub Option<u32>);

/// How long a killed director may take to let go of everything: its sockets are closed one by one.
pub const DYING_WITHIN: Duration = Duration::from_secs(10);

impl Holder {
    fn is_alive(self) -> bool {
        self.0.is_none_or(|pid| {
            // The state stands behind the name in brackets; a zombie waits only for its parent.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
        })
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "pid {pid}"),
            None => f.write_str("it has not written its pid yet"),
        }
    }
}

impl StateDir {
    /// What `--state-dir` is when it is not given.
    pub const DEFAULT: &'static str = "/run/sluice";

    /// The directory at `path`; nothing is created.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        // One name per directory, however it was spelt: the flow files are named after it.
        Self { path: std::path::absolute(&path).unwrap_or(path) }
    }

    /// Creates the directory, for its owner only, unless it exists.
    pub fn create(&self) -> Result<(), StateDirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|source| failed("cannot create", &self.path, source))
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The socket of the API.
    pub fn socket(&self) -> PathBuf {
        self.path.join("sluice.sock")
    }

    /// The journal of side effects.
    pub fn journal(&self) -> PathBuf {
        self.path.join("state.json")
    }

    /// The numbers of real servers, kept over restarts.
    pub fn destinations(&self) -> PathBuf {
        self.path.join("destinations.json")
    }

    /// The pid of the process that answers for this director: the guard, or the director where there is none.
    pub fn pid_file(&self) -> PathBuf {
        self.path.join("sluice.pid")
    }

    /// Where the flow tables lie: in shared memory, or here where the machine has no /dev/shm.
    pub fn flow_dir(&self) -> PathBuf {
        let shared_memory = Path::new("/dev/shm");
        if shared_memory.is_dir() {
            shared_memory.join(format!("sluice-{:016x}", fnv1a(self.path.as_os_str().as_encoded_bytes())))
        } else {
            self.path.join("flows")
        }
    }

    /// Takes the lock and writes this process's pid. Fails at once when another process holds it.
    pub fn lock(&self) -> Result<Lock, StateDirError> {
        let path = self.pid_file();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path)
            .map_err(|source| failed("cannot open", &path, source))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(StateDirError::Taken { path: self.path.clone(), holder: read_pid(&mut file) });
            }
            Err((_, errno)) => return Err(failed("cannot lock", &path, errno.into())),
        };
        write_pid(&mut lock).map_err(|source| failed("cannot write", &path, source))?;
        Ok(Lock(lock))
    }

    /// As [`StateDir::lock`], but waits a while for a holder that is dead: its child, the director, may take a moment to
    /// follow it.
    pub async fn lock_after_death(&self) -> Result<Lock, StateDirError> {
        let patience = Instant::now() + DYING_WITHIN;
        loop {
            match self.lock() {
                Err(StateDirError::Taken { holder, .. }) if !holder.is_alive() && Instant::now() < patience => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                result => return result,
            }
        }
    }

    /// The process that holds the lock now, if one does.
    pub fn holder(&self) -> Option<Holder> {
        let mut file = File::open(self.pid_file()).ok()?;
        let holder = read_pid(&mut file);
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Some(holder),
            _ => None,
        }
    }
}

/// The right to be the one director of a state directory; given back when dropped or when the process ends.
#[derive(Debug)]
pub struct Lock(Flock<File>);

impl Lock {
    /// Lets child processes inherit the open file, so that the lock holds until they too have ended.
    pub fn share_with_children(&self) -> io::Result<()> {
        fcntl(&*self.0, FcntlArg::F_SETFD(FdFlag::empty())).map(drop).map_err(Into::into)
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> StateDirError {
    StateDirError::Io { action, path: path.to_owned(), source }
}

fn read_pid(file: &mut File) -> Holder {
    let mut text = String::new();
    let read = file.read_to_string(&mut text);
    Holder(read.ok().and_then(|_| text.trim().parse().ok()))
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// FNV-1a, 64 bits: a short name for a path that is the same in every run.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_ended_is_dead_even_before_its_parent_has_looked() {
        assert!(Holder(Some(std::process::id())).is_alive());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let is_dead = || !Holder(Some(pid)).is_alive();
        let patience = Instant::now() + Duration::from_secs(5);
        while !is_dead() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(is_dead(), "a zombie counts as alive");
        child.wait().unwrap();
        assert!(is_dead());
    }

    #[test]
    fn a_second_lock_names_the_first_ones_pid() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("state"));
        state.create().unwrap();
        assert_eq!(state.holder(), None);
        let lock = state.lock().unwrap();
        assert_eq!(state.holder(), Some(Holder(Some(std::process::id()))));
        let error = state.lock().unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        drop(lock);
        assert_eq!(state.holder(), None);
        state.lock().unwrap();
    }

    #[test]
    fn flow_files_are_named_after_the_directory() {
        let one = StateDir::new("/run/one").flow_dir();
        assert_eq!(one, StateDir::new("/run/one").flow_dir());
        assert_ne!(one, StateDir::new("/run/two").flow_dir());
    }
}
