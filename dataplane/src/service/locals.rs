//! The local addresses of FULLNAT: what real servers see connections come from.
//!
//! One (local address, port) may serve many connections at a time, to different real servers: only the reverse key
//! has to be unique, and the flow table sees to that. So what is counted is of a *pair* of a local address and a real
//! server. Counts and cursors outlive snapshots; the list itself is as immutable as they are.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::counters::Counter;
use crate::ident::{Endpoint, Protocol, WorkerIndex};

/// The ports that connections may come from, the same for all local addresses; host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPorts {
    low: u16,
    high: u16,
}

impl LocalPorts {
    /// From the lowest to the highest; `None` if there is none, or with port 0.
    pub const fn new(low: u16, high: u16) -> Option<Self> {
        if low > 0 && low <= high { Some(Self { low, high }) } else { None }
    }

    /// The lowest and the highest.
    pub const fn range(self) -> RangeInclusive<u16> {
        self.low..=self.high
    }

    /// How many there are, at least one.
    pub const fn count(self) -> u32 {
        (self.high - self.low) as u32 + 1
    }

    /// The port at a place below [`LocalPorts::count`]; places beyond begin anew.
    pub const fn at(self, place: u32) -> u16 {
        self.low + below(place, self.count()) as u16
    }

    /// Whether a port is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.low <= port && port <= self.high
    }
}

impl Default for LocalPorts {
    /// 5000 to 65535, as in the FULLNAT patches of Alibaba.
    fn default() -> Self {
        Self { low: 5000, high: u16::MAX }
    }
}

/// What names a pair: transport, real server and local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    /// The transport; `None` for a service of all.
    pub protocol: Option<Protocol>,
    /// The real server's address and port, as its replies show them; port 0: any.
    pub server: Endpoint,
    /// The local address.
    pub local: IpAddr,
}

/// What is known of the connections from one local address to one real server. Clones count in the same cells.
#[derive(Clone, Debug)]
pub struct LocalPair {
    shares: Arc<[Share]>,
}

/// What one worker knows of a pair. Nobody else writes it, so it takes no locked instruction.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Share {
    /// Connections that the worker began and ended, modulo 2^32: often not the same ones.
    begun: AtomicU32,
    ended: AtomicU32,
    conflicts: Counter,
    /// Where the worker goes on to look for a port.
    cursor: AtomicU32,
    /// Connections that it may begin before it asks again how many there are.
    spare: AtomicU32,
}

impl LocalPair {
    /// Without connections, for a director with `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self { shares: (0..workers).map(|_| Share::default()).collect() }
    }

    /// Connections, at least as many as there were at some moment of this call, but for data of FTP that other workers just
    /// began: those are counted once they stand in the table.
    pub fn in_use(&self) -> u32 {
        // Whoever sees that a connection ended sees in the second reading that it began.
        let ended = self.sum(|share| share.ended.load(Ordering::Acquire));
        let begun = self.sum(|share| share.begun.load(Ordering::Acquire));
        // One that began before its pair was known may end.
        begun.wrapping_sub(ended).cast_signed().max(0).cast_unsigned()
    }

    /// Ports that were tried and found taken, since the pair is known.
    pub fn conflicts(&self) -> u64 {
        self.shares.iter().map(|share| share.conflicts.read()).sum()
    }

    /// A worker begins a connection.
    #[inline]
    pub fn begin(&self, worker: WorkerIndex) {
        if let Some(share) = self.share(worker) {
            raise(&share.begun);
        }
    }

    /// A worker ends a connection.
    #[inline]
    pub fn end(&self, worker: WorkerIndex) {
        if let Some(share) = self.share(worker) {
            raise(&share.ended);
        }
    }

    /// A worker tried a port and found it taken.
    pub fn conflict(&self, worker: WorkerIndex) {
        if let Some(share) = self.share(worker) {
            share.conflicts.add(1);
        }
    }

    /// Whether a worker that is about to begin a connection will find more than `reserve` of so many ports free, as far
    /// as is known: it asks what the others have in use when it has begun its part of what was free when it asked before.
    #[inline]
    pub fn has_room(&self, worker: WorkerIndex, ports: LocalPorts, reserve: u32) -> bool {
        let Some(share) = self.share(worker) else { return false };
        let spare = match share.spare.load(Ordering::Relaxed) {
            0 => self.part(ports, reserve),
            spare => spare,
        };
        share.spare.store(spare.saturating_sub(1), Ordering::Relaxed);
        spare > 0
    }

    /// A worker's part of the ports that are free beyond `reserve`.
    #[cold]
    fn part(&self, ports: LocalPorts, reserve: u32) -> u32 {
        let free = ports.count().saturating_sub(self.in_use()).saturating_sub(reserve);
        free.div_ceil(self.shares.len().max(1) as u32)
    }

    /// The place where a worker goes on to look for a port. Each worker has one of its own; one without gets zero.
    #[inline]
    pub fn cursor(&self, worker: WorkerIndex) -> u32 {
        self.share(worker).map_or(0, |share| share.cursor.load(Ordering::Relaxed))
    }

    /// Sets that place.
    #[inline]
    pub fn set_cursor(&self, worker: WorkerIndex, place: u32) {
        if let Some(share) = self.share(worker) {
            share.cursor.store(place, Ordering::Relaxed);
        }
    }

    /// Whether the other one counts in the same cells.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shares, &other.shares)
    }

    #[inline]
    fn share(&self, worker: WorkerIndex) -> Option<&Share> {
        self.shares.get(worker.0 as usize)
    }

    fn sum(&self, of: impl Fn(&Share) -> u32) -> u32 {
        self.shares.iter().map(of).fold(0, u32::wrapping_add)
    }
}

