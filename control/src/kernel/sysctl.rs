//! Kernel parameters under `/proc/sys`, of the current network namespace.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::KernelError;

/// Sets one, such as `net/ipv4/conf/sluice1/rp_filter`. A value that is set already is not written: /proc/sys may be
/// read-only where everything is as it should be.
pub(super) fn set(key: &str, value: &str) -> Result<(), KernelError> {
    if get(key).is_some_and(|now| now == value) {
        return Ok(());
    }
    let what = || format!("set {} to {value}", key.replace('/', "."));
    std::fs::write(path(key), value).map_err(|source| KernelError::new(what(), source))
}

/// Reads one; `None` where the kernel has none of this name.
pub(super) fn get(key: &str) -> Option<String> {
    Some(std::fs::read_to_string(path(key)).ok()?.trim().to_owned())
}

/// The ports that the kernel gives to connections of this machine's own (`ip_local_port_range`), both families'.
pub fn local_port_range() -> Option<RangeInclusive<u16>> {
    let text = get("net/ipv4/ip_local_port_range")?;
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Some(low..=high),
        _ => None,
    }
}

fn path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}
