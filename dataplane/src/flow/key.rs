//! What identifies a flow's packets: addresses, ports and transport as a packet carries them, and their packed form.
//!
//! Two keys are equal exactly when their packed words are; words of zero are no key (no transport is number 0).

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::ident::{NetPort, Protocol};
use crate::wire::checksum::Delta;

/// One direction of a flow, in the order of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey<A> {
    /// The source address.
    pub source: A,
    /// The destination address.
    pub destination: A,
    /// The source port.
    pub source_port: NetPort,
    /// The destination port.
    pub destination_port: NetPort,
    /// The transport.
    pub protocol: Protocol,
}

/// An address family: the type of its addresses and how a key of it is packed. Each family has a table of its own.
pub trait Family: Copy + Send + Sync + 'static {
    /// The address type.
    type Addr: Copy + Eq + Hash + Debug + Into<IpAddr> + Send + Sync;
    /// A packed key.
    type Words: Copy + Eq + Debug + Default + AsRef<[u64]>;
    /// A packed key in a flow's entry.
    type Cells: Send + Sync + Debug;
    /// What an entry keeps of the difference between its keys, where it has room for it.
    type Difference: Send + Sync + Debug;
    /// Words of a packed key.
    const WORDS: usize;
    /// What a table's file is marked with: 4 or 6.
    const NUMBER: u32;
    /// What stands for a key where there is none: unspecified addresses and no ports.
    const NO_KEY: FlowKey<Self::Addr>;

    /// Packs a key.
    fn pack(key: &FlowKey<Self::Addr>) -> Self::Words;
    /// The key that was packed, or `None` where there is none.
    fn unpack(words: &Self::Words) -> Option<FlowKey<Self::Addr>>;
    /// The packed key of a packet: of its addresses, which stand behind one another from `at` on, and of
    /// its ports and transport as they are packed. `None` when the packet ends before.
    fn read(packet: &[u8], at: usize, transport: u64) -> Option<Self::Words>;
    /// The packed key of packets that run the other way. No key stays none.
    fn turned(words: &Self::Words) -> Self::Words;
    /// The packed key with another source.
    fn with_source(words: &Self::Words, source: Self::Addr, port: NetPort) -> Self::Words;
    /// What the words say of the packets' destination: equal for all that go to the same transport, address and port.
    fn without_source(words: &Self::Words) -> Self::Words;
    /// Whether two packed keys are the same.
    #[inline]
    fn are_same(one: &Self::Words, other: &Self::Words) -> bool {
        // Without branches between the words, and without the call that comparing arrays would become.
        one.as_ref().iter().zip(other.as_ref()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
    /// Whether the words are those of a key.
    fn is_key(words: &Self::Words) -> bool;
    /// Whether source or destination may be a loopback address: true of a few others, too.
    fn may_be_loopback(words: &Self::Words) -> bool;
    /// A packed key that no packet has, unless `mark` is 0.
    fn marked(words: Self::Words, mark: u8) -> Self::Words;
    /// Cells that hold no key.
    fn cells() -> Self::Cells;
    /// Reads cells, relaxed: whatever led the reader to them ordered their contents.
    fn load(cells: &Self::Cells) -> Self::Words;
    /// Whether cells hold a key, as [`Family::load`] reads them.
    fn hold_key(cells: &Self::Cells) -> bool;
    /// Whether cells hold this key, as [`Family::load`] reads them.
    fn holds(cells: &Self::Cells, words: &Self::Words) -> bool;
    /// Writes cells, relaxed: whatever publishes them orders their contents.
    fn store(cells: &Self::Cells, words: &Self::Words);
    /// Of no keys.
    fn no_difference() -> Self::Difference;
    /// Keeps the difference between a flow's two keys, relaxed.
    fn keep_difference(kept: &Self::Difference, forward: &Self::Words, reverse: &Self::Words);
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

impl Family for V4 {
    type Addr = Ipv4Addr;
    type Words = [u64; 2];
    type Cells = [AtomicU64; 2];
    /// Nothing: an entry is full, and the difference of two words is soon found.
    type Difference = ();
    const WORDS: usize = 2;
    const NUMBER: u32 = 4;
    const NO_KEY: FlowKey<Ipv4Addr> = no_key(Ipv4Addr::UNSPECIFIED);

    #[inline]
    fn pack(key: &FlowKey<Ipv4Addr>) -> [u64; 2] {
        let source = u64::from(u32::from_le_bytes(key.source.octets()));
        let destination = u64::from(u32::from_le_bytes(key.destination.octets()));
        [source | destination << 32, pack_transport(key)]
    }

    #[inline]
    fn unpack(words: &[u64; 2]) -> Option<FlowKey<Ipv4Addr>> {
        let [addresses, transport] = *words;
        let address = |half: u64| Ipv4Addr::from((half as u32).to_le_bytes());
        unpack_transport(transport, address(addresses), address(addresses >> 32))
    }

    #[inline]
    fn read(packet: &[u8], at: usize, transport: u64) -> Option<[u64; 2]> {
        let addresses: &[u8; 8] = packet.get(at..)?.first_chunk()?;
        Some([u64::from_le_bytes(*addresses), transport])
    }

    #[inline]
    fn turned(&[addresses, transport]: &[u64; 2]) -> [u64; 2] {
        [addresses.rotate_left(32), turned_transport(transport)]
    }

    #[inline]
    fn with_source(&[addresses, transport]: &[u64; 2], source: Ipv4Addr, port: NetPort) -> [u64; 2] {
        let source = u64::from(u32::from_le_bytes(source.octets()));
        [addresses >> 32 << 32 | source, transport_from(transport, port)]
    }

    #[inline]
    fn without_source(&[addresses, transport]: &[u64; 2]) -> [u64; 2] {
        [addresses >> 32, transport >> 16]
    }

    #[inline]
    fn is_key(&[_, transport]: &[u64; 2]) -> bool {
        transport != 0
    }

    #[inline]
    fn may_be_loopback(&[addresses, _]: &[u64; 2]) -> bool {
        let is_loopback = |half: u64| half as u8 == 127;
        is_loopback(addresses) || is_loopback(addresses >> 32)
    }

    #[inline]
    fn marked(mut words: [u64; 2], mark: u8) -> [u64; 2] {
        words[1] |= u64::from(mark) << MARK;
        words
    }

    fn cells() -> [AtomicU64; 2] {
        std::array::from_fn(|_| AtomicU64::new(0))
    }

    #[inline]
    fn load(cells: &[AtomicU64; 2]) -> [u64; 2] {
        load(cells)
    }

    #[inline]
    fn hold_key(cells: &[AtomicU64; 2]) -> bool {
        cells[1].load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn holds(cells: &[AtomicU64; 2], words: &[u64; 2]) -> bool {
        holds(cells, words)
    }

    #[inline]
    fn store(cells: &[AtomicU64; 2], words: &[u64; 2]) {
        store(cells, words);
    }

    fn no_difference() {}

    #[inline]
    fn keep_difference((): &(), _: &[u64; 2], _: &[u64; 2]) {}
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    type Words = [u64; 5];
    type Cells = [AtomicU64; 5];
    /// What is added to the transport's checksum of packets that get the reverse key's addresses and ports for the
    /// forward key's: 16 bits.
    type Difference = AtomicU32;
    const WORDS: usize = 5;
    const NUMBER: u32 = 6;
    const NO_KEY: FlowKey<Ipv6Addr> = no_key(Ipv6Addr::UNSPECIFIED);

    #[inline]
    fn pack(key: &FlowKey<Ipv6Addr>) -> [u64; 5] {
        let [a, b] = pack_v6(key.source);
        let [c, d] = pack_v6(key.destination);
        [a, b, c, d, pack_transport(key)]
    }

    #[inline]
    fn unpack(words: &[u64; 5]) -> Option<FlowKey<Ipv6Addr>> {
        let [a, b, c, d, transport] = *words;
        unpack_transport(transport, unpack_v6(a, b), unpack_v6(c, d))
    }

    #[inline]
    fn read(packet: &[u8], at: usize, transport: u64) -> Option<[u64; 5]> {
        let addresses: &[u8; 32] = packet.get(at..)?.first_chunk()?;
        let (words, _) = addresses.as_chunks::<8>();
        let &[a, b, c, d] = words.first_chunk()?;
        let [a, b, c, d] = [a, b, c, d].map(u64::from_le_bytes);
        Some([a, b, c, d, transport])
    }

    #[inline]
    fn turned(&[a, b, c, d, transport]: &[u64; 5]) -> [u64; 5] {
        [c, d, a, b, turned_transport(transport)]
    }

    #[inline]
    fn with_source(&[_, _, c, d, transport]: &[u64; 5], source: Ipv6Addr, port: NetPort) -> [u64; 5] {
        let [a, b] = pack_v6(source);
        [a, b, c, d, transport_from(transport, port)]
    }

    #[inline]
    fn without_source(&[_, _, c, d, transport]: &[u64; 5]) -> [u64; 5] {
        [c, d, transport >> 16, 0, 0]
    }

    #[inline]
    fn is_key(&[.., transport]: &[u64; 5]) -> bool {
        transport != 0
    }

    #[inline]
    fn may_be_loopback(&[a, _, c, ..]: &[u64; 5]) -> bool {
        a == 0 || c == 0
    }

    #[inline]
    fn marked(mut words: [u64; 5], mark: u8) -> [u64; 5] {
        words[4] |= u64::from(mark) << MARK;
        words
    }

    fn cells() -> [AtomicU64; 5] {
        std::array::from_fn(|_| AtomicU64::new(0))
    }

    #[inline]
    fn load(cells: &[AtomicU64; 5]) -> [u64; 5] {
        load(cells)
    }

    #[inline]
    fn hold_key(cells: &[AtomicU64; 5]) -> bool {
        cells[4].load(Ordering::Relaxed) != 0
    }

    #[inline]
    fn holds(cells: &[AtomicU64; 5], words: &[u64; 5]) -> bool {
        holds(cells, words)
    }

    #[inline]
    fn store(cells: &[AtomicU64; 5], words: &[u64; 5]) {
        store(cells, words);
    }

    fn no_difference() -> AtomicU32 {
        AtomicU32::new(0)
    }

    #[inline]
    fn keep_difference(kept: &AtomicU32, forward: &[u64; 5], reverse: &[u64; 5]) {
        // Which address or port is the source's makes no difference to a sum. Both have the same transport.
        let pairs = forward.iter().zip(reverse);
        let difference =
            pairs.fold(Delta::default(), |sum, (old, new)| sum.replace(old.to_ne_bytes(), new.to_ne_bytes()));
        kept.store(u32::from(difference.folded()), Ordering::Relaxed);
    }
}

const fn no_key<A: Copy>(unspecified: A) -> FlowKey<A> {
    FlowKey {
        source: unspecified,
        destination: unspecified,
        source_port: NetPort::ANY,
        destination_port: NetPort::ANY,
        protocol: Protocol::Tcp,
    }
}

/// Above ports and protocol, in the word of a key that has them: what a key is of that no packet has.
const MARK: u32 = 40;

/// The word of a packed key that holds ports and transport, by its IANA number.
#[inline]
pub(crate) fn transport(source_port: NetPort, destination_port: NetPort, protocol: u8) -> u64 {
    u64::from(source_port.raw()) | u64::from(destination_port.raw()) << 16 | u64::from(protocol) << 32
}

#[inline]
fn pack_transport<A>(key: &FlowKey<A>) -> u64 {
    transport(key.source_port, key.destination_port, key.protocol.number())
}

#[inline]
fn transport_from(word: u64, port: NetPort) -> u64 {
    word >> 16 << 16 | u64::from(port.raw())
}

#[inline]
fn turned_transport(word: u64) -> u64 {
    word >> 32 << 32 | u64::from((word as u32).rotate_left(16))
}

#[inline]
fn unpack_transport<A>(word: u64, source: A, destination: A) -> Option<FlowKey<A>> {
    Some(FlowKey {
        source,
        destination,
        source_port: NetPort::from_raw(word as u16),
        destination_port: NetPort::from_raw((word >> 16) as u16),
        protocol: Protocol::from_number((word >> 32) as u8)?,
    })
}

#[inline]
fn pack_v6(address: Ipv6Addr) -> [u64; 2] {
    let bits = u128::from_le_bytes(address.octets());
    [bits as u64, (bits >> 64) as u64]
}

#[inline]
fn unpack_v6(low: u64, high: u64) -> Ipv6Addr {
    Ipv6Addr::from((u128::from(low) | u128::from(high) << 64).to_le_bytes())
}

#[inline]
fn load<const W: usize>(cells: &[AtomicU64; W]) -> [u64; W] {
    std::array::from_fn(|i| cells[i].load(Ordering::Relaxed))
}

/// Without branches between the words, and without the call that comparing arrays would become.
#[inline]
fn holds<const W: usize>(cells: &[AtomicU64; W], words: &[u64; W]) -> bool {
    cells.iter().zip(words).fold(0, |differ, (cell, word)| differ | (cell.load(Ordering::Relaxed) ^ word)) == 0
}

#[inline]
fn store<const W: usize>(cells: &[AtomicU64; W], words: &[u64; W]) {
    for (cell, word) in cells.iter().zip(words) {
        cell.store(*word, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key<A>(source: A, destination: A, ports: (u16, u16), tcp: bool) -> FlowKey<A> {
        FlowKey {
            source,
            destination,
            source_port: NetPort::new(ports.0),
            destination_port: NetPort::new(ports.1),
            protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
        }
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(a: u128, b: u128, ports: (u16, u16), tcp: bool) {
            let four = key(Ipv4Addr::from(a as u32), Ipv4Addr::from(b as u32), ports, tcp);
            prop_assert_eq!(V4::unpack(&V4::pack(&four)), Some(four));
            let six = key(Ipv6Addr::from(a), Ipv6Addr::from(b), ports, tcp);
            prop_assert_eq!(V6::unpack(&V6::pack(&six)), Some(six));
        }
    }

    proptest! {
        #[test]
        fn a_key_read_from_a_packet_is_the_packed_one(a: u128, b: u128, ports: (u16, u16), at in 0usize..40) {
            let four = key(Ipv4Addr::from(a as u32), Ipv4Addr::from(b as u32), ports, true);
            let six = key(Ipv6Addr::from(a), Ipv6Addr::from(b), ports, true);
            let transport = transport(four.source_port, four.destination_port, 6);
            let packet = |addresses: &[&[u8]]| [&vec![7; at], &addresses.concat()[..]].concat();
            let (source, destination) = (four.source.octets(), four.destination.octets());
            prop_assert_eq!(V4::read(&packet(&[&source, &destination]), at, transport), Some(V4::pack(&four)));
            prop_assert_eq!(V4::read(&packet(&[&source]), at, transport), None);
            let (source, destination) = (six.source.octets(), six.destination.octets());
            prop_assert_eq!(V6::read(&packet(&[&source, &destination]), at, transport), Some(V6::pack(&six)));
            prop_assert_eq!(V6::read(&packet(&[&source]), at, transport), None);
        }

        #[test]
        fn a_turned_key_is_the_key_of_the_way_back(a: u128, b: u128, ports: (u16, u16)) {
            let (one, two) = (Ipv6Addr::from(a), Ipv6Addr::from(b));
            let back = (ports.1, ports.0);
            prop_assert_eq!(V6::turned(&V6::pack(&key(one, two, ports, false))), V6::pack(&key(two, one, back, false)));
            let (one, two) = (Ipv4Addr::from(a as u32), Ipv4Addr::from(b as u32));
            prop_assert_eq!(V4::turned(&V4::pack(&key(one, two, ports, true))), V4::pack(&key(two, one, back, true)));
        }
    }

    proptest! {
        #[test]
        fn another_source_changes_nothing_else(a: u128, b: u128, c: u128, ports: (u16, u16, u16)) {
            let (forward, back) = ((ports.0, ports.1), (ports.2, ports.1));
            let [one, two, three] = [a, b, c].map(Ipv6Addr::from);
            let six = V6::pack(&key(one, two, forward, false));
            let other = V6::with_source(&six, three, NetPort::new(ports.2));
            prop_assert_eq!(other, V6::pack(&key(three, two, back, false)));
            prop_assert_eq!(V6::without_source(&six), V6::without_source(&other));
            prop_assert!(one == two || V6::without_source(&V6::pack(&key(two, one, forward, false))) != V6::without_source(&six));
            let [one, two, three] = [a, b, c].map(|bits| Ipv4Addr::from(bits as u32));
            let four = V4::pack(&key(one, two, forward, true));
            let other = V4::with_source(&four, three, NetPort::new(ports.2));
            prop_assert_eq!(other, V4::pack(&key(three, two, back, true)));
            prop_assert_eq!(V4::without_source(&four), V4::without_source(&other));
            prop_assert!(V4::without_source(&V4::pack(&key(one, two, forward, false))) != V4::without_source(&four));
        }
    }

    #[test]
    fn loopback_is_known_on_either_side() {
        let four = |a: [u8; 4], b: [u8; 4]| V4::may_be_loopback(&V4::pack(&key(a.into(), b.into(), (1, 2), true)));
        assert!(four([127, 1, 2, 3], [1, 2, 3, 4]) && four([1, 2, 3, 4], [127, 0, 0, 1]));
        assert!(!four([1, 127, 127, 127], [126, 0, 0, 127]));
        let six = |a: Ipv6Addr, b: Ipv6Addr| V6::may_be_loopback(&V6::pack(&key(a, b, (1, 2), true)));
        let other: Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert!(six(Ipv6Addr::LOCALHOST, other) && six(other, Ipv6Addr::LOCALHOST) && !six(other, other));
    }

    #[test]
    fn words_of_zero_are_no_key() {
        assert_eq!(V4::unpack(&[0; 2]), None);
        assert_eq!(V6::unpack(&[0; 5]), None);
    }
}
