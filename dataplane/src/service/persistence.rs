//! Persistence: for a while, a client (or its network) is sent to the server that it was sent to before.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::clock::Ticks;

/// How long a client stays with its server, and who counts as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persistence {
    /// After the last new connection, and as long as one is left.
    pub timeout: Ticks,
    /// Clients whose addresses are the same under this mask are one (`persistence_granularity`).
    pub mask: Ipv4Addr,
    /// Clients of one IPv6 prefix of this length are one: 1 to 128.
    pub prefix: u8,
}

impl Persistence {
    /// What keepalived takes where no time is given, in seconds.
    pub const DEFAULT: u32 = 360;
    /// The longest time, in seconds: 31 days.
    pub const LONGEST: u32 = 2_678_400;

    /// Each address by itself, for so many seconds.
    pub const fn new(seconds: u32) -> Self {
        Self { timeout: Ticks::seconds(seconds), mask: Ipv4Addr::BROADCAST, prefix: 128 }
    }

    /// What all addresses of one client have in common.
    pub fn network(&self, client: IpAddr) -> IpAddr {
        match client {
            IpAddr::V4(address) => IpAddr::V4(address & self.mask),
            IpAddr::V6(address) => {
                let host = u128::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6(address & Ipv6Addr::from(!host))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_one_network_are_one() {
        let by = Persistence { mask: Ipv4Addr::new(255, 255, 254, 0), prefix: 61, ..Persistence::new(1) };
        let of = |address: &str| by.network(address.parse().unwrap()).to_string();
        assert_eq!([of("10.1.3.9"), of("10.1.2.1"), of("10.1.4.1")], ["10.1.2.0", "10.1.2.0", "10.1.4.0"]);
        assert_eq!(of("2001:db8:0:f::1"), "2001:db8:0:8::");
        let each = Persistence::new(1);
        for address in ["10.1.3.9", "2001:db8::9"] {
            assert_eq!(each.network(address.parse().unwrap()).to_string(), address);
        }
    }
}
