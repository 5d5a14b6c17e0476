//! One flow: its two keys, its state, its timer and its ways. One cache line for IPv4, two for IPv6.
//!
//! Every field may be read while another worker writes it. State, flags, life and generation are one word, so that a
//! transition is one compare-and-swap and has one winner. IPv4 entries are full, IPv6 entries have 12 bytes to
//! spare; what only some flows need stands in a record beside ([`Extension`](super::Extension)).

use super::extension::{FlowLink, NewExtension};
use super::key::{Family, FlowKey, V6};
use super::rule;
use super::slot::Direction;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Tick;
use crate::ident::{MacAddr, PortIndex};
use crate::wire::checksum::Delta;

/// Flag bits that the table itself understands; the others belong to the protocols' state tables.
pub mod flag {
    /// The flow is not established yet: it may be evicted when the table is nearly full.
    pub const EMBRYONIC: u16 = 1 << 15;
    /// The flow has an extension record: set by the table when it is inserted with one.
    pub const EXTENDED: u16 = 1 << 14;
    /// Not a flow but a rule for flows to come: no packet has its keys. See `Rule`, its state.
    pub const TEMPLATE: u16 = 1 << 13;
    /// The flow hangs on a template, which counts it: `NewFlow::controller`.
    pub const CONTROLLED: u16 = 1 << 12;
    /// A client was answered by the SYN proxy, and its server has not answered yet.
    pub const SYN_PROXY: u16 = 1 << 11;
    /// The server has not been told the client's address yet: its packets get the TOA option or a PROXY header.
    pub const INFO_DUE: u16 = 1 << 10;
    /// A connection of FTP whose commands are read.
    pub const FTP: u16 = 1 << 8;
    /// The flow's keys hold IPv4 addresses, mapped: its two ends are of different families, or could have been.
    pub const MIXED: u16 = 1 << 7;
}

/// A flow that was found: valid until the finder's next quiet point. Across bursts, keep [`FlowRef::index`] and
/// [`FlowRef::generation`] and ask `FlowTable::current`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowRef {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl FlowRef {
    /// The number of the flow's entry.
    #[inline]
    pub fn index(self) -> u32 {
        self.index
    }

    /// Which of the entry's successive flows it is.
    #[inline]
    pub fn generation(self) -> u32 {
        self.generation
    }
}

/// What an entry is: life of the flow in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// No flow; on the free list or in a worker's cache.
    Free,
    /// Its keys are being put into the index.
    Inserting,
    /// Both keys are committed.
    Live,
    /// Ended or given up; its number waits for a grace period.
    Dead,
}

/// State, flags, life and generation of a flow as they were at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateWord(u64);

impl StateWord {
    #[inline]
    fn new(generation: u32, state: u8, flags: u16, life: Life) -> Self {
        Self(u64::from(generation) << 32 | u64::from(flags) << 16 | u64::from(state) << 8 | life as u64)
    }

    /// The protocol state, as the state tables number it.
    #[inline]
    pub fn state(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// The flags: see [`flag`]; the rest belongs to the state tables.
    #[inline]
    pub fn flags(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Which of the entry's successive flows it is.
    #[inline]
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether both keys are in the index and nobody ended the flow.
    #[inline]
    pub fn is_live(self) -> bool {
        self.0 as u8 == Life::Live as u8
    }

    /// Whether the flow is live, in this protocol state, and has no flags but some of `ignored`.
    #[inline]
    pub fn is_just(self, state: u8, ignored: u16) -> bool {
        self.0 as u32 & !(u32::from(ignored) << 16) == u32::from(state) << 8 | Life::Live as u32
    }

    #[inline]
    pub(super) fn life(self) -> Life {
        match self.0 as u8 {
            0 => Life::Free,
            1 => Life::Inserting,
            2 => Life::Live,
            _ => Life::Dead,
        }
    }
}

/// A flow to be inserted.
#[derive(Clone, Copy, Debug)]
pub struct NewFlow<F: Family> {
    /// The key from the client to the VIP.
    pub forward: FlowKey<F::Addr>,
    /// The key from the real server back, or `None` where replies do not come by (DR, TUN).
    pub reverse: Option<FlowKey<F::Addr>>,
    /// The number of the real server.
    pub destination: u32,
    /// The first protocol state.
    pub state: u8,
    /// The first flags.
    pub flags: u16,
    /// When it expires.
    pub deadline: Tick,
    /// An on-link client's Ethernet address and port, where one was learnt.
    pub client_mac: Option<(MacAddr, PortIndex)>,
    /// The way back to the client; the table does not look into it.
    pub return_hop: u32,
    /// The extension record, for a flow that needs one: one of the pool's is taken and gets these values.
    pub extension: Option<NewExtension>,
    /// With [`flag::CONTROLLED`], the template that it hangs on, held for it already ([`FlowEntry::hold`]) and let go
    /// of by the table when it ends; without, for data of FTP, the flow of the commands, which counts nothing.
    pub controller: Option<FlowLink>,
}

/// A client's Ethernet address and port as an entry holds them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientMac(u64);

impl ClientMac {
    #[inline]
    pub(crate) fn new(client: Option<(MacAddr, PortIndex)>) -> Self {
        Self(client.map_or(0, |(MacAddr([a, b, c, d, e, f]), PortIndex(port))| {
            u64::from_le_bytes([a, b, c, d, e, f, port, 0]) | CLIENT_KNOWN
        }))
    }
}

/// As [`NewFlow`], with its keys as the table holds them: zeros where there is no reverse key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedFlow<'e, F: Family> {
    pub(crate) forward: F::Words,
    pub(crate) reverse: F::Words,
    pub(crate) destination: u32,
    pub(crate) state: u8,
    pub(crate) flags: u16,
    pub(crate) deadline: Tick,
    pub(crate) client: ClientMac,
    pub(crate) return_hop: u32,
    pub(crate) extension: Option<&'e NewExtension>,
    pub(crate) controller: Option<FlowLink>,
}

impl<F: Family> PackedFlow<'_, F> {
    /// Whether it has a reverse key.
    #[inline]
    pub(super) fn is_two_way(&self) -> bool {
        F::is_key(&self.reverse)
    }
}

