//! Compilation of small configurations on machines written as `ip -batch` text.

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

#[test]
fn nat_on_link_and_through_a_gateway() {
    use ForwardingMethod::Nat;
    let services = vec![service("10.9.0.1:80", &[("10.2.0.5:8080", Nat), ("10.3.7.7:8080", Nat)])];
    let run = run(&config(services), MACHINE);
    assert_eq!(run.hop("10.2.0.5:8080"), &neighbour(1, &[2, 0, 0, 0, 2, 5, 2, 0, 0, 0, 0, 0x11], 9000));
    assert_eq!(run.hop("10.3.7.7:8080"), &neighbour(1, &[2, 0, 0, 0, 2, 0xfe, 2, 0, 0, 0, 0, 0x11], 1400));
    assert_eq!(run.destination("10.2.0.5:8080").local_source, None);
    assert_eq!(run.told(), "");
    assert_eq!(run.compiled.steer.services, [tcp("10.9.0.1:80")].into());
    assert_eq!(run.compiled.steer.replies, [tcp("10.2.0.5:8080"), tcp("10.3.7.7:8080")].into());
    let own = &run.compiled.steer.own;
    assert!(own.contains(&"10.2.0.1".parse().unwrap()) && !own.contains(&"10.9.0.1".parse().unwrap()));
    assert_eq!(run.compiled.steer.macs, [MacAddr([2, 0, 0, 0, 0, 0x10]), MacAddr([2, 0, 0, 0, 0, 0x11])].into());
}

#[test]
fn destinations_keep_the_order_of_the_file() {
    let servers = [("10.2.0.5:1", ForwardingMethod::Dr), ("10.2.0.6:1", ForwardingMethod::Dr)];
    let run = run(&config(vec![service("10.9.0.1:1", &servers)]), MACHINE);
    let first = run.compiled.snapshot.services.iter().next().unwrap();
    // As IPVS has them: the one added last stands first.
    let at: Vec<_> = first.destinations.iter().map(|destination| destination.at).collect();
    assert_eq!(at, [endpoint("10.2.0.6:1"), endpoint("10.2.0.5:1")]);
}

#[test]
fn dr_to_a_silent_server_waits_for_its_address() {
    let run = run(&config(vec![service("10.9.0.1:80", &[("10.2.0.9:80", ForwardingMethod::Dr)])]), MACHINE);
    assert!(matches!(run.hop("10.2.0.9:80"), Hop::Unresolved(egress) if egress.exit == Exit::One(PortIndex(1))));
    assert!(run.told().contains("10.2.0.9 has not answered on eth1"), "{}", run.told());
    let wanted: Vec<IpAddr> = run.compiled.wanted.iter().map(|(_, address)| *address).collect();
    assert!(wanted.contains(&"10.2.0.9".parse().unwrap()));
    assert!(wanted.contains(&"10.1.0.254".parse().unwrap()), "gateways towards clients are kept, too");
    assert!(run.compiled.steer.replies.is_empty(), "DR has no replies");
}

#[test]
fn dr_behind_a_gateway_is_told() {
    let run = run(&config(vec![service("10.9.0.1:80", &[("10.3.0.9:80", ForwardingMethod::Dr)])]), MACHINE);
    assert!(run.told().contains("is reached by gateway 10.2.0.254"), "{}", run.told());
}

#[test]
fn tunnels_start_where_the_kernel_would_start_them() {
    use ForwardingMethod::Tun;
    let servers = [("10.2.0.5:80", Tun), ("10.3.0.9:80", Tun), ("[2001:db8:2::5]:80", Tun)];
    let run = run(&config(vec![service("10.9.0.1:80", &servers)]), MACHINE);
    let source = |at| run.destination(at).local_source.unwrap().to_string();
    assert_eq!(source("10.2.0.5:80"), "10.2.0.1");
    assert_eq!(source("10.3.0.9:80"), "10.2.0.1");
    assert_eq!(source("[2001:db8:2::5]:80"), "2001:db8:2::1");
    let machine = format!("{MACHINE}\nroute add 203.0.113.0/24 via 10.1.0.254 src 10.2.0.1");
    let servers = [("203.0.113.5:80", Tun), ("198.51.100.5:80", Tun)];
    let run = super::tests::run(&config(vec![service("10.9.0.1:80", &servers)]), &machine);
    let source = |at| run.destination(at).local_source.unwrap().to_string();
    assert_eq!(source("203.0.113.5:80"), "10.2.0.1", "the route says so");
    assert_eq!(source("198.51.100.5:80"), "10.1.0.1", "not the VIP, which is on the same interface");
}

