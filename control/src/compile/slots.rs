//! Which number each real server has, and the counts that outlive snapshots.
//!
//! Invariant: a slot means one real server of one service for as long as any flow may refer to it, over reloads and,
//! through a file in the state directory, over restarts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::ident::{Endpoint, NetPort, Protocol, ServiceKey};
use dataplane::service::{
    AddressFamily, DestinationCounts, DestinationSlot, LocalPair, Mark, Method, PairKey, ServiceName, ServiceState,
    Tunnel,
};
use serde::{Deserialize, Serialize};

/// Numbers, counts and cursors of all services.
#[derive(Debug)]
pub struct SlotDirectory {
    workers: usize,
    destinations: BTreeMap<DestinationName, SlotEntry>,
    // Numbers below `next` that nobody has.
    free: BTreeSet<DestinationSlot>,
    next: u32,
    services: BTreeMap<ServiceName, Arc<ServiceState>>,
    pairs: BTreeMap<PairKey, PairEntry>,
}

/// What is kept of a local address and a real server.
#[derive(Debug)]
struct PairEntry {
    pair: LocalPair,
    standing: Standing,
}

/// What names a real server: the service and its own address and port.
pub type DestinationName = (ServiceName, Endpoint);

/// What is kept of a real server.
#[derive(Debug)]
pub struct SlotEntry {
    /// Its number.
    pub slot: DestinationSlot,
    /// Its connections.
    pub counts: Arc<DestinationCounts>,
    /// Whether it is in the configuration.
    pub standing: Standing,
    /// How it was reached last, where that is known.
    pub method: Option<Method>,
    /// The form of its tunnel, under TUN.
    pub tunnel: Tunnel,
    two_way: bool,
}

impl SlotEntry {
    fn new(slot: DestinationSlot, workers: usize) -> Self {
        Self {
            slot,
            counts: Arc::new(DestinationCounts::new(workers)),
            standing: Standing::Configured,
            method: None,
            tunnel: Tunnel::IPIP,
            two_way: false,
        }
    }

    /// Whether it was removed, and the last look at it has found no flow: nobody can have begun one since.
    pub fn is_over(&self) -> bool {
        self.standing == Standing::Leaving && self.counts.is_idle()
    }

    /// Whether packets from it may be replies that the director has to translate. Those of FULLNAT are known by the
    /// local address that they go to.
    pub const fn is_two_way(&self) -> bool {
        self.two_way
    }
}

/// Whether a real server is still wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In the configuration.
    Configured,
    /// Removed; its number is free when no flow is left.
    Leaving,
}