impl<F: Family> NewFlow<F> {
    #[inline]
    pub(super) fn pack(&self) -> PackedFlow<'_, F> {
        let rule = rule::of(self.flags, self.state);
        PackedFlow {
            forward: rule::pack::<F>(rule, &self.forward),
            reverse: self.reverse.as_ref().map(|key| rule::pack::<F>(rule, key)).unwrap_or_default(),
            destination: self.destination,
            state: self.state,
            flags: self.flags,
            deadline: self.deadline,
            client: ClientMac::new(self.client_mac),
            return_hop: self.return_hop,
            extension: self.extension.as_ref(),
            controller: self.controller,
        }
    }
}

/// A flow in the table.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct FlowEntry<F: Family> {
    forward: F::Cells,
    reverse: F::Cells,
    /// A [`StateWord`].
    word: AtomicU64,
    /// MAC address (bits 0–47), port (48–55), whether there is one (56).
    client: AtomicU64,
    deadline: AtomicU32,
    destination: AtomicU32,
    /// In a template, how many flows hang on it ([`CLOSED`]: it ends).
    return_hop: AtomicU32,
    /// The number of its extension record plus one; without one, that of the entry which it hangs on plus one, or 0.
    beside: AtomicU32,
    difference: F::Difference,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<FlowEntry<super::V4>>() == 64);
    assert!(size_of::<FlowEntry<super::V6>>() == 128);
};

const CLIENT_KNOWN: u64 = 1 << 56;
/// The count of a template that nothing can hang on any more.
const CLOSED: u32 = 1 << 31;

impl<F: Family> FlowEntry<F> {
    #[cfg(any(test, loom))]
    pub(super) fn free() -> Self {
        Self {
            forward: F::cells(),
            reverse: F::cells(),
            word: AtomicU64::new(0),
            client: AtomicU64::new(0),
            deadline: AtomicU32::new(0),
            destination: AtomicU32::new(0),
            return_hop: AtomicU32::new(0),
            beside: AtomicU32::new(0),
            difference: F::no_difference(),
        }
    }

    /// The key from the client to the VIP ([`Family::NO_KEY`] in an entry that never held a flow).
    #[inline]
    pub fn forward(&self) -> FlowKey<F::Addr> {
        F::unpack(&F::load(&self.forward)).unwrap_or(F::NO_KEY)
    }

    /// The key from the real server back; `None` for flows of one direction (DR, TUN).
    #[inline]
    pub fn reverse(&self) -> Option<FlowKey<F::Addr>> {
        F::unpack(&F::load(&self.reverse))
    }

    /// Whether the flow has a reverse key.
    #[inline]
    pub fn is_two_way(&self) -> bool {
        F::hold_key(&self.reverse)
    }

    /// State and flags now.
    #[inline]
    pub fn state(&self) -> StateWord {
        StateWord(self.word.load(Ordering::Acquire))
    }

