//! Fragments: a datagram's first fragment shows its flow, the later ones follow it by (addresses, id, VLAN; in IPv4
//! protocol too, which later fragments of IPv6 may give otherwise: RFC 8200 section 4.5).
//!
//! One table for all workers, of fixed size, in words that are read and written without locks. What a torn or stale
//! read could give is caught by comparing the fragment's addresses with the flow's own key. A worker that writes late
//! into a place that is another datagram's by now can cost that one its later fragments, no more.

mod coverage;
mod early;

use std::hash::{BuildHasher, Hash};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use coverage::{Coverage, Progress};
pub(super) use early::{Early, abandon, release};

use super::path::Path;
use super::{Context, Hands, Packet, carry, mixed};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Family, FlowEntry, FlowRef, V4, V6};
use crate::port::{Frame, Ports};
use crate::wire::{self, Fragment, Headers, IpVersion, Piece};

/// Datagrams in pieces at a time: buckets of four.
const BUCKETS: usize = 1024;
/// How long later fragments are waited for, in seconds: `ipfrag_time` of Linux.
const PATIENCE: u64 = 30;
/// Seconds after which a first fragment with the identification of another datagram begins a new one: a path holds no
/// duplicate back so long, and a busy sender uses its 65536 identifications again soon (RFC 4963).
const REPEAT: u64 = 2;
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
struct Datagram {
    addresses: (IpAddr, IpAddr),
    id: u32,
    protocol: u8,
    vlans: [u16; 2],
}

impl Datagram {
    /// Of a fragment with this identification, in a frame as it was received.
    fn of(headers: &Headers, frame: &[u8], id: u32) -> Self {
        let protocol = if headers.version == IpVersion::V4 { headers.protocol } else { 0 };
        let addresses = match headers.version {
            IpVersion::V4 => ends(headers.addresses_v4(frame)),
            IpVersion::V6 => ends(headers.addresses_v6(frame)),
        };
        Self { addresses, id, protocol, vlans: vlans(headers, frame) }
    }
}

