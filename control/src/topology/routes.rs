//! Routes made ready for lookup: the longest prefix, then the table `local` before `main`, then the lowest metric.
//!
//! The kernel keeps both tables in one trie as long as no rule stands between them, so one lookup serves both.

use std::net::IpAddr;

use dataplane::next_hop::Link;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::{RouteState, Topology, Via};

/// The best route of every prefix.
#[derive(Debug)]
pub struct RouteTable<'t> {
    v4: PrefixMap<Ipv4Net, &'t RouteState>,
    v6: PrefixMap<Ipv6Net, &'t RouteState>,
}

impl<'t> RouteTable<'t> {
    /// The routes of a topology.
    pub fn new(topology: &'t Topology) -> Self {
        let mut table = Self { v4: PrefixMap::new(), v6: PrefixMap::new() };
        for route in &topology.routes {
            let standing = match route.prefix {
                IpNet::V4(p) => table.v4.get(&p.trunc()),
                IpNet::V6(p) => table.v6.get(&p.trunc()),
            };
            if standing.is_some_and(|standing| rank(standing) <= rank(route)) {
                continue;
            }
            match route.prefix {
                IpNet::V4(p) => table.v4.insert(p.trunc(), route),
                IpNet::V6(p) => table.v6.insert(p.trunc(), route),
            };
        }
        table
    }

    /// The route to an address.
    pub fn lookup(&self, to: IpAddr) -> Option<&'t RouteState> {
        match to {
            IpAddr::V4(a) => self.v4.get_lpm(&Ipv4Net::from(a)).map(|(_, route)| *route),
            IpAddr::V6(a) => self.v6.get_lpm(&Ipv6Net::from(a)).map(|(_, route)| *route),
        }
    }

    /// Whose Ethernet address packets to `to` need: a gateway's or its own; `None` where they leave by no link.
    pub fn neighbour(&self, to: IpAddr) -> Option<(Link, IpAddr)> {
        let leg = *self.lookup(to)?.via.legs().first()?;
        Some((leg.link, leg.gateway.unwrap_or(to)))
    }

    /// The best route of each prefix: IPv4 first, each family in the order of its prefixes.
    pub fn iter(&self) -> impl Iterator<Item = &'t RouteState> + '_ {
        self.v4.values().chain(self.v6.values()).copied()
    }

    /// How many prefixes there are.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no route at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The lower, the better.
fn rank(route: &RouteState) -> (bool, u32) {
    (route.via != Via::Local, route.metric)
}

#[cfg(test)]
mod tests {
    use super::super::batch;
    use super::*;

    #[test]
    fn longest_prefix_then_local_then_metric() {
        let topology = batch::parse(
            "link add eth0\nlink add eth1\naddr add 10.1.0.1/24 dev eth0\naddr add 10.2.0.1/24 dev eth1\n\
             route add default via 10.1.0.2 metric 200\nroute add default via 10.2.0.2 metric 100\n\
             route add 10.1.0.1/32 via 10.2.0.3",
        )
        .unwrap();
        let table = RouteTable::new(&topology);
        let eth1 = topology.link_named("eth1").unwrap().0;
        let via = |to: &str| table.lookup(to.parse().unwrap()).map(|r| r.via.clone());
        assert_eq!(via("192.0.2.1"), Some(Via::Gateway("10.2.0.2".parse().unwrap(), eth1)));
        assert_eq!(via("10.1.0.1"), Some(Via::Local));
        assert_eq!(via("10.2.0.77"), Some(Via::Link(eth1)));
        assert_eq!(via("127.9.9.9"), Some(Via::Local));
        assert_eq!(via("2001:db8::1"), None);
        let neighbour = |to: &str| table.neighbour(to.parse().unwrap()).map(|(_, at)| at.to_string());
        assert_eq!(neighbour("192.0.2.1").as_deref(), Some("10.2.0.2"));
        assert_eq!(neighbour("10.2.0.77").as_deref(), Some("10.2.0.77"));
        assert_eq!(neighbour("10.1.0.1"), None);
    }
}