    /// Changes state and flags in one step, if they still are as `seen`.
    ///
    /// # Errors
    /// What the flow's word is instead: another worker changed it (try again from there), or ended the flow
    /// (not [`StateWord::is_live`] any more, or of another generation).
    #[inline]
    pub fn transition(&self, seen: StateWord, state: u8, flags: u16) -> Result<StateWord, StateWord> {
        if !seen.is_live() {
            return Err(seen);
        }
        let next = StateWord::new(seen.generation(), state, flags, Life::Live);
        self.swap(seen, next).map(|()| next)
    }

    /// When the flow expires.
    #[inline]
    pub fn deadline(&self) -> Tick {
        Tick::new(self.deadline.load(Ordering::Relaxed))
    }

    /// Moves the deadline. Writes nothing when it is the same, so that many packets in a tick do not fight for the line.
    #[inline]
    pub fn set_deadline(&self, deadline: Tick) {
        if self.deadline.load(Ordering::Relaxed) != deadline.raw() {
            self.deadline.store(deadline.raw(), Ordering::Relaxed);
        }
    }

    /// The number of the real server.
    #[inline]
    pub fn destination(&self) -> u32 {
        self.destination.load(Ordering::Relaxed)
    }

    /// The way back to the client, as it was last set.
    #[inline]
    pub fn return_hop(&self) -> u32 {
        self.return_hop.load(Ordering::Relaxed)
    }

    /// Sets the way back to the client.
    #[inline]
    pub fn set_return_hop(&self, hop: u32) {
        if self.return_hop.load(Ordering::Relaxed) != hop {
            self.return_hop.store(hop, Ordering::Relaxed);
        }
    }

    /// The on-link client's Ethernet address and port, where one was learnt.
    #[inline]
    pub fn client_mac(&self) -> Option<(MacAddr, PortIndex)> {
        let raw = self.client.load(Ordering::Relaxed);
        let [mac @ .., port, _] = raw.to_le_bytes();
        (raw & CLIENT_KNOWN != 0).then_some((MacAddr(mac), PortIndex(port)))
    }

    /// Learns (or forgets) the client's Ethernet address and port.
    #[inline]
    pub fn set_client_mac(&self, client: Option<(MacAddr, PortIndex)>) {
        let ClientMac(raw) = ClientMac::new(client);
        if self.client.load(Ordering::Relaxed) != raw {
            self.client.store(raw, Ordering::Relaxed);
        }
    }

    /// Whether the flow may be evicted when the table is nearly full.
    #[inline]
    pub fn is_embryonic(&self) -> bool {
        self.state().flags() & flag::EMBRYONIC != 0
    }

    /// The number of the flow's extension record.
    #[inline]
    pub(super) fn extension(&self) -> Option<u32> {
        if self.state().flags() & flag::EXTENDED == 0 {
            return None;
        }
        self.beside.load(Ordering::Relaxed).checked_sub(1)
    }

    /// The number of what stands beside the flow, plus one: its extension record, if it is extended.
    #[inline]
    pub(super) fn number_beside(&self) -> u32 {
        self.beside.load(Ordering::Relaxed)
    }

