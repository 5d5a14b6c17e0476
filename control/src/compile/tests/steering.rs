//! What is caught for the director: services, replies, marks, defended addresses.

use super::*;

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
fn replies_of_a_whole_address_service_are_of_any_port() {
    let services = vec![service("10.9.0.1:0", &[("10.2.0.5:0", ForwardingMethod::Nat)])];
    assert_eq!(run(&config(services), MACHINE).compiled.steer.replies, [tcp("10.2.0.5:0")].into());
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
