//! `sh`: the destination by a hash of the client's address (`ip_vs_sh`), by weight.
//!
//! A destination of weight 0 keeps a bucket; what becomes of its clients is [`HashFlags::fallback`]'s to say.

use super::buckets::{BUCKETS, Buckets, hash};
use super::hash_flags::{Fallback, HashFlags};
use crate::ident::Endpoint;
use crate::service::Destination;

/// The filled table.
#[derive(Debug)]
pub struct Sources {
    flags: HashFlags,
    buckets: Buckets,
}

impl Sources {
    pub(super) fn new(destinations: &[Destination], flags: HashFlags) -> Self {
        Self { flags, buckets: Buckets::fill(destinations, |d| d.weight.value()) }
    }

    pub(super) const fn flags(&self) -> HashFlags {
        self.flags
    }

    pub(super) fn pick<'d>(&self, destinations: &'d [Destination], client: Endpoint) -> Option<&'d Destination> {
        let first = hash(self.flags.hashed(client));
        let found = self.buckets.at(destinations, first)?;
        match self.flags.fallback {
            _ if found.takes_flows() => Some(found),
            Fallback::Refuse => None,
            Fallback::Walk => {
                // From a bucket that the first one leads to: were it the next, the neighbour would get everything.
                let walk = (0..BUCKETS).map(|step| first + (step + first) % BUCKETS);
                walk.filter_map(|bucket| self.buckets.at(destinations, bucket)).find(|d| d.takes_flows())
            }
        }
    }
}
