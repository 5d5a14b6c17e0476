//! Routes and neighbours for the dataplane: which hop every prefix and every real server has.
//!
//! [`HopPlan`] is the whole content of a [`NextHops`] in an order of its own, so that two can be compared: only a
//! changed one is built, under a new generation.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use arrayvec::ArrayVec;
use dataplane::ident::{MacAddr, PortIndex};
use dataplane::next_hop::MAX_MEMBERS;
use dataplane::next_hop::{Egress, Exit, Hop, HopIndex, Link, NextHops, NextHopsBuilder, TooManyHops};
use dataplane::service::DestinationSlot;
use ipnet::IpNet;

use super::CompileError;
use super::finding::Finding;
use super::ports::PortPlan;
use super::vips::Vips;
use crate::topology::{BondHash, Leg, LinkKind, LinkState, MemberStanding, RouteState, RouteTable, Topology, Via};

/// Most prefixes that are taken over from the kernel.
pub const MAX_ROUTES: usize = 1 << 20;

/// Everything that a [`NextHops`] is built of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HopPlan {
    hops: BTreeMap<Way, Hop>,
    routes: Vec<(IpNet, Target)>,
    neighbours: BTreeMap<(Link, IpAddr), Way>,
    destinations: BTreeMap<DestinationSlot, Way>,
}

/// What names a hop: equal ways are one hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    NoRoute,
    Kernel,
    OnLink(Link),
    Unresolved(Link),
    Neighbour(Link, IpAddr, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Via(Way),
    Connected(Link, Way),
}

impl HopPlan {
    /// The table.
    pub(super) fn build(&self, generation: u16) -> Result<NextHops, TooManyHops> {
        let mut builder = NextHopsBuilder::new(generation);
        let mut indexes: BTreeMap<Way, HopIndex> = BTreeMap::new();
        for (way, hop) in &self.hops {
            indexes.insert(*way, builder.hop(hop.clone())?);
        }
        let index = |way: &Way| indexes.get(way).copied().unwrap_or(HopIndex(0));
        for (prefix, target) in &self.routes {
            match target {
                Target::Via(way) => builder.route(*prefix, index(way)),
                Target::Connected(link, unknown) => builder.connected(*prefix, *link, index(unknown)),
            }
        }
        for ((link, address), way) in &self.neighbours {
            builder.neighbour(*link, *address, index(way));
        }
        for (slot, way) in &self.destinations {
            builder.destination(*slot, index(way));
        }
        Ok(builder.build())
    }
}

/// Where a real server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// On this machine.
    Here,
    /// No way leads there.
    Nowhere,
    /// Out of an interface that is no port.
    NotByPort(Link),
    /// Out of a port.
    ByPort(Leg),
}

/// Makes a [`HopPlan`] of a topology and some ports.
pub(super) struct HopPlanner<'t> {
    topology: &'t Topology,
    routes: RouteTable<'t>,
    egresses: BTreeMap<Link, Egress>,
    sources: Sources,
    plan: HopPlan,
    /// Neighbours to resolve and keep.
    pub(super) wanted: BTreeSet<(Link, IpAddr)>,
    /// What came up on the way.
    pub(super) findings: BTreeSet<Finding>,
}

impl<'t> HopPlanner<'t> {
    /// Takes over all routes and neighbours.
    pub(super) fn new(topology: &'t Topology, ports: &[PortPlan], vips: &Vips) -> Result<Self, CompileError> {
        let routes = RouteTable::new(topology);
        if routes.len() > MAX_ROUTES {
            return Err(CompileError::TooManyRoutes(routes.len()));
        }
        let mut planner = Self {
            topology,
            routes,
            egresses: egresses(topology, ports),
            sources: Sources::new(topology, vips),
            plan: HopPlan::default(),
            wanted: BTreeSet::new(),
            findings: BTreeSet::new(),
        };
        planner.add_neighbours();
        planner.add_routes();
        Ok(planner)
    }

    /// The finished plan.
    pub(super) fn finish(self) -> (HopPlan, BTreeSet<(Link, IpAddr)>, BTreeSet<Finding>) {
        (self.plan, self.wanted, self.findings)
    }

    /// Where an address is.
    pub(super) fn place(&self, address: IpAddr) -> Place {
        match self.routes.lookup(address) {
            None => Place::Nowhere,
            Some(route) if route.via == Via::Local => Place::Here,
            Some(route) => match self.leg(route) {
                None => Place::Nowhere,
                Some(leg) if self.egresses.contains_key(&leg.link) => Place::ByPort(leg),
                Some(leg) => Place::NotByPort(leg.link),
            },
        }
    }

