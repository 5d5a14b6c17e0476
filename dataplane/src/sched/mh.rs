//! `mh`: Maglev hashing of the client's address (`ip_vs_mh`; Eisenbud et al., NSDI 2016).
//!
//! The table, its size (4093) and its keyed SipHash-1-3 are those of IPVS, so that a mixed pair of directors agrees.
//! A destination that is drained keeps its places; what it loses by leaving is spread over the others.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::hash_flags::{Fallback, HashFlags};
use super::{fold, gcd};
use crate::ident::Endpoint;
use crate::service::Destination;

/// Places in the lookup table: IPVS's default, a prime.
const PLACES: u32 = 4093;
/// Weights are scaled down to at most this many bits of turns.
const TURN_BITS: u32 = 6;
/// Keys of the two hashes, each used for both halves.
const OFFSET_KEY: u64 = 2_654_435_761;
const SKIP_KEY: u64 = 2_654_446_892;

/// The filled table.
#[derive(Debug)]
pub struct Lookup {
    flags: HashFlags,
    // Positions in the destination list; empty when no destination has a weight.
    places: Vec<u32>,
}

impl Lookup {
    pub(super) fn new(destinations: &[Destination], flags: HashFlags) -> Self {
        Self { flags, places: fill(destinations) }
    }

    pub(super) const fn flags(&self) -> HashFlags {
        self.flags
    }

    pub(super) fn pick<'d>(&self, destinations: &'d [Destination], client: Endpoint) -> Option<&'d Destination> {
        let client = self.flags.hashed(client);
        let first = hash(client, OFFSET_KEY, 0) % PLACES;
        let found = self.at(destinations, first);
        match self.flags.fallback {
            Fallback::Refuse => found.filter(|d| d.takes_flows()),
            Fallback::Walk => found.filter(|d| d.takes_flows()).or_else(|| self.walk(destinations, client, first)),
        }
    }

    fn walk<'d>(&self, destinations: &'d [Destination], client: Endpoint, first: u32) -> Option<&'d Destination> {
        (0..PLACES)
            .map(|step| hash(client, OFFSET_KEY, (step + first) % PLACES) % PLACES)
            .filter_map(|place| self.at(destinations, place))
            .find(|d| d.takes_flows())
    }

    fn at<'d>(&self, destinations: &'d [Destination], place: u32) -> Option<&'d Destination> {
        destinations.get(*self.places.get(place as usize)? as usize)
    }
}

/// One destination's walk through the table.
struct Permutation {
    next: u32,
    skip: u32,
    turns: u32,
}

/// Fills the table: destinations in turn, each for as many places as its weight gives it turns.
fn fill(destinations: &[Destination]) -> Vec<u32> {
    let mut walks = permutations(destinations);
    if walks.iter().all(|w| w.turns == 0) {
        return Vec::new();
    }
    let mut places = vec![None; PLACES as usize];
    let mut left = PLACES;
    while left > 0 {
        for (at, walk) in walks.iter_mut().enumerate() {
            for _ in 0..walk.turns.min(left) {
                // PLACES is prime, so a walk meets every place before it repeats: a free one is found.
                while places[walk.next as usize].is_some() {
                    walk.next = (walk.next + walk.skip) % PLACES;
                }
                places[walk.next as usize] = Some(at as u32);
                left -= 1;
            }
        }
    }
    places.into_iter().flatten().collect()
}

fn permutations(destinations: &[Destination]) -> Vec<Permutation> {
    let kept = |d: &Destination| d.counts.last_weight(d.weight).value();
    let unit = destinations.iter().map(kept).fold(0, gcd).max(1);
    let heaviest = destinations.iter().map(kept).max().unwrap_or(0) / unit;
    let shift = (u32::BITS - heaviest.leading_zeros()).saturating_sub(TURN_BITS);
    let walk = |d: &Destination| Permutation {
        next: hash(d.at, OFFSET_KEY, 0) % PLACES,
        skip: hash(d.at, SKIP_KEY, 0) % (PLACES - 1) + 1,
        turns: ((kept(d) / unit) >> shift).max(u32::from(kept(d) > 0)),
    };
    destinations.iter().map(walk).collect()
}

/// SipHash-1-3 of the folded address plus port plus offset, as the kernel's `hsiphash` of one word on 64 bits.
fn hash(of: Endpoint, key: u64, offset: u32) -> u32 {
    let word = offset.wrapping_add(u32::from(of.port.host())).wrapping_add(fold(of.address));
    let mut hasher = SipHasher13::new_with_keys(key, key);
    hasher.write(&word.to_le_bytes());
    hasher.finish() as u32
}
