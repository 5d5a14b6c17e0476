//! A director in memory for packet tests: two ports and the kernel's, clients behind a router, servers on a link.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::panic, missing_docs)]
#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of it")]

pub mod allocation;
pub mod packet;
pub mod traffic;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrayvec::ArrayVec;
use dataplane::counters::{Drop, Event};
use dataplane::flow::FlowTable;
use dataplane::ident::{Endpoint, MacAddr, NetPort, PortIndex, Protocol, ServiceKey, Weight, WorkerIndex};
use dataplane::next_hop::{Egress, Exit, Hop, Link, NextHops, NextHopsBuilder};
use dataplane::port::{ChecksumMode, MemoryPorts};
use dataplane::rss::Rss;
use dataplane::rules::Gates;
use dataplane::sched::SchedulerKind;
use dataplane::service::{
    Destination, DestinationCounts, DestinationSlot, Local, LocalPair, LocalPorts, MatchPoint, Method, PairKey,
    ServerLocals, ServiceName, ServiceSettings, ServiceSpec, ServicesBuilder, Tunnel,
};
use dataplane::snapshot::{KernelPort, Policy, PortSettings, Snapshot};
use dataplane::worker::{Board, Shared, Worker};

pub const FRONT: PortIndex = PortIndex(0);
pub const BACK: PortIndex = PortIndex(1);
pub const KERNEL: PortIndex = PortIndex(2);

pub const FRONT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const BACK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
pub const KERNEL_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xee];
pub const FRAMES: u32 = 512;

/// The Ethernet address of server `n`.
pub const fn server_mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn at(text: &str, port: u16) -> Endpoint {
    Endpoint { address: ip(text), port: NetPort::new(port) }
}

