//! The worker: takes bursts from its ports, finds each packet's flow, forwards it.
//!
//! A burst goes through passes, so that the memory latency of one packet hides behind the others: parse and hash all,
//! prefetch, look up all, act on all. Nothing here locks, allocates, logs or calls the system (but for the rings).

mod admit;
mod anew;
mod board;
mod carry;
mod clamp;
mod egress;
mod error;
mod extended;
mod farewell;
mod fast;
mod fragment;
mod ftp;
mod fullnat;
mod gate;
mod held;
mod idle;
mod introduce;
mod limiter;
mod limits;
mod lot;
mod mixed;
mod opening;
mod pass;
mod path;
mod persistence;
mod renumber;
mod reply;
mod sctp;
mod segment;
mod syn_proxy;
mod tunnel;
mod tunnel_error;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;

pub use board::Board;
pub use idle::{Idle, Patience};

use crate::clock::{TICK, Tick};
use crate::counters::{Drop, Event, WorkerCounters};
use crate::flow::{Ended, Family, FlowTable, FlowWorker, V4, V6, flag};
use crate::ident::{PortIndex, WorkerIndex};
use crate::port::{Burst, Frame, Ports};
use crate::service::DestinationSlot;
use crate::snapshot::Snapshot;
use crate::state::Activity;
use crate::syn_proxy::cookie::{Cookies, Secret};
use crate::watch::Watch;
use crate::wire::Headers;
use farewell::Farewells;
use fragment::{Early, FragmentTable};
use held::Held;
use limiter::Limiter;
use syn_proxy::Handshakes;
use watch::Watcher;

/// Entries that a worker looks at for expiry in one turn, at least, if so many are in use for each turn of a second. At a
/// million turns a second ten million are gone through in less than a second.
const SWEEP_LEAST: u32 = 16;
/// Entries for each millisecond since the last sweep: a worker that sleeps passes a hundred thousand a second too.
const SWEEP_RATE: u32 = 100;
/// Entries at most, a tenth of a second's, so that no turn takes long.
const SWEEP_MOST: u32 = 10_000;

/// Packets of clients that one worker keeps until their servers have answered, at most.
const FIRST_DATA: u32 = 256;
/// The purpose of the key that cookies are made with.
const COOKIES: u8 = 1;

/// What all workers of a director share, and control with them.
#[derive(Debug)]
pub struct Shared {
    /// What control decided last.
    pub snapshot: ArcSwap<Snapshot>,
    /// IPv4 flows.
    pub flows4: FlowTable<V4>,
    /// IPv6 flows.
    pub flows6: FlowTable<V6>,
    /// What each worker shows of itself, by index.
    pub boards: Box<[Board]>,
    /// Addresses whose Ethernet address a worker missed, for control to resolve.
    pub wanted: ArrayQueue<std::net::IpAddr>,
    fragments: FragmentTable,
    /// What SYN cookies are made with: kept with the flow table, so it outlives the process.
    cookie_secret: Secret,
    /// Whether there was a flow between the families since the start, or before it.
    mixed: AtomicBool,
}

impl Shared {
    /// Shared state for `workers` workers with `ports` ports each.
    pub fn new(
        snapshot: Arc<Snapshot>,
        flows4: FlowTable<V4>,
        flows6: FlowTable<V6>,
        workers: usize,
        ports: usize,
    ) -> Self {
        let cookie_secret = Secret(flows4.derive_key(COOKIES));
        Self {
            snapshot: ArcSwap::new(snapshot),
            flows4,
            flows6,
            boards: (0..workers).map(|_| Board::new(ports)).collect(),
            wanted: ArrayQueue::new(1024),
            fragments: FragmentTable::new(),
            cookie_secret,
            mixed: AtomicBool::new(false),
        }
    }

    /// Counts every live flow into its destination's active and inactive connections: once, before workers start,
    /// when the tables were reopened.
    pub fn recount(&self) {
        /// In the name of this worker, which does not run yet.
        const FIRST: WorkerIndex = WorkerIndex(0);
        let snapshot = self.snapshot.load();
        let services = &snapshot.services;
        let count = |slot: u32, state: Activity| {
            if let Some(counts) = services.counts(DestinationSlot(slot)) {
                counts.begin(state);
            }
        };
        self.flows4.for_each(|entry| {
            if entry.rule().is_none() {
                count(entry.destination(), path::activity(entry));
                fullnat::count(services, entry, FIRST);
            }
        });
        self.flows6.for_each(|entry| {
            if entry.rule().is_none() {
                count(entry.destination(), path::activity(entry));
                fullnat::count(services, entry, FIRST);
            }
            if entry.state().flags() & flag::MIXED != 0 {
                self.mixed.store(true, Ordering::Relaxed);
            }
        });
    }
}

