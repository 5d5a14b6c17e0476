//! Which caches hold which VIP: the memory of `lblc` and `lblcr`, of a fixed size and shared by all workers without
//! locks.
//!
//! An entry is known by 31 bits of a hash. Should two VIPs of one bucket share them, or should one take the other's
//! entry while it is read, a packet goes to a cache that another VIP has: it loses locality and nothing else.

use std::hash::Hasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use siphasher::sip::SipHasher13;

use crate::clock::Tick;
use crate::service::{Destination, DestinationSlot};

/// Buckets, as in IPVS.
const BUCKETS: usize = 1024;
/// Entries of a bucket: IPVS allows 16 for each on average.
const WAYS: usize = 16;
/// Destinations that one VIP can have.
const MEMBERS: usize = 14;
/// Minutes without a packet after which an entry is forgotten, and after which a set that did not change loses its most
/// loaded member: 24 hours, IPVS's `lblc_expiration` and `lblcr_expiration`.
const EXPIRATION: u16 = 24 * 60;

/// VIPs with their caches.
#[derive(Debug)]
pub struct Affinity {
    entries: Box<[Entry]>,
}

/// One VIP's caches: a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Entry {
    /// Tag (bits 0–31, bit 0 always set), minute of the last packet (32–47) and of the last change of the set (48–63);
    /// 0 while the entry is free.
    head: AtomicU64,
    /// Slots plus one, in the order in which they joined; 0 is nobody.
    members: [AtomicU32; MEMBERS],
}

impl Default for Affinity {
    fn default() -> Self {
        Self { entries: (0..BUCKETS * WAYS).map(|_| Entry::default()).collect() }
    }
}

impl Affinity {
    /// The caches of `vip`, if they are known; a packet has just come for it.
    pub(super) fn touch(&self, vip: IpAddr, now: Tick) -> Option<&Entry> {
        let (bucket, tag) = self.place(vip);
        let now = minute(now);
        bucket.iter().find(|entry| {
            let head = entry.head.load(Ordering::Relaxed);
            if head as u32 != tag || Head(head).idle(now) > EXPIRATION {
                return false;
            }
            let used = Head(head).used_at(now).0;
            if used != head {
                // Who else writes it has a packet of this minute, or takes the entry.
                _ = entry.head.compare_exchange(head, used, Ordering::Relaxed, Ordering::Relaxed);
            }
            true
        })
    }

    /// Makes `destination` the one cache of `vip`, in place of what was known or of the VIP that had no packet for longest.
    pub(super) fn assign(&self, vip: IpAddr, destination: DestinationSlot, now: Tick) {
        let (bucket, tag) = self.place(vip);
        let now = minute(now);
        let age = |entry: &&Entry| {
            let head = entry.head.load(Ordering::Relaxed);
            if head as u32 == tag {
                return u32::MAX;
            }
            if head == 0 { u32::MAX - 1 } else { u32::from(Head(head).idle(now)) }
        };
        let Some(entry) = bucket.iter().max_by_key(age) else { return };
        entry.head.store(Head::new(tag, now).0, Ordering::Relaxed);
        for (at, member) in entry.members.iter().enumerate() {
            member.store(if at == 0 { destination.0 + 1 } else { 0 }, Ordering::Relaxed);
        }
    }

    fn place(&self, vip: IpAddr) -> (&[Entry], u32) {
        let mut hasher = SipHasher13::new();
        match vip {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        let hash = hasher.finish();
        let first = (hash as usize % BUCKETS) * WAYS;
        (self.entries.get(first..first + WAYS).unwrap_or_default(), (hash >> 32) as u32 | 1)
    }
}

impl Entry {
    /// The caches that are still destinations of the service, the one that joined last first.
    pub(super) fn members<'d>(&self, destinations: &'d [Destination]) -> impl Iterator<Item = &'d Destination> {
        let slots = self.members.iter().rev().map(|member| member.load(Ordering::Relaxed));
        slots.filter_map(|slot| destinations.iter().find(|d| slot != 0 && d.slot.0 + 1 == slot))
    }

    /// Whether the set has not changed for so long that it is time to let one go.
    pub(super) fn is_stale(&self, now: Tick) -> bool {
        Head(self.head.load(Ordering::Relaxed)).unchanged(minute(now)) > EXPIRATION
    }

    /// Adds a cache; a full set stays as it is.
    pub(super) fn join(&self, destination: DestinationSlot, now: Tick) {
        let slot = destination.0 + 1;
        if self.members.iter().any(|member| member.load(Ordering::Relaxed) == slot) {
            return;
        }
        let free = |member: &&AtomicU32| member.compare_exchange(0, slot, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if self.members.iter().find(free).is_some() {
            self.changed(now);
        }
    }

    /// Removes a cache.
    pub(super) fn leave(&self, destination: DestinationSlot, now: Tick) {
        for member in &self.members {
            if member.compare_exchange(destination.0 + 1, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                self.changed(now);
            }
        }
    }

    fn changed(&self, now: Tick) {
        let head = self.head.load(Ordering::Relaxed);
        let changed = Head(head).changed_at(minute(now)).0;
        _ = self.head.compare_exchange(head, changed, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// An entry's first word.
#[derive(Clone, Copy)]
struct Head(u64);

impl Head {
    fn new(tag: u32, now: u16) -> Self {
        Self(u64::from(now) << 48 | u64::from(now) << 32 | u64::from(tag))
    }

    fn used_at(self, now: u16) -> Self {
        Self(self.0 & !(0xffff << 32) | u64::from(now) << 32)
    }

    fn changed_at(self, now: u16) -> Self {
        Self(self.0 & !(0xffff << 48) | u64::from(now) << 48)
    }

    fn idle(self, now: u16) -> u16 {
        now.wrapping_sub((self.0 >> 32) as u16)
    }

    fn unchanged(self, now: u16) -> u16 {
        now.wrapping_sub((self.0 >> 48) as u16)
    }
}

/// Minutes on the coarse clock, modulo 45 days.
fn minute(now: Tick) -> u16 {
    (now.raw() / (60 * Tick::PER_SECOND)) as u16
}
