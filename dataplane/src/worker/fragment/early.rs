//! Later fragments that came before their first, perhaps by another queue: they wait for it a moment.
//!
//! Bounded in all (the one that waits longest goes first) and for each sender (the newest goes), so that a flood costs
//! neither memory nor other people's fragments.

use super::super::held::{Held, Parcel};
use super::super::{Context, Hands, Packet};
use crate::clock::Ticks;
use crate::counters::Drop;
use crate::port::Ports;

/// Fragments that wait at a worker.
const MOST: u32 = 256;
/// Fragments that wait for one sender: one and a half of the largest datagrams at an MTU of 1500.
const MOST_OF_SENDER: u8 = 64;
/// Senders are told apart by hash, in so many classes.
const SENDERS: usize = 1024;
/// How long a fragment waits: as long as a path may reorder.
const PATIENCE: Ticks = Ticks(100);
/// The bits of a tag that are the sender's class; the others are the datagram's hash.
const SENDER: u64 = SENDERS as u64 - 1;

/// The fragments that wait.
#[derive(Debug)]
pub(in super::super) struct Early {
    held: Held,
    of_sender: Box<[u8; SENDERS]>,
    /// How many datagrams had been published when those that wait were last looked up.
    seen: u64,
}

impl Early {
    pub(in super::super) fn new() -> Self {
        Self { held: Held::new(MOST), of_sender: Box::new([0; SENDERS]), seen: 0 }
    }

    #[inline]
    pub(in super::super) const fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn count_of(&mut self, tag: u64) -> &mut u8 {
        // A class is below their number.
        &mut self.of_sender[(tag & SENDER) as usize]
    }

    /// Takes out one that `is_wanted`, in the slots from `from` on.
    fn take(
        &mut self,
        context: Context<'_>,
        from: usize,
        is_wanted: impl Fn(&Parcel) -> bool,
    ) -> Option<(usize, Parcel)> {
        let taken = self.held.take_from(context, from, is_wanted)?;
        *self.count_of(taken.1.tag) -= 1;
        Some(taken)
    }
}

/// Keeps a fragment of the datagram with this hash from the sender with that.
pub(super) fn hold<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    datagram: u64,
    sender: u64,
) {
    // Hashes have their lower bits free.
    let tag = datagram | sender >> 16 & SENDER;
    let count = hands.early.count_of(tag);
    if *count >= MOST_OF_SENDER {
        return hands.discard(context, packet.frame, Drop::FragmentLimited);
    }
    *count += 1;
    let parcel = Parcel::new(packet, context.now.after(PATIENCE), Drop::FragmentUnknown, tag);
    if let Some(oldest) = hands.early.held.hold_latest(context, parcel) {
        *hands.early.count_of(oldest.tag) -= 1;
        hands.discard(context, oldest.frame, Drop::FragmentLimited);
    }
}

/// Sends those whose first fragment has come meanwhile, and drops those whose time is up.
#[cold]
#[inline(never)]
pub(in super::super) fn release<P: Ports>(context: Context<'_>, hands: &mut Hands<P>) {
    let table = &context.shared.fragments;
    // Read before the look-ups: what is published after it changes it again.
    let published = table.published();
    if published != hands.early.seen {
        hands.early.seen = published;
        let is_known = |parcel: &Parcel| table.find(context.now, parcel.tag & super::HASH).is_some();
        let mut from = 0;
        while let Some((next, parcel)) = hands.early.take(context, from, is_known) {
            from = next;
            let (frame, headers, port) = parcel.unpack();
            super::follow(context, hands, Packet { frame, headers: &headers, port });
        }
    }
    drop_all(context, hands, |parcel| parcel.until.reached(context.now));
}

/// Drops all.
pub(in super::super) fn abandon<P: Ports>(context: Context<'_>, hands: &mut Hands<P>) {
    drop_all(context, hands, |_| true);
}

fn drop_all<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, is_wanted: impl Fn(&Parcel) -> bool) {
    let mut from = 0;
    while let Some((next, parcel)) = hands.early.take(context, from, &is_wanted) {
        from = next;
        hands.abandon(context, parcel);
    }
}
