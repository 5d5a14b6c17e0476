//! Limits on flows, servers that drain or are gone, ports that are used again, and datagrams scheduled one by one: the
//! whole worker over memory ports.

mod common;

use common::packet::{Segment, decapsulate, parse, tcp, udp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::Event;
use dataplane::sched::SchedulerKind;
use dataplane::service::{ConnectionLimits, Datagrams, Limit, Method, Refusal, Thresholds};
use dataplane::snapshot::{PortReuse, RemovedServers};

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";

fn segment(port: u16, flags: &str) -> Segment {
    tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, port), (VIP4, 80), flags, b"")
}

/// The server that a segment of the client's port goes to.
fn server(director: &mut Director, port: u16, flags: &str) -> std::net::IpAddr {
    let (out, frame) = director.one(FRONT, &segment(port, flags).bytes());
    verify(&frame);
    assert_eq!(out, BACK);
    parse(&frame).destination
}

#[test]
fn a_draining_server_serves_its_flows_to_the_end_and_gets_no_new_ones() {
    let mut setup = Setup::new(Method::Nat);
    let mut director = Director::new(&setup);
    let second = ip("10.2.0.12");
    assert_eq!(server(&mut director, 40_000, "S"), second);
    server(&mut director, 40_000, "A");
    setup.draining = 1;
    director.publish(&setup);
    assert_eq!(server(&mut director, 40_000, "A"), second);
    let answer = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), (CLIENT4, 40_000), "A", b"").bytes();
    assert_eq!(parse(&director.one(BACK, &answer).1).source, ip(VIP4));
    for port in 41_000..41_004 {
        assert_eq!(server(&mut director, port, "S"), ip("10.2.0.11"));
    }
    assert_eq!(server(&mut director, 40_000, "S"), second, "an established flow is not ended by a SYN");
    assert_eq!(director.counts[1].active(), 1);
    server(&mut director, 40_000, "R");
    assert_eq!(server(&mut director, 40_000, "S"), ip("10.2.0.11"), "a new connection from the old port");
    assert_eq!((director.counts[1].active(), director.counts[1].inactive()), (0, 0));
}

#[test]
fn a_removed_server_is_silent_and_its_flows_go_on_when_it_is_back() {
    let mut setup = Setup::new(Method::Nat);
    let mut director = Director::new(&setup);
    let second = server(&mut director, 40_000, "S");
    server(&mut director, 40_000, "A");
    setup.removed = 1;
    director.publish(&setup);
    assert_eq!(director.dropped(FRONT, &segment(40_000, "A").bytes()), ["destination_gone"]);
    assert_eq!(director.counts[1].active(), 1);
    setup.removed = 0;
    director.publish(&setup);
    assert_eq!(server(&mut director, 40_000, "A"), second);
    setup.removed = 1;
    director.publish(&setup);
    assert_eq!(server(&mut director, 40_000, "S"), ip("10.2.0.11"), "never stuck to a dead server");
    assert_eq!(director.counts[1].active(), 0);
}

#[test]
fn expire_nodest_conn_ends_the_flows_of_a_removed_server() {
    let mut setup = Setup::new(Method::Nat);
    setup.policy.removed = RemovedServers::EndFlows;
    let mut director = Director::new(&setup);
    server(&mut director, 40_000, "S");
    server(&mut director, 40_000, "A");
    setup.removed = 1;
    director.publish(&setup);
    assert_eq!(director.dropped(FRONT, &segment(40_000, "A").bytes()), ["destination_gone"]);
    assert_eq!(director.event_count(Event::FlowOrphaned), 1);
    assert_eq!((director.counts[1].active(), director.shared.flows4.len()), (0, 0));
    assert_eq!(parse(&director.one(FRONT, &segment(40_000, "A").bytes()).1).flags, "R", "the client learns of it");
    assert_eq!(server(&mut director, 40_000, "S"), ip("10.2.0.11"));
}

#[test]
fn a_port_is_used_again_as_conn_reuse_mode_says() {
    let again = |reuse, ends: &[&str], method| {
        let mut setup = Setup::new(method);
        setup.policy.port_reuse = reuse;
        let mut director = Director::new(&setup);
        let to = |director: &mut Director, flags: &str| {
            let frame = director.one(FRONT, &segment(40_000, flags).bytes()).1;
            parse(&frame).link[5]
        };
        let first = to(&mut director, "S");
        for flags in ends {
            to(&mut director, flags);
        }
        to(&mut director, "S") != first
    };
    assert!(!again(PortReuse::Keep, &["A", "R"], Method::Nat));
    assert!(again(PortReuse::Closed, &["A", "R"], Method::Nat));
    assert!(!again(PortReuse::Closed, &["A"], Method::Nat));
    assert!(!again(PortReuse::Closed, &["A", "FA"], Method::Dr));
    assert!(again(PortReuse::ClosedOrFinished, &["A", "FA"], Method::Dr));
}

#[test]
fn a_server_of_weight_zero_gets_no_connection_by_an_old_port() {
    let mut setup = Setup::new(Method::Nat);
    let mut director = Director::new(&setup);
    assert_eq!(server(&mut director, 40_000, "S"), ip("10.2.0.12"));
    server(&mut director, 40_001, "S");
    assert_eq!(server(&mut director, 40_002, "S"), ip("10.2.0.12"));
    server(&mut director, 40_002, "A");
    setup.servers4 = vec![("10.2.0.11", 1), ("10.2.0.12", 0)];
    director.publish(&setup);
    assert_eq!(server(&mut director, 40_000, "S"), ip("10.2.0.11"), "its handshake was not over");
    assert_eq!(server(&mut director, 40_002, "S"), ip("10.2.0.12"), "established");
    setup.policy.removed = RemovedServers::EndFlows;
    director.publish(&setup);
    assert_eq!(server(&mut director, 40_002, "S"), ip("10.2.0.11"), "as IPVS with expire_nodest_conn");
}

