//! From what a packet shows to its service: by mark; by address and port; by address alone.
//!
//! Single addresses stand in a hash table. Longer ranges stand in sorted lists, one for each transport and port, so that a
//! range costs one entry whatever its length. No two points of one table match the same packet by the same port.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AddressFamily, AddressRange, Mark, MatchPoint, ServiceIndex};
use crate::ident::{Endpoint, NetPort, Protocol};

type Hashed<K, V> = HashMap<K, V, foldhash::quality::RandomState>;

/// All match points of a table of services.
#[derive(Debug, Default)]
pub(super) struct Points {
    exact: Exact,
    addresses: HashSet<IpAddr, foldhash::quality::RandomState>,
    // Sorted by the first address; they do not overlap.
    ranges: Hashed<(Protocol, NetPort), Vec<(AddressRange, ServiceIndex)>>,
    marks: Hashed<(Mark, AddressFamily), ServiceIndex>,
}

impl Points {
    /// The service of a mark.
    pub(super) fn marked(&self, mark: Mark, family: AddressFamily) -> Option<ServiceIndex> {
        self.marks.get(&(mark, family)).copied()
    }

    /// The service at an endpoint: of its port, else of every port.
    pub(super) fn at(&self, protocol: Protocol, to: Endpoint) -> Option<ServiceIndex> {
        self.of_port(protocol, to).or_else(|| self.of_port(protocol, Endpoint { port: NetPort::ANY, ..to }))
    }

    fn of_port(&self, protocol: Protocol, at: Endpoint) -> Option<ServiceIndex> {
        if let Some(index) = self.exact.find(protocol, at) {
            return Some(index);
        }
        // Without ranges, as nearly everywhere, this costs one comparison.
        if self.ranges.is_empty() { None } else { self.in_range(protocol, at) }
    }

    fn in_range(&self, protocol: Protocol, at: Endpoint) -> Option<ServiceIndex> {
        let list = self.ranges.get(&(protocol, at.port))?;
        let behind = list.partition_point(|(range, _)| range.first <= at.address);
        let (range, index) = list.get(behind.checked_sub(1)?)?;
        range.contains(at.address).then_some(*index)
    }

    /// Whether any point is at an address.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        let holds = |list: &Vec<(AddressRange, ServiceIndex)>| list.iter().any(|(range, _)| range.contains(address));
        self.addresses.contains(&address) || self.ranges.values().any(holds)
    }

    /// Adds a point; false where another point matches some of the same packets.
    #[must_use]
    pub(super) fn add(&mut self, point: MatchPoint, index: ServiceIndex) -> bool {
        match point {
            MatchPoint::Mark(mark, family) => self.marks.insert((mark, family), index).is_none(),
            MatchPoint::Addresses { protocol, range, port } if range.first == range.last => {
                let at = Endpoint { address: range.first, port };
                self.addresses.insert(range.first);
                self.of_port(protocol, at).is_none() && self.exact.insert(protocol, at, index)
            }
            MatchPoint::Addresses { protocol, range, port } => self.add_range(protocol, range, port, index),
        }
    }

    fn add_range(&mut self, protocol: Protocol, range: AddressRange, port: NetPort, index: ServiceIndex) -> bool {
        if range.last < range.first || self.exact.meets(protocol, port, range) {
            return false;
        }
        let list = self.ranges.entry((protocol, port)).or_default();
        let behind = list.partition_point(|(other, _)| other.first <= range.last);
        let before: Option<IpAddr> = behind.checked_sub(1).and_then(|at| list.get(at)).map(|(other, _)| other.last);
        if before.is_some_and(|last| range.first <= last) {
            return false;
        }
        list.insert(behind, (range, index));
        true
    }
}

/// Single addresses with a port. Those of IPv4 are hashed as one number: every new flow asks for one.
#[derive(Debug, Default)]
struct Exact {
    four: Hashed<u64, ServiceIndex>,
    six: Hashed<(u128, u32), ServiceIndex>,
}

impl Exact {
    #[inline]
    fn find(&self, protocol: Protocol, at: Endpoint) -> Option<ServiceIndex> {
        let found = match at.address {
            IpAddr::V4(address) => {
                self.four.get(&(u64::from(address.to_bits()) << 32 | u64::from(door(protocol, at.port))))
            }
            IpAddr::V6(address) => self.six.get(&(address.to_bits(), door(protocol, at.port))),
        };
        found.copied()
    }

