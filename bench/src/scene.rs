//! The director under test: services with ten real servers each, clients behind a gateway, all in memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::flow::{Capacity, FlowTable};
use dataplane::ident::{Endpoint, MacAddr, NetPort, PortIndex, Protocol, ServiceKey, Weight};
use dataplane::next_hop::{Egress, Exit, Hop, HopIndex, NextHops, NextHopsBuilder};
use dataplane::port::ChecksumMode;
use dataplane::sched::SchedulerKind;
use dataplane::service::{
    Destination, DestinationCounts, DestinationSlot, Local, LocalPair, LocalPorts, Method, PairKey, ServerLocals,
    ServiceSettings, ServiceSpec, Services, ServicesBuilder,
};
use dataplane::snapshot::{Policy, PortSettings, Snapshot};
use dataplane::syn_proxy::SynProxy;
use dataplane::worker::Shared;
use ipnet::IpNet;

use crate::error::BenchError;
use crate::loop_ports::{CLIENTS, SERVERS};
use crate::packets::{CLIENTS_V4, CLIENTS_V6, Family, PacketShape, Sender};
use crate::verify::{BadFrame, Seen};

/// Real servers behind a service.
pub(crate) const REAL_SERVERS: u32 = 10;
const DIRECTOR: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
/// The first service's port; the others have those behind it.
const SERVICE_PORT: u16 = 80;
const SERVER_PORT: u16 = 8080;
/// Flows that one local address has ports for, with a third of them to spare.
const FLOWS_PER_LOCAL: u32 = 400_000;

/// Whether clients are answered by cookies first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handshake {
    /// Servers answer.
    Direct,
    /// The director answers.
    Proxied,
}

/// What the services are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) method: Method,
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    pub(crate) handshake: Handshake,
    /// Flows that the table is made for.
    pub(crate) capacity: u32,
    pub(crate) workers: usize,
    /// Services, each with servers of its own.
    pub(crate) services: u16,
}

impl Scene {
    /// What clients send to a service, or what comes back from its servers, in frames of `size` bytes.
    pub(crate) fn shape(&self, sender: Sender, service: u16, size: usize) -> PacketShape {
        let many = |address| Endpoint { address, port: NetPort::new(0) };
        let client = many(clients(self.family).network());
        let (from, to, link) = match (sender, self.method) {
            (Sender::Client, _) => (client, self.vip(service), (GATEWAY, DIRECTOR)),
            (Sender::Server, Method::FullNat) => {
                (self.server(service, 0), many(local(self.family, 0)), (server_mac(0), DIRECTOR))
            }
            (Sender::Server, _) => (self.server(service, 0), client, (server_mac(0), DIRECTOR)),
        };
        PacketShape { sender, from, to, link, size }
    }

    /// The state that the workers share.
    ///
    /// # Errors
    /// When the table's memory cannot be had.
    pub(crate) fn shared(&self) -> Result<Arc<Shared>, BenchError> {
        let none = Capacity { flows: 1, extensions: 0 };
        let all = Capacity { flows: self.capacity, extensions: if self.is_extended() { self.capacity } else { 0 } };
        let (flows4, flows6) = match self.family {
            Family::V4 => (all, none),
            Family::V6 => (none, all),
        };
        let flows4 = FlowTable::anonymous(flows4, self.workers)?;
        let flows6 = FlowTable::anonymous(flows6, self.workers)?;
        Ok(Arc::new(Shared::new(self.snapshot()?, flows4, flows6, self.workers, 2)))
    }

    /// Whether every flow has an extension record.
    pub(crate) fn is_extended(&self) -> bool {
        self.protocol == Protocol::Tcp && (self.method == Method::FullNat || self.handshake == Handshake::Proxied)
    }

    /// What control would tell the workers.
    ///
    /// # Errors
    /// When there are too many services for one table.
    pub(crate) fn snapshot(&self) -> Result<Arc<Snapshot>, BenchError> {
        let settings =
            |name: &str| PortSettings { name: name.into(), mac: DIRECTOR, checksum: ChecksumMode::Offload, rss: None };
        Ok(Arc::new(Snapshot {
            gates: dataplane::rules::Gates::default(),
            services: Arc::new(self.services()?),
            hops: Arc::new(self.hops()?),
            ports: [settings("clients"), settings("servers")].into(),
            kernel: None,
            policy: Policy::default(),
            watch: None,
        }))
    }

    fn services(&self) -> Result<Services, BenchError> {
        let mut builder = ServicesBuilder::default();
        for service in 0..self.services {
            let key = ServiceKey { protocol: self.protocol, at: self.vip(service) };
            let servers = (0..REAL_SERVERS).map(|n| self.destination(&mut builder, service, n)).collect();
            let mut spec = ServiceSpec::new(key, SchedulerKind::Wlc, servers);
            let syn_proxy = (self.handshake == Handshake::Proxied).then(SynProxy::default);
            spec.settings = ServiceSettings { syn_proxy, ..ServiceSettings::default() };
            builder.add(spec)?;
        }
        Ok(builder.build())
    }

