//! The director under test: one service with ten real servers, clients behind a gateway, all in memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::flow::FlowTable;
use dataplane::ident::{Endpoint, MacAddr, NetPort, PortIndex, Protocol, ServiceKey, Weight};
use dataplane::next_hop::{Egress, Exit, Hop, HopIndex, NextHops, NextHopsBuilder};
use dataplane::port::ChecksumMode;
use dataplane::sched::SchedulerKind;
use dataplane::service::{
    Destination, DestinationCounts, DestinationSlot, Method, ServiceSpec, Services, ServicesBuilder,
};
use dataplane::snapshot::{Policy, PortSettings, Snapshot};
use dataplane::worker::Shared;
use ipnet::IpNet;

use crate::error::BenchError;
use crate::loop_ports::{CLIENTS, SERVERS};
use crate::packets::{CLIENTS_V4, CLIENTS_V6, Family, PacketShape};
use crate::verify::{BadFrame, Seen};

/// Real servers behind the service.
pub(crate) const REAL_SERVERS: u32 = 10;
const DIRECTOR: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const GATEWAY: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const SERVICE_PORT: NetPort = NetPort::new(80);
const SERVER_PORT: NetPort = NetPort::new(8080);

/// What the service is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene {
    pub(crate) method: Method,
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    /// Flows that the table is made for.
    pub(crate) capacity: u32,
    pub(crate) workers: usize,
    /// Bytes of a frame.
    pub(crate) size: usize,
}

impl Scene {
    /// What the clients send to.
    pub(crate) fn shape(&self) -> PacketShape {
        let to = Endpoint { address: vip(self.family), port: SERVICE_PORT };
        PacketShape { family: self.family, to, link: (GATEWAY, DIRECTOR), size: self.size }
    }

    /// The state that the workers share.
    ///
    /// # Errors
    /// When the table's memory cannot be had.
    pub(crate) fn shared(&self) -> Result<Arc<Shared>, BenchError> {
        let (flows4, flows6) = match self.family {
            Family::V4 => (self.capacity, 1),
            Family::V6 => (1, self.capacity),
        };
        let flows4 = FlowTable::anonymous(flows4, self.workers)?;
        let flows6 = FlowTable::anonymous(flows6, self.workers)?;
        Ok(Arc::new(Shared::new(self.snapshot()?, flows4, flows6, self.workers, 2)))
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, BenchError> {
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
        let at = Endpoint { address: vip(self.family), port: SERVICE_PORT };
        let key = ServiceKey { protocol: self.protocol, at };
        let destination = |n| {
            let counts = Arc::new(DestinationCounts::new(self.workers));
            let server = Destination::new(DestinationSlot(n), self.server(n), self.method, Weight::ONE, counts);
            Destination { local_source: (self.method == Method::Tun).then(|| director(self.family)), ..server }
        };
        let mut builder = ServicesBuilder::default();
        builder.add(ServiceSpec::new(key, SchedulerKind::Wlc, (0..REAL_SERVERS).map(destination).collect()))?;
        Ok(builder.build())
    }

    fn hops(&self) -> Result<NextHops, BenchError> {
        let mut builder = NextHopsBuilder::new(1);
        let gateway = builder.hop(Hop::neighbour(&egress(CLIENTS), GATEWAY))?;
        builder.route(clients(self.family), gateway);
        for n in 0..REAL_SERVERS {
            let server: HopIndex = builder.hop(Hop::neighbour(&egress(SERVERS), server_mac(n)))?;
            builder.destination(DestinationSlot(n), server);
        }
        Ok(builder.build())
    }

    /// A real server. In DR and TUN it listens on the service's own port.
    fn server(&self, n: u32) -> Endpoint {
        let address = match self.family {
            Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 10).to_bits() + n)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 10 + n as u16)),
        };
        let port = if self.method.is_two_way() { SERVER_PORT } else { SERVICE_PORT };
        Endpoint { address, port }
    }

    /// Whether a frame left as it should for this method: to which server it went is the scheduler's business.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn judge(&self, port: PortIndex, frame: &[u8], seen: &Seen) -> Result<(), BadFrame> {
        let Some(n) = (0..REAL_SERVERS).find(|n| frame.starts_with(&server_mac(*n).0)) else {
            return Err(BadFrame("it goes to no real server's Ethernet address".into()));
        };
        let server = self.server(n);
        let service = self.shape().to;
        let (destination, tunnel) = match self.method {
            Method::Nat | Method::FullNat => (server, None),
            Method::Dr => (service, None),
            Method::Tun => (service, Some((director(self.family), server.address))),
        };
        if port != SERVERS || seen.destination != destination || seen.tunnel != tunnel {
            return Err(BadFrame(format!(
                "{seen:?} left by port {}; {destination} by {tunnel:?} was expected",
                port.0
            )));
        }
        let is_client = clients(self.family).contains(&seen.source.address);
        if is_client { Ok(()) } else { Err(BadFrame(format!("it comes from {}, no client", seen.source))) }
    }
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
