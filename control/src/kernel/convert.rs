//! From the kernel's messages to the parts of a topology. Pure; what forwarding has no use for becomes `None`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::ident::MacAddr;
use dataplane::next_hop::Link;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    self as kernel, BondPortState, InfoBond, InfoBondPort, InfoData, InfoKind, InfoPortData, InfoVlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags, RouteType, RouteVia,
};

use crate::topology::{Bond, BondHash, BondMode, Leg, LinkKind, LinkState, MemberStanding, RouteState, Via};

/// No interface has this number: routes that only the kernel can follow (through an encapsulation) leave by it.
const NO_LINK: Link = Link(0);
/// Routing tables (linux/rtnetlink.h).
const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;

/// An interface. Messages of bridges about their ports are not about the interface.
pub(super) fn link(message: &LinkMessage) -> Option<(Link, LinkState)> {
    if message.header.interface_family == AddressFamily::Bridge {
        return None;
    }
    let flags = message.header.flags;
    let mut state = LinkState {
        name: String::new(),
        kind: LinkKind::Physical,
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
        master: None,
        standing: MemberStanding::Active,
        queues: 1,
        driver: None,
    };
    let (mut parent, mut info, mut is_parent_elsewhere) = (None, None, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => state.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => state.mtu = *mtu,
            LinkAttribute::Controller(master) if *master != 0 => state.master = Some(Link(*master)),
            LinkAttribute::NumRxQueues(queues) => state.queues = (*queues).max(1),
            LinkAttribute::Link(index) => parent = Some(Link(*index)),
            LinkAttribute::LinkNetNsId(_) => is_parent_elsewhere = true,
            LinkAttribute::LinkInfo(parts) => info = Some(parts),
            LinkAttribute::Address(bytes) if message.header.link_layer_type == LinkLayerType::Ether => {
                state.mac = mac(bytes);
            }
            _ => {}
        }
    }
    if flags.contains(LinkFlags::Loopback) {
        state.kind = LinkKind::Loopback;
    } else if let Some(info) = info {
        state.kind = kind(info, parent.filter(|_| !is_parent_elsewhere));
        state.standing = standing(info);
    }
    (!state.name.is_empty()).then_some((Link(message.header.index), state))
}