    /// False where there was one.
    fn insert(&mut self, protocol: Protocol, at: Endpoint, index: ServiceIndex) -> bool {
        let door = door(protocol, at.port);
        let before = match at.address {
            IpAddr::V4(address) => self.four.insert(u64::from(address.to_bits()) << 32 | u64::from(door), index),
            IpAddr::V6(address) => self.six.insert((address.to_bits(), door), index),
        };
        before.is_none()
    }

    /// Whether one of them, with this port, lies in a range.
    fn meets(&self, protocol: Protocol, port: NetPort, range: AddressRange) -> bool {
        let door = door(protocol, port);
        let four =
            self.four.keys().filter(|key| **key as u32 == door).map(|key| Ipv4Addr::from_bits((key >> 32) as u32));
        let six = self.six.keys().filter(|key| key.1 == door).map(|key| Ipv6Addr::from_bits(key.0));
        four.map(IpAddr::V4).chain(six.map(IpAddr::V6)).any(|address| range.contains(address))
    }
}

/// Transport and port in one number.
#[inline]
fn door(protocol: Protocol, port: NetPort) -> u32 {
    u32::from(protocol.number()) << 16 | u32::from(port.raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(first: &str, last: &str, port: u16) -> MatchPoint {
        let range = AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() };
        MatchPoint::Addresses { protocol: Protocol::Tcp, range, port: NetPort::new(port) }
    }

    fn at(points: &Points, address: &str, port: u16) -> Option<u32> {
        let to = Endpoint { address: address.parse().unwrap(), port: NetPort::new(port) };
        points.at(Protocol::Tcp, to).map(|index| index.0)
    }

    #[test]
    fn the_port_goes_before_every_port_whether_range_or_address() {
        let mut points = Points::default();
        assert!(points.add(point("10.0.0.1", "10.0.0.1", 0), ServiceIndex(0)));
        assert!(points.add(point("10.0.0.0", "10.0.255.255", 80), ServiceIndex(1)));
        assert!(points.add(point("10.0.0.9", "10.0.0.9", 443), ServiceIndex(2)));
        assert!(points.add(point("10.0.0.2", "10.0.0.20", 0), ServiceIndex(3)));
        assert_eq!(at(&points, "10.0.0.1", 80), Some(1));
        assert_eq!(at(&points, "10.0.0.1", 22), Some(0));
        assert_eq!((at(&points, "10.0.0.9", 443), at(&points, "10.0.0.9", 1)), (Some(2), Some(3)));
        assert_eq!((at(&points, "10.0.255.255", 80), at(&points, "10.1.0.0", 80)), (Some(1), None));
        assert_eq!((at(&points, "9.255.255.255", 80), at(&points, "10.0.0.21", 22)), (None, None));
    }

    #[test]
    fn overlaps_are_refused() {
        let mut points = Points::default();
        assert!(points.add(point("10.0.0.10", "10.0.0.20", 80), ServiceIndex(0)));
        for (first, last) in [
            ("10.0.0.10", "10.0.0.10"),
            ("10.0.0.20", "10.0.0.30"),
            ("10.0.0.1", "10.0.0.10"),
            ("10.0.0.1", "10.0.0.99"),
            ("10.0.0.12", "10.0.0.13"),
            ("10.0.0.9", "10.0.0.1"),
        ] {
            assert!(!points.add(point(first, last, 80), ServiceIndex(1)), "{first}-{last}");
        }
        assert!(points.add(point("10.0.0.21", "10.0.0.30", 80), ServiceIndex(1)));
        assert!(points.add(point("10.0.0.1", "10.0.0.9", 80), ServiceIndex(1)));
        assert!(points.add(point("fd00::1", "fd00::9", 80), ServiceIndex(2)));
        assert!(points.add(point("fd00::a", "fd00::a", 80), ServiceIndex(3)));
        assert!(!points.add(point("fd00::a", "fd00::b", 80), ServiceIndex(3)));
        assert_eq!((at(&points, "10.0.0.15", 80), at(&points, "10.0.0.9", 80)), (Some(0), Some(1)));
        assert_eq!((at(&points, "fd00::5", 80), at(&points, "fd00::a", 80)), (Some(2), Some(3)));
    }
}
