//! What new flows have to pass, over memory ports: marks, rules, lists of sources, limits, defence.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::packet::{fragment, tcp, udp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, KERNEL, ROUTER_MAC, Setup, server_mac};
use dataplane::ident::{NetPort, Protocol};
use dataplane::rules::{Action, Gates, PrefixSet, Rate, Rule, Rules, Scope, Selector, SourceLimit};
use dataplane::service::{AccessLists, AddressFamily, AddressRange, Datagrams, Mark, MatchPoint, Method};
use dataplane::snapshot::{Defence, Defended, Policy, StraySegments};

const CLIENT: &str = "198.51.100.7";
const OTHER: &str = "203.0.113.9";
const VIP: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";

fn mark(n: u32) -> Mark {
    Mark::new(n).unwrap()
}

fn rule(action: Action, from: Option<&str>, to: Option<&str>, ports: (u16, u16)) -> Rule {
    let prefix = |text: &str| text.parse().unwrap();
    Rule { action, selector: Selector { from: from.map(prefix), to: to.map(prefix), protocol: None, ports } }
}

fn gates(rules: &[Rule]) -> Gates {
    Gates { rules: Arc::new(Rules::new(rules, None)), ..Gates::default() }
}

const ALL: (u16, u16) = (0, u16::MAX);

fn segment(client: (&str, u16), to: (&str, u16), flags: &str) -> Vec<u8> {
    tcp(ROUTER_MAC, FRONT_MAC, client, to, flags, b"").bytes()
}

fn director(method: Method, change: impl FnOnce(&mut Setup)) -> Director {
    let mut setup = Setup::new(method);
    change(&mut setup);
    Director::new(&setup)
}

#[test]
fn a_mark_groups_ports_and_addresses_into_one_service() {
    let mut director = director(Method::Dr, |setup| {
        setup.points = vec![MatchPoint::Mark(mark(7), AddressFamily::V4)];
        let marked = |to, ports| rule(Action::Mark(mark(7)), None, Some(to), ports);
        setup.gates = gates(&[marked("198.18.0.0/16", (80, 80)), marked("198.18.0.9/32", (443, 443))]);
    });
    // One service, so its round robin goes on from port to port and from address to address.
    for (port, (to, n)) in [(80, ("198.18.0.9", 12)), (443, ("198.18.0.9", 11)), (80, ("198.18.7.7", 12))] {
        let out = director.one(FRONT, &segment((CLIENT, 40_000), (to, port), "S"));
        assert_eq!(out, (BACK, tcp(BACK_MAC, server_mac(n), (CLIENT, 40_000), (to, port), "S", b"").ttl(63).bytes()));
        verify(&out.1);
    }
    assert_eq!(director.one(FRONT, &segment((CLIENT, 40_000), ("198.18.7.7", 443), "S")).0, KERNEL, "not marked");
    let stray = director.one(FRONT, &segment((CLIENT, 40_001), ("198.18.0.9", 443), "A"));
    assert_eq!(stray.0, FRONT, "a segment of no flow is reset: the service is found by its mark");
}

#[test]
fn a_mark_goes_before_the_address() {
    let mut director = director(Method::Dr, |setup| {
        setup.points = vec![MatchPoint::Mark(mark(1), AddressFamily::V4)];
        setup.gates = gates(&[rule(Action::Mark(mark(1)), Some("198.51.100.0/24"), Some("192.0.2.80/32"), ALL)]);
        setup.servers4 = vec![("10.2.0.11", 1), ("10.2.0.12", 1)];
    });
    // The marked service begins its own round robin: two from it, one from the service of the address.
    let mut to = |client: &str| director.one(FRONT, &segment((client, 40_000), (VIP, 80), "S")).1[..6].to_vec();
    assert_eq!([to(CLIENT), to(OTHER), to("198.51.100.8")], [server_mac(12), server_mac(12), server_mac(11)]);
}

