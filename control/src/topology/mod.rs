//! The machine as Sluice sees it: links, addresses, routes and neighbours, as plain data.
//!
//! Fed by netlink ([`crate::kernel`]) or by text ([`batch`]); nothing here does I/O. Of routes, the tables `main` and
//! `local` are held: policy routing and VRFs are not followed.

pub mod batch;
mod routes;

pub use routes::RouteTable;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dataplane::ident::MacAddr;
use dataplane::next_hop::Link;
use ipnet::IpNet;

/// Everything about the machine that forwarding depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Interfaces by their kernel index.
    pub links: BTreeMap<Link, LinkState>,
    /// Local addresses with their prefix lengths; host bits are kept.
    pub addresses: BTreeSet<(Link, IpNet)>,
    /// Routes of the tables `main` and `local`.
    pub routes: Vec<RouteState>,
    /// Neighbours whose Ethernet address may be used (not those being resolved or failed).
    pub neighbours: BTreeMap<(Link, IpAddr), MacAddr>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its Ethernet address; `None` where it is not Ethernet.
    pub mac: Option<MacAddr>,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Whether it is set up and has a carrier.
    pub up: bool,
    /// The bond or bridge that it is part of.
    pub master: Option<Link>,
    /// As a member of a bond: whether the bond uses it now.
    pub standing: MemberStanding,
    /// Receive queues in use, at least 1.
    pub queues: u32,
    /// The driver's name, where it has one.
    pub driver: Option<String>,
}

/// What an interface is, as far as forwarding cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    /// A network card, or a virtual machine's.
    Physical,
    /// One end of a virtual Ethernet pair.
    Veth,
    /// A VLAN of another interface.
    Vlan {
        /// The interface below.
        parent: Link,
        /// The VLAN's number, 1 to 4094.
        tag: u16,
        /// 0x8100, or 0x88a8 for a service tag (802.1ad).
        tpid: u16,
    },
    /// Several interfaces as one.
    Bond(Bond),
    /// A switch in software.
    Bridge,
    /// `lo`.
    Loopback,
    /// Anything else, by the kernel's word for it.
    Other(String),
}

/// How a bond uses its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bond {
    /// Its mode.
    pub mode: BondMode,
    /// `xmit_hash_policy`: what keeps to one member.
    pub keep: BondHash,
}

/// The modes of Linux bonds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BondMode {
    /// `balance-rr`, 0.
    #[default]
    RoundRobin,
    /// `active-backup`, 1.
    ActiveBackup,
    /// `balance-xor`, 2.
    Xor,
    /// `broadcast`, 3.
    Broadcast,
    /// `802.3ad`, 4: LACP.
    Lacp,
    /// `balance-tlb`, 5.
    TransmitLoad,
    /// `balance-alb`, 6.
    AdaptiveLoad,
}

/// What a bond's hash keeps to one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BondHash {
    /// `layer2`: all frames to one Ethernet address.
    #[default]
    Neighbour,
    /// Any other policy: a flow.
    Flow,
}

/// Whether a bond uses a member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberStanding {
    /// It sends and receives by it; also what is no member of a bond.
    #[default]
    Active,
    /// It waits: what arrives there is a copy, or goes astray.
    Standby,
}

impl LinkKind {
    /// The four bytes that a VLAN puts behind the Ethernet addresses, in network byte order; priority 0.
    pub fn vlan_tag(&self) -> Option<(Link, [u8; 4])> {
        let Self::Vlan { parent, tag, tpid } = self else { return None };
        let ([a, b], [c, d]) = (tpid.to_be_bytes(), tag.to_be_bytes());
        Some((*parent, [a, b, c, d]))
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// Where to; without host bits.
    pub prefix: IpNet,
    /// By which way.
    pub via: Via,
    /// Among routes to one prefix the lowest is taken.
    pub metric: u32,
    /// The preferred source address of packets that start here.
    pub source: Option<IpAddr>,
    /// The route's own limit on packets, in bytes.
    pub mtu: Option<u32>,
}

/// What a route says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// To a gateway on a link.
    Gateway(IpAddr, Link),
    /// Directly connected.
    Link(Link),
    /// One of several ways.
    Multipath(Vec<Leg>),
    /// The address is this machine's.
    Local,
    /// Not to be sent: blackhole, unreachable, prohibit, broadcast, multicast.
    Blackhole,
}

impl Via {
    /// The ways out, in the kernel's order; none for a route that leads to no link.
    pub fn legs(&self) -> Vec<Leg> {
        match self {
            Self::Gateway(gateway, link) => vec![Leg { gateway: Some(*gateway), link: *link }],
            Self::Link(link) => vec![Leg { gateway: None, link: *link }],
            Self::Multipath(legs) => legs.clone(),
            Self::Local | Self::Blackhole => Vec::new(),
        }
    }
}

/// One way of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leg {
    /// The gateway; `None`: directly connected.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub link: Link,
}

impl Topology {
    /// The interface of a name.
    pub fn link_named(&self, name: &str) -> Option<(Link, &LinkState)> {
        self.links.iter().find(|(_, state)| state.name == name).map(|(link, state)| (*link, state))
    }

    /// The name of a link, or its number where it is gone.
    pub fn name(&self, link: Link) -> String {
        self.links.get(&link).map_or_else(|| format!("if{}", link.0), |state| state.name.clone())
    }

    /// Whether an interface of this machine has the address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|(_, net)| net.addr() == address)
    }

    /// The addresses of one link, in numerical order.
    pub fn addresses_of(&self, link: Link) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().filter(move |(on, _)| *on == link).map(|(_, net)| *net)
    }

    /// The members of a bond (or bridge), by their index.
    pub fn members(&self, of: Link) -> impl Iterator<Item = (Link, &LinkState)> {
        self.links.iter().filter(move |(_, state)| state.master == Some(of)).map(|(link, state)| (*link, state))
    }

    /// The interfaces that a link's frames really pass: the one below its VLANs, or the members of the bond there.
    pub fn carriers(&self, link: Link) -> Vec<Link> {
        let Some(base) = self.base(link) else { return Vec::new() };
        match self.links.get(&base).map(|state| &state.kind) {
            Some(LinkKind::Bond(_)) => self.members(base).map(|(member, _)| member).collect(),
            _ => vec![base],
        }
    }

    /// The interface below all VLANs: the link itself where it is none. `None` past two tags or a missing parent.
    pub fn base(&self, link: Link) -> Option<Link> {
        let mut at = link;
        for _ in 0..=MAX_TAGS {
            match self.links.get(&at)?.kind.vlan_tag() {
                Some((parent, _)) => at = parent,
                None => return Some(at),
            }
        }
        None
    }
}

/// Most VLAN tags that a frame may carry.
const MAX_TAGS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_lead_to_the_interface_below_and_loops_to_none() {
        let text = "link add eth0\nlink add link eth0 name a type vlan id 7 protocol 802.1ad\n\
                    link add link a name b type vlan id 8\nlink add link b name c type vlan id 9";
        let topology = batch::parse(text).unwrap();
        let of = |name: &str| topology.link_named(name).unwrap();
        assert_eq!(topology.base(of("b").0), Some(of("eth0").0));
        assert_eq!(topology.base(of("c").0), None);
        assert_eq!(of("a").1.kind.vlan_tag(), Some((of("eth0").0, [0x88, 0xa8, 0, 7])));
    }
}