    /// The number of the entry that a flow without an extension record hangs on.
    #[inline]
    pub(super) fn beside(&self) -> Option<u32> {
        if self.state().flags() & flag::EXTENDED != 0 {
            return None;
        }
        self.beside.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Sends what follows a template to another server, if it still is `seen`. True for the one who did.
    pub fn move_destination(&self, seen: u32, to: u32) -> bool {
        self.destination.compare_exchange(seen, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Counts a flow that hangs on this template. False when the template is ending.
    pub fn hold(&self) -> bool {
        let held = |count: u32| (count & CLOSED == 0).then_some(count + 1);
        self.return_hop.fetch_update(Ordering::AcqRel, Ordering::Relaxed, held).is_ok()
    }

    /// A flow no longer hangs on this template.
    pub fn release(&self) {
        let less = |count: u32| (count & CLOSED == 0).then(|| count.saturating_sub(1));
        let _ = self.return_hop.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less);
    }

    /// Flows that hang on this template.
    pub fn holders(&self) -> u32 {
        self.return_hop.load(Ordering::Acquire) & !CLOSED
    }

    /// Lets nothing hang on this template any more, unless something does. True when nothing does.
    pub(super) fn close(&self) -> bool {
        let seen = self.return_hop.compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Relaxed);
        seen.is_ok_and(|_| true) || seen.is_err_and(|count| count & CLOSED != 0)
    }

    /// Before any worker runs: how many flows hang on this template.
    pub(super) fn set_holders(&self, count: u32) {
        self.return_hop.store(count, Ordering::Relaxed);
    }

    /// Before any worker runs: the flow hangs on nothing.
    pub(super) fn orphan(&self) {
        let seen = self.state();
        let next = StateWord::new(seen.generation(), seen.state(), seen.flags() & !flag::CONTROLLED, seen.life());
        self.word.store(next.0, Ordering::Release);
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn set_extension(&self, number: Option<u32>) {
        self.beside.store(number.map_or(0, |number| number + 1), Ordering::Relaxed);
    }

    /// The packed key of a direction; zeros where there is none.
    #[inline]
    pub fn words(&self, direction: Direction) -> F::Words {
        match direction {
            Direction::Forward => F::load(&self.forward),
            Direction::Reverse => F::load(&self.reverse),
        }
    }

    /// Whether this is the packed key of a direction.
    #[inline]
    pub(super) fn holds(&self, direction: Direction, words: &F::Words) -> bool {
        let cells = match direction {
            Direction::Forward => &self.forward,
            Direction::Reverse => &self.reverse,
        };
        F::holds(cells, words)
    }

    /// Writes a flow into a free entry, which only the caller knows, with the number of its extension record. Gives
    /// the new generation.
    #[inline]
    pub(super) fn write(&self, new: &PackedFlow<'_, F>, extension: Option<u32>) -> u32 {
        let generation = StateWord(self.word.load(Ordering::Relaxed)).generation().wrapping_add(1);
        F::store(&self.forward, &new.forward);
        F::store(&self.reverse, &new.reverse);
        if new.is_two_way() {
            F::keep_difference(&self.difference, &new.forward, &new.reverse);
        }
        self.client.store(new.client.0, Ordering::Relaxed);
        self.deadline.store(new.deadline.raw(), Ordering::Relaxed);
        self.destination.store(new.destination, Ordering::Relaxed);
        self.return_hop.store(new.return_hop, Ordering::Relaxed);
        let beside = extension.or(new.controller.map(|link| link.index));
        self.beside.store(beside.map_or(0, |number| number + 1), Ordering::Relaxed);
        let flags = if extension.is_some() { new.flags | flag::EXTENDED } else { new.flags & !flag::EXTENDED };
        let word = StateWord::new(generation, new.state, flags, Life::Inserting);
        self.word.store(word.0, Ordering::Release);
        generation
    }

    /// Moves the inserter's own entry on: nobody else writes the word of an entry that is not live.
    #[inline]
    pub(super) fn set_life(&self, life: Life) {
        let seen = StateWord(self.word.load(Ordering::Relaxed));
        let next = StateWord::new(seen.generation(), seen.state(), seen.flags(), life);
        self.word.store(next.0, Ordering::Release);
    }

    /// Ends a live flow, if its word still is as `seen`. True for the one who did.
    #[inline]
    pub(super) fn kill(&self, seen: StateWord) -> bool {
        let dead = StateWord::new(seen.generation(), seen.state(), seen.flags(), Life::Dead);
        seen.is_live() && self.swap(seen, dead).is_ok()
    }

    #[inline]
    fn swap(&self, seen: StateWord, next: StateWord) -> Result<(), StateWord> {
        self.word.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire).map(drop).map_err(StateWord)
    }
}

impl FlowEntry<V6> {
    /// What is added to the transport's checksum of packets that have the key of this direction when they get the other's.
    /// Of flows with both keys only.
    #[inline]
    pub fn difference(&self, direction: Direction) -> Delta {
        let folded = self.difference.load(Ordering::Relaxed) as u16;
        match direction {
            Direction::Forward => Delta::of_folded(folded),
            Direction::Reverse => Delta::back_of_folded(folded),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_difference_is_that_of_addresses_and_ports(keys: [[u64; 5]; 2], sum in 0u16..0xffff) {
            let [forward, reverse] = keys.map(|[a, b, c, d, ports]| [a, b, c, d, ports & 0xffff_ffff | 6 << 32]);
            let entry = FlowEntry::<V6>::free();
            V6::keep_difference(&entry.difference, &forward, &reverse);
            let bytes = |[a, b, c, d, ports]: [u64; 5]| {
                let mut bytes = [0; 36];
                for (to, from) in bytes.chunks_exact_mut(8).zip([a, b, c, d]) {
                    to.copy_from_slice(&from.to_le_bytes());
                }
                bytes[32..].copy_from_slice(&(ports as u32).to_le_bytes());
                bytes
            };
            let there = Delta::default().replace(bytes(forward), bytes(reverse));
            let sum = sum.to_be_bytes();
            prop_assert_eq!(entry.difference(Direction::Forward).apply(sum), there.apply(sum));
            let back = entry.difference(Direction::Reverse).apply(there.apply(sum));
            prop_assert!(back == sum || back == [0xff, 0xff], "{:?}", back);
        }
    }
}
