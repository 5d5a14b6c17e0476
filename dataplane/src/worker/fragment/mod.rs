//! Fragments: a datagram's first fragment shows its flow, the later ones follow it by (addresses, id, VLAN; in IPv4
//! protocol too, which later fragments of IPv6 may give otherwise: RFC 8200 section 4.5).
//!
//! One table for all workers, of fixed size, in words that are read and written without locks. What a torn or stale
//! read could give is caught by comparing the fragment's addresses with the flow's own key.

mod early;

use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) use early::{Early, abandon, release};

use super::path::Path;
use super::{Context, Hands, Packet, carry};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, FlowEntry, FlowRef, V4, V6};
use crate::port::Ports;
use crate::wire::{Fragment, Headers, IpVersion};

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
    /// How many datagrams were published: whoever holds fragments looks again when it has changed.
    published: AtomicU64,
}

/// What all fragments of a datagram have in common.
#[derive(Debug, Hash)]
pub(super) struct Datagram<A> {
    addresses: (A, A),
    id: u32,
    protocol: u8,
    vlans: [u16; 2],
}

impl<A> Datagram<A> {
    /// Of a fragment with this identification, in a frame as it was received.
    pub(super) fn of(headers: &Headers, frame: &[u8], addresses: (A, A), id: u32) -> Self {
        let protocol = if headers.version == IpVersion::V4 { headers.protocol } else { 0 };
        Self { addresses, id, protocol, vlans: vlans(headers, frame) }
    }
}

/// The VLAN identifiers of a frame, outermost first; zero where there is no tag.
fn vlans(headers: &Headers, frame: &[u8]) -> [u16; 2] {
    /// Offset of the first tag's control information, of which the lower bits are the identifier.
    const FIRST: usize = 14;
    const IDENTIFIER: u16 = 0xfff;
    [FIRST, FIRST + 4].map(|at| {
        let tag = frame.get(at..).and_then(<[u8]>::first_chunk).filter(|_| at + 4 <= headers.l3 as usize);
        tag.map_or(0, |tag| u16::from_be_bytes(*tag) & IDENTIFIER)
    })
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
            published: AtomicU64::new(0),
        }
    }

    /// Remembers the flow of a datagram whose first fragment is here. Without room its later fragments get lost.
    pub(super) fn publish<A: Hash>(
        &self,
        context: Context<'_>,
        (flow, direction): (FlowRef, Direction),
        datagram: &Datagram<A>,
    ) {
        let hash = self.hash(datagram);
        let is_free = |slot: &&Slot| {
            let held = slot.tag.load(Ordering::Relaxed);
            held & HASH == hash || held == 0 || is_over(held, context.now)
        };
        let Some(slot) = self.bucket(hash).iter().find(is_free) else {
            return context.counters.event(Event::FragmentTableFull).add(1);
        };
        let until = (seconds(context.now) + PATIENCE) % SECONDS;
        let is_reverse = u64::from(direction == Direction::Reverse);
        slot.flow.store(u64::from(flow.index()) << 32 | u64::from(flow.generation()), Ordering::Release);
        slot.tag.store(hash | is_reverse << 15 | until, Ordering::Release);
        self.published.fetch_add(1, Ordering::Release);
    }

    /// Index and generation of the flow, and the direction, if the datagram's first fragment was seen.
    fn find(&self, now: Tick, hash: u64) -> Option<(u32, u32, Direction)> {
        let tagged = |slot: &Slot| (slot.tag.load(Ordering::Acquire), slot.flow.load(Ordering::Acquire));
        let (tag, flow) =
            self.bucket(hash).iter().map(tagged).find(|(tag, _)| tag & HASH == hash && !is_over(*tag, now))?;
        let direction = if tag >> 15 & 1 == 1 { Direction::Reverse } else { Direction::Forward };
        Some(((flow >> 32) as u32, flow as u32, direction))
    }

    fn hash(&self, of: &impl Hash) -> u64 {
        self.hasher.hash_one(of) & HASH
    }

    fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    fn bucket(&self, hash: u64) -> &[Slot; 4] {
        // The index is below BUCKETS, the length of the table.
        &self.buckets[(hash >> 16) as usize % BUCKETS]
    }
}

/// A later fragment: sent after its first, with addresses rewritten alike. The first moved the flow for all of them.
#[inline(never)]
pub(super) fn follow<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>) {
    match packet.headers.version {
        IpVersion::V4 => follow_in::<V4, P>(context, hands, packet),
        IpVersion::V6 => follow_in::<V6, P>(context, hands, packet),
    }
}

fn follow_in<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>) {
    let Fragment::Later { id } = packet.headers.fragment else {
        return hands.discard(context, packet.frame, Drop::FragmentUnknown);
    };
    let frame = hands.ports.bytes(&packet.frame);
    let addresses = F::addresses(packet.headers, frame);
    let table = &context.shared.fragments;
    let hash = table.hash(&Datagram::of(packet.headers, frame, addresses, id));
    let Some((index, generation, direction)) = table.find(context.now, hash) else {
        let source = table.hash(&F::network(addresses.0));
        return early::hold(context, hands, packet, hash, source);
    };
    let flows = F::table(context.shared);
    let entry = flows.current(index, generation).map(|flow| flows.entry(flow));
    match entry.filter(|entry| is_of(entry, direction, addresses)) {
        Some(entry) => carry::follow(context, hands, packet, entry, direction),
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
    fn tags_are_told_from_the_length_of_the_link_header() {
        let udp = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0][..], &[10, 0, 0, 1, 10, 0, 0, 2], &[0; 8]].concat();
        for (tags, expected) in [
            (&[][..], [0, 0]),
            (&[0x81, 0, 0xe0, 7][..], [7, 0]),
            (&[0x88, 0xa8, 0x0f, 0xff, 0x81, 0, 0, 9][..], [4095, 9]),
        ] {
            let mut udp = udp.clone();
            let sum = crate::wire::checksum::of(&udp[..20]);
            udp[10..12].copy_from_slice(&sum);
            udp[25] = 8;
            let frame = [&[2; 12][..], tags, &[8, 0], &udp].concat();
            assert_eq!(vlans(&crate::wire::parse(&frame).unwrap(), &frame), expected);
        }
    }

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
