//! What names a service, and what it matches: one service may stand at many addresses, or at none but a mark.
//!
//! A name tells services apart in control, over reloads and restarts; match points are what a packet finds them by.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ident::{NetPort, Protocol, ServiceKey};

/// A mark that rules give to packets, as a firewall's fwmark: 1 to 4294967295.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark(NonZeroU32);

impl Mark {
    /// A mark, or `None` for 0, which means "not marked".
    pub const fn new(value: u32) -> Option<Self> {
        match NonZeroU32::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AddressFamily {
    /// IPv4.
    #[serde(rename = "inet")]
    V4,
    /// IPv6.
    #[serde(rename = "inet6")]
    V6,
}

impl AddressFamily {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// The name of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceName {
    /// Transport, address and port.
    Address(ServiceKey),
    /// A mark, for packets of one family, whatever their transport.
    Mark {
        /// The mark.
        mark: Mark,
        /// Of which family its packets are.
        family: AddressFamily,
    },
    /// The addresses of a `virtual_server_group`, for one transport.
    Group {
        /// The group's name.
        name: Arc<str>,
        /// The transport.
        protocol: Protocol,
    },
}

impl ServiceName {
    /// What names it in the first column of `ipvsadm -L`: its transport, or FWM.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Address(key) => key.protocol.name(),
            Self::Group { protocol, .. } => protocol.name(),
            Self::Mark { .. } => "FWM",
        }
    }

    /// The transport; none where it serves all.
    pub const fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Address(key) => Some(key.protocol),
            Self::Group { protocol, .. } => Some(*protocol),
            Self::Mark { .. } => None,
        }
    }
}

impl From<ServiceKey> for ServiceName {
    fn from(key: ServiceKey) -> Self {
        Self::Address(key)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(key) => write!(f, "{key}"),
            Self::Mark { mark, family: AddressFamily::V4 } => write!(f, "FWM {mark}"),
            Self::Mark { mark, family: AddressFamily::V6 } => write!(f, "FWM {mark} IPv6"),
            Self::Group { name, protocol } => write!(f, "{protocol} group {name}"),
        }
    }
}

/// Addresses from the first to the last, both of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressRange {
    /// The first.
    pub first: IpAddr,
    /// The last, not before the first.
    pub last: IpAddr,
}

impl AddressRange {
    /// Whether an address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        // Addresses of two families compare by family: one of another is before all or behind all.
        self.first <= address && address <= self.last
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// What a packet finds a service by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MatchPoint {
    /// Addresses, transport and port; port 0: every port.
    Addresses {
        /// The transport.
        protocol: Protocol,
        /// The addresses.
        range: AddressRange,
        /// The port, or [`NetPort::ANY`].
        port: NetPort,
    },
    /// A mark, for packets of one family.
    Mark(Mark, AddressFamily),
}

impl MatchPoint {
    /// Whether it matches IPv4 packets.
    pub const fn is_v4(&self) -> bool {
        match self {
            Self::Addresses { range, .. } => range.first.is_ipv4(),
            Self::Mark(_, family) => matches!(family, AddressFamily::V4),
        }
    }
}

impl From<ServiceKey> for MatchPoint {
    fn from(key: ServiceKey) -> Self {
        let range = AddressRange { first: key.at.address, last: key.at.address };
        Self::Addresses { protocol: key.protocol, range, port: key.at.port }
    }
}

impl fmt::Display for MatchPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses { range, port, .. } if range.first.is_ipv6() => write!(f, "[{range}]:{port}"),
            Self::Addresses { range, port, .. } => write!(f, "{range}:{port}"),
            Self::Mark(mark, AddressFamily::V4) => write!(f, "fwmark {mark}"),
            Self::Mark(mark, AddressFamily::V6) => write!(f, "fwmark {mark} inet6"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_ends_and_nothing_of_another_family() {
        let range = AddressRange { first: "10.0.0.5".parse().unwrap(), last: "10.0.0.9".parse().unwrap() };
        let holds = |address: &str| range.contains(address.parse().unwrap());
        assert!(holds("10.0.0.5") && holds("10.0.0.9"));
        assert!(!holds("10.0.0.4") && !holds("10.0.0.10") && !holds("::ffff:10.0.0.7"));
    }

    #[test]
    fn names_read_as_ipvsadm_prints_them() {
        let mark = Mark::new(7).unwrap();
        assert_eq!(ServiceName::Mark { mark, family: AddressFamily::V4 }.to_string(), "FWM 7");
        assert_eq!(ServiceName::Mark { mark, family: AddressFamily::V6 }.to_string(), "FWM 7 IPv6");
        let group = ServiceName::Group { name: "web".into(), protocol: Protocol::Tcp };
        assert_eq!((group.to_string().as_str(), group.kind()), ("TCP group web", "TCP"));
        assert!(Mark::new(0).is_none());
    }
}
