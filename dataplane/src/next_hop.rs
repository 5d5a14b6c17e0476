//! Where frames leave: routes, neighbours and the Ethernet headers they come to, as one immutable table.
//!
//! Control builds it from netlink (or from a replay topology) and swaps it whole. Flows remember a [`HopIndex`] with
//! the table's generation, so a change reaches established flows at their next packet.

use std::collections::HashMap;
use std::net::IpAddr;

use arrayvec::ArrayVec;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::ident::{MacAddr, PortIndex};
use crate::service::DestinationSlot;

mod spans;

use spans::Spans;

/// Position of a hop in its [`NextHops`], below 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HopIndex(pub u16);

/// The Ethernet header in front of a frame without its EtherType: addresses, then 0 to 2 VLAN tags. 12 to 20 bytes.
pub type LinkHeader = ArrayVec<u8, 20>;

/// A link that routes lead out of, as the kernel numbers it (ifindex); in a replay, the order of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub u32);

/// Most members of a bond that one link leaves by.
pub const MAX_MEMBERS: usize = 8;

/// The port or ports that a link leaves by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// One port.
    One(PortIndex),
    /// The members of a bond that carry traffic, at least one: each flow keeps to one of them.
    Spread(ArrayVec<PortIndex, MAX_MEMBERS>),
}

impl Exit {
    /// Whether the link leaves by this port.
    pub fn contains(&self, port: PortIndex) -> bool {
        match self {
            Self::One(only) => *only == port,
            Self::Spread(members) => members.contains(&port),
        }
    }
}

/// The way out by one link: its port, with the tags and source address that frames get there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// The port, or the bond's ports.
    pub exit: Exit,
    /// Our Ethernet address there.
    pub source: MacAddr,
    /// VLAN tags (TPID and TCI, network byte order), outermost first.
    pub tags: ArrayVec<[u8; 4], 2>,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
}

impl Egress {
    /// The link header of frames to `destination`.
    pub fn link_header(&self, destination: MacAddr) -> LinkHeader {
        let mut header = LinkHeader::new();
        header.extend(destination.0.into_iter().chain(self.source.0));
        header.extend(self.tags.iter().flatten().copied());
        header
    }
}

/// A way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hop {
    /// A neighbour (gateway or host) whose Ethernet address is known.
    Neighbour {
        /// The port.
        port: PortIndex,
        /// Address bytes and tags in front of every frame.
        header: LinkHeader,
        /// Largest IP packet, in bytes.
        mtu: u16,
    },
    /// As [`Hop::Neighbour`], by the member of a bond that the packet's flow falls to.
    Spread {
        /// The members, at least one.
        ports: ArrayVec<PortIndex, MAX_MEMBERS>,
        /// Address bytes and tags in front of every frame.
        header: LinkHeader,
        /// Largest IP packet, in bytes.
        mtu: u16,
    },
    /// Directly connected, the Ethernet address not in the table: the flow's learnt one serves.
    OnLink(Egress),
    /// A gateway whose Ethernet address is not known (yet).
    Unresolved(Egress),
    /// An address of the director itself, or a way out of an interface that is no port: by the kernel port.
    Kernel,
    /// Told to drop (blackhole, prohibit, unreachable), or no route at all.
    NoRoute,
}

impl Hop {
    /// The hop to a neighbour of known address.
    pub fn neighbour(egress: &Egress, address: MacAddr) -> Self {
        let (header, mtu) = (egress.link_header(address), egress.mtu);
        match &egress.exit {
            Exit::One(port) => Self::Neighbour { port: *port, header, mtu },
            Exit::Spread(ports) => Self::Spread { ports: ports.clone(), header, mtu },
        }
    }

    /// Largest IP packet that goes this way, in bytes; `None` where nothing limits it, or nothing goes.
    #[inline]
    pub const fn mtu(&self) -> Option<u16> {
        match self {
            Self::Neighbour { mtu, .. } | Self::Spread { mtu, .. } => Some(*mtu),
            Self::OnLink(egress) | Self::Unresolved(egress) => Some(egress.mtu),
            Self::Kernel | Self::NoRoute => None,
        }
    }
}

/// A hop that most packets go by, in a third of a cache line: a port, no tag, the neighbour's address known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainHop {
    /// Destination and source address of every frame.
    pub link: [u8; 12],
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// The port.
    pub port: PortIndex,
}

