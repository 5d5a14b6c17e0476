//! How packets get to real servers: on the link, through a gateway, by tunnel, by the kernel.

use super::*;

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
fn of_several_ways_one_with_a_known_gateway_is_taken_and_told() {
    let machine = format!("{MACHINE}\nroute add 10.4.0.0/16 nexthop via 10.2.0.253 nexthop via 10.2.0.254");
    let run = run(&config(vec![service("10.9.0.1:80", &[("10.4.0.9:80", ForwardingMethod::Nat)])]), &machine);
    assert!(matches!(run.hop("10.4.0.9:80"), Hop::Neighbour { header, .. } if header[5] == 0xfe));
    assert!(run.told().contains("10.4.0.0/16 has several ways; all packets take the one by eth1 to 10.2.0.254"));
}