impl SlotDirectory {
    /// An empty directory for a director of `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            destinations: BTreeMap::new(),
            free: BTreeSet::new(),
            next: 0,
            services: BTreeMap::new(),
            pairs: BTreeMap::new(),
        }
    }

    /// How many workers the counts are for.
    pub const fn workers(&self) -> usize {
        self.workers
    }

    /// The number and counts of a real server; new ones where it has none yet.
    pub fn destination(&mut self, name: DestinationName, method: Method) -> (DestinationSlot, Arc<DestinationCounts>) {
        let (free, next, workers) = (&mut self.free, &mut self.next, self.workers);
        let entry = self.destinations.entry(name).or_insert_with(|| SlotEntry::new(lowest(free, next), workers));
        entry.standing = Standing::Configured;
        entry.method = Some(method);
        // Flows that began under NAT stay under it, whatever the method is now.
        entry.two_way = method == Method::Nat || (entry.two_way && !entry.counts.is_idle());
        (entry.slot, Arc::clone(&entry.counts))
    }

    /// The cursor of a service.
    pub fn service(&mut self, name: &ServiceName) -> Arc<ServiceState> {
        Arc::clone(self.services.entry(name.clone()).or_default())
    }

    /// What is counted of a local address and a real server; new counts where there are none yet.
    pub fn pair(&mut self, key: PairKey) -> LocalPair {
        let new = || PairEntry { pair: LocalPair::new(self.workers), standing: Standing::Configured };
        let entry = self.pairs.entry(key).or_insert_with(new);
        entry.standing = Standing::Configured;
        entry.pair.clone()
    }

    /// Lets go of every pair that is not in `wanted`, as [`SlotDirectory::retire`] does of servers.
    pub fn retire_pairs(&mut self, wanted: &BTreeSet<PairKey>) {
        self.pairs.retain(|key, entry| {
            if wanted.contains(key) {
                return true;
            }
            let is_over = entry.standing == Standing::Leaving && entry.pair.in_use() == 0;
            entry.standing = Standing::Leaving;
            !is_over
        });
    }

    /// All pairs, removed ones with flows included.
    pub fn pairs(&self) -> impl Iterator<Item = (&PairKey, &LocalPair)> {
        self.pairs.iter().map(|(key, entry)| (key, &entry.pair))
    }

    /// Lets go of every server that is not in `wanted` and every cursor that is not of `services`. A server without
    /// flows loses its number at the second call in a row, when no worker can be about to open a flow by the snapshot
    /// before.
    pub fn retire(&mut self, wanted: &BTreeSet<DestinationName>, services: &BTreeSet<ServiceName>) {
        let free = &mut self.free;
        self.destinations.retain(|name, entry| {
            if wanted.contains(name) {
                return true;
            }
            let is_over = entry.is_over();
            entry.standing = Standing::Leaving;
            if is_over {
                free.insert(entry.slot);
            }
            !is_over
        });
        self.services.retain(|name, _| services.contains(name));
    }

    /// Whether the last flow of a removed server has ended, so that another compilation would let go of it.
    pub fn is_due(&self) -> bool {
        let is_left = |entry: &PairEntry| entry.standing == Standing::Leaving && entry.pair.in_use() == 0;
        self.destinations.values().any(SlotEntry::is_over) || self.pairs.values().any(is_left)
    }

    /// All real servers, removed ones with flows included.
    pub fn iter(&self) -> impl Iterator<Item = (&DestinationName, &SlotEntry)> {
        self.destinations.iter()
    }

    /// Remembers the tunnel to a real server, for when it is removed and drains.
    pub fn remember(&mut self, name: &DestinationName, tunnel: Tunnel) {
        if let Some(entry) = self.destinations.get_mut(name) {
            entry.tunnel = tunnel;
        }
    }

    /// The real servers of one service, removed ones included.
    pub fn of<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = (&'a DestinationName, &'a SlotEntry)> {
        let lowest = Endpoint { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: NetPort::ANY };
        self.destinations.range((service.clone(), lowest)..).take_while(move |((of, _), _)| of == service)
    }

    /// Reads what [`SlotDirectory::save`] wrote; an absent file is an empty directory. All counts are zero: count the
    /// flows of the table ([`dataplane::worker::Shared::recount`]) before the second [`SlotDirectory::retire`].
    ///
    /// # Errors
    /// An unreadable file, or one of another version or in disorder. Without it flows of the table mean nothing.
    pub fn load(path: &Path, workers: usize) -> Result<Self, SlotError> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::new(workers)),
            read => read.map_err(|source| SlotError::Read { path: path.to_owned(), source })?,
        };
        let bad = |reason: String| SlotError::Meaning { path: path.to_owned(), reason };
        let file: File = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        if file.version != VERSION {
            return Err(bad(format!("its version is {}, this program reads {VERSION}", file.version)));
        }
        let mut directory = Self::new(workers);
        let mut taken = BTreeSet::new();
        for line in file.destinations {
            let slot = DestinationSlot(line.slot);
            let name = line.name().ok_or_else(|| bad(format!("slot {} is of no service that can be", line.slot)))?;
            let two_way = line.two_way;
            let method = line.method.as_deref().and_then(method);
            let entry = SlotEntry { method, two_way, ..SlotEntry::new(slot, workers) };
            if line.slot >= MOST_SLOTS {
                return Err(bad(format!("slot {} is above {MOST_SLOTS}", line.slot)));
            }
            if !taken.insert(slot) || directory.destinations.insert(name, entry).is_some() {
                return Err(bad(format!("slot {} or its server stands twice", line.slot)));
            }
        }
        directory.next = taken.last().map_or(0, |slot| slot.0 + 1);
        directory.free = (0..directory.next).map(DestinationSlot).filter(|slot| !taken.contains(slot)).collect();
        Ok(directory)
    }

    /// Writes numbers and names, whole or not at all.
    ///
    /// # Errors
    /// When the file, or the new one beside it, cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), SlotError> {
        let destinations = self.destinations.iter().map(|(name, entry)| Line::new(name, entry)).collect();
        let write = || -> std::io::Result<()> {
            let text = serde_json::to_vec(&File { version: VERSION, destinations })?;
            let beside = path.with_extension("new");
            std::fs::write(&beside, text)?;
            std::fs::rename(beside, path)
        };
        write().map_err(|source| SlotError::Write { path: path.to_owned(), source })
    }
}