#[test]
fn an_overloaded_server_gets_no_more_until_it_is_relieved() {
    let mut setup = Setup::new(Method::Nat);
    setup.servers4 = vec![("10.2.0.11", 1)];
    setup.scheduler = SchedulerKind::Wlc;
    let mut director = Director::new(&setup);
    director.counts[0].limit(Thresholds { upper: 2, lower: 1 });
    server(&mut director, 40_000, "S");
    server(&mut director, 40_001, "S");
    let refused = director.one(FRONT, &segment(40_002, "S").bytes());
    assert_eq!((refused.0, parse(&refused.1).icmp), (FRONT, Some((3, 3))));
    assert_eq!(director.drops(), [("no_destination", 1)]);
    server(&mut director, 40_000, "A");
    server(&mut director, 40_000, "R");
    director.wait(11);
    assert_eq!(director.counts[0].all(), 1, "the reset one is forgotten");
    director.one(FRONT, &segment(40_002, "S").bytes());
    assert_eq!(director.drops(), [("no_destination", 2)], "at the lower bound");
    director.wait(61);
    server(&mut director, 40_002, "S");
}

#[test]
fn a_service_has_no_more_flows_than_its_limit() {
    let mut setup = Setup::new(Method::Nat);
    setup.settings.limits = ConnectionLimits { flows: Some(limit(2, Refusal::Silence)), rate: None };
    let mut director = Director::new(&setup);
    server(&mut director, 40_000, "S");
    server(&mut director, 40_001, "S");
    assert_eq!(director.dropped(FRONT, &segment(40_002, "S").bytes()), ["connection_limit"]);
    server(&mut director, 40_000, "A");
    director.wait(61);
    server(&mut director, 40_002, "S");
}

#[test]
fn a_service_begins_no_more_flows_in_a_second_than_its_rate() {
    let mut setup = Setup::new(Method::Nat);
    setup.settings.limits = ConnectionLimits { flows: None, rate: Some(limit(3, Refusal::Reset)) };
    let mut director = Director::with_workers(&setup, 2);
    for port in 40_000..40_003 {
        director.pass_by(usize::from(port % 2), FRONT, &segment(port, "S").bytes());
    }
    assert_eq!(director.event_count(Event::FlowCreated), 3);
    let (port, reset) = director.one(FRONT, &segment(40_003, "S").bytes());
    verify(&reset);
    assert_eq!((port, parse(&reset).flags.as_str(), parse(&reset).source), (FRONT, "RA", ip(VIP4)));
    assert_eq!(director.drops(), [("connection_rate", 1)]);
    assert_eq!(server(&mut director, 40_000, "A"), ip("10.2.0.12"), "flows that are there go on");
    director.wait(1);
    server(&mut director, 40_003, "S");
}

fn limit(most: u32, refusal: Refusal) -> Limit {
    Limit { most, refusal }
}

#[test]
fn datagrams_are_scheduled_one_by_one_in_every_mode_and_family() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        for (client, vip, servers) in
            [(CLIENT4, VIP4, ["10.2.0.12", "10.2.0.11"]), (CLIENT6, VIP6, ["fd02::12", "fd02::11"])]
        {
            let mut setup = Setup::new(method);
            setup.settings.datagrams = Datagrams::OneByOne;
            let mut director = Director::new(&setup);
            let query = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), b"query").bytes();
            for to in servers.iter().chain(&servers) {
                let (port, frame) = director.one(FRONT, &query);
                let mac = if to.ends_with("12") { 12 } else { 11 };
                let mac = server_mac(if vip == VIP4 { mac } else { mac + 6 });
                assert_eq!((port, &parse(&frame).link[..6]), (BACK, &mac[..]), "{method:?} {to}");
                let expected = if method == Method::Dr { vip } else { to };
                let seen = if method == Method::Tun { decapsulate(&frame).0 } else { parse(&frame) };
                assert_eq!(seen.destination, ip(expected));
                if method != Method::Tun {
                    verify(&frame);
                }
            }
            assert_eq!(director.event_count(Event::DatagramScheduled), 4);
            assert_eq!((director.event_count(Event::FlowCreated), director.shared.flows4.len()), (0, 0));
            let slots = if vip == VIP4 { [2, 3] } else { [8, 9] };
            for slot in slots {
                let traffic = &director.counts[slot].traffic()[0];
                assert_eq!((traffic.connections.read(), traffic.inbound.packets.read()), (2, 2));
            }
        }
    }
}

#[test]
fn datagrams_in_fragments_get_a_flow_all_the_same() {
    let mut setup = Setup::new(Method::Nat);
    setup.settings.datagrams = Datagrams::OneByOne;
    let mut director = Director::new(&setup);
    let whole = udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 5353), (VIP4, 80), &[7; 64]).bytes();
    let parts = common::packet::fragment(&whole, 32);
    let to: Vec<_> = parts.iter().map(|part| parse(&director.one(FRONT, part).1).destination).collect();
    assert_eq!(to, [ip("10.2.0.12"); 2]);
}