/// One worker: its ports, its part in the flow tables, and the snapshot that it forwards by.
#[derive(Debug)]
pub struct Worker<P> {
    index: WorkerIndex,
    shared: Arc<Shared>,
    // Control keeps every snapshot until no worker has it, so that dropping this one never frees memory here.
    snapshot: Arc<Snapshot>,
    /// When the last turn began.
    last: Duration,
    /// When the last turn that swept began.
    swept: Duration,
    hands: Hands<P>,
}

/// What a worker changes while it handles packets.
#[derive(Debug)]
struct Hands<P> {
    ports: P,
    flows4: FlowWorker<V4>,
    flows6: FlowWorker<V6>,
    replies: Limiter,
    kernel: Limiter,
    /// Fragments that came before their first.
    early: Early,
    /// When the turn began, since boot.
    clock: Duration,
    cookies: Cookies,
    /// Handshakes with servers that this worker began.
    handshakes: Handshakes,
    /// What clients sent before their servers answered.
    first_data: Held,
    watcher: Watcher,
    /// IPv4 identification of the next packet of our own.
    next_id: u16,
}

/// What a worker only reads while it handles a burst.
#[derive(Clone, Copy)]
struct Context<'a> {
    shared: &'a Shared,
    snapshot: &'a Snapshot,
    counters: &'a WorkerCounters,
    worker: WorkerIndex,
    now: Tick,
    /// As `now`, since boot.
    time: Duration,
}

impl<'a> Context<'a> {
    /// What is looked at, while somebody looks.
    #[inline]
    fn watch(self) -> Option<&'a Watch> {
        self.snapshot.watch.as_deref()
    }
}

/// A frame with what was read from its headers, and the port that it came from. Small, so that it is passed in
/// registers: copies of the headers from stage to stage cost more than most stages.
#[derive(Debug)]
struct Packet<'h> {
    frame: Frame,
    headers: &'h Headers,
    port: PortIndex,
}

impl<P: Ports> Worker<P> {
    /// A worker over its ports, or `None` when there is no place for `index` or another worker has it.
    pub fn new(index: WorkerIndex, shared: Arc<Shared>, ports: P, now: Duration) -> Option<Self> {
        shared.boards.get(index.0 as usize)?;
        let last = now;
        let now = Tick::at(now);
        let hands = Hands {
            ports,
            flows4: shared.flows4.register(index)?,
            flows6: shared.flows6.register(index)?,
            replies: Limiter::new(now),
            kernel: Limiter::new(now),
            early: Early::new(),
            clock: last,
            cookies: Cookies::new(shared.cookie_secret, now),
            handshakes: Handshakes::new(),
            first_data: Held::new(FIRST_DATA),
            watcher: Watcher::new(now),
            next_id: 0,
        };
        let snapshot = shared.snapshot.load_full();
        Some(Self { index, shared, snapshot, last, swept: last, hands })
    }

    /// One turn: a burst from every port, some expiry, a quiet point. Returns the number of frames taken.
    pub fn turn(&mut self, now: Duration) -> usize {
        let Some(board) = self.shared.boards.get(self.index.0 as usize) else { return 0 };
        board.beat(now);
        // Compared by address first: the common case costs one load and no reference count.
        let newest = self.shared.snapshot.load();
        if !Arc::ptr_eq(&newest, &self.snapshot) {
            self.snapshot = Arc::clone(&newest);
        }
        drop(newest);
        let context = Context {
            shared: &self.shared,
            snapshot: &self.snapshot,
            counters: &board.counters,
            worker: self.index,
            now: Tick::at(now),
            time: now,
        };
        self.hands.clock = now;
        let mut taken = 0;
        let mut burst = Burst::new();
        for port in 0..self.hands.ports.count() {
            let port = PortIndex(port as u8);
            self.hands.ports.receive(port, &mut burst);
            taken += burst.len();
            pass::burst(context, &mut self.hands, port, &mut burst);
        }
        if !self.hands.early.is_empty() {
            fragment::release(context, &mut self.hands);
        }
        syn_proxy::retry(context, &mut self.hands);
        if !self.hands.first_data.is_empty() {
            syn_proxy::release(context, &mut self.hands);
        }
        self.hands.ports.flush();
        let since = now.saturating_sub(self.swept);
        if is_worth_a_sweep(&self.shared.flows4, &self.hands.flows4, since)
            || is_worth_a_sweep(&self.shared.flows6, &self.hands.flows6, since)
        {
            self.swept = now;
            sweep(context, &mut self.hands, since);
        }
        self.shared.flows4.quiesce(&mut self.hands.flows4);
        self.shared.flows6.quiesce(&mut self.hands.flows6);
        self.last = now;
        taken
    }