    /// Gives a real server out of a port its hop; the neighbour to be found where it is not resolved.
    pub(super) fn reach(&mut self, slot: DestinationSlot, server: IpAddr, leg: Leg) -> Result<(), IpAddr> {
        let neighbour = leg.gateway.unwrap_or(server);
        self.wanted.insert((leg.link, neighbour));
        let limit = self.routes.lookup(server).and_then(|route| route.mtu);
        let way = self.way(leg.link, neighbour, limit);
        self.plan.destinations.insert(slot, way);
        if matches!(way, Way::Neighbour(..)) { Ok(()) } else { Err(neighbour) }
    }

    /// Gives a real server the kernel as its hop.
    pub(super) fn by_kernel(&mut self, slot: DestinationSlot) {
        let way = self.constant(Way::Kernel, Hop::Kernel);
        self.plan.destinations.insert(slot, way);
    }

    /// Gives a real server no hop.
    pub(super) fn nowhere(&mut self, slot: DestinationSlot) {
        let way = self.constant(Way::NoRoute, Hop::NoRoute);
        self.plan.destinations.insert(slot, way);
    }

    /// The address that the kernel would send from to `to`: the route's own, else one of the link that it leaves by
    /// (beside the next hop, if there is one), else any of the same family. VIPs come last.
    pub(super) fn source(&self, to: IpAddr) -> Option<IpAddr> {
        let route = self.routes.lookup(to)?;
        let leg = self.leg(route);
        let next = leg.and_then(|leg| leg.gateway).unwrap_or(to);
        route.source.or_else(|| self.sources.choose(to, leg.map(|leg| leg.link), next))
    }

    /// The Ethernet addresses that frames for this machine may carry: those of ports and of the VLANs on them.
    pub(super) fn own_macs(&self) -> impl Iterator<Item = dataplane::ident::MacAddr> + '_ {
        self.egresses.values().map(|egress| egress.source)
    }

    fn add_neighbours(&mut self) {
        for (link, address) in self.topology.neighbours.keys() {
            if self.egresses.contains_key(link) {
                let way = self.way(*link, *address, None);
                self.plan.neighbours.insert((*link, *address), way);
            }
        }
    }

    fn add_routes(&mut self) {
        let routes: Vec<&RouteState> = self.routes.iter().collect();
        for route in routes {
            let target = self.target(route);
            self.plan.routes.push((route.prefix, target));
        }
    }

    fn target(&mut self, route: &RouteState) -> Target {
        let leg = match route.via {
            Via::Local => return Target::Via(self.constant(Way::Kernel, Hop::Kernel)),
            _ => self.leg(route),
        };
        let Some(leg) = leg else { return Target::Via(self.constant(Way::NoRoute, Hop::NoRoute)) };
        let Some(egress) = self.egresses.get(&leg.link) else {
            return Target::Via(self.constant(Way::Kernel, Hop::Kernel));
        };
        let on_link = Hop::OnLink(egress.clone());
        if matches!(&route.via, Via::Multipath(legs) if legs.len() > 1) {
            let interface = self.topology.name(leg.link);
            self.findings.insert(Finding::OneOfSeveral { prefix: route.prefix, interface, gateway: leg.gateway });
        }
        match leg.gateway {
            None => Target::Connected(leg.link, self.constant(Way::OnLink(leg.link), on_link)),
            Some(gateway) => {
                self.wanted.insert((leg.link, gateway));
                Target::Via(self.way(leg.link, gateway, route.mtu))
            }
        }
    }

    /// The one way of a route that is used: the first by a port whose neighbour is known, else the first by a port,
    /// else the first.
    fn leg(&self, route: &RouteState) -> Option<Leg> {
        let legs = route.via.legs();
        let by_port = |leg: &&Leg| self.egresses.contains_key(&leg.link);
        let is_known =
            |leg: &&Leg| leg.gateway.is_none_or(|gateway| self.topology.neighbours.contains_key(&(leg.link, gateway)));
        let known = legs.iter().filter(by_port).find(is_known);
        known.or_else(|| legs.iter().find(by_port)).or(legs.first()).copied()
    }

    /// The way to a neighbour of a port; `limit` is the route's own MTU.
    fn way(&mut self, link: Link, address: IpAddr, limit: Option<u32>) -> Way {
        let Some(egress) = self.egresses.get(&link) else { return self.constant(Way::Kernel, Hop::Kernel) };
        let mut egress = egress.clone();
        egress.mtu = limit.map_or(egress.mtu, |limit| egress.mtu.min(clamp(limit)));
        match self.topology.neighbours.get(&(link, address)) {
            Some(mac) => {
                if let (Exit::Spread(members), BondHash::Neighbour) = (&egress.exit, self.keep(link)) {
                    egress.exit = Exit::One(of_neighbour(members, *mac));
                }
                let hop = Hop::neighbour(&egress, *mac);
                self.constant(Way::Neighbour(link, address, egress.mtu), hop)
            }
            None => self.constant(Way::Unresolved(link), Hop::Unresolved(egress)),
        }
    }

    /// What the bond below a link keeps to one member.
    fn keep(&self, link: Link) -> BondHash {
        match self.topology.base(link).and_then(|base| self.topology.links.get(&base)).map(|state| &state.kind) {
            Some(LinkKind::Bond(bond)) => bond.keep,
            _ => BondHash::default(),
        }
    }

    fn constant(&mut self, way: Way, hop: Hop) -> Way {
        self.plan.hops.entry(way).or_insert(hop);
        way
    }
}

