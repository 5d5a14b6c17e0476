//! Fragments: a datagram's first fragment shows its flow, the later ones follow it by (addresses, protocol, id).
//!
//! One table for all workers, of fixed size, in words that are read and written without locks. What a torn or stale
//! read could give is caught by comparing the fragment's addresses with the flow's own key.

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};

use super::path::Path;
use super::{Context, Hands, Packet, carry};
use crate::clock::Tick;
use crate::counters::Drop;
use crate::flow::{Direction, FlowEntry, FlowRef, V4, V6};
use crate::port::Ports;
use crate::wire::{Fragment, IpVersion};

/// Datagrams in reassembly at a time: buckets of four.
const BUCKETS: usize = 4096;
/// How long later fragments are waited for, in seconds: `ipfrag_time` of Linux.
const PATIENCE: u64 = 30;
/// Seconds are kept modulo this.
const SECONDS: u64 = 1 << 15;
/// The bits of a tag that are the hash.
const HASH: u64 = !0 << 16;

/// Which flow the fragments of a datagram belong to.
#[derive(Debug)]
pub(super) struct FragmentTable {
    buckets: Box<[[Slot; 4]]>,
    hasher: foldhash::quality::RandomState,
}

/// `tag`: the datagram's hash (48 bits), the direction (1), the second after which it is over (15); zero when unused.
/// `flow`: index and generation, 32 bits each.
#[derive(Debug, Default)]
struct Slot {
    tag: AtomicU64,
    flow: AtomicU64,
}

impl FragmentTable {
    pub(super) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| std::array::from_fn(|_| Slot::default())).collect(),
            hasher: foldhash::quality::RandomState::default(),
        }
    }

    /// Remembers the flow of a datagram whose first fragment is here. Without room its later fragments get lost.
    pub(super) fn publish<A: Hash>(
        &self,
        context: Context<'_>,
        (flow, direction): (FlowRef, Direction),
        addresses: (A, A),
        protocol: u8,
        id: u32,
    ) {
        let hash = self.hash(&addresses, protocol, id);
        let is_free = |slot: &&Slot| {
            let held = slot.tag.load(Ordering::Relaxed);
            held & HASH == hash || held == 0 || is_over(held, context.now)
        };
        let Some(slot) = self.bucket(hash).iter().find(is_free) else {
            return context.counters.drop(Drop::FragmentTableFull).add(1);
        };
        let until = (seconds(context.now) + PATIENCE) % SECONDS;
        let is_reverse = u64::from(direction == Direction::Reverse);
        slot.flow.store(u64::from(flow.index()) << 32 | u64::from(flow.generation()), Ordering::Release);
        slot.tag.store(hash | is_reverse << 15 | until, Ordering::Release);
    }

    /// Index and generation of the flow, and the direction, if the datagram's first fragment was seen.
    fn find<A: Hash>(&self, now: Tick, addresses: &(A, A), protocol: u8, id: u32) -> Option<(u32, u32, Direction)> {
        let hash = self.hash(addresses, protocol, id);
        let tagged = |slot: &Slot| (slot.tag.load(Ordering::Acquire), slot.flow.load(Ordering::Acquire));
        let (tag, flow) =
            self.bucket(hash).iter().map(tagged).find(|(tag, _)| tag & HASH == hash && !is_over(*tag, now))?;
        let direction = if tag >> 15 & 1 == 1 { Direction::Reverse } else { Direction::Forward };
        Some(((flow >> 32) as u32, flow as u32, direction))
    }

    fn hash<A: Hash>(&self, addresses: &(A, A), protocol: u8, id: u32) -> u64 {
        self.hasher.hash_one((addresses, protocol, id)) & HASH
    }

    fn bucket(&self, hash: u64) -> &[Slot; 4] {
        // The index is below BUCKETS, the length of the table.
        &self.buckets[(hash >> 16) as usize % BUCKETS]
    }
}

/// A later fragment: sent after its first, with addresses rewritten alike.
#[inline(never)]
pub(super) fn follow<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet) {
    match packet.headers.version {
        IpVersion::V4 => follow_in::<V4, P>(context, hands, packet),
        IpVersion::V6 => follow_in::<V6, P>(context, hands, packet),
    }
}

fn follow_in<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet) {
    let Fragment::Later { id } = packet.headers.fragment else {
        return hands.discard(context, packet.frame, Drop::FragmentUnknown);
    };
    let addresses = F::addresses(&packet.headers, hands.ports.bytes(&packet.frame));
    let known = context.shared.fragments.find(context.now, &addresses, packet.headers.protocol, id);
    let found = known.and_then(|(index, generation, direction)| {
        let table = F::table(context.shared);
        let entry = table.entry(table.current(index, generation)?);
        is_of(entry, direction, addresses).then_some((entry, direction))
    });
    match found {
        Some((entry, direction)) => carry::forward_other(context, hands, packet, entry, direction),
        None => hands.discard(context, packet.frame, Drop::FragmentUnknown),
    }
}

/// Whether the flow's packets of that direction have these addresses.
fn is_of<F: Path>(entry: &FlowEntry<F>, direction: Direction, addresses: (F::Addr, F::Addr)) -> bool {
    let key = match direction {
        Direction::Forward => Some(entry.forward()),
        Direction::Reverse => entry.reverse(),
    };
    key.is_some_and(|key| (key.source, key.destination) == addresses)
}

/// Whether the time of a tag is up.
fn is_over(tag: u64, now: Tick) -> bool {
    (tag % SECONDS).wrapping_sub(seconds(now)) % SECONDS > PATIENCE
}

fn seconds(now: Tick) -> u64 {
    u64::from(now.raw() / Tick::PER_SECOND) % SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Ticks;

    #[test]
    fn patience_ends_also_over_the_wrap_of_seconds() {
        for start in [0, 32_760 * Tick::PER_SECOND] {
            let now = Tick::new(start);
            let tag = HASH | ((seconds(now) + PATIENCE) % SECONDS);
            assert!(!is_over(tag, now));
            assert!(!is_over(tag, now.after(Ticks::seconds(30))));
            assert!(is_over(tag, now.after(Ticks::seconds(32))));
        }
    }
}
