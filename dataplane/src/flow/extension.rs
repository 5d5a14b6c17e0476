//! What only some flows have: how far their sequence numbers, time stamps and windows are moved, and what waits for
//! them. Such a flow has the flag `EXTENDED`, and one record of a cache line from a pool beside the table's entries.
//!
//! Every field may be read while another worker writes it. The two shifts are of three words each, which belong
//! together: a count of changes lets a reader see that it read them across a change.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see worker::carry")]

use super::slot::Direction;
use super::sync::{AtomicU32, AtomicU64, Ordering, RETRIES, fence, pause};

/// How far one side's sequence numbers are moved (as IPVS keeps it for FTP): by `before` below position `from`, by
/// `after` from there on. Positions are the sender's own, not moved yet; arithmetic is modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// The sender's sequence number from which on `after` counts.
    pub from: u32,
    /// What is added to numbers before `from`.
    pub before: u32,
    /// What is added to `from` and all numbers behind it.
    pub after: u32,
}

impl Shift {
    /// The same everywhere.
    #[must_use]
    pub const fn by(delta: u32) -> Self {
        Self { from: 0, before: delta, after: delta }
    }

    /// What the other side calls a number of the sender.
    #[inline]
    #[must_use]
    pub const fn apply(self, number: u32) -> u32 {
        let delta = if self.is_behind(number) { self.after } else { self.before };
        number.wrapping_add(delta)
    }

    /// What the sender calls a number of the other side. A number inside of what was inserted is `from`.
    #[inline]
    #[must_use]
    pub const fn undo(self, number: u32) -> u32 {
        let (behind, ahead) = (number.wrapping_sub(self.after), number.wrapping_sub(self.before));
        if self.is_behind(behind) {
            behind
        } else if self.is_behind(ahead) {
            self.from
        } else {
            ahead
        }
    }

    /// Whether a number of the sender is `from` or behind it.
    #[inline]
    const fn is_behind(self, number: u32) -> bool {
        number.wrapping_sub(self.from) < 1 << 31
    }
}

/// Bits of a record that the director's own part of FULLNAT has; those below 16 belong to the flow's method.
pub mod bit {
    /// The client's segments get the TOA option until the server has answered data.
    pub const TOA: u32 = 1 << 16;
    /// The client's data gets a PROXY header of version 1 in front until the server has acknowledged it.
    pub const PROXY_V1: u32 = 1 << 17;
    /// As [`PROXY_V1`], of version 2.
    pub const PROXY_V2: u32 = 1 << 18;
    /// The PROXY header was sent once.
    pub const PROXY_SENT: u32 = 1 << 19;
    /// The client's initial sequence number and time stamps are to be replaced when the local port is known.
    pub const RENUMBER: u32 = 1 << 20;
    /// The client's time stamps are to be moved too: its first is in the record's.
    pub const RESTAMP: u32 = 1 << 21;
    /// The option for time stamps is taken out of the client's SYN.
    pub const NO_STAMPS: u32 = 1 << 22;
    /// Both sides are reset when the flow expires.
    pub const RESET: u32 = 1 << 23;
    /// The client's next sequence number is known.
    pub const CLIENT_KNOWN: u32 = 1 << 24;
    /// The server's next sequence number is known.
    pub const SERVER_KNOWN: u32 = 1 << 25;
    /// The first data of a proxied flow's client went on.
    pub const DATA_SENT: u32 = 1 << 26;
}

/// A reference to a flow that outlives bursts: ask `FlowTable::current` whether it still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowLink {
    /// The number of its entry.
    pub index: u32,
    /// Which of the entry's successive flows it is; 0 is none's.
    pub generation: u32,
}

/// A TCP agreement that has to be kept with either side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Largest segment that the client may be told of, in bytes; 0 where it does not matter.
    pub mss: u16,
    /// By how many bits window fields of the client are shifted to the right on their way to the server (to the left
    /// if negative), -14 to 14.
    pub client_window: i8,
    /// The same for those of the server.
    pub server_window: i8,
}

