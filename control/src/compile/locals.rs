//! Local addresses of FULLNAT on the machine: which interface each is added to, and that none of its ports is the
//! kernel's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use dataplane::ident::Protocol;
use dataplane::next_hop::Link;
use dataplane::service::{LocalPorts, Services};
use ipnet::IpNet;

use crate::config::{
    AddressFlags, Broadcast, Config, ForwardingMethod, LocalAddress, Place, StaticAddress, VirtualServer,
};
use crate::topology::{LinkKind, RouteTable, Topology};

/// A pair of which more than so many ports in a hundred are in use is nearly used up.
const NEARLY_ALL: u64 = 90;

/// A local address that this machine cannot have.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// No interface for it.
    #[error(
        "{place}: the local address {address} is of no network of this machine, and no route leads to the real servers; \
         name its interface behind it: `{address} eth0`"
    )]
    NoLink {
        /// The address.
        address: IpAddr,
        /// Where it stands.
        place: Place,
    },
    /// The interface named is not there.
    #[error("{place}: the local address {address} is to be on '{name}', and there is no such interface")]
    NoDev {
        /// The address.
        address: IpAddr,
        /// The interface's name.
        name: String,
        /// Where it stands.
        place: Place,
    },
    /// Its ports are the kernel's, too.
    #[error(
        "{place}: the local address {address} is one of this machine's own, whose connections come from the ports {}-{} \
         (net.ipv4.ip_local_port_range), and FULLNAT would take {}-{} of them; take an address of its own, or set \
         `local_ports` in the dataplane block or the sysctl so that the two have no port in common",
        kernel.start(), kernel.end(), ours.start(), ours.end()
    )]
    PortsShared {
        /// The address.
        address: IpAddr,
        /// The kernel's ports.
        kernel: RangeInclusive<u16>,
        /// FULLNAT's.
        ours: RangeInclusive<u16>,
        /// Where it stands.
        place: Place,
    },
}

/// The local addresses as the director adds them to interfaces. Those that the machine has of itself (`added` are those
/// that are there because of a director) are not among them: there, `kernel` is the range of ports of the machine's own
/// connections, which must be another.
///
/// # Errors
/// An address with no interface, or with ports that are the kernel's.
pub fn local_addresses(
    config: &Config,
    topology: &Topology,
    added: &BTreeSet<IpAddr>,
    kernel: Option<&RangeInclusive<u16>>,
) -> Result<Vec<StaticAddress>, LocalError> {
    let mut addresses: Vec<StaticAddress> = Vec::new();
    for service in &config.virtual_servers {
        for local in &service.locals {
            if addresses.iter().any(|known| known.address.addr() == local.address) {
                continue;
            }
            if topology.has_address(local.address) && !added.contains(&local.address) {
                check_ports(local, config.dataplane.local_ports, kernel)?;
                continue;
            }
            let link = link(service, local, topology)?;
            addresses.push(static_address(local, topology.name(link)));
        }
    }
    Ok(addresses)
}

fn check_ports(local: &LocalAddress, ours: LocalPorts, kernel: Option<&RangeInclusive<u16>>) -> Result<(), LocalError> {
    let ours = ours.range();
    match kernel {
        Some(kernel) if kernel.start() <= ours.end() && ours.start() <= kernel.end() => Err(LocalError::PortsShared {
            address: local.address,
            kernel: kernel.clone(),
            ours,
            place: local.place.clone(),
        }),
        _ => Ok(()),
    }
}

/// The interface named, else one whose network has the address, else the one that leads to a real server.
fn link(service: &VirtualServer, local: &LocalAddress, topology: &Topology) -> Result<Link, LocalError> {
    let (address, place) = (local.address, || local.place.clone());
    if let Some(name) = &local.dev {
        let found = topology.link_named(name).map(|(link, _)| link);
        return found.ok_or_else(|| LocalError::NoDev { address, name: name.clone(), place: place() });
    }
    let is_network = |(link, net): &&(Link, IpNet)| {
        let is_loopback = topology.links.get(link).is_some_and(|state| state.kind == LinkKind::Loopback);
        net.prefix_len() < net.max_prefix_len() && net.contains(&address) && !is_loopback
    };
    let nets = topology.addresses.iter().filter(is_network);
    if let Some((link, _)) = nets.max_by_key(|(_, net)| net.prefix_len()) {
        return Ok(*link);
    }
    let routes = RouteTable::new(topology);
    let servers = service.real_servers.iter().filter(|server| server.method == ForwardingMethod::FullNat);
    let mut of_family = servers.filter(|server| server.at.address.is_ipv4() == address.is_ipv4());
    let way = of_family.find_map(|server| routes.lookup(server.at.address)?.via.legs().first().map(|leg| leg.link));
    way.ok_or_else(|| LocalError::NoLink { address, place: place() })
}

