//! What spares the program look-ups, laid out as in bpf/hints.h.

use std::collections::BTreeMap;

use super::plan::{Contents, Key, Table};

/// MACs that are compared without a look-up.
const NEAR_MACS: usize = 8;
/// No frame begins with it: the two bytes behind a MAC are zero.
const NO_MAC: [u8; 8] = [0xff; 8];
/// Services, and real servers, that are known without a look-up.
const NEAR_ENDPOINTS: usize = 256;
/// Bytes of an endpoint.
const ENDPOINT: usize = 20;
/// Interfaces that are known without a look-up.
const DOORS: u32 = 64;

/// The program's hints. What [`Hints::describe`] makes is true of the maps; interfaces enter and leave one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hints {
    used: u32,
    macs: [[u8; 8]; NEAR_MACS],
    service_ports: Sieve,
    reply_ports: Sieve,
    own_addresses: Sieve,
    services: Near,
    replies: Near,
    /// By place; an interface whose place is taken has none, so that no place ever changes hands while both are served.
    doors: BTreeMap<u32, Door>,
}

/// An interface and its value in the map `ports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Door {
    interface: u32,
    base: u32,
}

/// Which of the lowest ten bits of something are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sieve([u64; 16]);

impl Sieve {
    /// Adds a number of 16 bits in network order.
    fn add(&mut self, high: u8, low: u8) {
        let number = u16::from_be_bytes([high, low]);
        self.0[usize::from(number >> 6 & 15)] |= 1 << (number & 63);
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.into_iter().flat_map(u64::to_ne_bytes)
    }
}

/// Entries of a map of endpoints, by place. The first one keeps its place, and one that is left stays empty until the
/// next time: a place never goes from one to another at once, or the program could read half of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Near(BTreeMap<usize, Key>);

impl Near {
    /// Goes over to the entries that `contents` has of `table` and `wanted` too.
    fn update(&mut self, table: Table, contents: &Contents, wanted: &Contents) {
        let is_staying = |key: &Key| contents.contains_key(&(table, *key)) && wanted.contains_key(&(table, *key));
        let before = self.0.clone();
        self.0.retain(|_, key| is_staying(key));
        for (_, key) in contents.keys().filter(|(of, key)| *of == table && is_staying(key)) {
            let place = Self::place(key);
            if !before.contains_key(&place) {
                self.0.entry(place).or_insert(*key);
            }
        }
    }

    fn place(key: &Key) -> usize {
        let word = |at: usize| u32::from_ne_bytes([key[at], key[at + 1], key[at + 2], key[at + 3]]);
        ((word(0) ^ word(12) ^ word(16)).wrapping_mul(0x9e37_79b1) >> 24) as usize
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        (0..NEAR_ENDPOINTS).flat_map(|place| self.0.get(&place).copied().unwrap_or_default().into_iter().take(ENDPOINT))
    }
}

impl Hints {
    /// Size of the structure in the program.
    pub(super) const BYTES: usize =
        8 + NEAR_MACS * 8 + 3 * size_of::<Sieve>() + 2 * NEAR_ENDPOINTS * ENDPOINT + DOORS as usize * 8;

    /// Of empty maps.
    pub(super) const fn empty() -> Self {
        let none = Sieve([0; 16]);
        Self {
            used: 0,
            macs: [NO_MAC; NEAR_MACS],
            service_ports: none,
            reply_ports: none,
            own_addresses: none,
            services: Near(BTreeMap::new()),
            replies: Near(BTreeMap::new()),
            doors: BTreeMap::new(),
        }
    }

    /// Makes these hints those of maps that hold `contents`, of which `wanted` will stay.
    pub(super) fn describe(&mut self, contents: &Contents, wanted: &Contents) {
        let Self { services, replies, doors, .. } = std::mem::replace(self, Self::empty());
        *self = Self { services, replies, doors, ..Self::empty() };
        self.services.update(Table::Services, contents, wanted);
        self.replies.update(Table::Replies, contents, wanted);
        for (table, key) in contents.keys() {
            match table {
                Table::Macs => continue,
                Table::Services => self.service_ports.add(key[16], key[17]),
                Table::Replies => self.reply_ports.add(key[16], key[17]),
                Table::Own => self.own_addresses.add(key[14], key[15]),
                _ => {}
            }
            self.used |= 1 << *table as u32;
        }
        let is_mac = |(table, key): &(Table, Key)| (*table == Table::Macs).then_some(*key);
        let mut staying = wanted.keys().filter_map(is_mac);
        for (near, mac) in self.macs.iter_mut().zip(&mut staying) {
            near.copy_from_slice(&mac[..8]);
        }
        let all = contents.keys().filter_map(is_mac);
        if all.count() > self.macs.iter().filter(|mac| **mac != NO_MAC).count() {
            self.used |= 1 << Table::Macs as u32;
        }
    }

