//! The keyed hash of the flow table, which nobody can aim without the key.
//!
//! A packed key goes through NH (the universal hash of UMAC, RFC 4418 5.2, with 64-bit words): the sum of
//! `(w[2i] + k[2i]) * (w[2i+1] + k[2i+1])` modulo 2^128. For any two different keys that are chosen without knowledge
//! of the hash key, the sums are equal with a probability of at most 2^-64. The 128 bits are then folded to 64 by
//! `(a * low + b * high + c mod 2^128) >> 64` with random 128-bit `a`, `b`, `c`, a strongly universal function
//! (Dietzfelbinger's multiply-shift): the hashes of two different sums are uniform and independent of each other.
//!
//! A fixed bijection (the finaliser of `MurmurHash3`, public domain) then breaks up what is linear in it: without, one
//! hash key in a hundred puts a client's successive ports into few buckets. A bijection keeps the bounds.
//!
//! So any two flows of an attacker's choice share bucket or tag no more often than two random ones (plus 2^-64),
//! whatever addresses and ports they have. The hash key is drawn by the kernel for each table and no value derived
//! from it ever leaves the machine, but by way of `SipHash` (the SYN proxy's cookies, initial sequence numbers).

use siphasher::sip::SipHasher24;

use super::key::Family;

/// Random words that key the hash.
pub(super) const KEY_WORDS: usize = 12;

/// The hash of a key in one table: where it may stand, and its tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyHash(u64);

impl KeyHash {
    /// Sixteen bits that tell most of the keys of a bucket apart. Bits that decide on the bucket only above 2^24 buckets.
    #[inline]
    pub(super) fn tag(self) -> u16 {
        ((self.0 >> 24) as u16 & 0xff00) | (self.0 as u16 & 0xff)
    }

    /// The upper 56 bits of it.
    #[inline]
    pub(super) fn seven_bytes(self) -> u64 {
        self.0 >> 8
    }

    /// The two buckets of the key, out of `buckets` ones, at least two. They differ.
    #[inline]
    pub(super) fn buckets(self, buckets: u32) -> [usize; 2] {
        let reduce = |half: u64, range: u32| ((half * u64::from(range)) >> 32) as u32;
        let first = reduce(self.0 >> 32, buckets);
        // Out of the others, so that no key has half the room.
        let other = reduce(self.0 & 0xffff_ffff, buckets.wrapping_sub(1));
        [first as usize, (other + u32::from(other >= first)) as usize]
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
        let [.., low, low_upper, high, high_upper, add, add_upper] = key;
        let wide = |lower: u64, upper: u64| u128::from(lower) | u128::from(upper) << 64;
        Self {
            nh: std::array::from_fn(|i| key[i]),
            low: wide(low, low_upper),
            high: wide(high, high_upper),
            add: wide(add, add_upper),
        }
    }

    /// Two words that say nothing of this key: a `SipHash-2-4` under a part of it.
    pub(super) fn derive(&self, purpose: u8) -> [u64; 2] {
        let hasher = SipHasher24::new_with_keys(self.nh[0], self.nh[1]);
        [hasher.hash(&[purpose, 0]), hasher.hash(&[purpose, 1])]
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
        KeyHash(scatter((low.wrapping_add(high).wrapping_add(self.add) >> 64) as u64))
    }
}

#[inline]
fn scatter(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher(secret)")
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::super::key::{V4, V6};
    use super::*;

    /// NH and the fold, scattered, as the module's doc writes them, over any number of words.
    fn plainly(key: [u64; KEY_WORDS], words: &[u64]) -> u64 {
        let mut sum = 0u128;
        for (pair, keys) in words.chunks(2).zip(key.chunks(2)) {
            let right = pair.get(1).copied().unwrap_or(0);
            let product = u128::from(pair[0].wrapping_add(keys[0])) * u128::from(right.wrapping_add(keys[1]));
            sum = sum.wrapping_add(product);
        }
        let wide = |i: usize| u128::from(key[i + 1]) << 64 | u128::from(key[i]);
        let (low, high) = (sum & u128::from(u64::MAX), sum >> 64);
        let folded = wide(6).wrapping_mul(low).wrapping_add(wide(8).wrapping_mul(high)).wrapping_add(wide(10));
        scatter((folded >> 64) as u64)
    }

    fn key(seed: u64) -> [u64; KEY_WORDS] {
        let mut state = seed | 1;
        std::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        })
    }

    proptest! {
        #[test]
        fn it_is_the_function_of_the_doc(key: [u64; KEY_WORDS], words: [u64; 5]) {
            let hasher = Hasher::new(key);
            prop_assert_eq!(hasher.hash::<V6>(&words).0, plainly(key, &words));
            prop_assert_eq!(hasher.hash::<V4>(&[words[0], words[1]]).0, plainly(key, &words[..2]));
        }

        #[test]
        fn buckets_are_in_range_and_differ(hash: u64, buckets in 2u32..) {
            let [first, second] = KeyHash(hash).buckets(buckets);
            prop_assert!(first < buckets as usize && second < buckets as usize && first != second);
        }

        /// Keys that differ in one bit, or by a pattern of an attacker's choice, collide no more than random ones do.
        #[test]
        fn patterns_spread_like_random_keys(seed: u64, base: [u64; 2], step in 1u64..) {
            const KEYS: u64 = 4096;
            const BUCKETS: usize = 512;
            let hasher = Hasher::new(key(seed));
            let mut load = [0u32; BUCKETS];
            for n in 0..KEYS {
                let words = [base[0].wrapping_add(n.wrapping_mul(step)), base[1]];
                load[hasher.hash::<V4>(&words).buckets(BUCKETS as u32)[0]] += 1;
            }
            // Eight each on average; random keys reach 28 in one of 10^5 such tables.
            prop_assert!(load.iter().all(|n| *n < 40), "{:?}", load.iter().max());
        }
    }

    #[test]
    fn collisions_of_two_fixed_keys_over_many_hash_keys_are_as_rare_as_promised() {
        const BUCKETS: u32 = 64;
        const DRAWS: u32 = 20_000;
        let (a, b) = ([1, 2], [1, 3]);
        let mut same = [0u32; 3];
        for draw in 0..DRAWS {
            let hasher = Hasher::new(key(u64::from(draw).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let (a, b) = (hasher.hash::<V4>(&a), hasher.hash::<V4>(&b));
            same[0] += u32::from(a.buckets(BUCKETS)[0] == b.buckets(BUCKETS)[0]);
            same[1] += u32::from(a.buckets(BUCKETS)[1] == b.buckets(BUCKETS)[1]);
            same[2] += u32::from(a.tag() >> 8 == b.tag() >> 8);
        }
        let expected = [DRAWS / 64, DRAWS / 64, DRAWS / 256].map(f64::from);
        for (same, expected) in same.into_iter().zip(expected) {
            assert!((f64::from(same) - expected).abs() < 6.0 * expected.sqrt(), "{same} instead of {expected}");
        }
    }
}