impl Terms {
    /// By how many bits window fields of this side are shifted to the right.
    #[inline]
    pub const fn window(self, of: Direction) -> i8 {
        match of {
            Direction::Forward => self.client_window,
            Direction::Reverse => self.server_window,
        }
    }

    const fn pack(self) -> u32 {
        self.mss as u32
            | (self.client_window.cast_unsigned() as u32) << 16
            | (self.server_window.cast_unsigned() as u32) << 24
    }

    const fn unpack(word: u32) -> Self {
        Self { mss: word as u16, client_window: (word >> 16) as i8, server_window: (word >> 24) as i8 }
    }
}

/// The first values of a record. Arrays are indexed by the direction of the packets: those of the client, of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewExtension {
    /// How far sequence numbers are moved.
    pub shifts: [Shift; 2],
    /// What is added to time stamps (`TSval`; taken off the other side's `TSecr`).
    pub timestamps: [u32; 2],
    /// The sequence number that is expected next of either side, in its own numbers.
    pub next: [u32; 2],
    /// What was agreed on in the handshake.
    pub terms: Terms,
    /// Bits that belong to the flow's method. With the commands of FTP, the highest 5 count their data connections.
    pub bits: u32,
    /// Frames that wait for this flow: as `held` of its methods numbers them; 0 is none.
    pub held: u32,
    /// The flow that this one hangs on.
    pub link: Option<FlowLink>,
}

/// One flow that hangs on an extended one, in its bits.
const HOLDER: u32 = 1 << 27;
/// The bits that count such flows.
pub(super) const HOLDERS: u32 = !(HOLDER - 1);

/// The record of an extended flow.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Extension {
    shifts: [Cells; 2],
    timestamps: [AtomicU32; 2],
    next: [AtomicU32; 2],
    terms: AtomicU32,
    held: AtomicU32,
    /// Index (bits 0–31), generation (32–63).
    link: AtomicU64,
    /// Changes of the shifts, twice; odd while one is under way.
    changes: AtomicU32,
    bits: AtomicU32,
}

/// The words of a [`Shift`].
#[repr(C)]
#[derive(Debug)]
struct Cells {
    from: AtomicU32,
    before: AtomicU32,
    after: AtomicU32,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Extension>() == 64);

impl Cells {
    #[inline]
    fn load(&self) -> Shift {
        let read = |cell: &AtomicU32| cell.load(Ordering::Relaxed);
        Shift { from: read(&self.from), before: read(&self.before), after: read(&self.after) }
    }

    /// What is added before `from` and behind it.
    #[inline(always)]
    fn ends(&self) -> (u32, u32) {
        (self.before.load(Ordering::Relaxed), self.after.load(Ordering::Relaxed))
    }

    fn store(&self, shift: Shift) {
        self.from.store(shift.from, Ordering::Relaxed);
        self.before.store(shift.before, Ordering::Relaxed);
        self.after.store(shift.after, Ordering::Relaxed);
    }
}

impl Extension {
    #[cfg(any(test, loom))]
    pub(super) fn free() -> Self {
        let cell = |_| AtomicU32::new(0);
        let cells = |_| Cells { from: AtomicU32::new(0), before: AtomicU32::new(0), after: AtomicU32::new(0) };
        Self {
            shifts: std::array::from_fn(cells),
            timestamps: std::array::from_fn(cell),
            next: std::array::from_fn(cell),
            terms: AtomicU32::new(0),
            held: AtomicU32::new(0),
            link: AtomicU64::new(0),
            changes: AtomicU32::new(0),
            bits: AtomicU32::new(0),
        }
    }

    /// A record with these values, of no table.
    #[cfg(test)]
    pub(crate) fn of(new: &NewExtension) -> Self {
        let record = Self::free();
        record.write(new, new.link);
        record
    }

