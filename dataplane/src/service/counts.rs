//! What outlives a snapshot: connection counts of a destination, and what the scheduler of a service remembers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::limits::Begun;
use super::thresholds::Thresholds;
use crate::counters::{Counter, Traffic};
use crate::flow::Direction;
use crate::ident::{Weight, WorkerIndex};
use crate::sched::{Affinity, SchedulerKind};
use crate::syn_proxy::offer::{LastHandshake, Offer};

/// Connections of a destination, as `ipvsadm -L` shows them. Only the winner of a flow's state transition moves them.
#[derive(Debug)]
#[repr(align(64))]
pub struct DestinationCounts {
    /// A [`Flows`]: schedulers read both at once, and a flow that changes sides is one addition.
    flows: AtomicU64,
    last_weight: AtomicU32,
    /// The options of the server's last handshake with the SYN proxy.
    pub handshake: LastHandshake,
    upper: AtomicU32,
    lower: AtomicU32,
    is_overloaded: AtomicBool,
    traffic: Box<[FlowTraffic]>,
}

/// What flows of a destination carried, as one worker saw it: a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct FlowTraffic {
    /// Flows begun.
    pub connections: Counter,
    /// Client to server: frames, and bytes from the IP header on, as IPVS counts.
    pub inbound: Traffic,
    /// Server to client.
    pub outbound: Traffic,
}

impl DestinationCounts {
    /// Zeroed counts for a director with `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            flows: AtomicU64::new(0),
            last_weight: AtomicU32::new(0),
            handshake: LastHandshake::default(),
            upper: AtomicU32::new(0),
            lower: AtomicU32::new(0),
            is_overloaded: AtomicBool::new(false),
            traffic: (0..workers).map(|_| FlowTraffic::default()).collect(),
        }
    }

    /// The traffic counters of each worker, by index.
    #[inline]
    pub fn traffic(&self) -> &[FlowTraffic] {
        &self.traffic
    }

    /// Counts a packet of so many bytes, from the IP header on, that a worker carried: of a client, or of the server.
    #[inline]
    pub fn carried(&self, worker: WorkerIndex, direction: Direction, bytes: usize) {
        if let Some(traffic) = self.traffic.get(worker.0 as usize) {
            match direction {
                Direction::Forward => traffic.inbound.count(bytes),
                Direction::Reverse => traffic.outbound.count(bytes),
            }
        }
    }

    /// Flows that are established or on the way to it.
    pub fn active(&self) -> u32 {
        self.flows().active().max(0).cast_unsigned()
    }

    /// Flows in any other state.
    pub fn inactive(&self) -> u32 {
        self.flows().inactive().max(0).cast_unsigned()
    }

    /// What schedulers that look at connections see: an active one counts 256, an inactive one 1, as in IPVS.
    #[inline]
    pub fn load(&self) -> u64 {
        let flows = self.flows();
        ((i64::from(flows.active()) << 8) + i64::from(flows.inactive())).max(0).cast_unsigned()
    }

    /// Whether no flow refers to the destination.
    pub fn is_idle(&self) -> bool {
        self.flows() == Flows(0)
    }

    /// A flow begins, counted as `active` or inactive.
    #[inline]
    pub fn begin(&self, activity: Activity) {
        let before = Flows(self.flows.fetch_add(one(activity), Ordering::Relaxed));
        if self.thresholds().is_over(before.all().saturating_add(1)) {
            self.is_overloaded.store(true, Ordering::Relaxed);
        }
    }

    /// A flow ends that was counted under `activity`.
    pub fn end(&self, activity: Activity) {
        self.flows.fetch_sub(one(activity), Ordering::Relaxed);
        if self.is_overloaded() && self.thresholds().is_relieved(self.all()) {
            self.is_overloaded.store(false, Ordering::Relaxed);
        }
    }

    /// A flow changes from one count to the other.
    pub fn shift(&self, from: Activity, to: Activity) {
        if from != to {
            self.flows.fetch_add(one(to).wrapping_sub(one(from)), Ordering::Relaxed);
        }
    }

    /// The last weight above zero, `now` included: `mh` leaves a drained destination its places by it.
    pub fn last_weight(&self, now: Weight) -> Weight {
        if now > Weight::ZERO {
            self.last_weight.store(now.value(), Ordering::Relaxed);
            return now;
        }
        Weight::new(self.last_weight.load(Ordering::Relaxed)).unwrap_or(now)
    }

    /// Sets the bounds. Where the upper one is raised or taken away, the destination is overloaded no longer, until
    /// the next flow tells.
    pub fn limit(&self, thresholds: Thresholds) {
        let before = self.upper.swap(thresholds.upper, Ordering::Relaxed);
        self.lower.store(thresholds.lower, Ordering::Relaxed);
        if thresholds.upper == 0 || thresholds.upper > before {
            self.is_overloaded.store(false, Ordering::Relaxed);
        }
    }

    /// Whether the destination has reached its upper bound and is not below the lower one again.
    #[inline]
    pub fn is_overloaded(&self) -> bool {
        self.is_overloaded.load(Ordering::Relaxed)
    }

    /// Active and inactive flows.
    pub fn all(&self) -> u32 {
        self.flows().all()
    }

    fn thresholds(&self) -> Thresholds {
        Thresholds { upper: self.upper.load(Ordering::Relaxed), lower: self.lower.load(Ordering::Relaxed) }
    }

    #[inline]
    fn flows(&self) -> Flows {
        Flows(self.flows.load(Ordering::Relaxed))
    }
}

