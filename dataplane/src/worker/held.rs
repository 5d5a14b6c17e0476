//! Packets that wait in a worker's hands for something to happen, each with a time by which it goes anyway.
//!
//! A ring of fixed size: places are given out in turn, so the packet that a new one would push out is the oldest. A
//! held frame is counted as [`Event::Held`] and, whatever becomes of it then, as [`Event::Released`]: the difference
//! is how many a worker holds. Bytes and headers are as they were received.

use super::{Context, Hands, Packet};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::ident::PortIndex;
use crate::port::{Frame, Ports};
use crate::wire::Headers;

/// Places that are tried for a packet that may push none out.
const TRIES: u32 = 8;

/// A packet that waits.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) frame: Frame,
    pub(super) headers: Headers,
    pub(super) port: PortIndex,
    /// When it has waited long enough.
    pub(super) until: Tick,
    /// The reason that is counted if it waited in vain.
    pub(super) in_vain: Drop,
    /// What its owner tells it by.
    pub(super) tag: u64,
}

impl Parcel {
    /// The packet, to go on with.
    pub(super) fn unpack(self) -> (Frame, Headers, PortIndex) {
        (self.frame, self.headers, self.port)
    }

    /// A packet that waits until then.
    pub(super) fn new(packet: Packet<'_>, until: Tick, in_vain: Drop, tag: u64) -> Self {
        let Packet { frame, headers, port } = packet;
        Self { frame, headers: *headers, port, until, in_vain, tag }
    }
}

/// Where a packet waits. It names that packet only, never a later one in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// The places of one kind of waiting packets.
#[derive(Debug)]
pub(super) struct Held {
    slots: Box<[Option<(Place, Parcel)>]>,
    /// The next place; its slot is this modulo their number.
    next: u32,
    count: usize,
}

impl Held {
    /// Room for `capacity` packets, a power of two.
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = capacity.next_power_of_two();
        Self { slots: (0..capacity).map(|_| None).collect(), next: 0, count: 0 }
    }

    /// Whether nothing waits.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keeps a packet.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub(super) fn hold(&mut self, context: Context<'_>, parcel: Parcel) -> Result<Place, Parcel> {
        for _ in 0..TRIES {
            let place = self.advance();
            if self.slot(place).is_none() {
                return Ok(self.put(context, place, parcel));
            }
        }
        Err(parcel)
    }

    /// Keeps a packet, for which the one that came longest ago may have to go: it is given back.
    pub(super) fn hold_latest(&mut self, context: Context<'_>, parcel: Parcel) -> Option<Parcel> {
        let place = self.advance();
        let oldest = self.slot(place).as_ref().map(|(held, _)| *held);
        let oldest = oldest.and_then(|held| self.take(context, held));
        self.put(context, place, parcel);
        oldest
    }

    /// Takes a packet out, if it still waits there.
    pub(super) fn take(&mut self, context: Context<'_>, place: Place) -> Option<Parcel> {
        let (_, parcel) = self.slot(place).take_if(|(held, _)| *held == place)?;
        self.count -= 1;
        context.counters.event(Event::Released).add(1);
        Some(parcel)
    }

    /// Takes out some packet of which `is_wanted` says so, among those in the slots from `from` on: with the slot after it.
    pub(super) fn take_from(
        &mut self,
        context: Context<'_>,
        from: usize,
        is_wanted: impl Fn(&Parcel) -> bool,
    ) -> Option<(usize, Parcel)> {
        let waiting = self.slots.iter().enumerate().skip(from).filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
        let (at, place) = waiting
            .map(|(at, (place, parcel))| (at, *place, parcel))
            .find_map(|(at, place, parcel)| is_wanted(parcel).then_some((at, place)))?;
        Some((at + 1, self.take(context, place)?))
    }

    fn advance(&mut self) -> Place {
        let place = Place(self.next);
        self.next = self.next.wrapping_add(1);
        place
    }

    fn put(&mut self, context: Context<'_>, place: Place, parcel: Parcel) -> Place {
        *self.slot(place) = Some((place, parcel));
        self.count += 1;
        context.counters.event(Event::Held).add(1);
        place
    }

    fn slot(&mut self, place: Place) -> &mut Option<(Place, Parcel)> {
        // The remainder is below their number, which is not zero.
        let at = place.0 as usize % self.slots.len();
        &mut self.slots[at]
    }
}

impl<P: Ports> Hands<P> {
    /// Drops a packet that waited in vain.
    pub(super) fn abandon(&mut self, context: Context<'_>, parcel: Parcel) {
        self.discard(context, parcel.frame, parcel.in_vain);
    }
}
