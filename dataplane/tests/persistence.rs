//! Persistence at the packet level: who stays, who spreads, when a template ends, and what its server's fate does to it.

mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;

use common::packet::{parse, tcp, udp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, KERNEL, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::Event;
use dataplane::ident::{NetPort, Protocol};
use dataplane::rules::{Action, Gates, Rule, Rules, Selector};
use dataplane::service::{AddressFamily, AddressRange, Mark, MatchPoint, Method, Persistence, ServiceSettings};
use dataplane::snapshot::{Policy, QuiescentTemplates};

const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";

fn setup(method: Method, persistence: Persistence) -> Setup {
    let settings = ServiceSettings { persistence: Some(persistence), ..ServiceSettings::default() };
    Setup { settings, ..Setup::new(method) }
}

/// Opens a connection, and says which server got it: by the last octet of its Ethernet address.
fn connect(director: &mut Director, client: &str, port: u16, vip: &str) -> u8 {
    let (_, out) = director.one(FRONT, &tcp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), "S", b"").bytes());
    verify(&out);
    out[5]
}

#[test]
fn a_client_stays_and_others_spread_in_both_families() {
    for (vip, one, other) in [(VIP4, "198.51.100.7", "198.51.100.8"), (VIP6, "2001:db8:c::7", "2001:db8:c::8")] {
        for method in [Method::Nat, Method::Dr] {
            let mut director = Director::new(&setup(method, Persistence::new(360)));
            let first = connect(&mut director, one, 1000, vip);
            let second = connect(&mut director, other, 1000, vip);
            assert_ne!(first, second);
            for port in 1001..1020 {
                assert_eq!(connect(&mut director, one, port, vip), first);
                assert_eq!(connect(&mut director, other, port, vip), second);
            }
            assert_eq!(director.event_count(Event::TemplateCreated), 2);
            assert_eq!(director.event_count(Event::FlowCreated), 40);
            let counted: u32 = director.counts.iter().map(|counts| counts.active() + counts.inactive()).sum();
            assert_eq!(counted, 40, "templates are no connections");
        }
    }
}

#[test]
fn the_frame_that_leaves_is_as_without_persistence() {
    let mut director = Director::new(&setup(Method::Nat, Persistence::new(360)));
    let request = tcp(ROUTER_MAC, FRONT_MAC, ("198.51.100.7", 1000), (VIP4, 80), "S", b"");
    let (port, out) = director.one(FRONT, &request.bytes());
    let to_server = tcp(BACK_MAC, server_mac(12), ("198.51.100.7", 1000), ("10.2.0.12", 8080), "S", b"").ttl(63);
    assert_eq!((port, out), (BACK, to_server.bytes()));
}

#[test]
fn a_network_of_clients_is_one_client() {
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    let mut director = Director::new(&setup(Method::Nat, Persistence { mask, prefix: 48, ..Persistence::new(360) }));
    let four = [1, 7, 200].map(|n| connect(&mut director, &format!("198.51.100.{n}"), 1000, VIP4));
    assert_eq!(four, [four[0]; 3]);
    assert_ne!(connect(&mut director, "198.51.101.1", 1000, VIP4), four[0]);
    let six = [1, 7, 200].map(|n| connect(&mut director, &format!("2001:db8:c:{n}::1"), 1000, VIP6));
    assert_eq!(six, [six[0]; 3]);
    assert_ne!(connect(&mut director, "2001:db8:d::1", 1000, VIP6), six[0]);
}

#[test]
fn no_packet_has_the_key_of_a_template() {
    let mask = Ipv4Addr::new(255, 255, 255, 0);
    let mut director = Director::new(&setup(Method::Nat, Persistence { mask, ..Persistence::new(360) }));
    let server = connect(&mut director, "198.51.100.7", 1000, VIP4);
    // From the network's own address and port 0, as the template is named.
    assert_eq!(connect(&mut director, "198.51.100.0", 0, VIP4), server);
    assert_eq!(director.event_count(Event::FlowCreated), 2);
    let stray = tcp(ROUTER_MAC, FRONT_MAC, ("198.51.100.0", 0), (VIP4, 80), "A", b"").bytes();
    assert_eq!(director.pass(FRONT, &stray).len(), 1, "of the second flow, not the template's");
    director.wait(3000);
    let (_, reset) = director.one(FRONT, &stray);
    assert_eq!(parse(&reset).flags, "R");
}