/// The addresses that a tunnel may start from.
struct Sources {
    own: Vec<(Link, IpNet)>,
    vips: Vec<(Link, IpNet)>,
}

impl Sources {
    fn new(topology: &Topology, vips: &Vips) -> Self {
        let outward = topology.addresses.iter().filter(|(_, net)| !net.addr().is_loopback());
        let (vips, own) = outward.copied().partition(|(_, net)| vips.contains(net.addr()));
        Self { own, vips }
    }

    fn choose(&self, to: IpAddr, by: Option<Link>, next: IpAddr) -> Option<IpAddr> {
        let is_usable = |(link, net): &&(Link, IpNet)| {
            let is_near = by == Some(*link);
            is_same_family(net.addr(), to) && (is_near || !is_link_local(net.addr()))
        };
        let rank = |(link, net): &&(Link, IpNet)| (by != Some(*link), is_link_local(net.addr()), !net.contains(&next));
        let best = |of: &[(Link, IpNet)]| of.iter().filter(is_usable).min_by_key(rank).map(|(_, net)| net.addr());
        best(&self.own).or_else(|| best(&self.vips))
    }
}

/// The way out by every port and by every VLAN on one.
fn egresses(topology: &Topology, ports: &[PortPlan]) -> BTreeMap<Link, Egress> {
    let by_link: BTreeMap<Link, &PortPlan> = ports.iter().map(|port| (port.link, port)).collect();
    let egress = |link: &Link| {
        let state = topology.links.get(link)?;
        let (exit, mac) = exit(topology, &by_link, *link)?;
        let (tags, mtu) = (tags(topology, *link), clamp(state.mtu));
        Some(Egress { exit, source: state.mac.unwrap_or(mac), tags, mtu })
    };
    topology.links.keys().filter_map(|link| Some((*link, egress(link)?))).collect()
}

/// The port that a link leaves by, or those members of a bond that carry traffic (else its first), and an Ethernet
/// address there.
fn exit(topology: &Topology, ports: &BTreeMap<Link, &PortPlan>, link: Link) -> Option<(Exit, MacAddr)> {
    let base = topology.base(link)?;
    if let Some(port) = ports.get(&base) {
        return Some((Exit::One(port.index), port.mac));
    }
    let carries = |member: &LinkState| member.up && member.standing == MemberStanding::Active;
    let members = || topology.carriers(link).into_iter().filter_map(|member| ports.get(&member).copied());
    let first = members().next()?;
    let active = members().filter(|port| topology.links.get(&port.link).is_some_and(carries));
    let mut indexes: ArrayVec<_, MAX_MEMBERS> = active.map(|port| port.index).take(MAX_MEMBERS).collect();
    if indexes.is_empty() {
        indexes.push(first.index);
    }
    let exit = if let [only] = indexes[..] { Exit::One(only) } else { Exit::Spread(indexes) };
    Some((exit, first.mac))
}

/// The VLAN tags of frames that leave by a link, outermost first.
fn tags(topology: &Topology, link: Link) -> ArrayVec<[u8; 4], 2> {
    let mut tags = ArrayVec::<[u8; 4], 2>::new();
    let mut at = link;
    while let Some((parent, tag)) = topology.links.get(&at).and_then(|state| state.kind.vlan_tag()) {
        if tags.try_push(tag).is_err() {
            break;
        }
        at = parent;
    }
    tags.reverse();
    tags
}

/// The member for all frames to one Ethernet address (`xmit_hash_policy layer2`).
fn of_neighbour(members: &[PortIndex], mac: MacAddr) -> PortIndex {
    let hash = mac.0.iter().fold(0_usize, |hash, octet| hash ^ usize::from(*octet));
    // An exit that spreads has members.
    members.get(hash % members.len().max(1)).copied().unwrap_or(PortIndex(0))
}

fn clamp(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}

fn is_same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    }
}