    fn destination(&self, builder: &mut ServicesBuilder, service: u16, n: u32) -> Destination {
        let counts = Arc::new(DestinationCounts::new(self.workers));
        let at = self.server(service, n);
        let server = Destination::new(slot(service, n), at, self.method, Weight::ONE, counts);
        let locals = (self.method == Method::FullNat).then(|| Arc::new(self.locals(builder, at)));
        let local_source = (self.method == Method::Tun).then(|| director(self.family));
        Destination { locals, local_source, ..server }
    }

    /// The local addresses that connections to a server come from.
    fn locals(&self, builder: &mut ServicesBuilder, server: Endpoint) -> ServerLocals {
        let ports = LocalPorts::default();
        let one = |n| {
            let (address, pair) = (local(self.family, n), LocalPair::new(self.workers));
            builder.local(address, ports);
            let key = PairKey { protocol: Some(self.protocol), server, local: address };
            builder.pair(key, pair.clone());
            Local { address, pair }
        };
        let list = (0..=self.capacity / FLOWS_PER_LOCAL).map(one).collect();
        ServerLocals::new(ports, list, self.workers)
    }

    fn hops(&self) -> Result<NextHops, BenchError> {
        let mut builder = NextHopsBuilder::new(1);
        let gateway = builder.hop(Hop::neighbour(&egress(CLIENTS), GATEWAY))?;
        builder.route(clients(self.family), gateway);
        for n in 0..REAL_SERVERS {
            let server: HopIndex = builder.hop(Hop::neighbour(&egress(SERVERS), server_mac(n)))?;
            (0..self.services).for_each(|service| builder.destination(slot(service, n), server));
        }
        Ok(builder.build())
    }

    fn vip(&self, service: u16) -> Endpoint {
        Endpoint { address: vip(self.family), port: NetPort::new(SERVICE_PORT.wrapping_add(service)) }
    }

    /// A real server. In DR and TUN it listens on the service's own port.
    fn server(&self, service: u16, n: u32) -> Endpoint {
        let address = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 10).to_bits() + n)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 10 + n as u16)),
        };
        let first = if self.method.is_two_way() { SERVER_PORT } else { SERVICE_PORT };
        Endpoint { address, port: NetPort::new(first.wrapping_add(service)) }
    }

    /// Whether a frame of the first service left as it should for this method: to which server it went is the
    /// scheduler's business.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn judge(&self, port: PortIndex, frame: &[u8], seen: &Seen) -> Result<(), BadFrame> {
        if port == CLIENTS { self.judge_reply(frame, seen) } else { self.judge_request(frame, seen) }
    }

    fn judge_request(&self, frame: &[u8], seen: &Seen) -> Result<(), BadFrame> {
        let Some(n) = (0..REAL_SERVERS).find(|n| frame.starts_with(&server_mac(*n).0)) else {
            return Err(BadFrame("it goes to no real server's Ethernet address".into()));
        };
        let server = self.server(0, n);
        let (destination, tunnel) = match self.method {
            Method::Nat | Method::FullNat => (server, None),
            Method::Dr => (self.vip(0), None),
            Method::Tun => (self.vip(0), Some((director(self.family), server.address))),
        };
        if seen.destination != destination || seen.tunnel != tunnel {
            return Err(BadFrame(format!("{seen:?}; {destination} by {tunnel:?} was expected")));
        }
        let is_local = locals(self.family).contains(&seen.source.address);
        let is_client = clients(self.family).contains(&seen.source.address);
        match self.method {
            Method::FullNat if !is_local => Err(BadFrame(format!("{} is no local address", seen.source))),
            Method::Nat | Method::Dr | Method::Tun if !is_client => {
                Err(BadFrame(format!("it comes from {}, no client", seen.source)))
            }
            _ => Ok(()),
        }
    }

    fn judge_reply(&self, frame: &[u8], seen: &Seen) -> Result<(), BadFrame> {
        if !frame.starts_with(&GATEWAY.0) {
            return Err(BadFrame("it does not go to the clients' gateway".into()));
        }
        if seen.source != self.vip(0) || !clients(self.family).contains(&seen.destination.address) {
            return Err(BadFrame(format!("{seen:?}; from {} to a client was expected", self.vip(0))));
        }
        Ok(())
    }
}

fn slot(service: u16, n: u32) -> DestinationSlot {
    DestinationSlot(u32::from(service) * REAL_SERVERS + n)
}

fn egress(port: PortIndex) -> Egress {
    Egress { exit: Exit::One(port), source: DIRECTOR, tags: arrayvec::ArrayVec::new(), mtu: 1600 }
}

fn server_mac(n: u32) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, n as u8])
}

fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1).into(),
    }
}

fn director(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 1, 0, 1).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into(),
    }
}

fn clients(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::from(ipnet::Ipv4Net::new_assert(CLIENTS_V4, 9)),
        Family::V6 => IpNet::from(ipnet::Ipv6Net::new_assert(CLIENTS_V6, 64)),
    }
}

fn locals(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::from(ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 2, 0, 0), 16)),
        Family::V6 => IpNet::from(ipnet::Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0), 64)),
    }
}

/// A local address of FULLNAT.
fn local(family: Family, n: u32) -> IpAddr {
    match locals(family).network() {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits() + 1 + n)),
        IpAddr::V6(first) => IpAddr::V6(Ipv6Addr::from_bits(first.to_bits() + 1 + u128::from(n))),
    }
}
