//! How flows are treated: what the dataplane block and IPVS's defaults say.

use dataplane::snapshot::{Policy, StraySegments};
use dataplane::state::Timeouts;

use crate::config::DataplaneConfig;

/// Resets, and ICMP errors, that one worker sends in a second: the kernel's own limit on ICMP (`icmp_msgs_per_sec`).
const REPLIES_PER_SECOND: u32 = 1000;

/// The policy of a configuration.
pub(super) fn policy(config: &DataplaneConfig) -> Policy {
    Policy {
        stray: if config.sloppy_tcp { StraySegments::Open } else { StraySegments::Reset },
        timeouts: Timeouts::default(),
        replies_per_second: REPLIES_PER_SECOND,
    }
}