#[test]
fn a_range_is_served_under_nat_with_the_port_kept() {
    let range = AddressRange { first: "198.18.0.0".parse().unwrap(), last: "198.18.255.255".parse().unwrap() };
    let mut director = director(Method::Nat, |setup| {
        setup.points = vec![MatchPoint::Addresses { protocol: Protocol::Tcp, range, port: NetPort::new(8443) }];
    });
    let out = director.one(FRONT, &segment((CLIENT, 40_000), ("198.18.200.3", 8443), "S"));
    let expected = tcp(BACK_MAC, server_mac(12), (CLIENT, 40_000), ("10.2.0.12", 8443), "S", b"").ttl(63);
    assert_eq!(out, (BACK, expected.bytes()));
    let reply = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8443), (CLIENT, 40_000), "SA", b"");
    let out = director.one(BACK, &reply.bytes());
    let expected = tcp(FRONT_MAC, ROUTER_MAC, ("198.18.200.3", 8443), (CLIENT, 40_000), "SA", b"").ttl(63);
    assert_eq!(out, (FRONT, expected.bytes()));
}

#[test]
fn what_is_denied_hears_nothing_and_established_flows_go_on() {
    for (vip, from) in [(VIP, "198.51.100.0/24"), (VIP6, "2001:db8:c::/48")] {
        let client = if vip == VIP { CLIENT } else { "2001:db8:c::7" };
        let mut setup = Setup::new(Method::Nat);
        let mut director = Director::new(&setup);
        director.one(FRONT, &segment((client, 40_000), (vip, 80), "S"));
        setup.gates =
            gates(&[rule(Action::Allow, None, None, (81, 90)), rule(Action::Deny, Some(from), None, (80, 90))]);
        director.publish(&setup);
        assert_eq!(director.dropped(FRONT, &segment((client, 40_001), (vip, 80), "S")), ["denied"]);
        assert_eq!(director.dropped(FRONT, &segment((client, 40_001), (vip, 80), "A")), ["denied"], "and no reset");
        assert_eq!(director.one(FRONT, &segment((client, 40_000), (vip, 80), "A")).0, BACK, "its flow is there");
        setup.gates.scope = Scope::Established;
        director.publish(&setup);
        assert_eq!(director.dropped(FRONT, &segment((client, 40_000), (vip, 80), "A")), ["denied"], "deny_established");
        assert_eq!(setup.gates.rules.iter().nth(1).unwrap().1.matched(), 2);
    }
}

#[test]
fn what_is_of_no_service_is_the_kernels_whatever_rules_say() {
    let mut director = director(Method::Nat, |setup| setup.gates = gates(&[rule(Action::Deny, None, None, ALL)]));
    assert_eq!(director.one(FRONT, &segment((CLIENT, 40_000), (VIP, 22), "S")).0, KERNEL);
}

#[test]
fn a_rate_is_for_new_flows_only() {
    let rate = Rate::new(10, 3).unwrap();
    let mut director =
        director(Method::Nat, |setup| setup.gates = gates(&[rule(Action::Limit(rate), None, None, (80, 80))]));
    for n in 0..3 {
        assert_eq!(director.one(FRONT, &segment((CLIENT, 40_000 + n), (VIP, 80), "S")).0, BACK);
    }
    assert_eq!(director.dropped(FRONT, &segment((OTHER, 40_000), (VIP, 80), "S")), ["rate_limited"]);
    for _ in 0..50 {
        assert_eq!(director.one(FRONT, &segment((CLIENT, 40_000), (VIP, 80), "A")).0, BACK);
    }
    director.wait(1);
    assert_eq!(director.one(FRONT, &segment((OTHER, 40_000), (VIP, 80), "S")).0, BACK);
}