#[test]
fn a_tunnel_without_an_address_of_its_family_is_told() {
    let machine = "link add eth0\naddr add 2001:db8::1/64 dev eth0\nroute add 10.7.0.0/24 dev eth0";
    let run = run(&config(vec![service("[2001:db8::1]:80", &[("10.7.0.1:80", ForwardingMethod::Tun)])]), machine);
    assert_eq!(run.destination("10.7.0.1:80").local_source, None);
    assert!(run.told().contains("no address to send a tunnel to 10.7.0.1:80 from"), "{}", run.told());
}

#[test]
fn ipv6_of_every_method() {
    use ForwardingMethod::{Dr, Nat, Tun};
    for method in [Nat, Dr, Tun] {
        let run = run(&config(vec![service("[2001:db8:9::1]:80", &[("[2001:db8:2::5]:80", method)])]), MACHINE);
        assert!(matches!(run.hop("[2001:db8:2::5]:80"), Hop::Neighbour { header, .. } if header[..6] == SERVER_MAC.0));
        assert_eq!(run.compiled.steer.services, [tcp("[2001:db8:9::1]:80")].into());
        assert_eq!(run.told(), "");
    }
}

#[test]
fn local_servers_are_reached_by_the_kernel_port() {
    use ForwardingMethod::{Dr, Nat, Tun};
    let servers = [
        ("127.0.0.1:8080", Nat),
        ("10.1.0.1:80", Nat),
        ("10.2.0.1:80", Dr),
        ("[2001:db8:1::1]:80", Nat),
        ("10.9.0.1:80", Tun),
    ];
    let services = config(vec![service("10.9.0.1:80", &servers)]);
    let run = run(&services, &format!("{MACHINE}{KERNEL_PORT}"));
    for (at, _) in servers {
        assert_eq!(run.hop(at), &Hop::Kernel, "{at}");
    }
    let source = |at: &str| run.destination(at).local_source.map(|address| address.to_string());
    assert_eq!(source("127.0.0.1:8080").as_deref(), Some("169.254.83.110"));
    assert_eq!(source("10.1.0.1:80").as_deref(), Some("169.254.83.110"));
    assert_eq!(source("[2001:db8:1::1]:80").as_deref(), Some("fd53:6c75:6963:6500::2"));
    assert_eq!((source("10.2.0.1:80"), source("10.9.0.1:80")), (None, None));
    assert_eq!(run.told(), "");
    let kernel = run.compiled.snapshot.kernel.as_ref().unwrap();
    assert_eq!(kernel.port, PortIndex(1));
    assert_eq!(&kernel.header[..], &[2, 0x53, 0x6c, 0x75, 0x69, 1, 2, 0x53, 0x6c, 0x75, 0x69, 0]);
    assert_eq!(kernel.rate, 100_000);
    assert_eq!(run.compiled.ports[1].role, PortRole::Kernel);
}

#[test]
fn a_local_server_without_the_kernel_port_is_told() {
    let run = run(&config(vec![service("10.9.0.1:80", &[("10.1.0.1:80", ForwardingMethod::Nat)])]), MACHINE);
    assert!(run.compiled.snapshot.kernel.is_none());
    assert!(run.told().contains("the kernel port is off"), "{}", run.told());
}

#[test]
fn the_ipv6_loopback_cannot_be_reached_and_the_ipv4_one_needs_leave() {
    let v6 = config(vec![service("[2001:db8:9::1]:80", &[("[::1]:80", ForwardingMethod::Nat)])]);
    let run = run(&v6, &format!("{MACHINE}{KERNEL_PORT}"));
    assert_eq!(run.hop("[::1]:80"), &Hop::NoRoute);
    assert!(run.told().contains("the kernel drops what comes to ::1"), "{}", run.told());
    assert!(!kernel_port::needs_loopback(&v6));
    let v4 = config(vec![service("10.9.0.1:80", &[("127.0.0.1:80", ForwardingMethod::Nat)])]);
    assert!(kernel_port::needs_loopback(&v4));
}