#[test]
fn a_template_lasts_as_long_as_a_flow_hangs_on_it() {
    let mut director = Director::new(&setup(Method::Nat, Persistence::new(10)));
    let server = connect(&mut director, "198.51.100.7", 1000, VIP4);
    // The flow is half open for 60 s; the template's own time is up after 10, and it is looked at again 60 s later.
    director.wait(11);
    assert_eq!(director.event_count(Event::TemplateExpired), 0);
    director.wait(50);
    assert_eq!(director.event_count(Event::FlowExpired), 1);
    assert_eq!(director.event_count(Event::TemplateExpired), 0);
    assert_eq!(connect(&mut director, "198.51.100.7", 1001, VIP4), server);
    director.wait(61);
    director.wait(61);
    assert_eq!(director.event_count(Event::TemplateExpired), 1);
    assert!(director.shared.flows4.is_empty());
    assert_ne!(connect(&mut director, "198.51.100.7", 1002, VIP4), server, "round robin goes on");
}

#[test]
fn a_template_whose_time_is_up_is_not_used_before_the_sweep_comes() {
    let mut director = Director::new(&setup(Method::Nat, Persistence::new(400)));
    let server = connect(&mut director, "198.51.100.7", 1000, VIP4);
    director.wait(200);
    assert_eq!(director.event_count(Event::FlowExpired), 1);
    director.now += std::time::Duration::from_secs(201);
    assert_ne!(connect(&mut director, "198.51.100.7", 1001, VIP4), server);
    assert_eq!(director.event_count(Event::TemplateExpired), 1);
}

#[test]
fn a_drained_server_keeps_its_clients_unless_told_otherwise() {
    for (policy, stays) in [(QuiescentTemplates::Keep, true), (QuiescentTemplates::Reschedule, false)] {
        let mut setup = setup(Method::Nat, Persistence::new(360));
        setup.policy = Policy { quiescent_templates: policy, ..setup.policy };
        let mut director = Director::new(&setup);
        assert_eq!(connect(&mut director, "198.51.100.7", 1000, VIP4), 12);
        setup.servers4 = vec![("10.2.0.11", 1), ("10.2.0.12", 0)];
        director.publish(&setup);
        assert_eq!(connect(&mut director, "198.51.100.7", 1001, VIP4) == 12, stays);
        assert_eq!(director.event_count(Event::TemplateMoved), u64::from(!stays));
    }
}

#[test]
fn clients_of_a_removed_server_get_another_and_stay_there() {
    let mut setup = setup(Method::Nat, Persistence::new(360));
    setup.servers4 = vec![("10.2.0.11", 1), ("10.2.0.12", 0), ("10.2.0.13", 1)];
    setup.policy.quiescent_templates = QuiescentTemplates::Reschedule;
    let mut director = Director::new(&setup);
    let first = connect(&mut director, "198.51.100.7", 1000, VIP4);
    let gone = setup.servers4.iter().position(|(at, _)| at.ends_with(&first.to_string())).unwrap();
    setup.servers4[gone].1 = 0;
    setup.servers4[1].1 = 1;
    director.publish(&setup);
    let second = connect(&mut director, "198.51.100.7", 1001, VIP4);
    assert_ne!(second, first);
    for port in 1002..1010 {
        assert_eq!(connect(&mut director, "198.51.100.7", port, VIP4), second);
    }
    assert_eq!(director.event_count(Event::TemplateMoved), 1);
}

#[test]
fn a_service_of_every_port_sends_a_client_to_one_server_on_all() {
    let mut director = Director::new(&setup(Method::Nat, Persistence::new(360)));
    let mut to = |client: &str, port| {
        let request = udp(ROUTER_MAC, FRONT_MAC, (client, 1000), ("192.0.2.81", port), b"x");
        director.one(FRONT, &request.bytes()).1[5]
    };
    let first = to("198.51.100.7", 53);
    assert_eq!([to("198.51.100.7", 69), to("198.51.100.7", 5060)], [first; 2]);
    assert_ne!(to("198.51.100.8", 69), first);
}

#[test]
fn templates_give_way_when_the_table_is_nearly_full() {
    let mut setup = setup(Method::Dr, Persistence::new(3600));
    setup.capacity = 64;
    let mut director = Director::new(&setup);
    for n in 0..200 {
        let client = format!("198.51.100.{n}");
        director.pass(FRONT, &tcp(ROUTER_MAC, FRONT_MAC, (&client, 1000), (VIP4, 80), "S", b"").bytes());
        director.wait(0);
    }
    assert_eq!(director.drops(), [], "half-open flows and templates of nobody made room");
}