impl PlainHop {
    fn of(hop: &Hop) -> Option<Self> {
        match hop {
            Hop::Neighbour { port, header, mtu } => {
                Some(Self { link: header.as_slice().try_into().ok()?, mtu: *mtu, port: *port })
            }
            _ => None,
        }
    }
}

/// What a prefix leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Via(HopIndex),
    Connected(Link, HopIndex),
}

/// Routes and neighbours, compiled. Routes are looked up by longest prefix.
#[derive(Debug)]
pub struct NextHops {
    generation: u16,
    hops: Vec<Hop>,
    /// For each hop, its plain form, if it has one.
    plain: Vec<Option<PlainHop>>,
    routes_v4: PrefixMap<Ipv4Net, Route>,
    /// By the first half of an IPv4 address, the way to all that begin so, or [`UNSURE`]: a flood's SYNs come from
    /// everywhere, and each is answered.
    blocks_v4: Box<[HopIndex]>,
    routes_v6: PrefixMap<Ipv6Net, Route>,
    /// The same for IPv6, by the first half of an address.
    spans_v6: Spans,
    neighbours: HashMap<(Link, IpAddr), HopIndex>,
    destinations: Vec<HopIndex>,
}

/// No route: every table has it, at this index.
const NO_ROUTE: HopIndex = HopIndex(0);
/// Addresses that begin alike go different ways: there is no such hop.
const UNSURE: HopIndex = HopIndex(u16::MAX);

impl NextHops {
    /// Which table this is; flows compare it to know whether their hop is still right. Wraps.
    pub const fn generation(&self) -> u16 {
        self.generation
    }

    /// The way to an address.
    #[inline]
    pub fn lookup(&self, to: IpAddr) -> HopIndex {
        match to {
            IpAddr::V4(address) => match self.blocks_v4.get((address.to_bits() >> 16) as usize) {
                Some(hop) if *hop != UNSURE => *hop,
                _ => self.longest_match(to),
            },
            IpAddr::V6(address) => match self.spans_v6.of((address.to_bits() >> 64) as u64) {
                UNSURE => self.longest_match(to),
                hop => hop,
            },
        }
    }

    #[inline(never)]
    fn longest_match(&self, to: IpAddr) -> HopIndex {
        let route = match to {
            IpAddr::V4(a) => self.routes_v4.get_lpm(&Ipv4Net::from(a)).map(|(_, r)| *r),
            IpAddr::V6(a) => self.routes_v6.get_lpm(&Ipv6Net::from(a)).map(|(_, r)| *r),
        };
        match route {
            None => NO_ROUTE,
            Some(Route::Via(hop)) => hop,
            Some(Route::Connected(link, unknown)) => self.neighbours.get(&(link, to)).copied().unwrap_or(unknown),
        }
    }

    /// The hop at an index; a foreign index has no route.
    #[inline]
    pub fn hop(&self, index: HopIndex) -> &Hop {
        self.hops.get(index.0 as usize).unwrap_or(&Hop::NoRoute)
    }

    /// The plain form of the hop at an index, if it has one.
    #[inline]
    pub fn plain(&self, index: HopIndex) -> Option<&PlainHop> {
        self.plain.get(index.0 as usize)?.as_ref()
    }

    /// The plain form of a hop that a flow remembered ([`NextHops::remembered`]), if it still is right and has one.
    #[inline]
    pub fn plain_return(&self, stored: u32) -> Option<&PlainHop> {
        self.plain(self.recall(stored)?)
    }

    /// What a flow stores of a hop: this table's generation above its index.
    pub const fn remembered(&self, hop: HopIndex) -> u32 {
        (self.generation as u32) << 16 | hop.0 as u32
    }

    /// What a flow stores whose way was not looked up yet.
    pub const NOT_LOOKED_UP: u32 = u32::MAX;

    /// The hop that a flow stored, if it is of this table.
    #[inline]
    pub const fn recall(&self, stored: u32) -> Option<HopIndex> {
        if (stored >> 16) as u16 == self.generation && stored != Self::NOT_LOOKED_UP {
            Some(HopIndex(stored as u16))
        } else {
            None
        }
    }

    /// The plain form of the way to a destination, if it has one.
    #[inline]
    pub fn plain_destination(&self, slot: DestinationSlot) -> Option<&PlainHop> {
        self.plain(*self.destinations.get(slot.0 as usize)?)
    }