#[test]
fn no_route_blackholes_and_interfaces_that_are_no_port() {
    use ForwardingMethod::{Dr, Nat};
    let machine = format!(
        "{MACHINE}{KERNEL_PORT}\nlink add wg0 type wireguard\naddr add 10.6.0.1/24 dev wg0\nroute add blackhole 10.3.4.0/24"
    );
    let servers = [("10.3.4.5:80", Nat), ("[2001:db8:77::1]:80", Nat), ("10.6.0.5:80", Nat), ("10.6.0.6:80", Dr)];
    let mut config = config(vec![service("10.9.0.1:80", &servers)]);
    config.dataplane.interfaces = vec![interface("eth0"), interface("eth1")];
    let run = run(&config, &machine);
    assert_eq!(run.hop("10.3.4.5:80"), &Hop::NoRoute);
    assert_eq!(run.hop("[2001:db8:77::1]:80"), &Hop::NoRoute);
    assert_eq!(run.hop("10.6.0.5:80"), &Hop::NoRoute, "the kernel would take it for its own");
    assert_eq!(run.hop("10.6.0.6:80"), &Hop::NoRoute);
    let told = run.told();
    assert!(told.contains("no route to real server 10.3.4.5:80"), "{told}");
    assert!(
        told.contains("10.6.0.6:80 cannot be reached, the way to it is wg0, which is no port of the director"),
        "{told}"
    );
    let way = |to: &str| run.compiled.snapshot.hops.hop(run.compiled.snapshot.hops.lookup(to.parse().unwrap()));
    assert_eq!(way("10.6.0.77"), &Hop::Kernel);
    assert_eq!(way("10.1.0.1"), &Hop::Kernel);
    assert_eq!(way("10.3.4.9"), &Hop::NoRoute);
    assert!(matches!(way("10.2.0.77"), Hop::OnLink(egress) if egress.exit == Exit::One(PortIndex(1))));
    assert!(matches!(way("192.0.2.1"), Hop::Neighbour { port: PortIndex(0), .. }));
}

#[test]
fn vlans_are_followed_to_the_port_below() {
    let machine = "
        link add eth0 address 02:00:00:00:00:10 mtu 1500
        link add link eth0 name eth0.7 type vlan id 7 protocol 802.1ad
        link add link eth0.7 name eth0.7.8 mtu 1400 type vlan id 8
        addr add 10.9.0.1/32 dev eth0
        addr add 10.2.0.1/24 dev eth0.7.8
        neigh add 10.2.0.5 lladdr 02:00:00:00:02:05 dev eth0.7.8";
    let run = run(&config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Dr)])]), machine);
    assert_eq!(run.compiled.ports.len(), 1, "{:?}", run.compiled.ports);
    let header = [2, 0, 0, 0, 2, 5, 2, 0, 0, 0, 0, 0x10, 0x88, 0xa8, 0, 7, 0x81, 0, 0, 8];
    assert_eq!(run.hop("10.2.0.5:80"), &neighbour(0, &header, 1400));
}

