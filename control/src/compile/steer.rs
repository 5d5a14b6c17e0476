//! What the XDP program takes for the director: everything else stays with the kernel.

use std::collections::BTreeSet;

use dataplane::ident::{Endpoint, MacAddr, NetPort, Protocol, ServiceKey};
use dataplane::rules::{Action, Rule};
use dataplane::service::{AddressFamily, Encapsulation, MatchPoint, ServiceName};
use dataplane::snapshot::{Defence, Defended};
use dataplane::steer::{SteerPlan, SteerPrefix, TunnelEnd};
use dataplane::wire::number;

use super::slots::{SlotDirectory, Standing};
use super::vips::{Local, Vips};
use crate::config::{Config, ForwardingMethod, RealServer, VirtualServer};
use crate::topology::{LinkState, MemberStanding, Topology};

/// The plan for services whose address is here now, and the names of these; `macs` are those that frames for this
/// machine may carry.
pub(super) fn plan(
    config: &Config,
    topology: &Topology,
    macs: BTreeSet<MacAddr>,
    slots: &SlotDirectory,
) -> (SteerPlan, BTreeSet<ServiceName>) {
    let (vips, local) = (Vips::of(config), Local::of(topology));
    let mut plan = SteerPlan { macs, standby: standby(topology), ..SteerPlan::default() };
    let mut served = BTreeSet::new();
    for service in &config.virtual_servers {
        if catch(service, &local, &mut plan) | marked(service, &config.dataplane.rules, &mut plan) {
            served.insert(service.name.clone());
        }
        defend(service, config.dataplane.defence, &local, &mut plan);
    }
    plan.replies = replies(&served, slots);
    plan.replies.extend(config.virtual_servers.iter().filter(|service| served.contains(&service.name)).flat_map(data));
    plan.tunnels = config.virtual_servers.iter().flat_map(tunnels).collect();
    plan.locals = slots.pairs().map(|(pair, _)| (pair.local, config.dataplane.local_ports)).collect();
    plan.own = local.addresses.iter().filter(|address| !vips.contains(**address)).copied().collect();
    (plan, served)
}

/// Catches what a service is found by; false where nothing of it is here.
fn catch(service: &VirtualServer, local: &Local, plan: &mut SteerPlan) -> bool {
    let mut is_served = false;
    for point in &service.points {
        let MatchPoint::Addresses { protocol, range, port } = point else { continue };
        let port = if service.has_data_beside(*protocol, *port) { &NetPort::ANY } else { port };
        let key = |address| ServiceKey { protocol: *protocol, at: Endpoint { address, port: *port } };
        plan.services.extend(local.addresses_in(range).map(key));
        let (low, high) = if port.is_any() { (0, u16::MAX) } else { (port.host(), port.host()) };
        let prefix = |prefix| SteerPrefix { protocol: *protocol, prefix, low, high };
        plan.prefixes.extend(local.prefixes_in(range).into_iter().map(prefix));
        is_served |= local.has_any(range);
    }
    is_served
}

/// Catches what rules mark for a service, wherever it goes: a mark stands for a decision to balance it here. False where no
/// rule gives its mark.
fn marked(service: &VirtualServer, rules: &[Rule], plan: &mut SteerPlan) -> bool {
    let mut is_served = false;
    for point in &service.points {
        let MatchPoint::Mark(mark, family) = point else { continue };
        for rule in rules.iter().filter(|rule| rule.action == Action::Mark(*mark)) {
            let Some(prefix) = rule.selector.to.filter(|prefix| AddressFamily::of(prefix.addr()) == *family) else {
                continue;
            };
            let (low, high) = rule.selector.ports;
            let protocols =
                Protocol::ALL.iter().filter(|own| rule.selector.protocol.is_none_or(|named| named == **own));
            plan.prefixes.extend(protocols.map(|protocol| SteerPrefix { protocol: *protocol, prefix, low, high }));
            is_served = true;
        }
    }
    is_served
}