    /// An interface has this value in the map `ports` from now on.
    pub(super) fn enter(&mut self, interface: u32, base: u32) {
        let door = self.doors.entry(interface % DOORS).or_insert(Door { interface, base });
        if door.interface == interface {
            door.base = base;
        }
    }

    /// An interface is no longer served.
    pub(super) fn leave(&mut self, interface: u32) {
        let place = interface % DOORS;
        if self.doors.get(&place).is_some_and(|door| door.interface == interface) {
            self.doors.remove(&place);
        }
    }

    /// As the program has them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend(self.used.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.macs.as_flattened());
        bytes.extend([self.service_ports, self.reply_ports, self.own_addresses].iter().flat_map(Sieve::bytes));
        bytes.extend([&self.services, &self.replies].into_iter().flat_map(Near::bytes));
        for place in 0..DOORS {
            let (interface, base) = self.doors.get(&place).map_or((0, 0), |door| (door.interface, door.base));
            bytes.extend(interface.to_ne_bytes());
            bytes.extend(base.to_ne_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::{Endpoint, MacAddr, NetPort, Protocol, ServiceKey};
    use crate::steer::SteerPlan;

    fn macs(count: u8) -> Contents {
        let macs = (0..count).map(|n| MacAddr([2, 0, 0, 0, 0, n])).collect();
        SteerPlan { macs, ..SteerPlan::default() }.contents()
    }

    fn described(contents: &Contents, wanted: &Contents) -> Hints {
        let mut hints = Hints::empty();
        hints.describe(contents, wanted);
        hints
    }

    /// The C enum is the other half of this contract.
    #[test]
    fn the_bits_are_those_of_the_program() {
        let c = include_str!("../../bpf/hints.h");
        let body = c.split("enum used {").nth(1).unwrap().split('}').next().unwrap();
        let names: Vec<String> = body.split(',').map(|n| n.trim().to_lowercase()).filter(|n| !n.is_empty()).collect();
        assert_eq!(names, Table::ALL.map(|table| format!("used_{}", table.name())));
    }

    #[test]
    fn nothing_is_known_of_empty_maps() {
        let bytes = Hints::empty().bytes();
        assert_eq!(bytes.len(), Hints::BYTES);
        assert!(bytes[8..72].iter().all(|byte| *byte == 0xff), "a MAC of zeroes is not ours");
        assert!(bytes[..8].iter().chain(&bytes[72..]).all(|byte| *byte == 0));
    }

    #[test]
    fn macs_that_will_go_are_looked_up_as_long_as_they_are_there() {
        let (few, many) = (macs(2), macs(9));
        let bit = 1 << Table::Macs as u32;
        assert_eq!(described(&few, &few).used & bit, 0);
        assert_eq!(described(&many, &many).used & bit, bit);
        let between = described(&many, &few);
        assert_eq!((between.used & bit, between.macs), (bit, described(&few, &few).macs));
    }

    fn services(ports: &[u16]) -> Contents {
        let service = |port: &u16| ServiceKey {
            protocol: Protocol::Tcp,
            at: Endpoint { address: "192.0.2.1".parse().unwrap(), port: NetPort::new(*port) },
        };
        SteerPlan { services: ports.iter().map(service).collect(), ..SteerPlan::default() }.contents()
    }

    #[test]
    fn a_service_that_takes_anothers_place_gets_it_the_second_time() {
        let place = |contents: &Contents| contents.keys().map(|(_, key)| Near::place(key)).next();
        let old = services(&[80]);
        let port = (81..=u16::MAX).find(|port| place(&services(&[*port])) == place(&old)).unwrap();
        let (new, both) = (services(&[port]), services(&[80, port]));
        let mut hints = described(&old, &old);
        let near = |hints: &Hints| hints.services.0.values().map(|key| [key[16], key[17]]).collect::<Vec<_>>();
        assert_eq!(near(&hints), [[0, 80]]);
        hints.describe(&both, &both);
        assert_eq!(near(&hints), [[0, 80]], "the first keeps it");
        hints.describe(&both, &new);
        assert!(near(&hints).is_empty(), "it is left before the service goes");
        hints.describe(&new, &new);
        assert_eq!(near(&hints), [port.to_be_bytes()]);
        assert_eq!(hints.bytes().len(), Hints::BYTES);
    }

    #[test]
    fn a_place_is_the_first_ones_until_it_leaves() {
        let mut hints = Hints::empty();
        hints.enter(3, 10);
        hints.enter(3 + DOORS, 20);
        hints.leave(3 + DOORS);
        hints.enter(3, 11);
        assert_eq!(hints.doors, [(3, Door { interface: 3, base: 11 })].into());
        hints.leave(3);
        hints.enter(3 + DOORS, 20);
        assert_eq!(hints.doors, [(3, Door { interface: 3 + DOORS, base: 20 })].into());
    }
}
