//! New flows a second of each source address (IPv6: of each /64), in a table of fixed size that all workers share.
//!
//! A source is one word: 24 bits tell it from others of its set, 40 say in units of 10 microseconds when what it spent
//! will have been earned. A set is a cache line of eight words; a ninth source takes the place of the one that has spent
//! least, so a flood from more sources than there is room for makes the limit laxer, never stricter.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::quality::RandomState;

use super::meter::{Pace, Rate, nanoseconds};
use crate::clock::Tick;

/// Sets of eight: room for half a million sources in 4 MiB.
const SETS: usize = 1 << 16;
/// How often a set is tried that other workers write too. When all fail, the packet passes.
const TRIES: u32 = 4;
/// Bits of a word that are time.
const TIME_BITS: u32 = 40;
const TIME: u64 = (1 << TIME_BITS) - 1;
/// Nanoseconds of a unit of time.
const UNIT: u64 = 10_000;

/// A limit for each source.
#[derive(Debug)]
pub struct SourceLimit {
    rate: Rate,
    pace: Pace,
    hasher: RandomState,
    sets: Box<[Set]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; 8]);

impl SourceLimit {
    /// The highest rate: one flow each unit of time.
    pub const MAX: u32 = 100_000;

    /// An empty table. Rates above [`SourceLimit::MAX`] are kept as if they were it.
    pub fn new(rate: Rate) -> Self {
        let sets = (0..SETS).map(|_| Set::default()).collect();
        Self { rate, pace: rate.pace(), hasher: RandomState::default(), sets }
    }

    /// Its rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Bytes that it takes.
    pub const fn memory(&self) -> usize {
        self.sets.len() * size_of::<Set>()
    }

    /// Spends one flow of a source; false when it has none to spend.
    pub fn spend(&self, source: IpAddr, now: Tick) -> bool {
        let hash = self.hasher.hash_one(match source {
            IpAddr::V4(address) => (4u8, u64::from(address.to_bits())),
            IpAddr::V6(address) => (6, (address.to_bits() >> 64) as u64),
        });
        let Some(set) = self.sets.get(hash as usize % SETS) else { return true };
        let tag = hash >> TIME_BITS;
        // Zero is the time of an empty word.
        let now = (nanoseconds(now) / UNIT).max(1) & TIME;
        for _ in 0..TRIES {
            let (cell, word, spent) = set.find(tag, now);
            let Some(next) = self.pace.step(spent * UNIT, now * UNIT) else { return false };
            let new = tag << TIME_BITS | (next / UNIT) & TIME;
            if cell.compare_exchange(word, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
        true
    }
}

impl Set {
    /// The word of a tag and what it has spent; where there is none, the word that may be taken and nothing spent.
    fn find(&self, tag: u64, now: u64) -> (&AtomicU64, u64, u64) {
        let [first, ..] = &self.0;
        let mut least = (first, first.load(Ordering::Relaxed));
        for cell in &self.0 {
            let word = cell.load(Ordering::Relaxed);
            if word >> TIME_BITS == tag && word & TIME != 0 {
                return (cell, word, word & TIME);
            }
            if ahead(word, now) < ahead(least.1, now) {
                least = (cell, word);
            }
        }
        (least.0, least.1, now)
    }
}

/// How far ahead of now a word is; one from the past is not at all.
fn ahead(word: u64, now: u64) -> u64 {
    (word & TIME).saturating_sub(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(limit: &SourceLimit, source: &str, now: u32, tries: u32) -> usize {
        let source = source.parse().unwrap();
        (0..tries).filter(|_| limit.spend(source, Tick::new(now))).count()
    }

    #[test]
    fn each_source_has_a_rate_of_its_own() {
        let limit = SourceLimit::new(Rate::new(10, 5).unwrap());
        assert_eq!(passed(&limit, "10.0.0.1", 100, 50), 5);
        assert_eq!(passed(&limit, "10.0.0.2", 100, 50), 5);
        assert_eq!(passed(&limit, "10.0.0.1", 130, 50), 3, "three tenths of a second later");
        assert_eq!(passed(&limit, "10.0.0.1", 100_000, 50), 5);
    }

    #[test]
    fn an_ipv6_source_is_its_network() {
        let limit = SourceLimit::new(Rate::new(10, 5).unwrap());
        assert_eq!(passed(&limit, "2001:db8::1", 100, 3) + passed(&limit, "2001:db8::2", 100, 50), 5);
        assert_eq!(passed(&limit, "2001:db8:0:1::1", 100, 50), 5);
    }

    #[test]
    fn more_sources_than_fit_are_never_refused_for_others() {
        let limit = SourceLimit::new(Rate::new(1, 1).unwrap());
        let refused = (0..2_000_000u32).filter(|n| !limit.spend(IpAddr::V4((*n).into()), Tick::new(100))).count();
        // 24 bits of tag in a set of 8: about one in two million pairs is taken for one source.
        assert!(refused < 20, "{refused}");
        assert_eq!(limit.memory(), 4 << 20);
    }
}
