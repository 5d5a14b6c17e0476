//! How an interface's hardware spreads what it receives over its queues, as far as ethtool says it.

use dataplane::rss::{HashedByKind, HashedFields, Rss};

use crate::sys::{self, ReceiveHash};

/// `ETH_RSS_HASH_TOP` of linux/ethtool.h.
const TOEPLITZ: u8 = 1;
/// Kinds of packets there.
const TCP_V4_FLOW: u32 = 0x01;
const UDP_V4_FLOW: u32 = 0x02;
const TCP_V6_FLOW: u32 = 0x05;
const UDP_V6_FLOW: u32 = 0x06;
/// `RXH_IP_SRC` and `RXH_IP_DST`.
const ADDRESSES: u64 = 1 << 4 | 1 << 5;
/// `RXH_L4_B_0_1` and `RXH_L4_B_2_3`.
const PORTS: u64 = 1 << 6 | 1 << 7;

/// What is known of an interface's RSS; `None` where its driver does not tell, or hashes by another function than plain
/// Toeplitz.
pub fn rss(interface: &str) -> Option<Rss> {
    let hash = sys::receive_hash(interface).ok()?;
    let hashed = |kind| sys::hashed_fields(interface, kind).map_or(HashedFields::Unknown, fields);
    let hashed = HashedByKind {
        tcp4: hashed(TCP_V4_FLOW),
        udp4: hashed(UDP_V4_FLOW),
        tcp6: hashed(TCP_V6_FLOW),
        udp6: hashed(UDP_V6_FLOW),
    };
    understood(&hash, hashed)
}

fn understood(hash: &ReceiveHash, hashed: HashedByKind) -> Option<Rss> {
    // A symmetric transformation changes the fields before they are hashed.
    let is_plain = hash.function == TOEPLITZ && hash.transformation == 0;
    is_plain.then(|| Rss::new(&hash.key, &hash.indirection, hashed)).flatten()
}

const fn fields(bits: u64) -> HashedFields {
    if bits == ADDRESSES {
        HashedFields::Addresses
    } else if bits == ADDRESSES | PORTS {
        HashedFields::AddressesAndPorts
    } else {
        HashedFields::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_toeplitz_is_understood() {
        let hashed =
            HashedByKind { tcp4: fields(0xf0), udp4: fields(0x30), tcp6: fields(0xf0 | 1 << 2), udp6: fields(0) };
        let expected = HashedByKind {
            tcp4: HashedFields::AddressesAndPorts,
            udp4: HashedFields::Addresses,
            tcp6: HashedFields::Unknown,
            udp6: HashedFields::Unknown,
        };
        assert_eq!(hashed, expected);
        let plain = ReceiveHash { function: 1, transformation: 0, indirection: vec![0, 1], key: vec![7; 52] };
        assert_eq!(understood(&plain, hashed), Rss::new(&[7; 52], &[0, 1], hashed));
        assert!(understood(&plain, hashed).is_some());
        for other in [ReceiveHash { function: 2, ..plain.clone() }, ReceiveHash { transformation: 1, ..plain.clone() }]
        {
            assert_eq!(understood(&other, hashed), None);
        }
    }

    #[test]
    fn the_loopback_interface_has_none() {
        assert_eq!(rss("lo"), None);
    }
}