fn kind(info: &[LinkInfo], parent: Option<Link>) -> LinkKind {
    let kind = info.iter().find_map(|part| match part {
        LinkInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        None => LinkKind::Physical,
        Some(InfoKind::Veth) => LinkKind::Veth,
        Some(InfoKind::Bond) => LinkKind::Bond(bond(info)),
        Some(InfoKind::Bridge) => LinkKind::Bridge,
        Some(InfoKind::Vlan) => vlan(info, parent).unwrap_or_else(|| LinkKind::Other("vlan".to_owned())),
        Some(other) => LinkKind::Other(other.to_string()),
    }
}

fn bond(info: &[LinkInfo]) -> Bond {
    let data = info.iter().find_map(|part| match part {
        LinkInfo::Data(InfoData::Bond(data)) => Some(data),
        _ => None,
    });
    let mut bond = Bond::default();
    for attribute in data.into_iter().flatten() {
        match attribute {
            InfoBond::Mode(mode) => {
                bond.mode = match mode {
                    kernel::BondMode::ActiveBackup => BondMode::ActiveBackup,
                    kernel::BondMode::BalanceXor => BondMode::Xor,
                    kernel::BondMode::Broadcast => BondMode::Broadcast,
                    kernel::BondMode::Ieee8023Ad => BondMode::Lacp,
                    kernel::BondMode::BalanceTlb => BondMode::TransmitLoad,
                    kernel::BondMode::BalanceAlb => BondMode::AdaptiveLoad,
                    _ => BondMode::RoundRobin,
                }
            }
            InfoBond::XmitHashPolicy(kernel::BondXmitHashPolicy::Layer2) => bond.keep = BondHash::Neighbour,
            InfoBond::XmitHashPolicy(_) => bond.keep = BondHash::Flow,
            _ => {}
        }
    }
    bond
}

/// What a bond says of its member.
fn standing(info: &[LinkInfo]) -> MemberStanding {
    let is_standby = info.iter().any(|part| match part {
        LinkInfo::PortData(InfoPortData::BondPort(data)) => {
            data.contains(&InfoBondPort::BondPortState(BondPortState::Backup))
        }
        _ => false,
    });
    if is_standby { MemberStanding::Standby } else { MemberStanding::Active }
}

fn vlan(info: &[LinkInfo], parent: Option<Link>) -> Option<LinkKind> {
    let data = info.iter().find_map(|part| match part {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let (mut tag, mut tpid) = (None, 0x8100);
    for attribute in data {
        match attribute {
            InfoVlan::Id(id) => tag = Some(*id),
            InfoVlan::Protocol(protocol) => tpid = u16::from(*protocol),
            _ => {}
        }
    }
    Some(LinkKind::Vlan { parent: parent?, tag: tag?, tpid })
}

/// A local address, and whether it may be used: one under duplicate address detection, or failed by it, may not.
pub(super) fn address(message: &AddressMessage) -> Option<((Link, IpNet), Usable)> {
    let (mut local, mut other_end) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => other_end = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let address = local.or(other_end)?;
    // With a peer the prefix is the peer's; our own end is one host.
    let is_peer = other_end.is_some_and(|other| other != address);
    let host = if address.is_ipv4() { 32 } else { 128 };
    let length = if is_peer { host } else { message.header.prefix_len };
    let net = IpNet::new(address, length).ok()?;
    let is_pending = flags.contains(AddressFlags::Tentative) && !flags.contains(AddressFlags::Optimistic);
    let has_failed =
        flags.contains(AddressFlags::Dadfailed) || message.header.flags.contains(AddressHeaderFlags::Dadfailed);
    let usable = if is_pending || has_failed { Usable::No } else { Usable::Yes };
    Some(((Link(message.header.index), net), usable))
}

/// Whether something in the kernel's tables may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usable {
    Yes,
    No,
}

/// A route of the tables `main` or `local`.
pub(super) fn route(message: &RouteMessage) -> Option<RouteState> {
    let header = &message.header;
    let mut parts = RouteParts { table: u32::from(header.table), ..RouteParts::default() };
    for attribute in &message.attributes {
        parts.take(attribute);
    }
    let is_ours =
        matches!(parts.table, TABLE_MAIN | TABLE_LOCAL) && header.tos == 0 && header.source_prefix_length == 0;
    let is_gone = header.flags.contains(RouteFlags::Dead) || header.flags.contains(RouteFlags::Cloned);
    if !is_ours || is_gone {
        return None;
    }
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let to = parts.to.unwrap_or(unspecified);
    let prefix = IpNet::new(to, header.destination_prefix_length).ok()?.trunc();
    let via = match header.kind {
        RouteType::Local | RouteType::Anycast => Via::Local,
        RouteType::Unicast => parts.way()?,
        RouteType::Throw | RouteType::Nat | RouteType::ExternalResolve | RouteType::Unspec => return None,
        _ => Via::Blackhole,
    };
    Some(RouteState { prefix, via, metric: parts.metric, source: parts.source, mtu: parts.mtu })
}

#[derive(Default)]
struct RouteParts {
    table: u32,
    to: Option<IpAddr>,
    gateway: Option<IpAddr>,
    link: Option<Link>,
    legs: Vec<Leg>,
    metric: u32,
    source: Option<IpAddr>,
    mtu: Option<u32>,
    is_encapsulated: bool,
}

impl RouteParts {
    fn take(&mut self, attribute: &RouteAttribute) {
        match attribute {
            RouteAttribute::Table(table) => self.table = *table,
            RouteAttribute::Destination(to) => self.to = ip(to),
            RouteAttribute::Gateway(gateway) => self.gateway = ip(gateway),
            RouteAttribute::Via(via) => self.gateway = via_ip(via),
            RouteAttribute::Oif(index) => self.link = Some(Link(*index)),
            RouteAttribute::Priority(metric) => self.metric = *metric,
            RouteAttribute::PrefSource(source) => self.source = ip(source),
            RouteAttribute::EncapType(_) => self.is_encapsulated = true,
            RouteAttribute::MultiPath(hops) => {
                let alive = hops.iter().filter(|hop| !hop.flags.contains(RouteNextHopFlags::Dead));
                self.legs = alive.map(|hop| leg(hop.interface_index, &hop.attributes)).collect();
            }
            RouteAttribute::Metrics(metrics) => {
                self.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }

    fn way(&self) -> Option<Via> {
        if self.is_encapsulated {
            return Some(Via::Link(NO_LINK));
        }
        if !self.legs.is_empty() {
            return Some(Via::Multipath(self.legs.clone()));
        }
        let link = self.link?;
        Some(self.gateway.map_or(Via::Link(link), |gateway| Via::Gateway(gateway, link)))
    }
}

fn leg(index: u32, attributes: &[RouteAttribute]) -> Leg {
    let mut parts = RouteParts { link: Some(Link(index)), ..RouteParts::default() };
    for attribute in attributes {
        parts.take(attribute);
    }
    if parts.is_encapsulated {
        Leg { gateway: None, link: NO_LINK }
    } else {
        Leg { gateway: parts.gateway, link: Link(index) }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some(IpAddr::V4(*a)),
        RouteAddress::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(a) => Some(IpAddr::V4(*a)),
        RouteVia::Inet6(a) => Some(IpAddr::V6(*a)),
        _ => None,
    }
}

/// A neighbour with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NeighbourSeen {
    /// Where.
    pub at: (Link, IpAddr),
    /// What the kernel knows of it.
    pub state: NeighbourState,
    /// Its Ethernet address, where the state allows its use.
    pub mac: Option<MacAddr>,
}

/// A neighbour. Bridges' tables and groups are none.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<NeighbourSeen> {
    let (mut address, mut lladdr) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(a)) => address = Some(IpAddr::V4(*a)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(a)) => address = Some(IpAddr::V6(*a)),
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(bytes),
            _ => {}
        }
    }
    let is_inet = matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6);
    let address = address.filter(|address| is_inet && !address.is_multicast())?;
    let state = message.header.state;
    Some(NeighbourSeen { at: (Link(message.header.ifindex), address), state, mac: lladdr.filter(|_| is_usable(state)) })
}

