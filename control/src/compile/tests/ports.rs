//! Which interfaces become ports, the members of bonds among them, and what is told of those that cannot.

use super::*;

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