#[test]
fn a_vip_that_is_not_here_is_not_steered() {
    let services = vec![service("10.99.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])];
    let run = run(&config(services), MACHINE);
    assert!(run.compiled.steer.services.is_empty() && run.compiled.steer.replies.is_empty());
    assert!(run.told().contains("no interface has 10.99.0.1"), "{}", run.told());
    assert!(run.compiled.snapshot.services.find(Protocol::Tcp, endpoint("10.99.0.1:80")).is_some());
}

#[test]
fn replies_of_a_removed_server_are_taken_until_its_last_flow_ended() {
    let topology = batch::parse(MACHINE).unwrap();
    let with = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    let without = config(vec![service("10.9.0.1:80", &[])]);
    let Run { compiled, mut slots } = run(&with, MACHINE);
    let counts = Arc::clone(&slots.iter().next().unwrap().1.counts);
    counts.begin(Activity::Active);
    let ports = derive_ports(&with, &topology).unwrap();
    let after = compile(&without, &topology, &ports, &mut slots, Some(&compiled)).unwrap();
    assert_eq!(after.steer.replies, [tcp("10.2.0.5:80")].into());
    counts.end(Activity::Active);
    let later = compile(&without, &topology, &ports, &mut slots, Some(&after)).unwrap();
    assert!(later.steer.replies.is_empty());
}

#[test]
fn flows_of_a_removed_server_are_counted_to_their_end_and_its_number_is_given_again() {
    let topology = batch::parse(MACHINE).unwrap();
    let with = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    let without = config(vec![service("10.9.0.1:80", &[])]);
    let other = config(vec![service("10.9.0.1:80", &[("10.2.0.6:80", ForwardingMethod::Nat)])]);
    let Run { compiled, mut slots } = run(&with, MACHINE);
    let slot = compiled.snapshot.services.iter().next().unwrap().destinations[0].slot;
    compiled.snapshot.services.counts(slot).unwrap().begin(Activity::Active);
    let removed = compile(&without, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap();
    assert!(removed.snapshot.services.destination(slot).is_none());
    let replaced = compile(&other, &topology, &compiled.ports, &mut slots, Some(&removed)).unwrap();
    assert_ne!(replaced.snapshot.services.iter().next().unwrap().destinations[0].slot, slot);
    replaced.snapshot.services.counts(slot).unwrap().end(Activity::Active);
    assert!(slots.is_due());
    let later = compile(&other, &topology, &compiled.ports, &mut slots, Some(&replaced)).unwrap();
    assert!(Arc::ptr_eq(&replaced.snapshot.services, &later.snapshot.services), "one more look is to come");
    assert!(!slots.is_due());
    let last = compile(&with, &topology, &compiled.ports, &mut slots, Some(&later)).unwrap();
    assert_eq!(last.snapshot.services.iter().next().unwrap().destinations[0].slot, slot);
}

#[test]
fn a_removed_server_of_a_service_that_drains_stays_until_its_last_flow() {
    let topology = batch::parse(MACHINE).unwrap();
    let drained = |servers: &[(&str, ForwardingMethod)]| {
        config(vec![VirtualServer { drain: true, ..service("10.9.0.1:80", servers) }])
    };
    let both = [("10.2.0.5:80", ForwardingMethod::Nat), ("10.2.0.6:80", ForwardingMethod::Nat)];
    let (with, without) = (drained(&both), drained(&both[1..]));
    let Run { compiled, mut slots } = run(&with, MACHINE);
    let first = |compiled: &Compiled| compiled.snapshot.services.iter().next().unwrap().destinations.len();
    let slot = compiled.snapshot.services.iter().next().unwrap().destinations[1].slot;
    compiled.snapshot.services.counts(slot).unwrap().begin(Activity::Active);
    let removed = compile(&without, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap();
    let left = removed.snapshot.services.destination(slot).unwrap();
    assert_eq!((first(&removed), left.weight, left.at), (1, Weight::ZERO, endpoint("10.2.0.5:80")));
    assert!(matches!(removed.snapshot.hops.destination(slot), Hop::Neighbour { .. }));
    assert!(removed.snapshot.services.iter().all(|s| s.flows() == 1));

    let back = compile(&with, &topology, &compiled.ports, &mut slots, Some(&removed)).unwrap();
    let again = back.snapshot.services.destination(slot).unwrap();
    assert_eq!((first(&back), again.weight, again.counts.active()), (2, Weight::ONE, 1), "revived");

    let removed = compile(&without, &topology, &compiled.ports, &mut slots, Some(&back)).unwrap();
    removed.snapshot.services.counts(slot).unwrap().end(Activity::Active);
    assert!(slots.is_due());
    let over = compile(&without, &topology, &compiled.ports, &mut slots, Some(&removed)).unwrap();
    assert!(over.snapshot.services.destination(slot).is_none() && !slots.is_due());
}

#[test]
fn a_refused_configuration_lets_go_of_nothing() {
    let topology = batch::parse(MACHINE).unwrap();
    let good = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    let twice = config(vec![service("10.9.0.1:1", &[]), service("10.9.0.1:1", &[])]);
    let Run { compiled, mut slots } = run(&good, MACHINE);
    for _ in 0..3 {
        let refused = compile(&twice, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap_err();
        assert!(refused.to_string().contains("is that of another service too"), "{refused}");
    }
    assert!(!slots.is_due() && slots.iter().all(|(_, entry)| entry.standing == slots::Standing::Configured));
}

#[test]
fn ten_thousand_services_of_ten_servers_are_compiled() {
    let at = |n: usize, port: usize| format!("10.{}.{}.{}:{port}", 64 + (n >> 16), n >> 8 & 0xff, n & 0xff);
    let servers: Vec<String> = (0..10).map(|n| at(n, 80)).collect();
    let servers: Vec<_> = servers.iter().map(|at| (at.as_str(), ForwardingMethod::Tun)).collect();
    let services = (0..10_000).map(|n| service(&format!("10.9.{}.{}:80", n >> 8, n & 0xff), &servers)).collect();
    let run = run(&config(services), &format!("{MACHINE}\nroute add 10.64.0.0/10 via 10.2.0.254"));
    let slots: std::collections::BTreeSet<_> = run.slots.iter().map(|(_, entry)| entry.slot.0).collect();
    assert_eq!((slots.len(), slots.last()), (100_000, Some(&99_999)));
}

#[test]
fn replies_of_a_whole_address_service_are_of_any_port() {
    let services = vec![service("10.9.0.1:0", &[("10.2.0.5:0", ForwardingMethod::Nat)])];
    assert_eq!(run(&config(services), MACHINE).compiled.steer.replies, [tcp("10.2.0.5:0")].into());
}

#[test]
fn what_did_not_change_is_shared() {
    let topology = batch::parse(MACHINE).unwrap();
    let config = config(vec![service("10.9.0.1:80", &[("10.2.0.9:80", ForwardingMethod::Dr)])]);
    let ports = derive_ports(&config, &topology).unwrap();
    let mut slots = SlotDirectory::new(1);
    let first = compile(&config, &topology, &ports, &mut slots, None).unwrap();
    let again = compile(&config, &topology, &ports, &mut slots, Some(&first)).unwrap();
    assert!(Arc::ptr_eq(&first.snapshot.services, &again.snapshot.services));
    assert!(Arc::ptr_eq(&first.snapshot.hops, &again.snapshot.hops));
    let answered = batch::parse(&format!("{MACHINE}\nneigh add 10.2.0.9 lladdr 02:00:00:00:02:09 dev eth1")).unwrap();
    let resolved = compile(&config, &answered, &ports, &mut slots, Some(&again)).unwrap();
    assert!(Arc::ptr_eq(&first.snapshot.services, &resolved.snapshot.services));
    assert_eq!(resolved.snapshot.hops.generation(), first.snapshot.hops.generation() + 1);
    assert!(resolved.findings.is_empty(), "{:?}", resolved.findings);
    let mut heavier = config.clone();
    heavier.virtual_servers[0].real_servers[0].weight = Weight::new(3).unwrap();
    let reloaded = compile(&heavier, &answered, &ports, &mut slots, Some(&resolved)).unwrap();
    assert!(!Arc::ptr_eq(&resolved.snapshot.services, &reloaded.snapshot.services));
    assert!(Arc::ptr_eq(&resolved.snapshot.hops, &reloaded.snapshot.hops));
}

#[test]
fn of_several_ways_one_with_a_known_gateway_is_taken_and_told() {
    let machine = format!("{MACHINE}\nroute add 10.4.0.0/16 nexthop via 10.2.0.253 nexthop via 10.2.0.254");
    let run = run(&config(vec![service("10.9.0.1:80", &[("10.4.0.9:80", ForwardingMethod::Nat)])]), &machine);
    assert!(matches!(run.hop("10.4.0.9:80"), Hop::Neighbour { header, .. } if header[5] == 0xfe));
    assert!(run.told().contains("10.4.0.0/16 has several ways; all packets take the one by eth1 to 10.2.0.254"));
}

#[test]
fn ports_are_derived_with_the_reason() {
    let config = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    let machine = format!("{MACHINE}\nlink add eth2 address 02:00:00:00:00:12\naddr add 10.5.0.1/24 dev eth2");
    let ports = run(&config, &machine).compiled.ports;
    let summary: Vec<_> = ports.iter().map(|port| (port.name.as_str(), port.queues, port.why.as_str())).collect();
    assert_eq!(
        summary,
        [
            ("eth0", 1, "it has the address 10.9.0.1 of a virtual server"),
            ("eth1", 2, "it leads to real server 10.2.0.5:80"),
        ]
    );
    assert!(ports.iter().all(|port| port.checksum == ChecksumMode::Offload));
}

#[test]
fn named_interfaces_are_taken_as_they_are_said() {
    let mut config = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    let queues = InterfaceConfig { queues: Queues::Count(4), mode: XdpMode::Generic, ..interface("eth1") };
    config.dataplane.interfaces = vec![queues];
    let ports = run(&config, MACHINE).compiled.ports;
    assert_eq!((ports.len(), ports[0].queues, ports[0].mode), (1, 4, XdpMode::Generic));
    assert_eq!(worker_limit(&config, &ports), 4);
}

#[test]
fn veth_frames_have_their_checksums_computed() {
    let machine = "link add eth0 type veth\naddr add 10.9.0.1/24 dev eth0";
    let mut config = config(vec![service("10.9.0.1:80", &[])]);
    assert_eq!(run(&config, machine).compiled.ports[0].checksum, ChecksumMode::Full);
    config.dataplane.interfaces = vec![InterfaceConfig { checksum: ChecksumPolicy::Offload, ..interface("eth0") }];
    assert_eq!(run(&config, machine).compiled.ports[0].checksum, ChecksumMode::Offload);
}

#[test]
fn interfaces_that_cannot_be_ports_are_refused_with_the_reason() {
    let refusal =
        |config: &Config, machine: &str| derive_ports(config, &batch::parse(machine).unwrap()).unwrap_err().to_string();
    let vip = config(vec![service("10.9.0.1:80", &[])]);
    let on = |link: &str| format!("{link}\naddr add 10.9.0.1/24 dev x");
    assert!(refusal(&vip, &on("link add x type bridge")).contains("x cannot be a port: it is a bridge"));
    assert!(refusal(&vip, &on("link add x type bond")).contains("a bond without members"));
    let alb = on("link add x type bond mode balance-alb\nlink add a\nlink set a master x");
    assert!(refusal(&vip, &alb).contains("use active-backup or 802.3ad"));
    assert!(refusal(&vip, &on("link add br type bridge\nlink add x master br")).contains("part of br"));
    assert!(refusal(&vip, "link add eth0").contains("name one by"));
    let mut named = vip.clone();
    named.dataplane.interfaces = vec![interface("eth0.7")];
    let vlan = "link add eth0\nlink add link eth0 name eth0.7 type vlan id 7";
    assert!(refusal(&named, vlan).contains("name eth0 in its place"));
    assert!(refusal(&named, "link add eth0").contains("there is no interface 'eth0.7'; there are lo, eth0"));
    named.dataplane.interfaces = vec![interface("lo")];
    assert!(refusal(&named, "link add eth0").contains("loopback"));
}

/// A bond of two members with a VIP and real servers on a VLAN of it.
const BOND: &str = "link add bond0 address 02:00:00:00:00:b0 type bond mode MODE
    link add eth0
    link add eth1
    link set eth0 master bond0
    link set eth1 master bond0
    link add link bond0 name bond0.100 type vlan id 100
    addr add 10.9.0.1/24 dev bond0
    addr add 10.2.0.1/24 dev bond0.100
    neigh add 10.2.0.11 lladdr 02:00:00:00:01:0b dev bond0.100
    neigh add 10.2.0.12 lladdr 02:00:00:00:01:0c dev bond0.100";

#[test]
fn the_ports_of_a_bond_are_its_members_and_the_active_one_sends() {
    let config = config(vec![service("10.9.0.1:80", &[("10.2.0.11:80", ForwardingMethod::Nat)])]);
    let machine = BOND.replace("MODE", "active-backup") + "\nlink set eth1 type bond_slave state backup";
    let waiting = |run: &Run| run.compiled.steer.standby.iter().map(|index| Link(*index)).collect::<Vec<_>>();
    let before = run(&config, &machine);
    let names: Vec<_> = before.compiled.ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["eth0", "eth1"]);
    assert!(before.compiled.ports[0].why.contains("a member of bond0"), "{}", before.compiled.ports[0].why);
    let header = [2, 0, 0, 0, 1, 0x0b, 2, 0, 0, 0, 0, 0xb0, 0x81, 0, 0, 100];
    assert_eq!(before.hop("10.2.0.11:80"), &neighbour(0, &header, 1500));
    assert_eq!(waiting(&before), [before.compiled.ports[1].link]);
    let failed =
        machine.clone() + "\nlink set eth1 type bond_slave state active\nlink set eth0 type bond_slave state backup";
    let after = run(&config, &failed);
    assert_eq!(after.hop("10.2.0.11:80"), &neighbour(1, &header, 1500));
    assert_eq!(waiting(&after), [after.compiled.ports[0].link]);
}

#[test]
fn lacp_spreads_by_neighbour_or_by_flow_over_the_members_that_are_up() {
    let config =
        config(vec![service("10.9.0.1:80", &["10.2.0.11:80", "10.2.0.12:80"].map(|at| (at, ForwardingMethod::Nat)))]);
    let by_neighbour = run(&config, &BOND.replace("MODE", "802.3ad"));
    let port = |at: &str| match by_neighbour.hop(at) {
        Hop::Neighbour { port, .. } => port.0,
        other => panic!("{other:?}"),
    };
    assert_ne!(port("10.2.0.11:80"), port("10.2.0.12:80"));
    let by_flow = BOND.replace("MODE", "802.3ad xmit_hash_policy layer3+4");
    let both = run(&config, &by_flow);
    assert!(matches!(both.hop("10.2.0.11:80"), Hop::Spread { ports, .. } if ports.len() == 2));
    let one = run(&config, &(by_flow + "\nlink set eth0 down"));
    assert!(matches!(one.hop("10.2.0.11:80"), Hop::Neighbour { port: PortIndex(1), .. }));
}

#[test]
fn a_member_that_joins_after_the_start_is_told() {
    let config = config(vec![service("10.9.0.1:80", &[])]);
    let machine = BOND.replace("MODE", "active-backup");
    let ports = run(&config, &machine).compiled.ports;
    let topology = batch::parse(&(machine + "\nlink add eth2\nlink set eth2 master bond0")).unwrap();
    let told: Vec<_> = super::new_members(&topology, &ports).iter().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].contains("eth2 joined bond0"), "{told:?}");
}

#[test]
fn a_static_address_finds_its_interface() {
    let address = |dev: &str, net: &str| StaticAddress {
        address: net.parse().unwrap(),
        dev: dev.into(),
        broadcast: Broadcast::Unset,
        scope: 0,
        label: None,
        peer: None,
        preferred_lifetime: None,
        flags: AddressFlags::default(),
        place: place(),
    };
    let topology = batch::parse(MACHINE).unwrap();
    let of = |address: StaticAddress| static_link(&address, &topology).map(|link| topology.name(link));
    assert_eq!(of(address("eth1", "10.9.0.9/32")).unwrap(), "eth1");
    let refused = of(address("eth7", "10.9.0.9/32")).unwrap_err().to_string();
    assert!(
        refused.contains("test.conf:1:1: 10.9.0.9/32") && refused.contains("there are lo, eth0, eth1"),
        "{refused}"
    );
}

#[test]
fn a_port_that_is_down_is_told() {
    let machine = format!("{MACHINE}\nlink set eth0 down");
    let run = run(&config(vec![service("10.9.0.1:80", &[])]), &machine);
    assert!(run.told().contains("interface eth0 is down"), "{}", run.told());
}

#[test]
fn a_port_that_was_removed_is_told_though_its_name_is_there_again() {
    let mut ports = run(&config(vec![service("10.9.0.1:80", &[])]), MACHINE).compiled.ports;
    ports[0].link = dataplane::next_hop::Link(4711);
    let topology = batch::parse(MACHINE).unwrap();
    let told: Vec<_> = super::ports_down(&topology, &ports).map(|finding| finding.to_string()).collect();
    assert!(told.len() == 1 && told[0].contains("interface eth0 was removed"), "{told:?}");
}

#[test]
fn of_a_group_what_is_here_is_caught() {
    use ForwardingMethod::Nat;
    let range = |first: &str, last: &str, port: u16| MatchPoint::Addresses {
        protocol: Protocol::Tcp,
        range: AddressRange { first: first.parse().unwrap(), last: last.parse().unwrap() },
        port: NetPort::new(port),
    };
    let mut group = service("10.9.0.1:80", &[("10.2.0.5:0", Nat)]);
    group.name = ServiceName::Group { name: "web".into(), protocol: Protocol::Tcp };
    group.points = vec![range("10.9.0.0", "10.9.0.255", 80), range("192.0.2.1", "192.0.2.1", 443)];
    let compiled = run(&config(vec![group.clone()]), MACHINE);
    assert_eq!(compiled.compiled.steer.services, [tcp("10.9.0.1:80")].into());
    assert_eq!(compiled.compiled.steer.replies, [tcp("10.2.0.5:0")].into());
    assert!(compiled.compiled.served.contains(&group.name) && compiled.compiled.steer.prefixes.is_empty());
    assert_eq!(compiled.told(), "");
    let services = &compiled.compiled.snapshot.services;
    assert!(services.find(Protocol::Tcp, endpoint("10.9.0.77:80")).is_some());
    assert!(services.find(Protocol::Tcp, endpoint("192.0.2.1:443")).is_some());
    assert!(services.find(Protocol::Tcp, endpoint("192.0.2.1:80")).is_none());
    group.points.remove(0);
    let told = run(&config(vec![group]), MACHINE).told();
    assert_eq!(told, "TCP group web waits: no interface has 192.0.2.1; add it by static_ipaddress or `ip addr add`");
}

/// Address and weight of each server of a service, in the order of the file.
fn weights(run: &Run) -> Vec<(String, u32)> {
    let service = run.compiled.snapshot.services.iter().next().unwrap();
    service.destinations.iter().rev().map(|server| (server.at.to_string(), server.weight.value())).collect()
}

#[test]
fn the_sorry_server_stands_in_while_no_real_server_has_a_weight() {
    let mut one = service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)]);
    let server = service("10.9.0.1:80", &[("10.2.0.6:80", ForwardingMethod::Nat)]).real_servers.remove(0);
    for inhibit in [false, true] {
        one.sorry_server = Some(SorryServer { server: server.clone(), inhibit });
        one.real_servers[0].weight = Weight::ONE;
        let up = run(&config(vec![one.clone()]), MACHINE);
        let real = ("10.2.0.5:80".to_owned(), 1);
        let idle = ("10.2.0.6:80".to_owned(), 0);
        assert_eq!(weights(&up), if inhibit { vec![real, idle] } else { vec![real] });
        assert!(!up.told().contains("sorry"));
        one.real_servers[0].weight = Weight::ZERO;
        let down = run(&config(vec![one.clone()]), MACHINE);
        assert_eq!(weights(&down), [("10.2.0.5:80".to_owned(), 0), ("10.2.0.6:80".to_owned(), 1)]);
        assert!(down.told().contains("new connections go to the sorry server"), "{}", down.told());
    }
}