/// Adds one to a cell that nobody else writes.
#[inline]
fn raise(cell: &AtomicU32) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

/// A local address as one real server has it.
#[derive(Clone, Debug)]
pub struct Local {
    /// The address, of the real server's family.
    pub address: IpAddr,
    /// What is counted of the two.
    pub pair: LocalPair,
}

/// The local addresses that connections to one real server may come from.
#[derive(Debug)]
pub struct ServerLocals {
    /// Their ports.
    pub ports: LocalPorts,
    /// The addresses, at least one.
    pub list: Box<[Local]>,
    turns: Box<[Turn]>,
}

/// Which address's turn it is with one worker: a cache line that others leave alone.
#[derive(Debug)]
#[repr(align(64))]
struct Turn(AtomicU32);

impl ServerLocals {
    /// For a director with `workers` workers.
    pub fn new(ports: LocalPorts, list: Vec<Local>, workers: usize) -> Self {
        // Workers that start at one address each are rarely at the same.
        let turns = (0..workers).map(|worker| Turn(AtomicU32::new(below(worker as u32, list.len() as u32)))).collect();
        Self { ports, list: list.into(), turns }
    }

    /// The addresses from the one whose turn it is with this worker, each once. Then it is the next one's turn.
    pub fn in_turn(&self, worker: WorkerIndex) -> impl Iterator<Item = &Local> {
        let first = self.turn(worker);
        self.pass_turn(worker);
        self.list.iter().skip(first).chain(self.list.iter().take(first))
    }

    /// The address whose turn it is with this worker.
    #[inline]
    pub fn next(&self, worker: WorkerIndex) -> Option<&Local> {
        self.list.get(self.turn(worker))
    }

    /// Lets it be the next one's turn with this worker.
    #[inline]
    pub fn pass_turn(&self, worker: WorkerIndex) {
        if let Some(Turn(turn)) = self.turns.get(worker.0 as usize) {
            let next = self.turn(worker) + 1;
            // Nobody else writes it.
            turn.store(if next < self.list.len() { next as u32 } else { 0 }, Ordering::Relaxed);
        }
    }

    #[inline]
    fn turn(&self, worker: WorkerIndex) -> usize {
        self.turns.get(worker.0 as usize).map_or(0, |Turn(turn)| turn.load(Ordering::Relaxed) as usize)
    }
}

/// The remainder of a number that nearly always is less than `limit`: divided only where it is not.
#[inline]
pub(crate) const fn below(number: u32, limit: u32) -> u32 {
    if number < limit || limit == 0 { number } else { number % limit }
}