    /// The way to a destination (for TUN: to the tunnel's end).
    #[inline]
    pub fn destination(&self, slot: DestinationSlot) -> &Hop {
        self.hop(self.destinations.get(slot.0 as usize).copied().unwrap_or(NO_ROUTE))
    }
}

/// More hops than a [`HopIndex`] can number.
#[derive(Debug, thiserror::Error)]
#[error("more than 65535 neighbours and gateways")]
pub struct TooManyHops;

/// Builds a [`NextHops`].
#[derive(Debug)]
pub struct NextHopsBuilder {
    table: NextHops,
}

impl NextHopsBuilder {
    /// An empty table of the given generation.
    pub fn new(generation: u16) -> Self {
        Self {
            table: NextHops {
                generation,
                hops: vec![Hop::NoRoute],
                plain: vec![None],
                routes_v4: PrefixMap::new(),
                blocks_v4: Box::default(),
                routes_v6: PrefixMap::new(),
                spans_v6: Spans::default(),
                neighbours: HashMap::new(),
                destinations: Vec::new(),
            },
        }
    }

    /// Adds a hop, to be referred to below.
    ///
    /// # Errors
    /// [`TooManyHops`] past 65535.
    pub fn hop(&mut self, hop: Hop) -> Result<HopIndex, TooManyHops> {
        let index = u16::try_from(self.table.hops.len()).ok().filter(|index| *index < u16::MAX).ok_or(TooManyHops)?;
        self.table.plain.push(PlainHop::of(&hop));
        self.table.hops.push(hop);
        Ok(HopIndex(index))
    }

    /// A route through one hop. A later route for the same prefix replaces an earlier one.
    pub fn route(&mut self, prefix: IpNet, via: HopIndex) {
        self.insert(prefix, Route::Via(via));
    }

    /// A directly connected prefix; `unknown` (an [`Hop::OnLink`]) serves hosts with no [`NextHopsBuilder::neighbour`].
    pub fn connected(&mut self, prefix: IpNet, link: Link, unknown: HopIndex) {
        self.insert(prefix, Route::Connected(link, unknown));
    }

    /// A host of a directly connected prefix.
    pub fn neighbour(&mut self, link: Link, address: IpAddr, hop: HopIndex) {
        self.table.neighbours.insert((link, address), hop);
    }

    /// The way to a destination.
    pub fn destination(&mut self, slot: DestinationSlot, hop: HopIndex) {
        let at = slot.0 as usize;
        if self.table.destinations.len() <= at {
            self.table.destinations.resize(at + 1, NO_ROUTE);
        }
        self.table.destinations[at] = hop;
    }

    /// The way to an address by what was added so far.
    pub fn lookup(&self, to: IpAddr) -> HopIndex {
        self.table.longest_match(to)
    }

    /// The finished table.
    pub fn build(mut self) -> NextHops {
        self.table.blocks_v4 = blocks(&self.table.routes_v4);
        self.table.spans_v6 = Spans::of_routes(&self.table.routes_v6);
        self.table
    }

    fn insert(&mut self, prefix: IpNet, route: Route) {
        match prefix {
            IpNet::V4(p) => drop(self.table.routes_v4.insert(p.trunc(), route)),
            IpNet::V6(p) => drop(self.table.routes_v6.insert(p.trunc(), route)),
        }
    }
}