/// Active flows above inactive ones, in one sum. Either may be below zero for a moment: of two workers that move a flow
/// one after the other, the second may come to count first. Inactive ones below zero borrow of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Flows(u64);

impl Flows {
    #[inline]
    fn active(self) -> i32 {
        let inactive = i64::from(self.inactive());
        (self.0.wrapping_sub(inactive.cast_unsigned()) >> 32) as i32
    }

    #[inline]
    const fn inactive(self) -> i32 {
        self.0 as i32
    }

    #[inline]
    fn all(self) -> u32 {
        let [active, inactive] = [self.active(), self.inactive()].map(|count| count.max(0).cast_unsigned());
        active.saturating_add(inactive)
    }
}

/// One flow in a [`Flows`].
#[inline]
const fn one(activity: Activity) -> u64 {
    match activity {
        Activity::Active => 1 << 32,
        Activity::Inactive => 1,
    }
}

/// Which count a flow stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// ESTABLISHED, or on the way to it.
    Active,
    /// Everything else.
    Inactive,
}

/// What the scheduler of a service remembers, shared by all workers.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServiceState {
    /// What it means is the scheduler's business.
    pub cursor: AtomicU64,
    /// What clients of a proxied service are told.
    pub offer: Offer,
    begun: Begun,
    affinity: OnceLock<Affinity>,
}

impl ServiceState {
    /// Makes room for what a scheduler of this kind remembers: control does, so that no worker has to.
    pub fn prepare(&self, kind: SchedulerKind) {
        if kind.has_affinity() {
            self.affinity.get_or_init(Affinity::default);
        }
    }

    /// Flows begun in the present second, where the service has a limit on them.
    pub(crate) fn begun(&self) -> &Begun {
        &self.begun
    }

    /// Which destination had which VIP, once [`ServiceState::prepare`] made room for it.
    #[inline]
    pub fn affinity(&self) -> Option<&Affinity> {
        self.affinity.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_come_in_another_order_are_right_in_the_end() {
        let counts = DestinationCounts::new(1);
        let read = || (counts.active(), counts.inactive(), counts.all(), counts.load());
        counts.end(Activity::Inactive);
        assert_eq!(read(), (0, 0, 0, 0));
        counts.begin(Activity::Active);
        assert_eq!(read(), (1, 0, 1, 255));
        counts.shift(Activity::Active, Activity::Inactive);
        assert_eq!(read(), (0, 0, 0, 0));
        assert!(counts.is_idle());
        counts.shift(Activity::Inactive, Activity::Active);
        counts.shift(Activity::Inactive, Activity::Active);
        assert_eq!(read(), (2, 0, 2, 510));
        counts.begin(Activity::Inactive);
        counts.begin(Activity::Inactive);
        counts.begin(Activity::Inactive);
        assert_eq!(read(), (2, 1, 3, 513));
    }

    #[test]
    fn a_destination_is_overloaded_from_the_upper_bound_to_below_the_lower() {
        let counts = DestinationCounts::new(1);
        counts.limit(Thresholds { upper: 3, lower: 2 });
        counts.begin(Activity::Active);
        counts.begin(Activity::Inactive);
        assert!(!counts.is_overloaded());
        counts.begin(Activity::Active);
        assert!(counts.is_overloaded());
        counts.shift(Activity::Active, Activity::Inactive);
        counts.end(Activity::Inactive);
        assert!(counts.is_overloaded(), "at the lower bound");
        counts.end(Activity::Inactive);
        assert!(!counts.is_overloaded());
        counts.begin(Activity::Active);
        counts.begin(Activity::Active);
        assert!(counts.is_overloaded());
        counts.limit(Thresholds { upper: 3, lower: 2 });
        assert!(counts.is_overloaded(), "nothing was changed");
        counts.limit(Thresholds { upper: 4, lower: 2 });
        assert!(!counts.is_overloaded(), "raised");
    }
}
