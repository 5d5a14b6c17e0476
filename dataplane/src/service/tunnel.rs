//! The form of a tunnel to a destination, and where it begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::ident::NetPort;

/// What stands between the outer IP header and the packet inside (`lb_kind TUN type …`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// Nothing: IP in IP (RFC 2003, RFC 2473, RFC 4213).
    #[default]
    Ipip,
    /// A GRE header (RFC 2784).
    Gre(GreChecksum),
    /// UDP and a GUE header of version 0 (draft-ietf-intarea-gue), as Linux's fou and IPVS have it.
    Gue {
        /// Where the server takes it in, never [`NetPort::ANY`].
        port: NetPort,
        /// The checksum of the outer UDP header.
        checksum: GueChecksum,
    },
}

/// Whether a GRE header has a checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GreChecksum {
    /// `nocsum`.
    #[default]
    Absent,
    /// `csum`: of the GRE header and the packet inside.
    Present,
}

/// What the UDP checksum outside a GUE header covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GueChecksum {
    /// `nocsum`: nothing, it is zero; over IPv6 too (RFC 6935, RFC 6936).
    #[default]
    Absent,
    /// `csum`: everything.
    Present,
    /// `remcsum`: everything, so that the transport's own checksum inside is left to the receiver.
    Remote,
}

impl Encapsulation {
    /// The most bytes that it takes, without the outer IP header.
    pub const fn longest(self) -> usize {
        match self {
            Self::Ipip => 0,
            Self::Gre(GreChecksum::Absent) => 4,
            Self::Gre(GreChecksum::Present) => 8,
            Self::Gue { checksum: GueChecksum::Absent | GueChecksum::Present, .. } => 12,
            Self::Gue { checksum: GueChecksum::Remote, .. } => 20,
        }
    }
}

/// The tunnel to a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Its form.
    pub encapsulation: Encapsulation,
    /// Addresses of the destination's family, one of which each flow gets as its outer source (`tunnel_source`), so that
    /// a server's network card spreads flows over its queues. None: one address of the director for all.
    pub sources: Option<IpNet>,
}

impl Tunnel {
    /// IP in IP, from one address.
    pub const IPIP: Self = Self { encapsulation: Encapsulation::Ipip, sources: None };

    /// The outer source address of the flow that `entropy` is of; `None` without a prefix to choose from.
    pub fn source(&self, entropy: u32) -> Option<IpAddr> {
        Some(match self.sources? {
            IpNet::V4(prefix) => {
                let host = entropy & u32::from(prefix.hostmask());
                Ipv4Addr::from(u32::from(prefix.network()) | host).into()
            }
            IpNet::V6(prefix) => {
                let host = u128::from(entropy) & u128::from(prefix.hostmask());
                Ipv6Addr::from(u128::from(prefix.network()) | host).into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_of_the_prefix() {
        let source = |prefix: &str, entropy| {
            let tunnel = Tunnel { sources: Some(prefix.parse().unwrap()), ..Tunnel::default() };
            tunnel.source(entropy).unwrap().to_string()
        };
        assert_eq!(source("172.16.0.0/16", 0xdead_0102), "172.16.1.2");
        assert_eq!(source("192.0.2.9/32", 0xffff_ffff), "192.0.2.9");
        assert_eq!(source("fd00:9::/64", 0xdead_0102), "fd00:9::dead:102");
        assert_eq!(source("fd00:9::/112", 0xdead_0102), "fd00:9::102");
        assert_eq!(Tunnel::default().source(7), None);
    }
}