/// The ways of all halves of addresses: a shorter route's first, longer ones over it.
fn blocks(routes: &PrefixMap<Ipv4Net, Route>) -> Box<[HopIndex]> {
    let mut blocks = vec![NO_ROUTE; 1 << 16].into_boxed_slice();
    let mut routes: Vec<_> = routes.iter().collect();
    routes.sort_unstable_by_key(|(prefix, _)| prefix.prefix_len());
    for (prefix, route) in routes {
        let hop = match route {
            Route::Via(hop) if prefix.prefix_len() <= 16 => *hop,
            // Its hosts are neighbours, each with a hop; or it is only a part of a block.
            Route::Connected(..) | Route::Via(_) => UNSURE,
        };
        let first = (prefix.network().to_bits() >> 16) as usize;
        let count = 1 << 16u8.saturating_sub(prefix.prefix_len());
        if let Some(part) = blocks.get_mut(first..first + count) {
            part.fill(hop);
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_way_is_that_of_the_longest_prefix(
            routes in prop::collection::vec((any::<u32>(), 0u8..=32, any::<bool>()), 0..40),
            addresses in prop::collection::vec((0usize..40, any::<u32>()), 20),
        ) {
            // Few blocks, so that they lie in one another.
            let hops = to_each(routes.iter().map(|(network, length, is_connected)| {
                (Ipv4Net::new((network & 0x0303_0303).into(), *length).unwrap().trunc().into(), *is_connected)
            }));
            for (at, host) in addresses {
                let near = routes.get(at).map_or(host, |(network, ..)| network & 0x0303_0303 | host & 0xff);
                let to = IpAddr::V4(near.into());
                prop_assert_eq!(hops.lookup(to), hops.longest_match(to));
            }
        }
    }

    proptest! {
        #[test]
        fn so_is_that_of_ipv6(
            routes in prop::collection::vec((any::<u128>(), 0u8..=128, any::<bool>()), 0..40),
            addresses in prop::collection::vec((0usize..40, any::<u128>()), 20),
        ) {
            // Few values of few bytes, so that they lie in one another and beside each other.
            const FEW: u128 = 0x0300_0003_0000_0003_0000_0000_0000_0003;
            let hops = to_each(routes.iter().map(|(network, length, is_connected)| {
                (Ipv6Net::new((network & FEW).into(), *length).unwrap().trunc().into(), *is_connected)
            }));
            for (at, host) in addresses {
                let near = routes.get(at).map_or(host & FEW, |(network, ..)| network & FEW);
                // Also right before and behind what a prefix holds.
                for to in [near, near.wrapping_sub(1), near | host >> (host as u32 & 127), host & FEW] {
                    let to = IpAddr::V6(to.into());
                    prop_assert_eq!(hops.lookup(to), hops.longest_match(to));
                }
            }
        }
    }

    /// A hop of its own for each prefix; to its hosts, where it is connected.
    fn to_each(prefixes: impl Iterator<Item = (IpNet, bool)>) -> NextHops {
        let mut builder = NextHopsBuilder::new(1);
        for (n, (prefix, is_connected)) in prefixes.enumerate() {
            let hop = builder.hop(Hop::OnLink(egress())).unwrap();
            if is_connected {
                builder.connected(prefix, Link(n as u32), hop);
            } else {
                builder.route(prefix, hop);
            }
        }
        builder.build()
    }

    fn egress() -> Egress {
        Egress { exit: Exit::One(PortIndex(1)), source: MacAddr([2, 0, 0, 0, 0, 1]), tags: ArrayVec::new(), mtu: 1500 }
    }

    #[test]
    fn the_longest_prefix_wins_and_neighbours_stand_before_the_unknown() {
        let mut b = NextHopsBuilder::new(7);
        let gateway = b.hop(Hop::neighbour(&egress(), MacAddr([2, 0, 0, 0, 0, 9]))).unwrap();
        let on_link = b.hop(Hop::OnLink(egress())).unwrap();
        let host = b.hop(Hop::neighbour(&egress(), MacAddr([2, 0, 0, 0, 0, 5]))).unwrap();
        b.route("0.0.0.0/0".parse().unwrap(), gateway);
        b.connected("10.1.0.0/24".parse().unwrap(), Link(3), on_link);
        b.neighbour(Link(3), "10.1.0.5".parse().unwrap(), host);
        b.destination(DestinationSlot(4), host);
        let hops = b.build();
        assert_eq!(hops.lookup("192.0.2.1".parse().unwrap()), gateway);
        assert_eq!(hops.lookup("10.1.0.5".parse().unwrap()), host);
        assert_eq!(hops.lookup("10.1.0.6".parse().unwrap()), on_link);
        assert_eq!(hops.hop(hops.lookup("2001:db8::1".parse().unwrap())), &Hop::NoRoute);
        assert_eq!(hops.destination(DestinationSlot(4)), hops.hop(host));
        assert_eq!(hops.destination(DestinationSlot(3)), &Hop::NoRoute);
        assert_eq!(hops.destination(DestinationSlot(99)), &Hop::NoRoute);
    }

    #[test]
    fn tags_stand_behind_the_addresses() {
        let mut egress = egress();
        egress.tags.push([0x81, 0, 0, 100]);
        let header = egress.link_header(MacAddr([2, 0, 0, 0, 0, 9]));
        assert_eq!(&header[..], &[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 1, 0x81, 0, 0, 100]);
    }
}
