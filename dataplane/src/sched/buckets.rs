//! The table of `dh` and `sh`: 256 buckets that hold destinations, found by IPVS's hash of an address.

use super::fold;
use crate::ident::Endpoint;
use crate::service::Destination;

/// Buckets of the table.
pub(super) const BUCKETS: u32 = 256;
/// 2^32 over the golden ratio, as the kernel's `hash_32` has it.
const GOLDEN_RATIO: u32 = 0x61c8_8647;

/// Positions in the destination list; empty when there are no destinations.
#[derive(Debug)]
pub struct Buckets(Vec<u32>);

impl Buckets {
    /// Fills the buckets with the destinations in turn, each with as many in a row as `turns` says, one at least.
    pub(super) fn fill(destinations: &[Destination], turns: impl Fn(&Destination) -> u32) -> Self {
        let in_turn = (0..).zip(destinations).flat_map(|(at, d)| (0..turns(d).clamp(1, BUCKETS)).map(move |_| at));
        // An endless round: an empty list ends it at once.
        let round: Vec<u32> = in_turn.collect();
        Self(round.into_iter().cycle().take(BUCKETS as usize).collect())
    }

    /// The destination in a bucket; `bucket` wraps.
    pub(super) fn at<'d>(&self, destinations: &'d [Destination], bucket: u32) -> Option<&'d Destination> {
        destinations.get(*self.0.get((bucket % BUCKETS) as usize)? as usize)
    }
}

/// The bucket of an address and port, as a number of 8 bits.
pub(super) fn hash(of: Endpoint) -> u32 {
    u32::from(of.port.host()).wrapping_add(fold(of.address)).wrapping_mul(GOLDEN_RATIO) >> (u32::BITS - 8)
}
