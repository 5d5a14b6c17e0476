//! Which interfaces the director works on: those that the configuration names, else those that its addresses and
//! routes lead to. Only Ethernet interfaces can be ports; VLANs are followed from the interface below them, and of a
//! bond its members are the ports: a socket on the bond itself gets nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::ident::{MacAddr, PortIndex};
use dataplane::next_hop::{Link, MAX_MEMBERS};
use dataplane::port::ChecksumMode;
use dataplane::rss::Rss;

use super::CompileError;
use super::kernel_port::{DATAPLANE_END, KERNEL_END};
use super::vips::Vips;
use crate::config::{
    BusyPoll, ChecksumPolicy, Config, CopyMode, InterfaceConfig, Queues, StaticAddress, VirtualServer, XdpMode,
};
use crate::topology::{Bond, BondMode, LinkKind, LinkState, RouteTable, Topology, Via};

/// One port to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Its number: its place among the ports.
    pub index: PortIndex,
    /// The interface.
    pub link: Link,
    /// The interface's name.
    pub name: String,
    /// What is on its other side.
    pub role: PortRole,
    /// Receive queues to serve; where the interface has another number now, it is to be set to this one.
    pub queues: u32,
    /// Its Ethernet address.
    pub mac: MacAddr,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// What state checksums arrive in.
    pub checksum: ChecksumMode,
    /// Where the XDP program runs.
    pub mode: XdpMode,
    /// Whether frames are copied.
    pub copy: CopyMode,
    /// Busy polling, where it is on.
    pub busy_poll: Option<BusyPoll>,
    /// How it spreads what it receives over its queues, where that is known: read at the start, when the queues are set.
    pub rss: Option<Arc<Rss>>,
    /// Why it is a port, for `status`.
    pub why: String,
}

/// What is on the other side of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortRole {
    /// A network.
    Network,
    /// The director's own kernel.
    Kernel,
}

/// Most ports that one director has.
pub const MAX_PORTS: usize = 64;

/// Most workers that a director can have here: what the configuration says, else the least number of queues.
pub fn worker_limit(config: &Config, ports: &[PortPlan]) -> usize {
    let network = ports.iter().filter(|port| port.role == PortRole::Network);
    let queues = network.map(|port| port.queues as usize).min().unwrap_or(1).max(1);
    config.dataplane.workers.as_ref().map_or(queues, |workers| workers.count).min(dataplane::ident::MAX_WORKERS)
}

/// The ports of a director, networks first (in the order of their interfaces), the kernel's last.
///
/// # Errors
/// An interface that is not there or cannot be a port, or none at all.
pub fn derive_ports(config: &Config, topology: &Topology) -> Result<Vec<PortPlan>, CompileError> {
    let chosen =
        if config.dataplane.interfaces.is_empty() { derived(config, topology)? } else { named(config, topology)? };
    if chosen.is_empty() {
        return Err(CompileError::NoPorts);
    }
    let mut ports = Vec::new();
    for (link, why) in chosen {
        ports.push(network_port(config, topology, link, why)?);
    }
    ports.extend(kernel_port(config, topology));
    if ports.len() > MAX_PORTS {
        return Err(CompileError::TooManyPorts(ports.len()));
    }
    for (port, index) in ports.iter_mut().zip(0..) {
        port.index = PortIndex(index);
    }
    Ok(ports)
}

fn named(config: &Config, topology: &Topology) -> Result<BTreeMap<Link, String>, CompileError> {
    let mut chosen = BTreeMap::new();
    for interface in &config.dataplane.interfaces {
        let (link, state) = topology
            .link_named(&interface.name)
            .ok_or_else(|| CompileError::NoInterface { name: interface.name.clone(), there: names(topology) })?;
        check(topology, link, state)?;
        let why = format!("named in the dataplane block ({})", interface.place);
        choose(topology, link, &mut chosen, || why);
    }
    Ok(chosen)
}