#[test]
fn a_real_server_may_be_the_sorry_server_too() {
    let mut one = service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)]);
    one.real_servers[0].weight = Weight::ZERO;
    one.sorry_server = Some(SorryServer { server: one.real_servers[0].clone(), inhibit: false });
    assert_eq!(weights(&run(&config(vec![one]), MACHINE)), [("10.2.0.5:80".to_owned(), 1)]);
}

#[test]
fn ftp_is_caught_whole() {
    use ForwardingMethod::{Dr, FullNat, Nat};
    let whole = |run: &Run| {
        let any = |keys: &std::collections::BTreeSet<ServiceKey>| keys.iter().any(|key| key.at.port.is_any());
        (any(&run.compiled.steer.services), any(&run.compiled.steer.replies))
    };
    let of = |port: u16, method, ftp, persistence| {
        let mut one = service(&format!("10.9.0.1:{port}"), &[("10.2.0.5:21", method)]);
        (one.ftp, one.persistence) = (ftp, persistence);
        whole(&run(&config(vec![one]), MACHINE))
    };
    let stays = Some(dataplane::service::Persistence::new(360));
    assert_eq!(of(21, Nat, Ftp::ByPort, None), (true, true));
    assert_eq!(of(21, Nat, Ftp::Off, None), (false, false));
    assert_eq!(of(80, Nat, Ftp::ByPort, None), (false, false));
    assert_eq!(of(2121, Nat, Ftp::On, None), (true, true));
    assert_eq!(of(21, FullNat, Ftp::ByPort, None), (true, false), "servers answer to local addresses");
    assert_eq!(of(21, Dr, Ftp::ByPort, None), (false, false));
    assert_eq!(of(21, Dr, Ftp::ByPort, stays), (true, false));
}

