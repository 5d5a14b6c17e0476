//! What the XDP program takes for the director: everything else stays with the kernel.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane::ident::{Endpoint, MacAddr, NetPort, ServiceKey};
use dataplane::steer::SteerPlan;

use super::slots::{SlotDirectory, Standing};
use crate::config::Config;
use crate::topology::{LinkState, MemberStanding, Topology};

/// The plan for services whose address is here now; `macs` are those that frames for this machine may carry.
pub(super) fn plan(config: &Config, topology: &Topology, macs: BTreeSet<MacAddr>, slots: &SlotDirectory) -> SteerPlan {
    let vips: BTreeSet<IpAddr> = config.virtual_servers.iter().map(|service| service.key.at.address).collect();
    let local: BTreeSet<IpAddr> = topology.addresses.iter().map(|(_, net)| net.addr()).collect();
    let keys = config.virtual_servers.iter().map(|service| service.key);
    let services = keys.filter(|key| local.contains(&key.at.address)).collect();
    SteerPlan {
        macs,
        replies: replies(&services, slots),
        services,
        own: local.difference(&vips).copied().collect(),
        standby: standby(topology),
    }
}

/// Members of bonds that wait: what arrives there is a copy of what another member has, or goes astray.
fn standby(topology: &Topology) -> BTreeSet<u32> {
    let waits = |state: &LinkState| state.master.is_some() && state.standing == MemberStanding::Standby;
    topology.links.iter().filter(|(_, state)| waits(state)).map(|(link, _)| link.0).collect()
}

/// NAT real servers: those of services that are served here, and any with flows, until the last has ended.
fn replies(services: &BTreeSet<ServiceKey>, slots: &SlotDirectory) -> BTreeSet<ServiceKey> {
    let awaited = slots.iter().filter(|((service, _), entry)| {
        let is_served = entry.standing == Standing::Configured && services.contains(service);
        entry.is_two_way() && (is_served || !entry.counts.is_idle())
    });
    let reply = |(service, at): &(ServiceKey, Endpoint)| {
        let port = if service.at.port.is_any() { NetPort::ANY } else { at.port };
        ServiceKey { protocol: service.protocol, at: Endpoint { address: at.address, port } }
    };
    awaited.map(|(name, _)| reply(name)).collect()
}