fn derived(config: &Config, topology: &Topology) -> Result<BTreeMap<Link, String>, CompileError> {
    let mut chosen = Chosen { topology, reasons: BTreeMap::new() };
    for address in &config.static_addresses {
        let link = static_link(address, topology)?;
        chosen.must(link, || format!("{} stands there (static_ipaddress)", address.address))?;
    }
    let vips = Vips::of(config);
    for (link, net) in topology.addresses.iter().filter(|(_, net)| vips.contains(net.addr())) {
        chosen.must(*link, || format!("it has the address {} of a virtual server", net.addr()))?;
    }
    let routes = RouteTable::new(topology);
    for server in config.virtual_servers.iter().flat_map(VirtualServer::all_servers) {
        let legs = routes.lookup(server.at.address).map(|route| route.via.legs()).unwrap_or_default();
        for leg in legs {
            chosen.may(leg.link, || format!("it leads to real server {}", server.at));
        }
    }
    for route in routes.iter().filter(|route| route.prefix.prefix_len() == 0 && route.via != Via::Blackhole) {
        for leg in route.via.legs() {
            chosen.may(leg.link, || format!("the default route {} leaves by it", route.prefix));
        }
    }
    Ok(chosen.reasons)
}

/// The interface of a `static_ipaddress` line.
///
/// # Errors
/// A name that no interface has.
pub fn static_link(address: &StaticAddress, topology: &Topology) -> Result<Link, CompileError> {
    topology.link_named(&address.dev).map(|(link, _)| link).ok_or_else(|| CompileError::NoDev {
        address: address.address,
        name: address.dev.clone(),
        there: names(topology),
        place: address.place.clone(),
    })
}

struct Chosen<'t> {
    topology: &'t Topology,
    reasons: BTreeMap<Link, String>,
}

impl Chosen<'_> {
    /// An interface that clients come by: one that cannot be a port is an error.
    fn must(&mut self, link: Link, why: impl FnOnce() -> String) -> Result<(), CompileError> {
        let base = self.topology.base(link).unwrap_or(link);
        let Some(state) = self.topology.links.get(&base) else { return Ok(()) };
        if state.kind == LinkKind::Loopback || is_ours(state) {
            return Ok(());
        }
        check(self.topology, base, state)?;
        choose(self.topology, base, &mut self.reasons, why);
        Ok(())
    }

    /// An interface that packets leave by: one that cannot be a port is left to the kernel.
    fn may(&mut self, link: Link, why: impl FnOnce() -> String) {
        let base = self.topology.base(link).unwrap_or(link);
        let Some(state) = self.topology.links.get(&base) else { return };
        if !is_ours(state) && check(self.topology, base, state).is_ok() {
            choose(self.topology, base, &mut self.reasons, why);
        }
    }
}

/// Chooses an interface, or the members of a bond in its place.
fn choose(topology: &Topology, link: Link, chosen: &mut BTreeMap<Link, String>, why: impl FnOnce() -> String) {
    let carriers = topology.carriers(link);
    if carriers == [link] {
        chosen.entry(link).or_insert_with(why);
        return;
    }
    let why = format!("a member of {}: {}", topology.name(link), why());
    for member in carriers {
        chosen.entry(member).or_insert_with(|| why.clone());
    }
}

fn is_ours(state: &LinkState) -> bool {
    [DATAPLANE_END, KERNEL_END].contains(&state.name.as_str())
}

fn check(topology: &Topology, link: Link, state: &LinkState) -> Result<(), CompileError> {
    let refuse = |reason: String| Err(CompileError::NoPort { name: state.name.clone(), reason });
    let master = state.master.and_then(|master| topology.links.get(&master));
    match (&state.kind, master) {
        (LinkKind::Bridge, _) => refuse(
            "it is a bridge, whose frames XDP sees only on its members; put the addresses on an interface of their own"
                .into(),
        ),
        (LinkKind::Bond(bond), _) => match unfit_bond(topology, link, *bond) {
            Some(reason) => refuse(reason),
            None => Ok(()),
        },
        (LinkKind::Loopback, _) => refuse("nothing arrives on the loopback interface".into()),
        (LinkKind::Vlan { parent, .. }, _) => {
            refuse(format!("it is a VLAN; name {} in its place, its VLANs are followed", topology.name(*parent)))
        }
        (_, Some(master)) if matches!(master.kind, LinkKind::Bond(_)) => {
            refuse(format!("it is a member of the bond {0}; name {0} in its place", master.name))
        }
        (_, Some(master)) if master.kind == LinkKind::Bridge => {
            refuse(format!("it is part of {}; take it out of there", master.name))
        }
        _ if state.mac.is_none() => refuse("it is not Ethernet".into()),
        _ => Ok(()),
    }
}