fn ends<A: Into<IpAddr>>((source, destination): (A, A)) -> (IpAddr, IpAddr) {
    (source.into(), destination.into())
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
#[derive(Debug)]
struct Slot {
    tag: AtomicU64,
    flow: AtomicU64,
    // Apart, so that the places of a bucket lie together.
    coverage: Box<Coverage>,
}

impl Slot {
    fn new() -> Self {
        Self { tag: AtomicU64::new(0), flow: AtomicU64::new(0), coverage: Box::new(Coverage::new()) }
    }

    /// Adds a piece; a datagram that is whole needs no place any more.
    fn add(&self, piece: Piece) -> Result<(), Drop> {
        let tag = self.tag.load(Ordering::Acquire);
        if self.coverage.add(piece)? == Progress::Whole {
            // Whoever took the place meanwhile keeps it.
            let _ = self.tag.compare_exchange(tag, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// The flow of a datagram whose first fragment has passed.
struct Known<'t> {
    slot: &'t Slot,
    index: u32,
    generation: u32,
    direction: Direction,
}

impl FragmentTable {
    pub(super) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| std::array::from_fn(|_| Slot::new())).collect(),
            hasher: foldhash::quality::RandomState::default(),
            published: AtomicU64::new(0),
        }
    }

    /// Remembers the flow of a datagram whose first fragment is here. Where there is no room for it, the datagram whose
    /// time is up first is given up.
    ///
    /// # Errors
    /// The reason for which the first fragment is to be dropped.
    fn publish(
        &self,
        context: Context<'_>,
        (flow, direction): (FlowRef, Direction),
        hash: u64,
        piece: Piece,
    ) -> Result<(), Drop> {
        let now = context.now;
        let same = self.live(now, hash);
        if let Some((slot, tag)) = same
            && left(tag, now) + REPEAT > PATIENCE
        {
            return slot.add(piece);
        }
        let slot = match same {
            Some((slot, _)) => slot,
            None => self.place(context, hash),
        };
        slot.tag.store(0, Ordering::Release);
        slot.coverage.clear();
        slot.coverage.add(piece)?;
        let until = (seconds(now) + PATIENCE) % SECONDS;
        let is_reverse = u64::from(direction == Direction::Reverse);
        slot.flow.store(u64::from(flow.index()) << 32 | u64::from(flow.generation()), Ordering::Release);
        slot.tag.store(hash | is_reverse << 15 | until, Ordering::Release);
        self.published.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// A place for a datagram.
    fn place(&self, context: Context<'_>, hash: u64) -> &Slot {
        let bucket = self.bucket(hash);
        // Zero when it is free.
        let worth = |slot: &Slot| match slot.tag.load(Ordering::Relaxed) {
            0 => 0,
            tag if is_over(tag, context.now) => 0,
            tag => left(tag, context.now) + 1,
        };
        // Of several of one age it is not always the same that goes.
        let start = context.now.raw() as usize % bucket.len();
        let (before, after) = bucket.split_at(start);
        let mut best = &bucket[0];
        let mut least = u64::MAX;
        for slot in after.iter().chain(before) {
            if worth(slot) < least {
                (best, least) = (slot, worth(slot));
            }
        }
        if least > 0 {
            context.counters.event(Event::FragmentTableFull).add(1);
        }
        best
    }

    fn find(&self, now: Tick, hash: u64) -> Option<Known<'_>> {
        let (slot, tag) = self.live(now, hash)?;
        let flow = slot.flow.load(Ordering::Acquire);
        let direction = if tag >> 15 & 1 == 1 { Direction::Reverse } else { Direction::Forward };
        Some(Known { slot, index: (flow >> 32) as u32, generation: flow as u32, direction })
    }

    /// The place of a datagram, with its tag.
    fn live(&self, now: Tick, hash: u64) -> Option<(&Slot, u64)> {
        let tagged = self.bucket(hash).iter().map(|slot| (slot, slot.tag.load(Ordering::Acquire)));
        tagged.into_iter().find(|(_, tag)| *tag != 0 && tag & HASH == hash && !is_over(*tag, now))
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

/// A first fragment of a flow's packet: lets later ones find the flow.
///
/// # Errors
/// The reason for which it is to be dropped.
#[cold]
#[inline(never)]
pub(super) fn first(
    context: Context<'_>,
    headers: &Headers,
    frame: &[u8],
    flow: (FlowRef, Direction),
) -> Result<(), Drop> {
    let Fragment::First { id } = headers.fragment else { return Ok(()) };
    let piece = wire::piece(frame, headers)?;
    let table = &context.shared.fragments;
    let hash = table.hash(&Datagram::of(headers, frame, id));
    table.publish(context, flow, hash, piece)
}

/// A later fragment: sent after its first, with addresses rewritten alike. The first moved the flow for all of them.
#[inline(never)]
pub(super) fn follow<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>) {
    let followed = match packet.headers.version {
        IpVersion::V4 => follow_in::<V4, P>(context, hands, packet),
        IpVersion::V6 => follow_in::<V6, P>(context, hands, packet),
    };
    if let Err((frame, reason)) = followed {
        hands.discard(context, frame, reason);
    }
}

fn follow_in<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
) -> Result<(), (Frame, Drop)> {
    let Packet { frame, headers, .. } = packet;
    let bytes = hands.ports.bytes(&frame);
    let piece = match (headers.fragment, wire::piece(bytes, headers)) {
        (Fragment::Later { id }, Ok(piece)) => (id, piece),
        (_, Err(reason)) => return Err((frame, reason)),
        _ => return Err((frame, Drop::FragmentUnknown)),
    };
    let (id, piece) = piece;
    let addresses = F::addresses(headers, bytes);
    let table = &context.shared.fragments;
    let hash = table.hash(&Datagram::of(headers, bytes, id));
    let packet = Packet { frame, ..packet };
    let Some(known) = table.find(context.now, hash) else {
        early::hold(context, hands, packet, hash, table.hash(&F::network(addresses.0)));
        return Ok(());
    };
    if let Some(entry) = entry_of::<F>(context, &known, addresses) {
        return go_on(context, hands, packet, entry, (&known, piece));
    }
    // An IPv4 packet of a flow between the families.
    let mapped = (V6::address(F::ip(addresses.0)), V6::address(F::ip(addresses.1)));
    match mapped {
        (Some(source), Some(destination)) if F::NUMBER == V4::NUMBER && mixed::are_there(context) => {
            match entry_of::<V6>(context, &known, (source, destination)) {
                Some(entry) => go_on(context, hands, packet, entry, (&known, piece)),
                None => Err((packet.frame, Drop::FragmentUnknown)),
            }
        }
        _ => Err((packet.frame, Drop::FragmentUnknown)),
    }
}

/// The flow's entry, if it still is the one whose first fragment passed.
fn entry_of<'s, F: Path>(
    context: Context<'s>,
    known: &Known<'_>,
    addresses: (F::Addr, F::Addr),
) -> Option<&'s FlowEntry<F>> {
    let flows = F::table(context.shared);
    let entry = flows.entry(flows.current(known.index, known.generation)?);
    is_of(entry, known.direction, addresses).then_some(entry)
}

fn go_on<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    entry: &FlowEntry<F>,
    (known, piece): (&Known<'_>, Piece),
) -> Result<(), (Frame, Drop)> {
    if let Err(reason) = known.slot.add(piece) {
        return Err((packet.frame, reason));
    }
    carry::follow(context, hands, packet, entry, known.direction);
    Ok(())
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
    left(tag, now) > PATIENCE
}

/// Seconds until the time of a tag is up; above [`PATIENCE`] when it is.
fn left(tag: u64, now: Tick) -> u64 {
    (tag % SECONDS).wrapping_sub(seconds(now)) % SECONDS
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
