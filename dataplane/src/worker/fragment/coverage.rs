//! Which parts of a datagram have passed: a bit for every eight bytes, so that no overlap goes unseen (RFC 5722).
//!
//! A kilobyte for each datagram, set by any worker without locks. A datagram in which fragments overlap is spoiled:
//! nothing more of it passes, so that nobody can put it together.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::Drop;
use crate::wire::Piece;

/// Words of 64 units: a datagram has at most 8192 units.
const WORDS: usize = 8192 / 64;
/// In the progress: fragments overlap.
const SPOILED: u64 = 1 << 63;

/// What has passed of one datagram.
#[derive(Debug)]
pub(super) struct Coverage {
    units: [AtomicU64; WORDS],
    /// How many units (16 bits), where the datagram ends in units, or zero (16 bits), [`SPOILED`].
    progress: AtomicU64,
}

/// How far a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Pieces are missing.
    Open,
    /// Everything has passed.
    Whole,
}

impl Coverage {
    pub(super) const fn new() -> Self {
        Self { units: [const { AtomicU64::new(0) }; WORDS], progress: AtomicU64::new(0) }
    }

    /// Begins a new datagram.
    pub(super) fn clear(&self) {
        self.progress.store(0, Ordering::Relaxed);
        for word in &self.units {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// [`Drop::FragmentRepeated`] when all of it has passed already, [`Drop::FragmentOverlap`] when a part has, when it
    /// disagrees about where the datagram ends, or when another did before.
    pub(super) fn add(&self, piece: Piece) -> Result<Progress, Drop> {
        let progress = self.progress.load(Ordering::Relaxed);
        let end = (progress >> 16) as u16;
        let disagrees = end != 0 && (piece.end > end || (piece.is_last && piece.end != end));
        if progress & SPOILED != 0 || disagrees {
            return Err(self.spoil());
        }
        match self.mark(piece) {
            0 => {}
            seen if seen == u64::from(piece.end - piece.start) => return Err(Drop::FragmentRepeated),
            _ => return Err(self.spoil()),
        }
        if piece.is_last {
            self.progress.fetch_or(u64::from(piece.end) << 16, Ordering::Relaxed);
        }
        let new = u64::from(piece.end - piece.start);
        let progress = self.progress.fetch_add(new, Ordering::Relaxed) + new;
        let is_whole = progress as u16 == (progress >> 16) as u16;
        Ok(if is_whole { Progress::Whole } else { Progress::Open })
    }

    /// Sets the bits of a piece: how many were set before.
    fn mark(&self, piece: Piece) -> u64 {
        let (start, end) = (usize::from(piece.start), usize::from(piece.end));
        let words = self.units.iter().enumerate().take(end.div_ceil(64)).skip(start / 64);
        let seen = words.map(|(at, word)| {
            let from = start.saturating_sub(at * 64);
            let beyond = 64 - (end - at * 64).min(64);
            let bits = !0 << from & !0 >> beyond;
            u64::from((word.fetch_or(bits, Ordering::Relaxed) & bits).count_ones())
        });
        seen.sum()
    }

    fn spoil(&self) -> Drop {
        self.progress.fetch_or(SPOILED, Ordering::Relaxed);
        Drop::FragmentOverlap
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(start: u16, end: u16, is_last: bool) -> Piece {
        Piece { start, end, is_last }
    }

    #[test]
    fn a_datagram_is_whole_when_its_last_gap_closes() {
        let coverage = Coverage::new();
        for part in [piece(0, 185, false), piece(370, 8192, true)] {
            assert_eq!(coverage.add(part), Ok(Progress::Open));
        }
        assert_eq!(coverage.add(piece(185, 370, false)), Ok(Progress::Whole));
    }

    #[test]
    fn a_repeated_piece_harms_nothing_and_an_overlap_spoils_all() {
        let coverage = Coverage::new();
        assert_eq!(coverage.add(piece(0, 10, false)), Ok(Progress::Open));
        assert_eq!(coverage.add(piece(2, 10, false)), Err(Drop::FragmentRepeated));
        assert_eq!(coverage.add(piece(10, 20, false)), Ok(Progress::Open));
        assert_eq!(coverage.add(piece(19, 30, false)), Err(Drop::FragmentOverlap));
        assert_eq!(coverage.add(piece(30, 40, true)), Err(Drop::FragmentOverlap), "spoiled");
        coverage.clear();
        assert_eq!(coverage.add(piece(0, 10, true)), Ok(Progress::Whole));
    }

    #[test]
    fn nothing_may_lie_beyond_the_end() {
        for beyond in [piece(40, 50, false), piece(40, 50, true), piece(20, 25, true)] {
            let coverage = Coverage::new();
            assert_eq!(coverage.add(piece(30, 40, true)), Ok(Progress::Open));
            assert_eq!(coverage.add(beyond), Err(Drop::FragmentOverlap), "{beyond:?}");
        }
    }

    proptest! {
        #[test]
        fn overlaps_are_those_of_a_set(pieces in prop::collection::vec((0u16..300, 1u16..100), 1..20)) {
            let coverage = Coverage::new();
            let mut set = std::collections::HashSet::new();
            for (start, length) in pieces {
                let units: Vec<u16> = (start..start + length).collect();
                let seen = units.iter().filter(|unit| set.contains(*unit)).count();
                let got = coverage.add(piece(start, start + length, false));
                if seen == units.len() {
                    prop_assert_eq!(got, Err(Drop::FragmentRepeated));
                } else if seen > 0 {
                    prop_assert_eq!(got, Err(Drop::FragmentOverlap));
                    break;
                } else {
                    prop_assert_eq!(got, Ok(Progress::Open));
                }
                set.extend(units);
            }
        }
    }
}