/// Why a bond's members cannot be ports.
fn unfit_bond(topology: &Topology, link: Link, bond: Bond) -> Option<String> {
    let mode = match bond.mode {
        BondMode::RoundRobin | BondMode::ActiveBackup | BondMode::Xor | BondMode::Lacp => {
            let unfit = topology.members(link).find(|(_, member)| member.mac.is_none());
            return match (topology.members(link).count(), unfit) {
                (0, _) => Some("it is a bond without members; add some (`ip link set eth0 master …`)".into()),
                (count, _) if count > MAX_MEMBERS => {
                    Some(format!("it is a bond of {count} members; at most {MAX_MEMBERS} are possible"))
                }
                (_, Some((_, member))) => Some(format!("its member {} is not Ethernet", member.name)),
                (_, None) => None,
            };
        }
        BondMode::Broadcast => "broadcast, which sends every frame by all members",
        BondMode::TransmitLoad => "balance-tlb, in which only the kernel knows by which member a frame leaves",
        BondMode::AdaptiveLoad => "balance-alb, in which clients are given the members' addresses in turn",
    };
    Some(format!("it is a bond of mode {mode}; use active-backup or 802.3ad"))
}

fn network_port(config: &Config, topology: &Topology, link: Link, why: String) -> Result<PortPlan, CompileError> {
    let state = topology.links.get(&link).ok_or(CompileError::LinkGone(link.0))?;
    // What is said of a bond is said of its members.
    let named = state.master.and_then(|master| topology.links.get(&master)).unwrap_or(state);
    let said = config.dataplane.interfaces.iter().find(|interface| interface.name == named.name);
    let queues = match said.map(|interface| interface.queues) {
        Some(Queues::Count(count)) => count,
        Some(Queues::All) | None => state.queues,
    };
    let policy = said.map_or(ChecksumPolicy::Auto, |interface| interface.checksum);
    Ok(PortPlan {
        index: PortIndex(0),
        link,
        name: state.name.clone(),
        role: PortRole::Network,
        queues: queues.max(1),
        mac: state.mac.unwrap_or_default(),
        mtu: state.mtu,
        checksum: checksum(policy, state),
        mode: said.map_or(XdpMode::Auto, |interface| interface.mode),
        copy: said.map_or(CopyMode::Auto, |interface: &InterfaceConfig| interface.copy),
        busy_poll: said.and_then(|interface| interface.busy_poll),
        rss: None,
        why,
    })
}

fn kernel_port(config: &Config, topology: &Topology) -> Option<PortPlan> {
    config.dataplane.kernel_port?;
    let (link, state) = topology.link_named(DATAPLANE_END)?;
    Some(PortPlan {
        index: PortIndex(0),
        link,
        name: state.name.clone(),
        role: PortRole::Kernel,
        queues: state.queues,
        mac: state.mac?,
        mtu: state.mtu,
        // The other end computes every checksum itself (its offload is off).
        checksum: ChecksumMode::Offload,
        mode: XdpMode::Auto,
        copy: CopyMode::Copy,
        busy_poll: None,
        rss: None,
        why: "the way to this machine's own kernel".into(),
    })
}

/// veth and virtio hand over what a process on the other side left to "hardware" that is not there.
fn checksum(policy: ChecksumPolicy, state: &LinkState) -> ChecksumMode {
    let is_virtual = state.kind == LinkKind::Veth
        || state
            .driver
            .as_deref()
            .is_some_and(|driver| ["veth", "virtio_net", "tun", "xen-netfront"].contains(&driver));
    match policy {
        ChecksumPolicy::Full => ChecksumMode::Full,
        ChecksumPolicy::Auto if is_virtual => ChecksumMode::Full,
        ChecksumPolicy::Auto | ChecksumPolicy::Offload => ChecksumMode::Offload,
    }
}

fn names(topology: &Topology) -> String {
    topology.links.values().map(|state| state.name.as_str()).collect::<Vec<_>>().join(", ")
}