/// The layout of the file.
const VERSION: u32 = 2;
/// Tables are indexed by number, so a file cannot name any.
const MOST_SLOTS: u32 = 1 << 24;

/// The lowest number that nobody has.
fn lowest(free: &mut BTreeSet<DestinationSlot>, next: &mut u32) -> DestinationSlot {
    free.pop_first().unwrap_or_else(|| {
        let slot = DestinationSlot(*next);
        *next += 1;
        slot
    })
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    destinations: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    slot: u32,
    service: ServiceLine,
    server: SocketAddr,
    two_way: bool,
    /// Absent where the name of the method does not tell all, and in files of before.
    #[serde(default)]
    method: Option<String>,
}

/// Methods of which the name says everything.
const NAMED: &[(Method, &str)] = &[(Method::Nat, "nat"), (Method::Dr, "dr")];

fn method(name: &str) -> Option<Method> {
    NAMED.iter().find(|(_, known)| *known == name).map(|(method, _)| *method)
}

fn method_name(method: Method) -> Option<&'static str> {
    NAMED.iter().find(|(known, _)| *known == method).map(|(_, name)| *name)
}

/// A service's name. Transports have their IANA numbers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ServiceLine {
    Address { protocol: u8, at: SocketAddr },
    Mark { mark: u32, family: AddressFamily },
    Group { name: String, protocol: u8 },
}

impl ServiceLine {
    fn new(name: &ServiceName) -> Self {
        match name {
            ServiceName::Address(key) => Self::Address { protocol: key.protocol.number(), at: socket(&key.at) },
            ServiceName::Mark { mark, family } => Self::Mark { mark: mark.value(), family: *family },
            ServiceName::Group { name, protocol } => {
                Self::Group { name: name.to_string(), protocol: protocol.number() }
            }
        }
    }

    fn name(&self) -> Option<ServiceName> {
        Some(match self {
            Self::Address { protocol, at } => {
                ServiceKey { protocol: Protocol::from_number(*protocol)?, at: endpoint(*at) }.into()
            }
            Self::Mark { mark, family } => ServiceName::Mark { mark: Mark::new(*mark)?, family: *family },
            Self::Group { name, protocol } => {
                ServiceName::Group { name: name.as_str().into(), protocol: Protocol::from_number(*protocol)? }
            }
        })
    }
}

impl Line {
    fn new((name, at): &DestinationName, entry: &SlotEntry) -> Self {
        let (service, server) = (ServiceLine::new(name), socket(at));
        let method = entry.method.and_then(method_name).map(str::to_owned);
        Self { slot: entry.slot.0, service, server, two_way: entry.two_way, method }
    }

    fn name(&self) -> Option<DestinationName> {
        Some((self.service.name()?, endpoint(self.server)))
    }
}

fn socket(at: &Endpoint) -> SocketAddr {
    SocketAddr::new(at.address, at.port.host())
}

fn endpoint(at: SocketAddr) -> Endpoint {
    Endpoint { address: at.ip(), port: NetPort::new(at.port()) }
}

