//! Ranges of addresses and ports: `10.0.0.1`, `10.0.0.1-10.0.0.9:1024-2047`, `10.1.0.0/16:80`, `[fd00::1-fd00::9]:53`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dataplane::ident::{Endpoint, NetPort};

use crate::link::PortRange;

/// Every address of a range with every port of another. Endpoint `n` has the port `n` modulo their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    first: IpAddr,
    addresses: u64,
    ports: Option<PortRange>,
}

impl Endpoints {
    /// One address with a range of ports.
    pub(crate) const fn of(address: IpAddr, ports: PortRange) -> Self {
        Self { first: address, addresses: 1, ports: Some(ports) }
    }

    /// The first address.
    pub(crate) const fn first(&self) -> IpAddr {
        self.first
    }

    /// The ports, where any were given.
    pub(crate) const fn ports(&self) -> Option<PortRange> {
        self.ports
    }

    /// The same addresses, with these ports unless they have some.
    pub(crate) const fn or_ports(self, ports: PortRange) -> Self {
        match self.ports {
            Some(_) => self,
            None => Self { ports: Some(ports), ..self },
        }
    }

    /// How many there are, `u64::MAX` at most.
    pub(crate) fn count(&self) -> u64 {
        self.addresses.saturating_mul(self.port_count())
    }

    /// The endpoint of a number below [`Endpoints::count`]; larger numbers begin again.
    #[inline]
    pub(crate) fn at(&self, number: u64) -> Endpoint {
        let ports = self.port_count();
        let host = number / ports % self.addresses;
        let address = match self.first {
            IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().wrapping_add(host as u32))),
            IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().wrapping_add(u128::from(host)))),
        };
        let first = self.ports.map_or(0, |p| p.first);
        Endpoint { address, port: NetPort::new(first.wrapping_add((number % ports) as u16)) }
    }

    fn port_count(&self) -> u64 {
        self.ports.map_or(1, |p| u64::from(p.last - p.first) + 1)
    }
}

impl FromStr for Endpoints {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addresses, ports) = split(text)?;
        let ports = ports.map(str::parse).transpose()?;
        let (first, addresses) = address_range(addresses)?;
        Ok(Self { first, addresses, ports })
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("'{text}' is no port or range of ports such as 1024-2047")),
        }
    }
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.at((self.addresses - 1).saturating_mul(self.port_count())).address;
        let range = if self.addresses == 1 { self.first.to_string() } else { format!("{}-{last}", self.first) };
        let range = if self.first.is_ipv6() { format!("[{range}]") } else { range };
        f.write_str(&range)?;
        match self.ports {
            None => Ok(()),
            Some(PortRange { first, last }) if first == last => write!(f, ":{first}"),
            Some(PortRange { first, last }) => write!(f, ":{first}-{last}"),
        }
    }
}

/// Addresses and ports of a text. IPv6 addresses stand in brackets where a port follows.
fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (addresses, rest) = rest.split_once(']').ok_or_else(|| format!("'{text}' has no ']'"))?;
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((addresses, Some(ports))),
            None if rest.is_empty() => Ok((addresses, None)),
            None => Err(format!("'{rest}' follows the ']': expected ':PORT'")),
        };
    }
    match text.split_once(':') {
        Some((addresses, ports)) if !ports.contains(':') => Ok((addresses, Some(ports))),
        _ => Ok((text, None)),
    }
}

/// The first address of a text and how many there are.
fn address_range(text: &str) -> Result<(IpAddr, u64), String> {
    let wrong = || format!("'{text}' is no address, range (10.0.0.1-10.0.0.9) or prefix (10.0.0.0/24)");
    if let Some((network, _)) = text.split_once('/') {
        let prefix: ipnet::IpNet = text.parse().map_err(|_| wrong())?;
        let host_bits = prefix.max_prefix_len() - prefix.prefix_len();
        let first = network.parse().map_err(|_| wrong())?;
        let is_whole = first == prefix.network();
        // From an address inside a prefix to its end would surprise.
        return if is_whole {
            Ok((first, 1u64.checked_shl(u32::from(host_bits)).unwrap_or(u64::MAX)))
        } else {
            Err(wrong())
        };
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let last = last.parse().map_err(|_| wrong())?;
    let count = match (first.parse().map_err(|_| wrong())?, last) {
        (first @ IpAddr::V4(from), IpAddr::V4(to)) => (first, i128::from(to.to_bits()) - i128::from(from.to_bits())),
        (first @ IpAddr::V6(from), IpAddr::V6(to)) => {
            (first, to.to_bits().checked_sub(from.to_bits()).map_or(-1, |n| i128::try_from(n).unwrap_or(i128::MAX)))
        }
        _ => return Err(wrong()),
    };
    match count {
        (_, negative) if negative < 0 => Err(format!("'{text}' ends before it begins")),
        (first, more) => Ok((first, u64::try_from(more).unwrap_or(u64::MAX - 1) + 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        let endpoints: Endpoints = text.parse().unwrap();
        (0..endpoints.count()).map(|n| endpoints.at(n)).map(|e| format!("{} {}", e.address, e.port)).collect()
    }

    #[test]
    fn every_address_is_had_with_every_port() {
        assert_eq!(all("10.0.0.255-10.0.1.0:80-81"), ["10.0.0.255 80", "10.0.0.255 81", "10.0.1.0 80", "10.0.1.0 81"]);
        assert_eq!(all("[fd00::1-fd00::2]:53"), ["fd00::1 53", "fd00::2 53"]);
        assert_eq!(all("10.0.0.0/30"), ["10.0.0.0 0", "10.0.0.1 0", "10.0.0.2 0", "10.0.0.3 0"]);
        assert_eq!(all("fd00::1"), ["fd00::1 0"]);
    }

    #[test]
    fn ranges_read_as_they_are_written() {
        for text in ["10.0.0.1", "10.0.0.1-10.0.0.9:1024-2047", "[fd00::1-fd00::9]:53", "[fd00::1]"] {
            assert_eq!(text.parse::<Endpoints>().unwrap().to_string(), text);
        }
        assert_eq!("::/0".parse::<Endpoints>().unwrap().count(), u64::MAX);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        let wrong = [
            "",
            "10.0.0",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-fd00::1",
            "10.0.0.1/24",
            "10.0.0.0/33",
            "10.0.0.1:",
            "[fd00::1",
            "[fd00::1]80",
            "10.0.0.1:9-8",
            "10.0.0.1:65536",
            "fd00::2-fd00::1",
        ];
        for text in wrong {
            assert!(text.parse::<Endpoints>().is_err(), "{text}");
        }
    }
}
