//! What the director watches of the machine and changes on it; each change stands in the journal before it is made.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::next_hop::Link;
use ipnet::IpNet;
use tokio::time::timeout;

use super::journal::{ChangedQueues, Journal, JournalError, KernelPair};
use crate::compile::kernel_port::{DATAPLANE_END, KERNEL_END, needs_loopback};
use crate::compile::{CompileError, PortPlan, PortRole, local_addresses, static_link};
use crate::config::{Config, StaticAddress};
use crate::kernel::{
    self, AddedAddress, Addresses, KernelError, KernelPortError, Loopback, Neighbours, Netlink, Outcome, Watcher,
};
use crate::topology::Topology;

/// How long a change of ours may take to come back from the kernel.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);
/// Sizes of packets on the kernel port: the usual one, and the most that XDP takes in one buffer on veth.
const USUAL_MTU: u32 = 1500;

/// Why a change could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The journal comes first.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel port.
    #[error(transparent)]
    KernelPort(#[from] KernelPortError),
    /// An address has no interface.
    #[error(transparent)]
    Address(#[from] CompileError),
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    netlink: Netlink,
    watcher: Watcher,
    addresses: Addresses,
    /// Neighbours that are kept fresh.
    pub neighbours: Neighbours,
    /// What was changed.
    pub journal: Journal,
}

/// An address with the interface that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Placed<'c> {
    link: Link,
    interface: String,
    address: &'c StaticAddress,
}

impl Machine {
    /// Begins to watch. Addresses of the journal, which an earlier director added, count as added by this one.
    pub async fn watch(journal: Journal) -> Result<Self, MachineError> {
        let netlink = Netlink::connect()?;
        let watcher = Watcher::start().await?;
        let mut addresses = Addresses::new(netlink.clone());
        journal.entries().addresses.iter().cloned().for_each(|address| addresses.adopt(address));
        Ok(Self { neighbours: Neighbours::new(netlink.clone()), netlink, watcher, addresses, journal })
    }

    /// The machine as it is now.
    pub fn topology(&self) -> Arc<Topology> {
        self.watcher.topology()
    }

    /// The machine after its next change.
    pub async fn changed(&mut self) -> Arc<Topology> {
        self.watcher.changed().await
    }

    /// Makes the kernel port with a queue for each worker, and waits until the machine shows it.
    pub async fn make_kernel_port(&mut self, workers: usize, networks: &[PortPlan]) -> Result<(), MachineError> {
        let largest = networks.iter().map(|port| port.mtu).max().unwrap_or(USUAL_MTU);
        let mtu = largest.clamp(USUAL_MTU, dataplane::steer::NATIVE_MTU_LIMIT);
        self.journal.record(|e| e.kernel_port = KernelPair::Made)?;
        kernel::create_kernel_port(&self.netlink, workers as u32, mtu).await?;
        // By index, for a pair of the same name may have been there before.
        let ends = [self.netlink.link_index(DATAPLANE_END).await?, self.netlink.link_index(KERNEL_END).await?];
        let is_up = |topology: &Topology, index: u32| topology.links.get(&Link(index)).is_some_and(|state| state.up);
        self.wait_for(|topology| ends.iter().flatten().all(|index| is_up(topology, *index))).await;
        Ok(())
    }

    /// Lets packets for 127.0.0.0/8 in by the kernel port where a real server is there, and nowhere else.
    pub fn set_loopback(&self, config: &Config) -> Result<(), MachineError> {
        if self.journal.entries().kernel_port == KernelPair::Absent {
            return Ok(());
        }
        let is_open = needs_loopback(config);
        Ok(kernel::set_loopback(if is_open { Loopback::Open } else { Loopback::Closed })?)
    }

    /// Gives interfaces the numbers of queues that the ports ask for.
    pub fn set_queues(&mut self, ports: &[PortPlan]) -> Result<(), MachineError> {
        let topology = self.topology();
        let now = |port: &PortPlan| topology.links.get(&port.link).map_or(port.queues, |state| state.queues);
        for port in ports.iter().filter(|port| port.role == PortRole::Network && now(port) != port.queues) {
            let changed = ChangedQueues { interface: port.name.clone(), before: now(port) };
            if !self.journal.entries().queues.iter().any(|before| before.interface == changed.interface) {
                self.journal.record(|e| e.queues.push(changed))?;
            }
            kernel::set_queues(&port.name, port.queues)?;
            tracing::info!(interface = port.name, queues = port.queues, "set the number of queues");
        }
        Ok(())
    }

