//! The words of the index: a slot names one key of one flow by entry number, tag and direction.
//!
//! A word that was read can be compared and swapped safely: within a grace period an entry number does not come back
//! in another role, and claims of one slot by the same insert are told apart by a 13-bit count.

use super::sync::{AtomicU64, Ordering};

const TAG_SHIFT: u32 = 32;
const REVERSE: u64 = 1 << 48;
/// Set in every slot that is taken, tentatively or for good.
pub(super) const OCCUPIED: u64 = 1 << 49;
const COMMITTED: u64 = 1 << 50;
const COUNT_SHIFT: u32 = 51;
/// The bits that [`SlotWord::pattern`] decides on; all in the upper half of the word.
pub(super) const MATCH: u64 = 0xffff << TAG_SHIFT | OCCUPIED;

/// Which of a flow's two keys a packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the VIP.
    Forward,
    /// From the real server to the client (or local address).
    Reverse,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

/// Slots of one bucket: one cache line with 8, less in model tests.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Bucket<const N: usize>(pub(super) [AtomicU64; N]);

impl<const N: usize> Bucket<N> {
    /// A bit for each slot whose word, under `mask`, is `pattern`.
    #[inline]
    pub(super) fn matches(&self, pattern: u64, mask: u64) -> u32 {
        let mut bits = 0;
        for (slot, cell) in self.0.iter().enumerate() {
            bits |= u32::from(cell.load(Ordering::Relaxed) & mask == pattern) << slot;
        }
        bits
    }
}

/// What a slot held when it was read: entry number (bits 0–31), tag (32–47), direction, occupied, committed, count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotWord(pub(super) u64);

impl SlotWord {
    /// What the bits of [`SlotWord::matches`] are for a tag.
    #[inline]
    pub(super) fn pattern(tag: u16) -> u64 {
        u64::from(tag) << TAG_SHIFT | OCCUPIED
    }

    /// Whether the slot is taken (tentatively or for good) by a key with the tag of this pattern.
    #[inline]
    pub(super) fn matches(self, pattern: u64) -> bool {
        (self.0 ^ pattern) & MATCH == 0
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 & OCCUPIED == 0
    }

    #[inline]
    pub(super) fn is_committed(self) -> bool {
        self.0 & COMMITTED != 0
    }

    #[inline]
    pub(super) fn index(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(super) fn direction(self) -> Direction {
        if self.0 & REVERSE == 0 { Direction::Forward } else { Direction::Reverse }
    }

    /// This empty slot, taken tentatively.
    #[inline]
    pub(super) fn claimed(self, index: u32, tag: u16, direction: Direction) -> Self {
        let count = (self.0 >> COUNT_SHIFT).wrapping_add(1) << COUNT_SHIFT;
        let reverse = if direction == Direction::Reverse { REVERSE } else { 0 };
        Self(count | reverse | Self::pattern(tag) | u64::from(index))
    }

    /// This tentative slot, committed.
    #[inline]
    pub(super) fn committed(self) -> Self {
        Self(self.0 | COMMITTED)
    }

    /// This slot, empty again; its count stays.
    #[inline]
    pub(super) fn emptied(self) -> Self {
        Self(self.0 >> COUNT_SHIFT << COUNT_SHIFT)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_goes_round_and_never_repeats_a_word() {
        let empty = SlotWord(0);
        let first = empty.claimed(7, 0, Direction::Reverse);
        assert!(!first.is_empty() && !first.is_committed());
        assert_eq!((first.index(), first.direction()), (7, Direction::Reverse));
        assert!(first.matches(SlotWord::pattern(0)) && !empty.matches(SlotWord::pattern(0)));
        assert!(first.committed().is_committed());
        let again = first.committed().emptied().claimed(7, 0, Direction::Reverse);
        assert!(first.emptied().is_empty());
        assert_ne!(first, again);
    }

    #[test]
    fn the_count_wraps_without_touching_the_rest() {
        let last = SlotWord(u64::MAX << COUNT_SHIFT);
        let next = last.claimed(u32::MAX, u16::MAX, Direction::Forward);
        assert_eq!(next.0 >> COUNT_SHIFT, 0);
        assert_eq!(next.index(), u32::MAX);
        assert!(next.emptied().is_empty());
    }
}