/// What a test sets up.
pub struct Setup {
    pub method: Method,
    /// The tunnel to every server, for TUN.
    pub tunnel: Tunnel,
    pub scheduler: SchedulerKind,
    /// Addresses of the servers of every service, with their weights.
    pub servers4: Vec<(&'static str, u32)>,
    pub servers6: Vec<(&'static str, u32)>,
    /// Servers listen here; in DR and TUN on the service's port.
    pub server_port: u16,
    pub mtu: u16,
    pub checksum: ChecksumMode,
    pub policy: Policy,
    /// What every service asks for.
    pub settings: ServiceSettings,
    pub gates: Gates,
    /// A service of IPv4 that is found by these, every port, on the servers of the first; it takes their numbers over.
    pub points: Vec<MatchPoint>,
    pub generation: u16,
    pub router: [u8; 6],
    /// So many servers at the end of each list were removed and drain.
    pub draining: usize,
    /// So many before those were removed and do not drain.
    pub removed: usize,
    pub tunnel_to: Option<&'static str>,
    /// Local addresses of FULLNAT, of both families, with their ports.
    pub locals: Vec<&'static str>,
    pub local_ports: LocalPorts,
    pub pairs: Mutex<BTreeMap<PairKey, LocalPair>>,
    pub capacity: u32,
    /// How every port spreads what it receives.
    pub rss: Option<Arc<Rss>>,
}

impl Setup {
    pub fn new(method: Method) -> Self {
        Self {
            method,
            tunnel: Tunnel::IPIP,
            scheduler: SchedulerKind::Rr,
            servers4: vec![("10.2.0.11", 1), ("10.2.0.12", 1)],
            servers6: vec![("fd02::11", 1), ("fd02::12", 1)],
            server_port: 8080,
            mtu: 1500,
            checksum: ChecksumMode::Offload,
            policy: Policy { replies_per_second: 1000, ..Policy::default() },
            settings: ServiceSettings::default(),
            gates: Gates::default(),
            points: Vec::new(),
            generation: 1,
            router: ROUTER_MAC,
            draining: 0,
            removed: 0,
            tunnel_to: None,
            locals: vec!["10.2.0.201", "fd02::201"],
            local_ports: LocalPorts::new(5000, 5999).unwrap(),
            pairs: Mutex::default(),
            capacity: 1024,
            rss: None,
        }
    }

    /// What control would publish. Services: `192.0.2.80` and `2001:db8::80`, TCP and UDP port 80, UDP any port on .81.
    pub fn snapshot(&self, counts: &[Arc<DestinationCounts>]) -> Snapshot {
        let mut services = ServicesBuilder::default();
        let mut slot = 0;
        for (protocol, vip, port) in [
            (Protocol::Tcp, "192.0.2.80", 80),
            (Protocol::Udp, "192.0.2.80", 80),
            (Protocol::Udp, "192.0.2.81", 0),
            (Protocol::Tcp, "2001:db8::80", 80),
            (Protocol::Udp, "2001:db8::80", 80),
        ] {
            let servers = if ip(vip).is_ipv4() { &self.servers4 } else { &self.servers6 };
            let mut list: Vec<_> = servers
                .iter()
                .map(|(address, weight)| {
                    slot += 1;
                    let destination = self.destination(slot - 1, address, *weight, port, counts);
                    Destination { locals: self.locals(protocol, &destination, &mut services), ..destination }
                })
                .collect();
            let key = ServiceKey { protocol, at: at(vip, port) };
            let draining = list.split_off(list.len().saturating_sub(self.draining));
            for removed in list.split_off(list.len().saturating_sub(self.removed)) {
                services.keep(removed.slot, removed.counts);
            }
            let spec = ServiceSpec::new(key, self.scheduler, list);
            services.add(ServiceSpec { draining, settings: self.settings.clone(), ..spec }).unwrap();
        }
        if !self.points.is_empty() {
            let servers = self.servers4.iter().enumerate();
            let list = servers.map(|(n, (at, weight))| self.destination(n as u32, at, *weight, 0, counts)).collect();
            let name = match self.points[0] {
                MatchPoint::Mark(mark, family) => ServiceName::Mark { mark, family },
                MatchPoint::Addresses { protocol, .. } => ServiceName::Group { name: "many".into(), protocol },
            };
            let spec = ServiceSpec::new(name, self.scheduler, list);
            let settings = self.settings.clone();
            services.add(ServiceSpec { points: self.points.clone(), settings, ..spec }).unwrap();
        }
        Snapshot {
            gates: self.gates.clone(),
            services: Arc::new(services.build()),
            hops: Arc::new(self.hops(slot)),
            ports: self.ports(),
            kernel: Some(KernelPort {
                port: KERNEL,
                header: self.egress(KERNEL).link_header(MacAddr(KERNEL_MAC)),
                rate: 1000,
            }),
            policy: self.policy.clone(),
            watch: None,
        }
    }

    fn destination(
        &self,
        slot: u32,
        address: &str,
        weight: u32,
        port: u16,
        counts: &[Arc<DestinationCounts>],
    ) -> Destination {
        let port = if self.method.is_two_way() && port != 0 { self.server_port } else { port };
        let local = if ip(address).is_ipv4() { "10.2.0.1" } else { "fd02::1" };
        let kernel = if ip(address).is_ipv4() { "169.254.77.1" } else { "fe80::77:1" };
        let source = if Self::is_local(address) { kernel } else { local };
        let (weight, counts) = (Weight::new(weight).unwrap(), Arc::clone(&counts[slot as usize]));
        let destination = Destination::new(DestinationSlot(slot), at(address, port), self.method, weight, counts);
        Destination { local_source: Some(ip(source)), tunnel: self.tunnel, ..destination }
    }

    fn locals(
        &self,
        protocol: Protocol,
        destination: &Destination,
        services: &mut ServicesBuilder,
    ) -> Option<Arc<ServerLocals>> {
        let server = destination.at;
        let of_family = |address: &IpAddr| address.is_ipv4() == server.address.is_ipv4();
        let local = |address| {
            let key = PairKey { protocol: Some(protocol), server, local: address };
            let mut pairs = self.pairs.lock().unwrap();
            let pair = pairs.entry(key).or_insert_with(|| LocalPair::new(4)).clone();
            services.pair(key, pair.clone());
            services.local(address, self.local_ports);
            Local { address, pair }
        };
        let list = self.locals.iter().map(|address| ip(address)).filter(of_family).map(local).collect();
        (self.method == Method::FullNat).then(|| Arc::new(ServerLocals::new(self.local_ports, list, 4)))
    }

    /// Connections that are counted of all pairs.
    pub fn ports_in_use(&self) -> u32 {
        self.pairs.lock().unwrap().values().map(LocalPair::in_use).sum()
    }

    fn is_local(address: &str) -> bool {
        ["10.2.0.1", "fd02::1"].contains(&address)
    }

    fn ports(&self) -> Arc<[PortSettings]> {
        [("front", FRONT_MAC), ("back", BACK_MAC), ("sluice0", [2, 0, 0, 0, 0, 3])]
            .map(|(name, mac)| PortSettings {
                name: name.into(),
                mac: MacAddr(mac),
                checksum: self.checksum,
                rss: self.rss.clone(),
            })
            .into()
    }

    fn egress(&self, port: PortIndex) -> Egress {
        let source = [FRONT_MAC, BACK_MAC, [2, 0, 0, 0, 0, 3]][port.0 as usize];
        Egress { exit: Exit::One(port), source: MacAddr(source), tags: ArrayVec::new(), mtu: self.mtu }
    }

    fn hops(&self, slots: u32) -> NextHops {
        let mut b = NextHopsBuilder::new(self.generation);
        let router = b.hop(Hop::neighbour(&self.egress(FRONT), MacAddr(self.router))).unwrap();
        let kernel = b.hop(Hop::Kernel).unwrap();
        for (link, port, prefixes) in
            [(1, FRONT, ["10.1.0.0/24", "fd01::/64"]), (2, BACK, ["10.2.0.0/24", "fd02::/64"])]
        {
            let unknown = b.hop(Hop::OnLink(self.egress(port))).unwrap();
            for prefix in prefixes {
                b.connected(prefix.parse().unwrap(), Link(link), unknown);
            }
        }
        for prefix in ["0.0.0.0/0", "::/0"] {
            b.route(prefix.parse().unwrap(), router);
        }
        let all = self.servers4.iter().chain(&self.servers6);
        for (address, _) in all.filter(|(address, _)| !Self::is_local(address)) {
            let last = match ip(address) {
                IpAddr::V4(a) => a.octets()[3],
                IpAddr::V6(a) => a.octets()[15],
            };
            if last != 0x99 && last != 99 {
                let hop = b.hop(Hop::neighbour(&self.egress(BACK), MacAddr(server_mac(last)))).unwrap();
                b.neighbour(Link(2), ip(address), hop);
            }
        }
        for slot in 0..slots {
            let (n4, n6) = (self.servers4.len() as u32, self.servers6.len() as u32);
            let address = if slot < 3 * n4 {
                self.servers4[(slot % n4) as usize].0
            } else {
                self.servers6[((slot - 3 * n4) % n6) as usize].0
            };
            let hop = if Self::is_local(address) { kernel } else { b.lookup(ip(address)) };
            b.destination(DestinationSlot(slot), hop);
        }
        b.build()
    }
}

/// Frames that a worker keeps for a while.
pub fn held(board: &Board) -> usize {
    let event = |event| board.counters.event(event).read();
    (event(Event::Held) - event(Event::Released)) as usize
}

/// One director in memory: shared state and its workers.
pub struct Director {
    pub shared: Arc<Shared>,
    pub workers: Vec<Worker<MemoryPorts>>,
    pub counts: Vec<Arc<DestinationCounts>>,
    pub now: Duration,
    // As control does, so that no worker is the last to have one, and frees it.
    snapshots: Mutex<Vec<Arc<Snapshot>>>,
}

impl Director {
    pub fn new(setup: &Setup) -> Self {
        Self::with_workers(setup, 1)
    }

    pub fn with_workers(setup: &Setup, workers: usize) -> Self {
        let counts: Vec<_> = (0..64).map(|_| Arc::new(DestinationCounts::new(workers))).collect();
        let shared = Arc::new(Shared::new(
            Arc::new(setup.snapshot(&counts)),
            FlowTable::anonymous(setup.capacity, workers).unwrap(),
            FlowTable::anonymous(setup.capacity, workers).unwrap(),
            workers,
            3,
        ));
        let now = Duration::from_secs(1000);
        let workers = (0..workers)
            .map(|n| Worker::new(WorkerIndex(n as u8), Arc::clone(&shared), MemoryPorts::new(3, FRAMES), now).unwrap())
            .collect();
        Self { shared, workers, counts, now, snapshots: Mutex::default() }
    }

    /// Swaps the snapshot, as control does.
    pub fn publish(&self, setup: &Setup) {
        self.swap(setup.snapshot(&self.counts));
    }

    pub fn swap(&self, snapshot: Snapshot) {
        let old = self.shared.snapshot.swap(Arc::new(snapshot));
        self.snapshots.lock().unwrap().push(old);
    }

    /// A turn of a worker, which must not call the allocator.
    pub fn turn(&mut self, worker: usize) -> usize {
        let (worker, now) = (&mut self.workers[worker], self.now);
        allocation::none(|| worker.turn(now))
    }

    /// Gives the first worker one frame and returns what leaves: (port, frame).
    pub fn pass(&mut self, port: PortIndex, frame: &[u8]) -> Vec<(PortIndex, Vec<u8>)> {
        self.pass_by(0, port, frame)
    }

    pub fn pass_by(&mut self, worker: usize, port: PortIndex, frame: &[u8]) -> Vec<(PortIndex, Vec<u8>)> {
        assert!(self.workers[worker].ports_mut().inject(port, frame));
        assert_eq!(self.turn(worker), 1);
        self.sent()
    }

    pub fn sent(&mut self) -> Vec<(PortIndex, Vec<u8>)> {
        let mut out = Vec::new();
        for (worker, board) in self.workers.iter_mut().zip(&self.shared.boards) {
            for port in [FRONT, BACK, KERNEL] {
                while let Some(frame) = worker.ports_mut().sent(port) {
                    out.push((port, frame));
                }
            }
            assert_eq!(worker.ports_mut().available() + held(board), FRAMES as usize, "a frame was lost");
        }
        out
    }

    /// The one frame that must leave.
    pub fn one(&mut self, port: PortIndex, frame: &[u8]) -> (PortIndex, Vec<u8>) {
        let mut out = self.pass(port, frame);
        assert_eq!(out.len(), 1, "{:?}", self.drops());
        out.remove(0)
    }

    /// Passes a frame that must not be answered, and gives the reason that was counted.
    pub fn dropped(&mut self, port: PortIndex, frame: &[u8]) -> Vec<&'static str> {
        let before: Vec<_> = Drop::ALL.iter().map(|d| self.drop_count(*d)).collect();
        let out = self.pass(port, frame);
        assert!(out.is_empty(), "{out:?}");
        let is_new = |(d, n): &(&Drop, u64)| self.drop_count(**d) > *n;
        Drop::ALL.iter().zip(before).filter(is_new).map(|(d, _)| d.name()).collect()
    }

    pub fn drop_count(&self, reason: Drop) -> u64 {
        self.shared.boards.iter().map(|b| b.counters.drop(reason).read()).sum()
    }

    pub fn event_count(&self, event: Event) -> u64 {
        self.shared.boards.iter().map(|b| b.counters.event(event).read()).sum()
    }

    /// Reasons with a count above zero.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let counted = Drop::ALL.iter().map(|d| (d.name(), self.drop_count(*d)));
        counted.filter(|(_, n)| *n > 0).collect()
    }

    /// Lets time pass, in steps in which every entry is swept.
    pub fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        for worker in 0..self.workers.len() {
            for _ in 0..1000 {
                self.turn(worker);
            }
        }
    }
}