    /// Has the ports below VLANs leave the tags in the frames: XDP does not see those that hardware takes out.
    pub fn keep_vlan_tags(&mut self, ports: &[PortPlan]) -> Result<(), MachineError> {
        let topology = self.topology();
        let vlans = topology.links.iter().filter(|(_, state)| state.kind.vlan_tag().is_some());
        let below: BTreeSet<Link> = vlans.flat_map(|(vlan, _)| topology.carriers(*vlan)).collect();
        for port in ports.iter().filter(|port| below.contains(&port.link)) {
            if self.journal.entries().stripped_tags.contains(&port.name) {
                continue;
            }
            self.journal.record(|e| {
                e.stripped_tags.insert(port.name.clone());
            })?;
            if kernel::keep_vlan_tags(&port.name)? {
                tracing::info!(interface = port.name, "turned off rx-vlan-offload: XDP has to see the tags");
            } else {
                self.journal.record(|e| {
                    e.stripped_tags.remove(&port.name);
                })?;
            }
        }
        Ok(())
    }

    /// All addresses that the director is to have: the static ones and those of FULLNAT.
    pub fn wanted_addresses(&self, config: &Config) -> Result<Vec<StaticAddress>, MachineError> {
        let added: BTreeSet<IpAddr> = self.addresses.added().iter().map(|added| added.address.addr()).collect();
        let kernel = kernel::local_port_range();
        let locals = local_addresses(config, &self.topology(), &added, kernel.as_ref()).map_err(CompileError::from)?;
        Ok(config.static_addresses.iter().cloned().chain(locals).collect())
    }

    /// Adds the addresses that are not there, takes away those of ours that are not among them, and waits until the
    /// machine shows it. Returns what is new, to be announced.
    pub async fn set_addresses(&mut self, wanted: &[StaticAddress]) -> Result<Vec<(Link, IpNet)>, MachineError> {
        let topology = self.topology();
        let placed = place(wanted, &topology)?;
        let mut new = Vec::new();
        for Placed { link, interface, address } in &placed {
            let there = topology.addresses.contains(&(*link, address.address));
            if there {
                continue;
            }
            let added = AddedAddress::new(interface, address);
            if !self.journal.entries().addresses.contains(&added) {
                self.journal.record(|e| e.addresses.push(added))?;
            }
            if self.addresses.add(*link, interface, address).await? == Outcome::Added {
                tracing::info!(interface, address = %address.address, "added an address");
                new.push((*link, address.address));
            }
        }
        let keep: Vec<AddedAddress> = placed.iter().map(|p| AddedAddress::new(&p.interface, p.address)).collect();
        for stale in self.addresses.added().to_vec().into_iter().filter(|added| !keep.contains(added)) {
            self.addresses.remove(&stale).await?;
            tracing::info!(interface = stale.interface, address = %stale.address, "removed an address");
            self.journal.record(|e| e.addresses.retain(|standing| *standing != stale))?;
        }
        let shows = |topology: &Topology, (link, net): &(Link, IpNet)| topology.addresses.contains(&(*link, *net));
        self.wait_for(|topology| new.iter().all(|at| shows(topology, at))).await;
        Ok(new)
    }

    /// Tells the network of new addresses. Nobody depends on it, so a failure is only logged.
    pub fn announce(&self, addresses: &[(Link, IpNet)]) {
        let topology = self.topology();
        for (link, net) in addresses {
            let Some(state) = topology.links.get(link) else { continue };
            if let Err(error) = kernel::announce(*link, state, net.addr()) {
                tracing::warn!("{}", crate::error::chain(&error));
            }
        }
    }

    /// Takes away the addresses that were added. What fails stays in the journal.
    pub async fn remove_addresses(&mut self) -> Result<(), MachineError> {
        for error in self.addresses.remove_all().await {
            tracing::error!("{}", crate::error::chain(&error));
        }
        let left = self.addresses.added().to_vec();
        Ok(self.journal.record(|e| e.addresses = left)?)
    }

    /// Waits until the machine shows something; a while at most: what does not show is told by the findings.
    async fn wait_for(&mut self, shown: impl Fn(&Topology) -> bool) {
        let waiting = async {
            while !shown(&self.watcher.topology()) {
                self.watcher.changed().await;
            }
        };
        if timeout(VISIBLE_WITHIN, waiting).await.is_err() {
            tracing::warn!("the kernel does not show a change that it has taken");
        }
    }
}

/// Which interface each address belongs to; those that are there already have theirs.
fn place<'c>(wanted: &'c [StaticAddress], topology: &Topology) -> Result<Vec<Placed<'c>>, CompileError> {
    let mut placed = Vec::new();
    for address in wanted {
        let link = static_link(address, topology)?;
        placed.push(Placed { link, interface: topology.name(link), address });
    }
    Ok(placed)
}
