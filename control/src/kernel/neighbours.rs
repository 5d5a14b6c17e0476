//! Neighbours that the dataplane sends to: found where they are unknown and kept fresh while they are in use.
//!
//! AF_XDP frames do not refresh the kernel's entries, so each is marked managed (`NTF_EXT_MANAGED`, Linux 5.16): the
//! kernel then probes it itself. Older kernels ignore the mark and get a probe (`NTF_USE`) when the entry goes stale.
//! Entries that an operator made permanent are never touched: a probe would make them forgettable.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::next_hop::Link;
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState};

use super::{KernelError, Netlink, collect, convert, request};

/// The neighbours that are kept.
#[derive(Debug)]
pub struct Neighbours {
    netlink: Netlink,
    kept: BTreeSet<(Link, IpAddr)>,
}

/// Whether the kernel is to look after an entry from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    Managed,
    Once,
}

impl Neighbours {
    /// None yet.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, kept: BTreeSet::new() }
    }

    /// Looks after exactly the neighbours in `wanted`: probes those that are unknown or stale, lets go of others. To be
    /// called when the set changes and once a second.
    ///
    /// # Errors
    /// When the kernel's table cannot be read. A neighbour that cannot be probed (its link is down) is tried again.
    pub async fn tend(&mut self, wanted: &BTreeSet<(Link, IpAddr)>) -> Result<(), KernelError> {
        let states = self.states().await?;
        for at in wanted {
            let state = states.get(at).copied().unwrap_or_default();
            if is_needy(state) || (!self.kept.contains(at) && !is_fixed(state)) {
                self.send(*at, Care::Managed).await;
            }
        }
        let left: Vec<_> = self.kept.difference(wanted).copied().collect();
        self.release(&left, &states).await;
        self.kept.clone_from(wanted);
        Ok(())
    }

    /// Looks for one neighbour now, once: what a worker met and does not know.
    pub async fn probe(&self, link: Link, address: IpAddr) {
        self.send((link, address), Care::Once).await;
    }

    /// Lets go of all: the kernel forgets them in its own time.
    ///
    /// # Errors
    /// When the kernel's table cannot be read.
    pub async fn release_all(&mut self) -> Result<(), KernelError> {
        self.tend(&BTreeSet::new()).await
    }

    async fn release(&self, left: &[(Link, IpAddr)], states: &BTreeMap<(Link, IpAddr), NeighbourState>) {
        for at in left {
            // Only an entry that is there can be managed; asking for another would look for it.
            if states.get(at).is_some_and(|state| !is_fixed(*state)) {
                self.send(*at, Care::Once).await;
            }
        }
    }

    async fn states(&self) -> Result<BTreeMap<(Link, IpAddr), NeighbourState>, KernelError> {
        let dump = collect("list neighbours", self.netlink.handle.neighbours().get().execute()).await?;
        Ok(dump.iter().filter_map(convert::neighbour).map(|seen| (seen.at, seen.state)).collect())
    }

    async fn send(&self, (link, address): (Link, IpAddr), care: Care) {
        let mut add = self.netlink.handle.neighbours().add(link.0, address).replace();
        let message = add.message_mut();
        message.header.state = NeighbourState::None;
        message.header.flags = NeighbourFlags::Use;
        if care == Care::Managed {
            message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        }
        if let Err(error) = request(format!("probe {address}"), add.execute()).await {
            tracing::debug!(%error, source = %error.source, link = link.0, "a neighbour was not probed");
        }
    }
}

/// Unknown, failed, or not heard of for a while.
fn is_needy(state: NeighbourState) -> bool {
    matches!(state, NeighbourState::None | NeighbourState::Failed | NeighbourState::Stale)
}

/// Told by an operator or by the link, not by the neighbour.
fn is_fixed(state: NeighbourState) -> bool {
    matches!(state, NeighbourState::Permanent | NeighbourState::Noarp)
}