    /// Whether packets wait in this worker's hands.
    const fn holds(&self) -> bool {
        !self.hands.early.is_empty() || !self.hands.first_data.is_empty()
    }

    /// Drops what waits: the worker is at its end.
    fn abandon_held(&mut self) {
        let Some(board) = self.shared.boards.get(self.index.0 as usize) else { return };
        let context = Context {
            shared: &self.shared,
            snapshot: &self.snapshot,
            counters: &board.counters,
            worker: self.index,
            now: Tick::at(self.last),
            time: self.last,
        };
        fragment::abandon(context, &mut self.hands);
        syn_proxy::abandon(context, &mut self.hands);
    }

    /// The ports, for a test or a replay to fill and empty.
    pub fn ports_mut(&mut self) -> &mut P {
        &mut self.hands.ports
    }
}

/// Of so many entries in use, those that have their turn in this time, if all have it in a second.
fn share(since: Duration, used: u32) -> u32 {
    let share = (since.as_micros() as u64).saturating_mul(u64::from(used)) / 1_000_000;
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// Whether to sweep a table when the last sweep was so long ago: a tick, or less where there is much to look at or room is
/// needed. A worker that wakes for each packet need not look at a few flows each time.
fn is_worth_a_sweep<F: Family>(table: &FlowTable<F>, part: &FlowWorker<F>, since: Duration) -> bool {
    since >= TICK || share(since, table.used()) >= SWEEP_LEAST || table.shortage(part) > 0
}

/// Entries to sweep, of so many that are in use, when the last sweep was so long ago: as many as go through them in a
/// second, if that is not more than a turn may do.
fn budget(since: Duration, used: u32) -> u32 {
    let rate = u32::try_from(since.as_millis()).unwrap_or(u32::MAX).saturating_mul(SWEEP_RATE);
    rate.clamp(SWEEP_LEAST, SWEEP_MOST).min(share(since, used).saturating_add(1))
}

/// Ends some flows whose time is up. The last sweep was `since` ago.
fn sweep<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, since: Duration) {
    let shared = context.shared;
    let ended = |slot: u32, activity: Activity, why: Ended| {
        if let Some(counts) = context.snapshot.services.counts(DestinationSlot(slot)) {
            counts.end(activity);
        }
        context
            .counters
            .event(match why {
                Ended::Expired => Event::FlowExpired,
                Ended::Evicted => Event::FlowEvicted,
            })
            .add(1);
    };
    let mut farewells = Farewells::new();
    shared.flows4.sweep(&mut hands.flows4, context.now, budget(since, shared.flows4.used()), |entry, why| {
        if persistence::is_rule_ended(context, entry) {
            return;
        }
        farewell::note(context, entry, why, &mut farewells);
        fullnat::release(context, entry);
        ended(entry.destination(), path::activity(entry), why);
    });
    shared.flows6.sweep(&mut hands.flows6, context.now, budget(since, shared.flows6.used()), |entry, why| {
        if persistence::is_rule_ended(context, entry) {
            return;
        }
        farewell::note(context, entry, why, &mut farewells);
        fullnat::release(context, entry);
        ended(entry.destination(), path::activity(entry), why);
    });
    if !farewells.is_empty() {
        farewell::send(context, hands, &farewells);
        hands.ports.flush();
    }
}

impl<P: Ports> Hands<P> {
    /// Counts a drop and gives the frame back.
    #[cold]
    #[inline(never)]
    fn discard(&mut self, context: Context<'_>, frame: Frame, reason: Drop) {
        context.counters.drop(reason).add(1);
        if self.watcher.is_on {
            watch::dropped(context, self, &frame, reason);
        }
        self.ports.free(frame);
    }
}