#[test]
fn each_source_has_its_limit() {
    let limit = Arc::new(SourceLimit::new(Rate::new(5, 2).unwrap()));
    let mut director = director(Method::Nat, |setup| setup.gates.sources = Some(limit));
    let mut open = |client: &str, port: u16| director.pass(FRONT, &segment((client, port), (VIP, 80), "S")).len();
    assert_eq!([open(CLIENT, 1), open(CLIENT, 2), open(CLIENT, 3), open(OTHER, 1)], [1, 1, 0, 1]);
    assert_eq!(director.drops(), [("source_limited", 1)]);
}

#[test]
fn lists_of_a_service_say_who_may_come() {
    let set = |prefix: &str| Some(Arc::new([prefix.parse().unwrap()].into_iter().collect::<PrefixSet>()));
    let lists = AccessLists { blocked: set("198.51.100.7/32"), allowed: set("198.51.100.0/24") };
    let mut director = director(Method::Dr, |setup| setup.settings.access = lists);
    assert_eq!(director.dropped(FRONT, &segment((CLIENT, 1), (VIP, 80), "S")), ["blocklisted"]);
    assert_eq!(director.dropped(FRONT, &segment((OTHER, 1), (VIP, 80), "S")), ["not_allowlisted"]);
    assert_eq!(director.one(FRONT, &segment(("198.51.100.8", 1), (VIP, 80), "S")).0, BACK);
}

#[test]
fn defence_drops_what_ipvs_leaves_to_the_kernel() {
    let strange_udp = udp(ROUTER_MAC, FRONT_MAC, (CLIENT, 1), (VIP, 9), b"x").bytes();
    let mut usual = director(Method::Nat, |_| {});
    assert_eq!(usual.one(FRONT, &segment((CLIENT, 1), (VIP, 22), "S")).0, KERNEL);
    assert_eq!(usual.one(FRONT, &strange_udp).0, KERNEL);
    let all = Defence { tcp: Defended::On, udp: Defended::On, fragments: Defended::On };
    let mut director = director(Method::Nat, |setup| {
        setup.policy = Policy { defence: all, stray: StraySegments::Silence, ..setup.policy.clone() };
    });
    assert_eq!(director.dropped(FRONT, &segment((CLIENT, 1), (VIP, 22), "S")), ["defence_tcp_drop"]);
    assert_eq!(director.dropped(FRONT, &segment((CLIENT, 1), (VIP, 80), "A")), ["defence_tcp_drop"]);
    assert_eq!(director.dropped(FRONT, &strange_udp), ["defence_udp_drop"]);
    let whole = udp(ROUTER_MAC, FRONT_MAC, (CLIENT, 1), (VIP, 80), &[7; 64]).bytes();
    for piece in fragment(&whole, 32) {
        assert_eq!(director.dropped(FRONT, &piece), ["defence_frag_drop"]);
    }
    assert_eq!(director.one(FRONT, &segment((CLIENT, 1), ("10.9.9.9", 22), "S")).0, KERNEL, "of no service's address");
    assert_eq!(director.one(FRONT, &segment((CLIENT, 1), (VIP, 80), "S")).0, BACK);
}

#[test]
fn rules_hold_for_datagrams_that_are_scheduled_one_by_one() {
    let rate = Rate::new(1, 3).unwrap();
    let mut director = director(Method::Nat, |setup| {
        setup.settings.datagrams = Datagrams::OneByOne;
        let deny = rule(Action::Deny, Some("203.0.113.0/24"), Some("192.0.2.80/32"), ALL);
        setup.gates = gates(&[deny, rule(Action::Limit(rate), None, Some("192.0.2.80/32"), ALL)]);
    });
    let datagram = |client: &str| udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (VIP, 80), b"?").bytes();
    assert_eq!(director.dropped(FRONT, &datagram(OTHER)), ["denied"]);
    // Each is a flow of its own to the rate, and none is left behind.
    for n in [12, 11, 12] {
        assert_eq!(director.one(FRONT, &datagram(CLIENT)).1[..6], server_mac(n));
    }
    assert_eq!(director.dropped(FRONT, &datagram(CLIENT)), ["rate_limited"]);
    assert!(director.shared.flows4.is_empty());
}
