//! Compilation of small configurations on machines written as `ip -batch` text.

mod ports;
mod servers;
mod steering;
mod ways;

use std::net::IpAddr;
use std::sync::Arc;

use dataplane::ident::{Endpoint, MacAddr, NetPort, PortIndex, Protocol, ServiceKey, Weight};
use dataplane::next_hop::{Exit, Hop};
use dataplane::port::ChecksumMode;
use dataplane::rules::{Action, Rate, Rule, Selector};
use dataplane::sched::SchedulerKind;
use dataplane::service::{
    AccessLists, Activity, AddressFamily, AddressRange, ConnectionLimits, Datagrams, Destination, Encapsulation, Ftp,
    Mark, MatchPoint, MssClamp, ServiceName, Thresholds,
};
use dataplane::snapshot::Defended;

use super::*;
use crate::config::{
    AddressFlags, Broadcast, ChecksumPolicy, CopyMode, ForwardingMethod, InterfaceConfig, Queues, RealServer,
    SorryServer, StaticAddress, TowardsServers, VirtualServer, XdpMode,
};
use crate::topology::batch;

/// A client side, a server side with one resolved and one silent server, and a gateway on each.
const MACHINE: &str = "
    link add eth0 address 02:00:00:00:00:10 mtu 1500
    link add eth1 address 02:00:00:00:00:11 mtu 9000 numrxqueues 2
    addr add 10.1.0.1/24 dev eth0
    addr add 10.9.0.1/32 dev eth0
    addr add 2001:db8:1::1/64 dev eth0
    addr add 2001:db8:9::1/128 dev eth0
    addr add 10.2.0.1/24 dev eth1
    addr add 2001:db8:2::1/64 dev eth1
    route add default via 10.1.0.254
    route add 10.3.0.0/16 via 10.2.0.254 mtu 1400
    neigh add 10.1.0.254 lladdr 02:00:00:00:01:fe dev eth0
    neigh add 10.2.0.254 lladdr 02:00:00:00:02:fe dev eth1
    neigh add 10.2.0.5 lladdr 02:00:00:00:02:05 dev eth1
    neigh add 2001:db8:2::5 lladdr 02:00:00:00:02:05 dev eth1";

const KERNEL_PORT: &str = "
    link add sluice0 address 02:53:6c:75:69:00 type veth
    link add sluice1 address 02:53:6c:75:69:01 type veth
    addr add 169.254.83.109/30 dev sluice1";

const SERVER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 2, 5]);

fn place() -> Place {
    Place { file: "test.conf".into(), line: 1, column: 1 }
}

fn endpoint(text: &str) -> Endpoint {
    let socket: std::net::SocketAddr = text.parse().unwrap();
    Endpoint { address: socket.ip(), port: NetPort::new(socket.port()) }
}

fn tcp(text: &str) -> ServiceKey {
    ServiceKey { protocol: Protocol::Tcp, at: endpoint(text) }
}

fn service(vip: &str, servers: &[(&str, ForwardingMethod)]) -> VirtualServer {
    let real = |(at, method): &(&str, ForwardingMethod)| RealServer {
        at: endpoint(at),
        weight: Weight::ONE,
        thresholds: Thresholds::default(),
        method: *method,
        encapsulation: Encapsulation::Ipip,
        inhibit_on_failure: false,
        place: place(),
    };
    VirtualServer {
        name: tcp(vip).into(),
        points: vec![tcp(vip).into()],
        scheduler: SchedulerKind::Wrr,
        method: ForwardingMethod::Nat,
        encapsulation: Encapsulation::Ipip,
        tunnel_sources: Vec::new(),
        mss_clamp: MssClamp::Off,
        syn_proxy: None,
        towards: TowardsServers::default(),
        locals: Vec::new(),
        datagrams: Datagrams::default(),
        limits: ConnectionLimits::default(),
        drain: false,
        persistence: None,
        sorry_server: None,
        ftp: Ftp::ByPort,
        access: AccessLists::default(),
        real_servers: servers.iter().map(real).collect(),
        place: place(),
    }
}

fn config(services: Vec<VirtualServer>) -> Config {
    Config { virtual_servers: services, ..Config::default() }
}

fn interface(name: &str) -> InterfaceConfig {
    InterfaceConfig {
        name: name.into(),
        queues: Queues::All,
        mode: XdpMode::Auto,
        copy: CopyMode::Auto,
        checksum: ChecksumPolicy::Auto,
        busy_poll: None,
        place: place(),
    }
}

/// One compilation with its directory.
struct Run {
    compiled: Compiled,
    slots: SlotDirectory,
}

fn run(config: &Config, machine: &str) -> Run {
    let topology = batch::parse(machine).unwrap();
    let ports = derive_ports(config, &topology).unwrap();
    let mut slots = SlotDirectory::new(1);
    let compiled = compile(config, &topology, &ports, &mut slots, None).unwrap();
    Run { compiled, slots }
}

impl Run {
    fn destination(&self, at: &str) -> &Destination {
        let at = endpoint(at);
        let mut all = self.compiled.snapshot.services.iter().flat_map(|service| &service.destinations);
        all.find(|destination| destination.at == at).unwrap()
    }

    fn hop(&self, at: &str) -> &Hop {
        self.compiled.snapshot.hops.destination(self.destination(at).slot)
    }

    fn told(&self) -> String {
        self.compiled.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

fn neighbour(port: u8, header: &[u8], mtu: u16) -> Hop {
    Hop::Neighbour { port: PortIndex(port), header: header.try_into().unwrap(), mtu }
}