    /// Writes a record which only the caller knows, of a flow that hangs on another one.
    #[inline]
    pub(super) fn write(&self, new: &NewExtension, link: Option<FlowLink>) {
        let arrays = [(&self.timestamps, new.timestamps), (&self.next, new.next)];
        for (cells, values) in arrays {
            for (cell, value) in cells.iter().zip(values) {
                cell.store(value, Ordering::Relaxed);
            }
        }
        for (cells, shift) in self.shifts.iter().zip(new.shifts) {
            cells.store(shift);
        }
        self.terms.store(new.terms.pack(), Ordering::Relaxed);
        self.held.store(new.held, Ordering::Relaxed);
        self.set_link(link);
        // A writer that died in the middle of a change left an odd count.
        self.changes.store(0, Ordering::Relaxed);
        self.bits.store(new.bits, Ordering::Relaxed);
    }

    /// How far sequence numbers are moved: of the client's packets, of the server's. Read again (a bounded number of
    /// times) where another worker is changing them.
    #[inline]
    pub fn shifts(&self) -> [Shift; 2] {
        for _ in 0..RETRIES {
            if let Some(shifts) = self.try_shifts() {
                return shifts;
            }
            pause();
        }
        [self.shifts[0].load(), self.shifts[1].load()]
    }

    /// The shifts, unless a change came between.
    #[inline]
    pub(super) fn try_shifts(&self) -> Option<[Shift; 2]> {
        let before = self.changes.load(Ordering::Acquire);
        let shifts = [self.shifts[0].load(), self.shifts[1].load()];
        fence(Ordering::Acquire);
        (before.is_multiple_of(2) && self.changes.load(Ordering::Relaxed) == before).then_some(shifts)
    }

    /// What is added to sequence numbers of one side and of the other, if each is the same everywhere and nobody is
    /// changing them.
    #[inline(always)]
    pub fn uniform_shifts(&self, of: Direction) -> Option<(u32, u32)> {
        let seen = self.changes.load(Ordering::Acquire);
        let [(own, own_after), (other, other_after)] = [of, of.opposite()].map(|side| self.shifts[place(side)].ends());
        fence(Ordering::Acquire);
        // One comparison for all of it.
        let is_changing = (seen & 1) | (seen ^ self.changes.load(Ordering::Relaxed));
        let differs = is_changing | (own ^ own_after) | (other ^ other_after);
        (differs == 0).then_some((own, other))
    }

    /// Changes the shift of one side's packets. False (and nothing changed) when another worker is changing one now.
    pub fn set_shift(&self, of: Direction, shift: Shift) -> bool {
        let seen = self.changes.load(Ordering::Relaxed);
        let begin = seen.wrapping_add(1);
        if seen % 2 == 1 || self.changes.compare_exchange(seen, begin, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        fence(Ordering::Release);
        self.shifts[place(of)].store(shift);
        self.changes.store(seen.wrapping_add(2), Ordering::Release);
        true
    }

    /// What is added to time stamps of the client, of the server.
    #[inline]
    pub fn timestamps(&self) -> [u32; 2] {
        [self.timestamps[0].load(Ordering::Relaxed), self.timestamps[1].load(Ordering::Relaxed)]
    }

    /// What is added to time stamps of one side, of the other.
    #[inline(always)]
    pub fn timestamps_of(&self, side: Direction) -> [u32; 2] {
        [side, side.opposite()].map(|side| self.timestamps[place(side)].load(Ordering::Relaxed))
    }

    /// Sets what is added to one side's time stamps.
    pub fn set_timestamp(&self, of: Direction, offset: u32) {
        self.timestamps[place(of)].store(offset, Ordering::Relaxed);
    }

    /// The sequence number expected next of a side, in its own numbers.
    #[inline]
    pub fn next(&self, of: Direction) -> u32 {
        self.next[place(of)].load(Ordering::Relaxed)
    }

    /// Sets the sequence number expected next of a side.
    #[inline]
    pub fn set_next(&self, of: Direction, next: u32) {
        let cell = &self.next[place(of)];
        if cell.load(Ordering::Relaxed) != next {
            cell.store(next, Ordering::Relaxed);
        }
    }

    /// What was agreed on in the handshake.
    #[inline]
    pub fn terms(&self) -> Terms {
        Terms::unpack(self.terms.load(Ordering::Relaxed))
    }

    /// Whether windows of either side are shifted.
    #[inline]
    pub fn shifts_windows(&self) -> bool {
        self.terms.load(Ordering::Relaxed) >> 16 != 0
    }

    /// Sets what was agreed on.
    pub fn set_terms(&self, terms: Terms) {
        self.terms.store(terms.pack(), Ordering::Relaxed);
    }

    /// The bits of the flow's method. Reading them with `Acquire` shows what was written before they were set.
    #[inline]
    pub fn bits(&self) -> u32 {
        self.bits.load(Ordering::Acquire)
    }

    /// Sets and clears bits in one step; gives what they were before.
    pub fn change_bits(&self, set: u32, clear: u32) -> u32 {
        let mut seen = self.bits.load(Ordering::Relaxed);
        loop {
            let next = seen & !clear | set;
            match self.bits.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(before) => return before,
                Err(other) => seen = other,
            }
        }
    }