#[test]
fn what_rules_mark_is_caught_wherever_it_goes() {
    use ForwardingMethod::Nat;
    let mut marked = service("10.9.0.1:80", &[("10.2.0.5:0", Nat)]);
    let mark = Mark::new(7).unwrap();
    marked.name = ServiceName::Mark { mark, family: AddressFamily::V4 };
    marked.points = vec![MatchPoint::Mark(mark, AddressFamily::V4)];
    let rule = |n, to: &str| Rule {
        action: Action::Mark(Mark::new(n).unwrap()),
        selector: Selector { to: Some(to.parse().unwrap()), ports: (80, 90), ..Selector::ALL },
    };
    let mut config = config(vec![marked.clone()]);
    let told = run(&config, MACHINE).told();
    assert!(told.starts_with("FWM 7 gets no packet, no rule gives its mark"), "{told}");
    config.dataplane.rules = vec![rule(7, "198.18.0.0/16"), rule(7, "2001:db8::/32"), rule(9, "10.0.0.0/8")];
    let run = run(&config, MACHINE);
    assert_eq!(run.told(), "the rule `mark 9 to 10.0.0.0/8 port 80-90` gives a mark that no virtual server has");
    let prefixes: Vec<_> = run.compiled.steer.prefixes.iter().map(|p| (p.protocol, p.prefix.to_string())).collect();
    let expected: Vec<_> = Protocol::ALL.iter().map(|protocol| (*protocol, "198.18.0.0/16".to_owned())).collect();
    assert_eq!(prefixes, expected, "of the service's family, for every transport");
    assert_eq!(run.compiled.steer.replies.len(), Protocol::ALL.len());
    assert!(run.compiled.served.contains(&marked.name));
}

