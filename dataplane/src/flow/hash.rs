//! The keyed hash of the flow table, which nobody can aim without the key.
//!
//! A packed key goes through NH (the universal hash of UMAC, RFC 4418 5.2, with 64-bit words): the sum of
//! `(w[2i] + k[2i]) * (w[2i+1] + k[2i+1])` modulo 2^128. For any two different keys that are chosen without knowledge
//! of the hash key, the sums are equal with a probability of at most 2^-64. The 128 bits are then folded to 64 by
//! `(a * low + b * high + c mod 2^128) >> 64` with random 128-bit `a`, `b`, `c`, a strongly universal function
//! (Dietzfelbinger's multiply-shift): the hashes of two different sums are uniform and independent of each other.
//!
//! So two flows of an attacker's choice share bucket or tag no more often than two random ones (plus 2^-64), whatever
//! addresses and ports they have: to fill one bucket pair takes as many flows as with random traffic. The hash key is
//! drawn by the kernel for each table and no value derived from it ever leaves the machine.

use super::key::Family;

/// Random words that key the hash.
pub(super) const KEY_WORDS: usize = 12;

/// The hash of a key in one table: where it may stand, and its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(u64);

impl KeyHash {
    /// Sixteen bits that tell most of the keys of a bucket apart. Bits that decide on the bucket only above 2^24 buckets.
    #[inline]
    pub(super) fn tag(self) -> u16 {
        ((self.0 >> 24) as u16 & 0xff00) | (self.0 as u16 & 0xff)
    }

    /// The two buckets of the key, out of `buckets` ones. They differ if there is more than one.
    #[inline]
    pub(super) fn buckets(self, buckets: u32) -> [usize; 2] {
        let reduce = |half: u64, range: u32| ((half * u64::from(range)) >> 32) as u32;
        let first = reduce(self.0 >> 32, buckets);
        // Out of the others, so that no key has half the room.
        let other = reduce(self.0 & 0xffff_ffff, buckets.saturating_sub(1));
        let second = if other >= first && buckets > 1 { other + 1 } else { other };
        [first as usize, second as usize]
    }
}

/// The hash function of one table: 12 random words.
#[derive(Clone, Copy)]
pub(super) struct Hasher {
    nh: [u64; 6],
    low: u128,
    high: u128,
    add: u128,
}

impl Hasher {
    /// The function of a hash key.
    pub(super) fn new(key: [u64; KEY_WORDS]) -> Self {
        let [a, b, c, d, e, f, words @ ..] = key;
        let [g, h, i, j, k, l] = words;
        let wide = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
        Self { nh: [a, b, c, d, e, f], low: wide(g, h), high: wide(i, j), add: wide(k, l) }
    }

    /// Hashes a packed key of 2 or 5 words (an odd last word is paired with zero).
    #[inline]
    pub(super) fn hash<F: Family>(&self, words: &F::Words) -> KeyHash {
        let words = words.as_ref();
        let mut sum = 0u128;
        for pair in 0..F::WORDS.div_ceil(2) {
            let left = words[2 * pair].wrapping_add(self.nh[2 * pair]);
            let right = words.get(2 * pair + 1).copied().unwrap_or(0).wrapping_add(self.nh[2 * pair + 1]);
            sum = sum.wrapping_add(u128::from(left) * u128::from(right));
        }
        let low = self.low.wrapping_mul(u128::from(sum as u64));
        let high = self.high.wrapping_mul(u128::from((sum >> 64) as u64));
        KeyHash((low.wrapping_add(high).wrapping_add(self.add) >> 64) as u64)
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(secret)")
    }
}