/// Why numbers could not be kept in or read from their file.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The file is there and cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// The file says nothing sensible.
    #[error("{path} is of no use: {reason}; remove it together with the flow tables beside it")]
    Meaning {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use dataplane::service::Activity;

    use super::*;

    fn name(server: u8) -> DestinationName {
        let at = |address: String| Endpoint { address: address.parse().unwrap(), port: NetPort::new(80) };
        (ServiceKey { protocol: Protocol::Tcp, at: at("10.0.0.1".into()) }.into(), at(format!("10.0.1.{server}")))
    }

    #[test]
    fn a_number_stays_while_a_flow_refers_to_it() {
        let mut slots = SlotDirectory::new(1);
        let (first, counts) = slots.destination(name(1), Method::Nat);
        let (second, _) = slots.destination(name(2), Method::Nat);
        assert_eq!((first, second), (DestinationSlot(0), DestinationSlot(1)));
        counts.begin(Activity::Active);
        let wanted = BTreeSet::from([name(2)]);
        slots.retire(&wanted, &BTreeSet::new());
        slots.retire(&wanted, &BTreeSet::new());
        assert!(!slots.is_due());
        assert_eq!(slots.destination(name(3), Method::Dr).0, DestinationSlot(2), "0 has a flow still");
        counts.end(Activity::Active);
        assert!(slots.is_due());
        slots.retire(&BTreeSet::from([name(2), name(3)]), &BTreeSet::new());
        assert!(!slots.is_due());
        assert_eq!(slots.destination(name(4), Method::Dr).0, DestinationSlot(0));
    }

    #[test]
    fn a_removed_server_keeps_its_number_until_the_second_look() {
        let mut slots = SlotDirectory::new(1);
        let (first, _) = slots.destination(name(1), Method::Nat);
        slots.retire(&BTreeSet::new(), &BTreeSet::new());
        assert_eq!(slots.destination(name(2), Method::Nat).0, DestinationSlot(1));
        assert_eq!(slots.destination(name(1), Method::Nat).0, first, "back before it was forgotten");
    }

    #[test]
    fn replies_are_awaited_as_long_as_flows_of_nat_are_left() {
        let mut slots = SlotDirectory::new(1);
        let (_, counts) = slots.destination(name(1), Method::Nat);
        counts.begin(Activity::Active);
        slots.destination(name(1), Method::Dr);
        assert!(slots.iter().all(|(_, entry)| entry.is_two_way()));
        counts.end(Activity::Active);
        slots.destination(name(1), Method::Dr);
        assert!(!slots.iter().any(|(_, entry)| entry.is_two_way()));
    }

    #[test]
    fn numbers_outlive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("destinations.json");
        let mut slots = SlotDirectory::load(&path, 1).unwrap();
        slots.destination(name(1), Method::Nat);
        let (second, _) = slots.destination(name(2), Method::Tun);
        let mark = ServiceName::Mark { mark: Mark::new(7).unwrap(), family: AddressFamily::V6 };
        let group = ServiceName::Group { name: "web".into(), protocol: Protocol::Udp };
        for service in [&mark, &group] {
            slots.destination((service.clone(), name(1).1), Method::Nat);
        }
        slots.save(&path).unwrap();
        let mut again = SlotDirectory::load(&path, 1).unwrap();
        assert_eq!(again.destination(name(2), Method::Tun).0, second);
        assert_eq!(again.destination((mark, name(1).1), Method::Nat).0, DestinationSlot(2));
        assert_eq!(again.destination((group, name(1).1), Method::Nat).0, DestinationSlot(3));
        assert_eq!(again.destination(name(3), Method::Tun).0, DestinationSlot(4));
        std::fs::write(&path, "{\"version\":9,\"destinations\":[]}").unwrap();
        assert!(SlotDirectory::load(&path, 1).unwrap_err().to_string().contains("version is 9"));
        let mut far = SlotDirectory { next: MOST_SLOTS, ..SlotDirectory::new(1) };
        far.destination(name(1), Method::Nat);
        far.save(&path).unwrap();
        assert!(SlotDirectory::load(&path, 1).unwrap_err().to_string().contains("is above"));
        std::fs::write(&path, "garbage").unwrap();
        assert!(SlotDirectory::load(&path, 1).is_err());
    }
}
