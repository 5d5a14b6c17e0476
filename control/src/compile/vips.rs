//! Which addresses are of virtual services, and which of those are this machine's now.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane::rules::Action;
use dataplane::service::{AddressRange, MatchPoint};
use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};

use crate::config::Config;
use crate::topology::{Topology, Via};

/// The addresses of virtual services.
#[derive(Debug, Default)]
pub(super) struct Vips {
    single: BTreeSet<IpAddr>,
    ranges: BTreeSet<AddressRange>,
}

impl Vips {
    /// Those of a configuration.
    pub(super) fn of(config: &Config) -> Self {
        let mut vips = Self::default();
        for point in config.virtual_servers.iter().flat_map(|service| &service.points) {
            match point {
                MatchPoint::Addresses { range, .. } if range.first == range.last => {
                    vips.single.insert(range.first);
                }
                MatchPoint::Addresses { range, .. } => {
                    vips.ranges.insert(*range);
                }
                MatchPoint::Mark(..) => {}
            }
        }
        // A rule that marks what goes to one address speaks of a VIP; a wider prefix may hold addresses of any kind.
        let marked = config.dataplane.rules.iter().filter(|rule| matches!(rule.action, Action::Mark(_)));
        let single = marked.filter_map(|rule| rule.selector.to).filter(|to| to.prefix_len() == to.max_prefix_len());
        vips.single.extend(single.map(|prefix| prefix.addr()));
        vips
    }

    /// Whether an address is of a virtual service.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.single.contains(&address) || self.ranges.iter().any(|range| range.contains(address))
    }
}

/// What the kernel takes for its own: addresses, and prefixes that a route of type `local` makes so.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) addresses: BTreeSet<IpAddr>,
    prefixes: Vec<IpNet>,
}

impl Local {
    /// That of a machine.
    pub(super) fn of(topology: &Topology) -> Self {
        let is_prefix = |prefix: &IpNet| prefix.prefix_len() < prefix.max_prefix_len();
        let routes = topology.routes.iter().filter(|route| route.via == Via::Local && is_prefix(&route.prefix));
        Self {
            addresses: topology.addresses.iter().map(|(_, net)| net.addr()).collect(),
            prefixes: routes.map(|route| route.prefix).collect(),
        }
    }

    /// Whether any address of a range is this machine's.
    pub(super) fn has_any(&self, range: &AddressRange) -> bool {
        self.addresses_in(range).next().is_some() || self.prefixes.iter().any(|prefix| common(range, prefix).is_some())
    }

    /// The addresses of a range that interfaces have.
    pub(super) fn addresses_in(&self, range: &AddressRange) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.range(range.first..=range.last).copied()
    }

    /// The parts of a range that routes make local, as prefixes.
    pub(super) fn prefixes_in(&self, range: &AddressRange) -> Vec<IpNet> {
        self.prefixes.iter().filter_map(|prefix| common(range, prefix)).flat_map(subnets).collect()
    }
}

fn common(range: &AddressRange, prefix: &IpNet) -> Option<AddressRange> {
    let first = range.first.max(prefix.network());
    let last = range.last.min(prefix.broadcast());
    let is_one_family = range.first.is_ipv4() == prefix.network().is_ipv4();
    (is_one_family && first <= last).then_some(AddressRange { first, last })
}

fn subnets(range: AddressRange) -> Vec<IpNet> {
    match (range.first, range.last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => Ipv4Subnets::new(first, last, 0).map(IpNet::V4).collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) => Ipv6Subnets::new(first, last, 0).map(IpNet::V6).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::batch;

    #[test]
    fn a_range_is_local_by_addresses_and_by_local_routes() {
        let topology = batch::parse("link add eth0\naddr add 10.1.0.5/24 dev eth0").unwrap();
        let range =
            |first: &str, last: &str| AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
        let mut local = Local::of(&topology);
        assert!(local.has_any(&range("10.1.0.1", "10.1.0.9")) && !local.has_any(&range("10.1.0.6", "10.1.0.9")));
        local.prefixes.push("10.1.0.0/16".parse().unwrap());
        let parts = local.prefixes_in(&range("10.1.255.0", "10.2.0.9"));
        assert_eq!(parts, ["10.1.255.0/24".parse::<IpNet>().unwrap()]);
        assert!(local.has_any(&range("10.1.7.7", "10.1.7.7")));
        assert!(!local.has_any(&range("::2", "ffff::")));
    }
}
