//! The local addresses of FULLNAT: what real servers see connections come from.
//!
//! One (local address, port) may serve many connections at a time, to different real servers: only the reverse key
//! has to be unique, and the flow table sees to that. So what is counted is of a *pair* of a local address and a real
//! server. Counts and cursors outlive snapshots; the list itself is as immutable as they are.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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

/// What is known of the connections from one local address to one real server.
#[derive(Debug)]
#[repr(align(64))]
pub struct LocalPair {
    in_use: AtomicU32,
    conflicts: AtomicU64,
    cursors: Box<[AtomicU32]>,
}

impl LocalPair {
    /// Without connections, for a director with `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            in_use: AtomicU32::new(0),
            conflicts: AtomicU64::new(0),
            cursors: (0..workers).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Connections now. Of two workers that begin and end one, the second may come to count first: never below zero.
    pub fn in_use(&self) -> u32 {
        self.in_use.load(Ordering::Relaxed).cast_signed().max(0).cast_unsigned()
    }

    /// Ports that were tried and found taken, since the pair is known.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Ordering::Relaxed)
    }

    /// A connection begins.
    pub fn begin(&self) {
        self.in_use.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection ends.
    pub fn end(&self) {
        self.in_use.fetch_sub(1, Ordering::Relaxed);
    }

    /// A port was tried and found taken.
    pub fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// The place where a worker goes on to look for a port. Each worker has one of its own; one without gets zero.
    pub fn cursor(&self, worker: WorkerIndex) -> u32 {
        self.cursors.get(worker.0 as usize).map_or(0, |cursor| cursor.load(Ordering::Relaxed))
    }

    /// Sets that place.
    pub fn set_cursor(&self, worker: WorkerIndex, place: u32) {
        if let Some(cursor) = self.cursors.get(worker.0 as usize) {
            cursor.store(place, Ordering::Relaxed);
        }
    }
}

/// A local address as one real server has it.
#[derive(Clone, Debug)]
pub struct Local {
    /// The address, of the real server's family.
    pub address: IpAddr,
    /// What is counted of the two.
    pub pair: Arc<LocalPair>,
}

/// The local addresses that connections to one real server may come from.
#[derive(Debug)]
pub struct ServerLocals {
    /// Their ports.
    pub ports: LocalPorts,
    /// The addresses, at least one.
    pub list: Box<[Local]>,
    turns: Box<[AtomicU32]>,
}

impl ServerLocals {
    /// For a director with `workers` workers.
    pub fn new(ports: LocalPorts, list: Vec<Local>, workers: usize) -> Self {
        // Workers that start at one address each are rarely at the same.
        let turns = (0..workers).map(|worker| AtomicU32::new(worker as u32)).collect();
        Self { ports, list: list.into(), turns }
    }

    /// The addresses from the one whose turn it is with this worker, each once. Then it is the next one's turn.
    pub fn in_turn(&self, worker: WorkerIndex) -> impl Iterator<Item = &Local> {
        let first = self.turn(worker);
        self.pass_turn(worker);
        self.list.iter().skip(first).chain(self.list.iter().take(first))
    }

    /// The address whose turn it is with this worker.
    pub fn next(&self, worker: WorkerIndex) -> Option<&Local> {
        self.list.get(self.turn(worker))
    }

    /// Lets it be the next one's turn with this worker.
    pub fn pass_turn(&self, worker: WorkerIndex) {
        if let Some(turn) = self.turns.get(worker.0 as usize) {
            // Nobody else writes it.
            turn.store(self.turn(worker) as u32 + 1, Ordering::Relaxed);
        }
    }

    fn turn(&self, worker: WorkerIndex) -> usize {
        let turn = self.turns.get(worker.0 as usize).map_or(0, |turn| turn.load(Ordering::Relaxed));
        below(turn, self.list.len() as u32) as usize
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
        let same = |(a, b): (&Local, &Local)| a.address == b.address && Arc::ptr_eq(&a.pair, &b.pair);
        self.ports == other.ports && self.list.len() == other.list.len() && self.list.iter().zip(&other.list).all(same)
    }
}

#[cfg(test)]
mod tests {
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
        let local = |text: &str| Local { address: text.parse().unwrap(), pair: Arc::new(LocalPair::new(2)) };
        let locals = ServerLocals::new(LocalPorts::default(), vec![local("10.0.0.1"), local("10.0.0.2")], 2);
        let order = |worker| {
            let in_turn = locals.in_turn(WorkerIndex(worker));
            in_turn.map(|local| local.address.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([order(0), order(0), order(0)], ["10.0.0.1 10.0.0.2", "10.0.0.2 10.0.0.1", "10.0.0.1 10.0.0.2"]);
        assert_eq!(order(1), "10.0.0.2 10.0.0.1");
    }

    #[test]
    fn a_pair_never_has_fewer_than_none() {
        let pair = LocalPair::new(1);
        pair.end();
        assert_eq!(pair.in_use(), 0);
        pair.begin();
        pair.begin();
        assert_eq!(pair.in_use(), 1);
    }
}