#[test]
fn what_is_defended_is_caught_by_every_port() {
    let mut config = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    config.dataplane.defence.udp = Defended::On;
    let steer = run(&config, MACHINE).compiled.steer;
    let udp = ServiceKey { protocol: Protocol::Udp, at: endpoint("10.9.0.1:0") };
    assert_eq!(steer.services, [tcp("10.9.0.1:80"), udp].into());
}

#[test]
fn rules_that_stay_keep_what_they_remember() {
    let topology = batch::parse(MACHINE).unwrap();
    let mut config = config(vec![service("10.9.0.1:80", &[("10.2.0.5:80", ForwardingMethod::Nat)])]);
    config.dataplane.rules = vec![Rule { action: Action::Deny, selector: Selector::ALL }];
    config.dataplane.source_rate = Rate::new(5, 5);
    let Run { compiled, mut slots } = run(&config, MACHINE);
    let again = compile(&config, &topology, &compiled.ports, &mut slots, Some(&compiled)).unwrap();
    let (before, after) = (&compiled.snapshot.gates, &again.snapshot.gates);
    assert!(Arc::ptr_eq(&before.rules, &after.rules));
    assert!(Arc::ptr_eq(before.sources.as_ref().unwrap(), after.sources.as_ref().unwrap()));
    config.dataplane.source_rate = Rate::new(6, 5);
    let changed = compile(&config, &topology, &compiled.ports, &mut slots, Some(&again)).unwrap();
    assert!(!Arc::ptr_eq(after.sources.as_ref().unwrap(), changed.snapshot.gates.sources.as_ref().unwrap()));
}
