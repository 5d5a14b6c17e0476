//! Receive side scaling: by which of its queues a network card will deliver a packet, computed as the card does.
//!
//! A card hashes addresses, and often ports, by Toeplitz (Microsoft's "RSS hashing functions") and looks the hash up in
//! a table of queues. The hash is linear: what varies of many packets is hashed alone and combined with the rest.

use std::net::IpAddr;

use crate::ident::{Endpoint, NetPort, Protocol, QueueIndex};

/// Bytes that a key has at least: the hash of two IPv6 addresses and ports reads so many.
pub const LEAST_KEY: usize = 40;

/// What a card hashes of packets of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashedFields {
    /// Both addresses.
    Addresses,
    /// Both addresses and both ports.
    AddressesAndPorts,
    /// Something else, or nobody knows.
    Unknown,
}

/// What a card hashes, by kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashedByKind {
    /// TCP over IPv4.
    pub tcp4: HashedFields,
    /// UDP over IPv4.
    pub udp4: HashedFields,
    /// TCP over IPv6.
    pub tcp6: HashedFields,
    /// UDP over IPv6.
    pub udp6: HashedFields,
}

/// How one card spreads packets over its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    key: Box<[u8]>,
    indirection: Box<[u32]>,
    hashed: HashedByKind,
}

impl Rss {
    /// From the card's key, its table of queues and what it hashes; `None` with a key below [`LEAST_KEY`] bytes or an
    /// empty table.
    pub fn new(key: &[u8], indirection: &[u32], hashed: HashedByKind) -> Option<Self> {
        let is_whole = key.len() >= LEAST_KEY && !indirection.is_empty();
        is_whole.then(|| Self { key: key.into(), indirection: indirection.into(), hashed })
    }

    /// The packets from `source` to any port of `destination`; `None` where it is not known what of them is hashed, or
    /// the addresses are of two families.
    pub fn packets(&self, protocol: Protocol, source: Endpoint, destination: IpAddr) -> Option<Packets<'_>> {
        let hashed = match (protocol, source.address) {
            (Protocol::Tcp, IpAddr::V4(_)) => self.hashed.tcp4,
            (Protocol::Udp, IpAddr::V4(_)) => self.hashed.udp4,
            (Protocol::Tcp, IpAddr::V6(_)) => self.hashed.tcp6,
            (Protocol::Udp, IpAddr::V6(_)) => self.hashed.udp6,
            // FULLNAT, which asks, does not take it.
            (Protocol::Sctp, _) => return None,
        };
        let (addresses, length) = match (source.address, destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (toeplitz(&self.key, 0, &from.octets()) ^ toeplitz(&self.key, 4, &to.octets()), 8)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                (toeplitz(&self.key, 0, &from.octets()) ^ toeplitz(&self.key, 16, &to.octets()), 32)
            }
            _ => return None,
        };
        match hashed {
            HashedFields::Unknown => None,
            HashedFields::Addresses => Some(Packets { rss: self, hash: addresses, port_at: None }),
            HashedFields::AddressesAndPorts => {
                let hash = addresses ^ toeplitz(&self.key, length, &source.port.to_wire());
                Some(Packets { rss: self, hash, port_at: Some(length + 2) })
            }
        }
    }
}

/// Packets that differ in their destination port alone.
#[derive(Clone, Copy, Debug)]
pub struct Packets<'r> {
    rss: &'r Rss,
    /// Of everything but the destination port.
    hash: u32,
    /// Where that stands in what is hashed, if it does.
    port_at: Option<usize>,
}

impl Packets<'_> {
    /// Whether the destination port makes a difference.
    pub const fn differ(&self) -> bool {
        self.port_at.is_some()
    }

    /// The queue of those to `port`.
    pub fn queue(&self, port: NetPort) -> QueueIndex {
        let table = &self.rss.indirection;
        let queue = table.get(self.hash(port) as usize % table.len().max(1));
        QueueIndex(queue.copied().unwrap_or(0))
    }

    fn hash(&self, port: NetPort) -> u32 {
        self.port_at.map_or(self.hash, |at| self.hash ^ toeplitz(&self.rss.key, at, &port.to_wire()))
    }
}

