//! A set of many prefixes, such as a blocklist of a million: two sorted arrays, of where stretches begin and end.
//!
//! Prefixes inside others and side by side become one stretch. A look-up searches a sample of every 64th beginning first,
//! which stays in the cache, and then 64 neighbours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Beginnings for each one in the sample.
const BLOCK: usize = 64;

/// Addresses of both families, immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Stretches<u32>,
    v6: Stretches<u128>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stretches<T> {
    sample: Box<[T]>,
    first: Box<[T]>,
    last: Box<[T]>,
}

impl PrefixSet {
    /// Whether an address is in it.
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }

    /// How many stretches it has: no more than prefixes that went in.
    pub const fn len(&self) -> usize {
        self.v4.first.len() + self.v6.first.len()
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it takes.
    pub const fn memory(&self) -> usize {
        self.v4.memory() + self.v6.memory()
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(p) => v4.push((Ipv4Addr::to_bits(p.network()), Ipv4Addr::to_bits(p.broadcast()))),
                IpNet::V6(p) => v6.push((Ipv6Addr::to_bits(p.network()), Ipv6Addr::to_bits(p.broadcast()))),
            }
        }
        Self { v4: Stretches::new(v4, |n| n.checked_add(1)), v6: Stretches::new(v6, |n| n.checked_add(1)) }
    }
}

impl<T: Copy + Ord> Stretches<T> {
    fn new(mut pairs: Vec<(T, T)>, next: impl Fn(T) -> Option<T>) -> Self {
        pairs.sort_unstable();
        let (mut first, mut last) = (Vec::<T>::new(), Vec::<T>::new());
        for (from, to) in pairs {
            match last.last_mut() {
                Some(end) if next(*end).is_none_or(|behind| from <= behind) => *end = to.max(*end),
                _ => {
                    first.push(from);
                    last.push(to);
                }
            }
        }
        let sample = first.iter().step_by(BLOCK).copied().collect();
        Self { sample, first: first.into(), last: last.into() }
    }

    #[inline]
    fn contains(&self, address: T) -> bool {
        let Some(block) = self.sample.partition_point(|first| *first <= address).checked_sub(1) else { return false };
        let start = block * BLOCK;
        let end = (start + BLOCK).min(self.first.len());
        let within = self.first.get(start..end).unwrap_or_default().partition_point(|first| *first <= address);
        (start + within).checked_sub(1).and_then(|at| self.last.get(at)).is_some_and(|last| address <= *last)
    }

    const fn memory(&self) -> usize {
        (self.sample.len() + self.first.len() + self.last.len()) * size_of::<T>()
    }
}

#[cfg(test)]
#[allow(clippy::print_stdout, reason = "a measurement is to be read")]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    fn set(prefixes: &[&str]) -> PrefixSet {
        prefixes.iter().map(|prefix| prefix.parse::<IpNet>().unwrap()).collect()
    }

    #[test]
    fn neighbours_and_nested_prefixes_are_one_stretch() {
        let set =
            set(&["10.0.0.0/9", "10.128.0.0/9", "10.3.0.0/16", "12.0.0.0/8", "255.255.255.255/32", "::/0", "fd00::/8"]);
        assert_eq!(set.len(), 4);
        let has = |address: &str| set.contains(address.parse().unwrap());
        assert!(has("10.0.0.0") && has("10.255.255.255") && has("12.1.1.1") && has("255.255.255.255") && has("::1"));
        assert!(!has("11.0.0.0") && !has("9.255.255.255") && !has("255.255.255.254"));
        assert!(!PrefixSet::default().contains("::".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn it_holds_what_its_prefixes_hold(
            prefixes in proptest::collection::vec((any::<u32>(), 4..=32u8), 0..300),
            addresses in proptest::collection::vec(any::<u32>(), 100),
        ) {
            let nets: Vec<IpNet> =
                prefixes.iter().map(|(a, len)| IpNet::new(IpAddr::V4((*a).into()), *len).unwrap()).collect();
            let set: PrefixSet = nets.iter().copied().collect();
            let ends = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for address in addresses.iter().map(|a| IpAddr::V4((*a).into())).chain(ends) {
                prop_assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address)));
            }
        }
    }

    /// Prints what a million prefixes cost; nothing is asserted of times.
    #[test]
    fn a_million_prefixes_are_loaded_and_looked_up() {
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 32) as u32
        };
        let prefixes: Vec<IpNet> =
            (0..1_000_000u32).map(|n| IpNet::new(IpAddr::V4(random().into()), 20 + (n % 13) as u8).unwrap()).collect();
        let addresses: Vec<IpAddr> = (0..1_000_000).map(|_| IpAddr::V4(random().into())).collect();
        let start = Instant::now();
        let set: PrefixSet = prefixes.iter().copied().collect();
        let built = start.elapsed();
        let start = Instant::now();
        let hits = addresses.iter().filter(|address| set.contains(**address)).count();
        let looked = start.elapsed();
        println!(
            "1000000 prefixes: {} stretches, {} KiB, built in {} ms; a random address looked up in {} ns ({hits} in it)",
            set.len(),
            set.memory() / 1024,
            built.as_millis(),
            looked.as_nanos() / 1_000_000,
        );
        assert!(prefixes.iter().step_by(1000).all(|prefix| set.contains(prefix.network())));
        assert!(set.memory() < 9_000_000, "8 bytes a prefix, and the sample");
    }
}