/// Catches what is to be dropped of packets to a service's address.
fn defend(service: &VirtualServer, defence: Defence, local: &Local, plan: &mut SteerPlan) {
    for point in &service.points {
        let MatchPoint::Addresses { range, .. } = point else { continue };
        for (protocol, defended) in [(Protocol::Tcp, defence.tcp), (Protocol::Udp, defence.udp)] {
            if defended == Defended::On {
                let key = |address| ServiceKey { protocol, at: Endpoint { address, port: NetPort::ANY } };
                plan.services.extend(local.addresses_in(range).map(key));
                let prefix = |prefix| SteerPrefix { protocol, prefix, low: 0, high: u16::MAX };
                plan.prefixes.extend(local.prefixes_in(range).into_iter().map(prefix));
            }
        }
    }
}

/// Members of bonds that wait: what arrives there is a copy of what another member has, or goes astray.
fn standby(topology: &Topology) -> BTreeSet<u32> {
    let waits = |state: &LinkState| state.master.is_some() && state.standing == MemberStanding::Standby;
    topology.links.iter().filter(|(_, state)| waits(state)).map(|(link, _)| link.0).collect()
}

/// The real servers of FTP under NAT, whole: their data connections come from any port.
fn data(service: &VirtualServer) -> impl Iterator<Item = ServiceKey> + '_ {
    let has_data = service.points.iter().any(|point| match point {
        MatchPoint::Addresses { protocol, port, .. } => service.has_data_beside(*protocol, *port),
        MatchPoint::Mark(..) => false,
    });
    let is_two_way = move |real: &&RealServer| has_data && real.method == ForwardingMethod::Nat;
    service.all_servers().filter(is_two_way).map(|real| {
        let at = Endpoint { address: real.at.address, port: NetPort::ANY };
        ServiceKey { protocol: Protocol::Tcp, at }
    })
}

/// Where outer packets to the real servers of a service go. A server without a tunnel is the end of none.
fn tunnels(service: &VirtualServer) -> impl Iterator<Item = TunnelEnd> + '_ {
    let is_tunnel = |real: &&RealServer| real.method == ForwardingMethod::Tun;
    service.all_servers().filter(is_tunnel).flat_map(|real| {
        let end = |protocol, port| TunnelEnd { address: real.at.address, protocol, port };
        match real.encapsulation {
            Encapsulation::Ipip => [Some(end(number::IPV4, NetPort::ANY)), Some(end(number::IPV6, NetPort::ANY))],
            Encapsulation::Gre(_) => [Some(end(number::GRE, NetPort::ANY)), None],
            Encapsulation::Gue { port, .. } => [Some(end(number::UDP, port)), None],
        }
        .into_iter()
        .flatten()
    })
}

/// NAT real servers: those of services that are served here, and any with flows, until the last has ended.
fn replies(served: &BTreeSet<ServiceName>, slots: &SlotDirectory) -> BTreeSet<ServiceKey> {
    let awaited = slots.iter().filter(|((service, _), entry)| {
        let is_served = entry.standing == Standing::Configured && served.contains(service);
        entry.is_two_way() && (is_served || !entry.counts.is_idle())
    });
    awaited.flat_map(|((service, at), _)| reply(service, *at)).collect()
}

/// What replies of a real server come from: its port, or any where the service has every port.
fn reply(service: &ServiceName, at: Endpoint) -> Vec<ServiceKey> {
    let key = |protocol, port| ServiceKey { protocol, at: Endpoint { address: at.address, port } };
    match service {
        ServiceName::Address(service) if service.at.port.is_any() => vec![key(service.protocol, NetPort::ANY)],
        ServiceName::Address(ServiceKey { protocol, .. }) | ServiceName::Group { protocol, .. } => {
            vec![key(*protocol, at.port)]
        }
        ServiceName::Mark { .. } => Protocol::ALL.iter().map(|protocol| key(*protocol, at.port)).collect(),
    }
}