fn static_address(local: &LocalAddress, dev: String) -> StaticAddress {
    StaticAddress {
        address: local.address.into(),
        dev,
        broadcast: Broadcast::Unset,
        scope: 0,
        label: None,
        peer: None,
        // The machine's own connections must not come from it: the kernel takes a deprecated one last.
        preferred_lifetime: local.address.is_ipv6().then_some(Duration::ZERO),
        flags: AddressFlags::default(),
        place: local.place.clone(),
    }
}

/// The pairs of which nearly all ports are in use: a name for each, and what there is to say.
pub fn short_pairs(services: &Services) -> BTreeMap<String, String> {
    let counts: BTreeMap<IpAddr, u32> = services.locals().map(|(address, ports)| (address, ports.count())).collect();
    let short = services.pairs().filter_map(|(key, pair)| {
        let (used, all) = (pair.in_use(), *counts.get(&key.local)?);
        let protocol = key.protocol.map_or("", Protocol::name);
        let name = format!("local address {} to the real server {protocol} {}", key.local, key.server);
        let said = format!(
            "{name}: {used} of its {all} ports are in use; add addresses to its group before connections are refused"
        );
        (u64::from(used) * 100 > u64::from(all) * NEARLY_ALL).then_some((name, said))
    });
    short.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, parse_text};
    use crate::topology::batch;

    const MACHINE: &str = "link add eth0 address 02:00:00:00:00:01
        link add eth1 address 02:00:00:00:00:02
        addr add 10.1.0.2/24 dev eth0
        addr add fd01::2/64 dev eth0
        addr add 10.2.0.2/24 dev eth1
        route add default via 10.1.0.1 dev eth0";

    fn config(group: &str) -> Config {
        let text = format!(
            "local_address_group g {{\n{group}\n}}\nvirtual_server 10.1.0.9 80 {{\nlb_algo rr\nlb_kind FNAT\n\
             protocol TCP\nladdr_group_name g\nreal_server 10.9.0.1 80 {{\nweight 1\n}}\n}}"
        );
        let loaded = parse_text("test.conf", text.as_bytes(), &LoadOptions::default());
        loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render_plain()))
    }

    fn placed(group: &str, kernel: RangeInclusive<u16>) -> Result<String, String> {
        let topology = batch::parse(MACHINE).unwrap();
        let addresses = local_addresses(&config(group), &topology, &BTreeSet::new(), Some(&kernel));
        let addresses = addresses.map_err(|error| error.to_string())?;
        Ok(addresses.iter().map(|a| format!("{} {}", a.address, a.dev)).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn an_address_goes_to_its_network_or_towards_the_servers() {
        let range = 32_768..=60_999;
        assert_eq!(placed("10.2.0.200-201", range.clone()).unwrap(), "10.2.0.200/32 eth1, 10.2.0.201/32 eth1");
        assert_eq!(placed("10.3.0.1\n10.3.0.2 eth1", range.clone()).unwrap(), "10.3.0.1/32 eth0, 10.3.0.2/32 eth1");
        assert!(placed("10.3.0.1 eth7", range).unwrap_err().contains("test.conf:2:1"));
    }

    #[test]
    fn the_machines_own_address_is_used_with_ports_of_its_own() {
        let shared = placed("10.2.0.2", 32_768..=60_999).unwrap_err();
        assert!(shared.contains("32768-60999") && shared.contains("5000-65535") && shared.contains("local_ports"));
        assert_eq!(placed("10.2.0.2", 1024..=4999).unwrap(), "");
    }
}