    /// Counts a flow that hangs on this one, in the highest 5 bits. False when there are too many to be counted.
    pub fn hold(&self) -> bool {
        let more = |bits: u32| bits.checked_add(HOLDER);
        self.bits.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    /// A flow no longer hangs on this one.
    pub fn release(&self) {
        let less = |bits: u32| (bits >= HOLDER).then(|| bits - HOLDER);
        let _ = self.bits.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less);
    }

    /// Flows that hang on this one.
    pub fn holders(&self) -> u32 {
        self.bits.load(Ordering::Acquire) / HOLDER
    }

    /// Frames that wait for this flow; 0 when there are none.
    #[inline]
    pub fn held(&self) -> u32 {
        self.held.load(Ordering::Acquire)
    }

    /// Exchanges what waits for this flow, if it still is `seen`. True for the one who did.
    pub fn swap_held(&self, seen: u32, next: u32) -> bool {
        self.held.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The flow that this one hangs on.
    pub fn link(&self) -> Option<FlowLink> {
        let word = self.link.load(Ordering::Acquire);
        let link = FlowLink { index: word as u32, generation: (word >> 32) as u32 };
        (link.generation != 0).then_some(link)
    }

    /// Sets the flow that this one hangs on.
    pub fn set_link(&self, link: Option<FlowLink>) {
        let word = link.map_or(0, |link| u64::from(link.generation) << 32 | u64::from(link.index));
        self.link.store(word, Ordering::Release);
    }
}

/// Where a direction's values stand.
#[inline]
const fn place(of: Direction) -> usize {
    match of {
        Direction::Forward => 0,
        Direction::Reverse => 1,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_what_was_written() {
        let record = Extension::free();
        let shift = |n| Shift { from: n, before: n + 1, after: n + 2 };
        let terms = Terms { mss: 1460, client_window: -14, server_window: 7 };
        let link = Some(FlowLink { index: u32::MAX, generation: 3 });
        let new = NewExtension {
            shifts: [shift(10), shift(20)],
            timestamps: [1, 2],
            next: [3, 4],
            terms,
            bits: 5,
            held: 6,
            link,
        };
        record.write(&new, new.link);
        assert_eq!(record.shifts(), new.shifts);
        assert_eq!(record.timestamps(), [1, 2]);
        assert_eq!([Direction::Forward, Direction::Reverse].map(|of| record.next(of)), [3, 4]);
        assert_eq!((record.terms(), record.bits(), record.held(), record.link()), (terms, 5, 6, link));
        assert!(record.set_shift(Direction::Reverse, Shift::by(9)));
        assert_eq!(record.shifts(), [shift(10), Shift::by(9)]);
        assert_eq!(record.change_bits(2, 1), 5);
        assert_eq!(record.bits(), 6);
        assert!(record.swap_held(6, 0) && !record.swap_held(6, 1));
        record.set_link(None);
        assert_eq!(record.link(), None);
    }
}
