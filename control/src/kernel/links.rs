//! What ethtool knows of an interface: how many receive queues are in use, its driver, what it does with VLAN tags.

use std::io;

use super::KernelError;
use crate::sys::{self, Channels, ReceivedTags};

/// Receive queues in use; `most` (how many the kernel has room for) where the driver does not say.
pub(super) fn queues(interface: &str, most: u32) -> u32 {
    let [rx, _, _, combined] = sys::channels(interface).map_or([0; 4], |channels| channels.used);
    match rx.saturating_add(combined) {
        0 => most.max(1),
        queues => queues,
    }
}

/// The driver's name.
pub(super) fn driver(interface: &str) -> Option<String> {
    sys::driver(interface).ok().filter(|name| !name.is_empty())
}

/// Sets how many queues of an interface are in use, in both directions, as `ethtool -L` does. A number that is set
/// already changes nothing.
///
/// # Errors
/// A driver with a fixed number of queues, or one with fewer than these.
pub fn set_queues(interface: &str, queues: u32) -> Result<(), KernelError> {
    let what = || format!("set {interface} to {queues} queues");
    let now = match sys::channels(interface) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) && queues == 1 => return Ok(()),
        channels => channels.map_err(|source| KernelError::new(what(), source))?,
    };
    let [_, _, other, _] = now.used;
    let [_, _, _, combined_most] = now.most;
    let used = if combined_most > 0 { [0, 0, other, queues] } else { [queues, queues, other, 0] };
    let most = if combined_most > 0 { combined_most } else { now.most[0].min(now.most[1]) };
    if queues > most {
        let reason = format!("it has at most {most}");
        return Err(KernelError::new(format!("{}: {reason}", what()), io::Error::from(io::ErrorKind::InvalidInput)));
    }
    if used == now.used {
        return Ok(());
    }
    sys::set_channels(interface, Channels { used, ..now }).map_err(|source| KernelError::new(what(), source))
}

/// Has an interface leave VLAN tags in the frames that it receives, where XDP sees them. True if it did not before.
///
/// # Errors
/// A driver that cannot.
pub fn keep_vlan_tags(interface: &str) -> Result<bool, KernelError> {
    let failed = |source| KernelError::new(format!("turn off rx-vlan-offload of {interface}"), source);
    // Without the setting there is nothing to strip by.
    if !matches!(sys::received_tags(interface), Ok(ReceivedTags::Stripped)) {
        return Ok(false);
    }
    sys::set_received_tags(interface, ReceivedTags::Kept).map(|()| true).map_err(failed)
}

/// Undoes [`keep_vlan_tags`].
///
/// # Errors
/// A driver that cannot.
pub fn strip_vlan_tags(interface: &str) -> Result<(), KernelError> {
    let failed = |source| KernelError::new(format!("turn on rx-vlan-offload of {interface}"), source);
    sys::set_received_tags(interface, ReceivedTags::Stripped).map_err(failed)
}