fn is_usable(state: NeighbourState) -> bool {
    use NeighbourState::{Delay, Noarp, Permanent, Probe, Reachable, Stale};
    matches!(state, Reachable | Stale | Delay | Probe | Permanent | Noarp)
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    bytes.try_into().ok().map(MacAddr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_speaking_of_its_port_is_not_a_link() {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName("eth0".into()));
        assert!(link(&message).is_some());
        message.header.interface_family = AddressFamily::Bridge;
        assert!(link(&message).is_none());
    }

    #[test]
    fn a_vlan_of_another_namespace_has_no_port_here() {
        let mut message = LinkMessage::default();
        let info = vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(7)]))];
        message.attributes.extend([
            LinkAttribute::IfName("v7".into()),
            LinkAttribute::Link(3),
            LinkAttribute::LinkInfo(info),
        ]);
        assert_eq!(link(&message).unwrap().1.kind, LinkKind::Vlan { parent: Link(3), tag: 7, tpid: 0x8100 });
        message.attributes.push(LinkAttribute::LinkNetNsId(0));
        assert_eq!(link(&message).unwrap().1.kind, LinkKind::Other("vlan".into()));
    }

    #[test]
    fn an_address_with_a_peer_is_one_host() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        message.attributes.push(AddressAttribute::Local("10.0.0.1".parse().unwrap()));
        message.attributes.push(AddressAttribute::Address("10.0.0.1".parse().unwrap()));
        assert_eq!(address(&message).unwrap().0.1.to_string(), "10.0.0.1/24");
        message.attributes.push(AddressAttribute::Address("10.7.0.1".parse().unwrap()));
        assert_eq!(address(&message).unwrap().0.1.to_string(), "10.0.0.1/32");
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Tentative));
        assert_eq!(address(&message).unwrap().1, Usable::No);
    }

    #[test]
    fn routes_of_other_tables_and_dead_ones_are_none() {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = TABLE_MAIN as u8;
        message.header.kind = RouteType::Unicast;
        message.attributes.push(RouteAttribute::Oif(4));
        message.attributes.push(RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())));
        assert_eq!(route(&message).unwrap().via, Via::Gateway("fe80::1".parse().unwrap(), Link(4)));
        let mut encapsulated = message.clone();
        encapsulated.attributes.push(RouteAttribute::EncapType(1.into()));
        assert_eq!(route(&encapsulated).unwrap().via, Via::Link(NO_LINK));
        let mut dead = message.clone();
        dead.header.flags = RouteFlags::Dead;
        assert_eq!(route(&dead), None);
        message.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(route(&message), None);
    }

    #[test]
    fn only_a_usable_state_gives_an_ethernet_address() {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.state = NeighbourState::Stale;
        message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet("10.0.0.2".parse().unwrap())));
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 2]));
        assert_eq!(neighbour(&message).unwrap().mac, Some(MacAddr([2, 0, 0, 0, 0, 2])));
        message.header.state = NeighbourState::Failed;
        assert_eq!(neighbour(&message).unwrap().mac, None);
        message.header.family = AddressFamily::Bridge;
        assert_eq!(neighbour(&message), None);
    }
}
