//! Small identities that packets, configuration and counters share.
//!
//! Each is a newtype, so that a queue can never be taken for a core or a host-order port for a network-order one.

use std::fmt;
use std::net::IpAddr;

/// A port of the director: one network interface, in the order in which they were opened. At most 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortIndex(pub u8);

/// A hardware (or veth) queue of one interface, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueIndex(pub u32);

/// A worker, from 0. At most 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerIndex(pub u8);

/// A CPU core by its number in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CoreIndex(pub usize);

/// Most workers that one director runs; bounds every per-worker array.
pub const MAX_WORKERS: usize = 64;

/// A TCP, UDP or SCTP port in network byte order, as it stands in the packet. Zero means "any" in a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct NetPort(u16);

impl NetPort {
    /// No port: "any port" in a service, "absent" in a packet.
    pub const ANY: Self = Self(0);
    /// Where FTP servers take commands: 21.
    pub const FTP: Self = Self::new(21);

    /// From the number that people write.
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// From the two bytes of a header.
    pub const fn from_wire(bytes: [u8; 2]) -> Self {
        Self(u16::from_ne_bytes(bytes))
    }

    /// The two bytes for a header.
    pub const fn to_wire(self) -> [u8; 2] {
        self.0.to_ne_bytes()
    }

    /// The number that people read.
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The raw value in network byte order, for packing into keys.
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From [`NetPort::raw`].
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }

    /// Whether this is [`NetPort::ANY`].
    pub const fn is_any(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for NetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host())
    }
}

impl fmt::Display for NetPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.host())
    }
}

/// A transport that services balance, with its IANA number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, 6.
    Tcp = 6,
    /// UDP, 17.
    Udp = 17,
    /// SCTP, 132.
    Sctp = 132,
}

impl Protocol {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Tcp, Self::Udp, Self::Sctp];

    /// The IANA protocol number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The protocol of an IANA number, where services can have it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }

    /// As ipvsadm prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The weight of a destination: 0 drains it. The range is that of keepalived, 0 to 2147483647.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// The largest weight that IPVS stores.
    pub const MAX: u32 = 2_147_483_647;
    /// The weight of a destination that names none.
    pub const ONE: Self = Self(1);
    /// No new connections.
    pub const ZERO: Self = Self(0);

    /// A weight, or `None` above [`Weight::MAX`].
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX { Some(Self(value)) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u32 {
        self.0
    }
}

/// A 48-bit Ethernet address, in the order of the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the group bit is set (multicast and broadcast).
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not six hexadecimal octets with colons between.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("'{0}' is not an Ethernet address such as 02:00:00:00:00:01")]
pub struct BadMac(String);

impl std::str::FromStr for MacAddr {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

/// An address and port, as a service, server or client has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The IP address.
    pub address: IpAddr,
    /// The port, or [`NetPort::ANY`].
    pub port: NetPort,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(a) => write!(f, "{a}:{}", self.port),
            IpAddr::V6(a) => write!(f, "[{a}]:{}", self.port),
        }
    }
}

/// What names a virtual service: transport, address and port (port 0: every port of the address).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    /// The transport.
    pub protocol: Protocol,
    /// VIP and port.
    pub at: Endpoint,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.protocol, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_keeps_the_order_of_the_wire() {
        assert_eq!(NetPort::new(80).to_wire(), [0, 80]);
        assert_eq!(NetPort::from_wire([0x1f, 0x90]).host(), 8080);
    }

    #[test]
    fn an_ethernet_address_reads_as_it_prints() {
        let mac: MacAddr = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert!("02:00:5e:10:00".parse::<MacAddr>().is_err());
        assert!("02:00:5e:10:00:ff:1".parse::<MacAddr>().is_err());
        assert!("02:0:5e:10:00:ff".parse::<MacAddr>().is_err());
    }
}