/// The part of the hash that is of `input`, which stands `at` bytes from the front of all that is hashed.
fn toeplitz(key: &[u8], at: usize, input: &[u8]) -> u32 {
    let windows = key.get(at..).unwrap_or_default().windows(5);
    input.iter().zip(windows).fold(0, |hash, (byte, window)| {
        let window = window.iter().fold(0_u64, |window, next| window << 8 | u64::from(*next));
        let ones = (0..8).filter(|bit| byte & (0x80 >> bit) != 0);
        ones.fold(hash, |hash, bit| hash ^ (window >> (8 - bit)) as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of Microsoft's "Verifying the RSS Hash Calculation".
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    type End = (&'static str, u16);

    /// Destination, source, the hash of the addresses, and that with the ports: all of that page.
    const VECTORS: [(End, End, u32, u32); 8] = [
        (("161.142.100.80", 1766), ("66.9.149.187", 2794), 0x323e_8fc2, 0x51cc_c178),
        (("65.69.140.83", 4739), ("199.92.111.2", 14_230), 0xd718_262a, 0xc626_b0ea),
        (("12.22.207.184", 38_024), ("24.19.198.95", 12_898), 0xd2d0_a5de, 0x5c2b_394a),
        (("209.142.163.6", 2217), ("38.27.205.30", 48_228), 0x8298_9176, 0xafc7_327f),
        (("202.188.127.2", 1303), ("153.39.163.191", 44_251), 0x5d18_09c5, 0x10e8_28a2),
        (("3ffe:2501:200:3::1", 1766), ("3ffe:2501:200:1fff::7", 2794), 0x2cc1_8cd5, 0x4020_7d3d),
        (("ff02::1", 4739), ("3ffe:501:8::260:97ff:fe40:efab", 14_230), 0x0f0c_461c, 0xdde5_1bbf),
        (
            ("fe80::200:f8ff:fe21:67cf", 38_024),
            ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44_251),
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn rss(tcp: HashedFields, udp: HashedFields) -> Rss {
        let table: Vec<u32> = (0..128).collect();
        Rss::new(&KEY, &table, HashedByKind { tcp4: tcp, udp4: udp, tcp6: tcp, udp6: udp }).unwrap()
    }

    #[test]
    fn hashes_are_those_of_the_specification() {
        let rss = rss(HashedFields::AddressesAndPorts, HashedFields::Addresses);
        for (to, from, of_addresses, with_ports) in VECTORS {
            let source = Endpoint { address: from.0.parse().unwrap(), port: NetPort::new(from.1) };
            let hash = |protocol| {
                let packets = rss.packets(protocol, source, to.0.parse().unwrap()).unwrap();
                assert_eq!(packets.queue(NetPort::new(to.1)).0, packets.hash(NetPort::new(to.1)) % 128);
                (packets.hash(NetPort::new(to.1)), packets.differ())
            };
            assert_eq!(hash(Protocol::Tcp), (with_ports, true), "{to:?}");
            assert_eq!(hash(Protocol::Udp), (of_addresses, false), "{to:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let source = Endpoint { address: "10.0.0.1".parse().unwrap(), port: NetPort::new(80) };
        let known = rss(HashedFields::AddressesAndPorts, HashedFields::Unknown);
        assert!(known.packets(Protocol::Udp, source, "10.0.0.2".parse().unwrap()).is_none());
        assert!(known.packets(Protocol::Tcp, source, "::1".parse().unwrap()).is_none());
        assert!(Rss::new(&KEY[1..], &[0], known.hashed).is_none());
        assert!(Rss::new(&KEY, &[], known.hashed).is_none());
    }
}