impl PartialEq for ServerLocals {
    /// The same addresses and ports, counted in the same cells.
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (&Local, &Local)| a.address == b.address && a.pair.is(&b.pair);
        self.ports == other.ports && self.list.len() == other.list.len() && self.list.iter().zip(&other.list).all(same)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[test]
    fn ports_are_counted_and_begin_anew() {
        let ports = LocalPorts::new(1000, 1002).unwrap();
        assert_eq!((0..5).map(|place| ports.at(place)).collect::<Vec<_>>(), [1000, 1001, 1002, 1000, 1001]);
        assert!(ports.contains(1002) && !ports.contains(999) && !ports.contains(1003));
        assert_eq!(LocalPorts::new(1, u16::MAX).unwrap().count(), 65_535);
        assert_eq!((LocalPorts::new(0, 5), LocalPorts::new(6, 5)), (None, None));
    }

    #[test]
    fn addresses_take_turns() {
        let local = |text: &str| Local { address: text.parse().unwrap(), pair: LocalPair::new(2) };
        let locals = ServerLocals::new(LocalPorts::default(), vec![local("10.0.0.1"), local("10.0.0.2")], 2);
        let order = |worker| {
            let in_turn = locals.in_turn(WorkerIndex(worker));
            in_turn.map(|local| local.address.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([order(0), order(0), order(0)], ["10.0.0.1 10.0.0.2", "10.0.0.2 10.0.0.1", "10.0.0.1 10.0.0.2"]);
        assert_eq!(order(1), "10.0.0.2 10.0.0.1");
    }

    const ONE: WorkerIndex = WorkerIndex(0);
    const OTHER: WorkerIndex = WorkerIndex(1);

    #[test]
    fn a_pair_never_has_fewer_than_none() {
        let pair = LocalPair::new(1);
        pair.end(ONE);
        assert_eq!(pair.in_use(), 0);
        pair.begin(ONE);
        pair.begin(ONE);
        assert_eq!(pair.in_use(), 1);
    }

    #[test]
    fn workers_end_what_others_began() {
        let pair = LocalPair::new(2);
        (0..3).for_each(|_| pair.begin(ONE));
        (0..2).for_each(|_| pair.end(OTHER));
        assert_eq!(pair.in_use(), 1);
        pair.clone().begin(OTHER);
        pair.conflict(ONE);
        pair.clone().conflict(OTHER);
        assert_eq!((pair.in_use(), pair.conflicts()), (2, 2));
    }

    #[test]
    fn workers_share_the_room_that_there_is() {
        const RESERVE: u32 = 4;
        let (pair, ports) = (LocalPair::new(2), LocalPorts::new(1, 20).unwrap());
        let open = |worker| {
            let has_room = pair.has_room(worker, ports, RESERVE);
            if has_room {
                pair.begin(worker);
            }
            has_room
        };
        // Half of the 16, then half of what is left, and so on: in the end all, as the other one never asked.
        assert_eq!((0..40).filter(|_| open(ONE)).count(), 16);
        assert!(!open(OTHER));
        (0..6).for_each(|_| pair.end(OTHER));
        assert_eq!([open(OTHER), open(OTHER), open(OTHER)], [true; 3]);
        // Three of six were the other's part.
        assert_eq!((0..40).filter(|_| open(ONE)).count(), 3);
        assert_eq!(pair.in_use(), 16);
    }

    #[test]
    fn a_pair_in_steady_use_is_never_seen_unused() {
        const FLOWS: u32 = 1_000_000;
        let (pair, is_over) = (LocalPair::new(2), AtomicBool::new(false));
        pair.begin(ONE);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // For both workers, each connection begun by one and ended by the other.
                for _ in 0..FLOWS {
                    pair.begin(ONE);
                    pair.end(OTHER);
                }
                is_over.store(true, Ordering::Relaxed);
            });
            while !is_over.load(Ordering::Relaxed) {
                assert!(pair.in_use() > 0);
            }
        });
        assert_eq!(pair.in_use(), 1);
    }
}