#[test]
fn templates_are_not_counted_at_a_start_either() {
    let setup = setup(Method::Nat, Persistence::new(10));
    let mut director = Director::new(&setup);
    let server = connect(&mut director, "198.51.100.7", 1000, VIP4);
    // Counted anew as at a restart: the flow once more, the template not.
    director.shared.recount();
    let counted: u32 = director.counts.iter().map(|counts| counts.active() + counts.inactive()).sum();
    assert_eq!(counted, 2);
    assert_eq!(connect(&mut director, "198.51.100.7", 1001, VIP4), server);
}

#[test]
fn data_of_ftp_by_dr_goes_where_its_commands_go() {
    let vip = "192.0.2.82";
    let range = AddressRange { first: ip(vip), last: ip(vip) };
    let mut setup = setup(Method::Dr, Persistence::new(360));
    setup.points = vec![MatchPoint::Addresses { protocol: Protocol::Tcp, range, port: NetPort::FTP }];
    let mut director = Director::new(&setup);
    let mut goes = |client: &str, ports: (u16, u16), flags: &str| {
        let (port, out) =
            director.one(FRONT, &tcp(ROUTER_MAC, FRONT_MAC, (client, ports.0), (vip, ports.1), flags, b"").bytes());
        // Nothing but the Ethernet addresses and the TTL is another.
        let server = if out[5] == 12 { 12 } else { 11 };
        let expected = tcp(BACK_MAC, server_mac(server), (client, ports.0), (vip, ports.1), flags, b"").ttl(63);
        assert_eq!((port, &out), (BACK, &expected.bytes()));
        server
    };
    let (one, other) = ("198.51.100.7", "198.51.100.8");
    let servers = [goes(one, (1000, 21), "S"), goes(other, (1000, 21), "S")];
    assert_ne!(servers[0], servers[1]);
    for (client, server) in [(one, servers[0]), (other, servers[1])] {
        for port in 0..10 {
            assert_eq!(goes(client, (2000, 40_000 + port), "S"), server, "passive");
        }
        // The server opened it, past the director: the client's answer is the first that is seen.
        assert_eq!(goes(client, (5000, 20), "SA"), server, "active");
        assert_eq!(goes(client, (5000, 20), "A"), server);
    }
    let elsewhere = tcp(ROUTER_MAC, FRONT_MAC, (one, 1000), (vip, 80), "S", b"").bytes();
    assert!(
        director.pass(FRONT, &elsewhere).iter().all(|(port, _)| *port == KERNEL),
        "other services are the kernel's"
    );
}

#[test]
fn a_client_of_a_mark_stays_on_all_its_addresses_ports_and_transports() {
    let mark = Mark::new(7).unwrap();
    let rule = |to: &str, ports| Rule {
        action: Action::Mark(mark),
        selector: Selector { to: Some(to.parse().unwrap()), ports, ..Selector::ALL },
    };
    let mut setup = setup(Method::Dr, Persistence::new(360));
    setup.points = vec![MatchPoint::Mark(mark, AddressFamily::V4)];
    let rules = [rule("198.18.0.0/16", (80, 80)), rule("198.18.0.9/32", (443, 443)), rule("198.18.0.9/32", (53, 53))];
    setup.gates = Gates { rules: Arc::new(Rules::new(&rules, None)), ..Gates::default() };
    let mut director = Director::new(&setup);
    let mut to = |client: &str, at: (&str, u16)| {
        let frame = match at.1 {
            53 => udp(ROUTER_MAC, FRONT_MAC, (client, 1000), at, b"?").bytes(),
            _ => tcp(ROUTER_MAC, FRONT_MAC, (client, 1000), at, "S", b"").bytes(),
        };
        let (port, out) = director.one(FRONT, &frame);
        assert_eq!(port, BACK);
        out[5]
    };
    let all = [("198.18.0.9", 80), ("198.18.0.9", 443), ("198.18.7.7", 80), ("198.18.0.9", 53)];
    let (one, other) = (all.map(|at| to("198.51.100.7", at)), all.map(|at| to("198.51.100.8", at)));
    assert_eq!((one, other), ([one[0]; 4], [other[0]; 4]));
    assert_ne!(one[0], other[0]);
    assert_eq!(director.event_count(Event::TemplateCreated), 2);
}
