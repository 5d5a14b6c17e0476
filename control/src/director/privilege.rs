//! Whether this process may do what a director does, asked before anything is changed.
//!
//! Read from /proc/self: capabilities(7) as they are in effect, and the limit on locked memory.

use std::fs;

/// What a director needs, as the kernel numbers capabilities: number, name, what for.
const NEEDED: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "attach the XDP program, add addresses, make the kernel port"),
    (13, "CAP_NET_RAW", "open AF_XDP sockets"),
    (39, "CAP_BPF", "load the XDP program"),
];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_BPF: u32 = 39;
const CAP_IPC_LOCK: u32 = 14;
/// Locked memory that one worker's frame pool takes at least, in bytes: 4096 frames of 4 KiB.
const LEAST_LOCKED: u64 = 16 << 20;

/// Why a director cannot run as this user.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PrivilegeError {
    /// Capabilities are not in effect.
    #[error("not permitted: {} (run as root, or give the program these capabilities)", missing.join("; "))]
    Capabilities {
        /// Each missing one with what it is for.
        missing: Vec<String>,
    },
    /// The limit on locked memory is too low for packet memory.
    #[error(
        "at most {limit} bytes of memory may be locked, packet memory needs at least {LEAST_LOCKED}: raise it (ulimit -l unlimited; LimitMEMLOCK=infinity in a unit) or add CAP_IPC_LOCK"
    )]
    LockedMemory {
        /// The soft limit in bytes.
        limit: u64,
    },
}

/// Checks the running process. What cannot be read is taken as granted: the kernel has the last word.
pub fn check() -> Result<(), PrivilegeError> {
    let capabilities = fs::read_to_string("/proc/self/status").ok().and_then(|s| effective(&s)).unwrap_or(u64::MAX);
    let locked = fs::read_to_string("/proc/self/limits").ok().and_then(|s| locked_memory(&s));
    judge(capabilities, locked)
}

/// The verdict on an effective capability set and a soft limit on locked memory (`None`: unlimited).
fn judge(capabilities: u64, locked: Option<u64>) -> Result<(), PrivilegeError> {
    let has = |number: u32| capabilities & (1 << number) != 0;
    let granted = |number: u32| has(number) || (number == CAP_BPF && has(CAP_SYS_ADMIN));
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|(number, ..)| !granted(*number))
        .map(|(_, name, purpose)| format!("{name} is missing, which is needed to {purpose}"))
        .collect();
    if !missing.is_empty() {
        return Err(PrivilegeError::Capabilities { missing });
    }
    match locked {
        Some(limit) if limit < LEAST_LOCKED && !has(CAP_IPC_LOCK) => Err(PrivilegeError::LockedMemory { limit }),
        _ => Ok(()),
    }
}

/// `CapEff` of /proc/PID/status.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The soft limit of `Max locked memory` in /proc/PID/limits; `None` when unlimited.
fn locked_memory(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = (1 << 41) - 1;

    #[test]
    fn every_missing_capability_is_named_with_its_purpose() {
        let error = judge(0, None).unwrap_err().to_string();
        for name in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"] {
            assert!(error.contains(name), "{error}");
        }
        assert_eq!(judge(ALL, Some(0)), Ok(()));
    }

    #[test]
    fn the_older_sys_admin_stands_for_bpf() {
        assert_eq!(judge(ALL & !(1 << CAP_BPF), None), Ok(()));
        assert!(judge(ALL & !(1 << CAP_BPF) & !(1 << CAP_SYS_ADMIN), None).is_err());
    }

    #[test]
    fn locked_memory_is_limited_only_without_ipc_lock() {
        let without = ALL & !(1 << CAP_IPC_LOCK);
        assert_eq!(judge(without, Some(8 << 20)), Err(PrivilegeError::LockedMemory { limit: 8 << 20 }));
        assert_eq!(judge(without, None), Ok(()));
        let limits = "Max file size  unlimited unlimited bytes\nMax locked memory         8388608  8388608   bytes\n";
        assert_eq!(locked_memory(limits), Some(8_388_608));
        assert_eq!(locked_memory("Max locked memory unlimited unlimited bytes"), None);
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(ALL));
    }
}
