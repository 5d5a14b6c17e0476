//! The whole worker over memory ports: one packet in, the packet that leaves given in full, every frame parsed again
//! by an independent library.

mod common;

use std::collections::BTreeSet;

use common::packet::{self, Segment, parse, tcp, udp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, KERNEL, KERNEL_MAC, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::port::ChecksumMode;
use dataplane::sched::SchedulerKind;
use dataplane::service::{Method, MssClamp};
use dataplane::snapshot::{Policy, StraySegments};

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";

/// A client's segment as the router hands it over.
fn from_client(client: &str, vip: &str, flags: &str, payload: &[u8]) -> Segment {
    tcp(ROUTER_MAC, FRONT_MAC, (client, 40_000), (vip, 80), flags, payload)
}

#[test]
fn nat_rewrites_both_ways_in_both_families() {
    for (client, vip, server, n) in [(CLIENT4, VIP4, "10.2.0.12", 12), (CLIENT6, VIP6, "fd02::12", 0x12)] {
        let mut director = Director::new(&Setup::new(Method::Nat));
        for (flags, payload) in [("S", &b""[..]), ("A", b""), ("PA", b"GET / HTTP/1.1\r\n\r\n")] {
            let out = director.one(FRONT, &from_client(client, vip, flags, payload).bytes());
            let to_server = tcp(BACK_MAC, server_mac(n), (client, 40_000), (server, 8080), flags, payload).ttl(63);
            assert_eq!(out, (BACK, to_server.bytes()), "{flags}");
            verify(&out.1);
        }
        let reply = tcp(server_mac(n), BACK_MAC, (server, 8080), (client, 40_000), "PA", b"hello");
        let out = director.one(BACK, &reply.bytes());
        let to_client = tcp(FRONT_MAC, ROUTER_MAC, (vip, 80), (client, 40_000), "PA", b"hello").ttl(63);
        assert_eq!(out, (FRONT, to_client.bytes()));
        assert_eq!(director.event_count(Event::FlowCreated), 1);
    }
}

#[test]
fn nat_maps_udp_and_leaves_a_missing_checksum_missing() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    for checksum in [packet::UdpChecksum::Computed, packet::UdpChecksum::Absent] {
        let request = udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 5353), (VIP4, 80), b"odd").checksum(checksum);
        let out = director.one(FRONT, &request.bytes());
        let expected =
            udp(BACK_MAC, server_mac(12), (CLIENT4, 5353), ("10.2.0.12", 8080), b"odd").ttl(63).checksum(checksum);
        assert_eq!(out, (BACK, expected.bytes()));
    }
}

#[test]
fn dr_changes_only_ethernet_and_ttl() {
    for (client, vip, n) in [(CLIENT4, VIP4, 12), (CLIENT6, VIP6, 0x12)] {
        let mut director = Director::new(&Setup::new(Method::Dr));
        let out = director.one(FRONT, &from_client(client, vip, "S", b"").bytes());
        assert_eq!(out, (BACK, tcp(BACK_MAC, server_mac(n), (client, 40_000), (vip, 80), "S", b"").ttl(63).bytes()));
    }
}

#[test]
fn tun_puts_a_header_of_either_family_in_front_of_either() {
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        for (from, to, n) in [("10.2.0.1", "10.2.0.12", 12), ("fd02::1", "fd02::12", 0x12)] {
            let mut setup = Setup::new(Method::Tun);
            let servers =
                if ip(to).is_ipv4() { vec![("10.2.0.11", 1), (to, 1)] } else { vec![("fd02::11", 1), (to, 1)] };
            setup.servers4.clone_from(&servers);
            setup.servers6 = servers;
            let mut director = Director::new(&setup);
            let request = from_client(client, vip, "S", b"").tos(0xb9);
            let (port, out) = director.one(FRONT, &request.bytes());
            assert_eq!(port, BACK);
            let (outer, inner) = packet::decapsulate(&out);
            assert_eq!((outer.source, outer.destination), (ip(from), ip(to)));
            assert_eq!((outer.ttl, outer.tos, outer.link), (64, 0xb9, [server_mac(n), BACK_MAC].concat()));
            assert_eq!(inner, request.ttl(63).bytes()[14..]);
        }
    }
}

#[test]
fn a_stray_segment_is_reset_and_sloppy_tcp_takes_it() {
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        let mut director = Director::new(&Setup::new(Method::Nat));
        let (port, out) = director.one(FRONT, &from_client(client, vip, "A", b"late").bytes());
        verify(&out);
        let reset = parse(&out);
        assert_eq!((port, reset.flags.as_str(), reset.source, reset.destination), (FRONT, "R", ip(vip), ip(client)));
        assert_eq!(reset.sequence, packet::ACKNOWLEDGED);
        assert_eq!(director.drops(), [("no_flow", 1)]);
        assert_eq!(director.dropped(FRONT, &from_client(client, vip, "R", b"").bytes()), ["no_flow"]);

        let mut setup = Setup::new(Method::Nat);
        setup.policy = Policy { stray: StraySegments::Open, ..setup.policy };
        let mut director = Director::new(&setup);
        assert_eq!(director.one(FRONT, &from_client(client, vip, "A", b"late").bytes()).0, BACK);
    }
}

#[test]
fn without_a_server_the_client_hears_of_it() {
    for (client, vip, kind) in [(CLIENT4, VIP4, (3, 3)), (CLIENT6, VIP6, (1, 4))] {
        let mut setup = Setup::new(Method::Nat);
        setup.servers4 = vec![("10.2.0.11", 0)];
        setup.servers6 = vec![("fd02::11", 0)];
        let mut director = Director::new(&setup);
        let request = from_client(client, vip, "S", b"").bytes();
        let (port, out) = director.one(FRONT, &request);
        verify(&out);
        let error = parse(&out);
        assert_eq!((port, error.icmp.unwrap(), error.source, error.destination), (FRONT, kind, ip(vip), ip(client)));
        assert!(error.payload.starts_with(&request[14..]));
        assert_eq!(director.drops(), [("no_destination", 1)]);
    }
}

#[test]
fn a_ttl_that_runs_out_is_answered_from_the_vip() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        for (client, vip, kind) in [(CLIENT4, VIP4, (11, 0)), (CLIENT6, VIP6, (3, 0))] {
            let mut director = Director::new(&Setup::new(method));
            let (_, out) = director.one(FRONT, &from_client(client, vip, "S", b"").ttl(1).bytes());
            verify(&out);
            let error = parse(&out);
            assert_eq!((error.icmp.unwrap(), error.source, error.destination), (kind, ip(vip), ip(client)));
            assert_eq!(director.drop_count(Drop::TtlExceeded), 1);
        }
    }
}

#[test]
fn what_does_not_fit_is_answered_with_the_size_that_does() {
    for (method, mtu4, mtu6) in [(Method::Nat, 1400, 1400), (Method::Tun, 1380, 1360)] {
        for (client, vip, mtu) in [(CLIENT4, VIP4, mtu4), (CLIENT6, VIP6, mtu6)] {
            let mut setup = Setup::new(method);
            setup.mtu = 1400;
            let mut director = Director::new(&setup);
            director.pass(FRONT, &from_client(client, vip, "S", b"").bytes());
            let large = vec![7; 1500 - 60];
            let (port, out) = director.one(FRONT, &from_client(client, vip, "A", &large).bytes());
            verify(&out);
            let error = parse(&out);
            let kind = if ip(client).is_ipv4() { (3, 4) } else { (2, 0) };
            assert_eq!((port, error.icmp.unwrap(), error.icmp_word), (FRONT, kind, mtu), "{method:?}");
            assert_eq!(director.drop_count(Drop::TooBig), 1);
            assert_eq!(error.source, ip(vip));
        }
    }
}

#[test]
fn counts_follow_the_states_and_time_ends_a_flow() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let count = |d: &Director| (d.counts[1].active(), d.counts[1].inactive());
    director.one(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes());
    assert_eq!(count(&director), (1, 0), "SYN_RECV");
    director.one(FRONT, &from_client(CLIENT4, VIP4, "A", b"").bytes());
    assert_eq!(count(&director), (1, 0));
    director.one(FRONT, &from_client(CLIENT4, VIP4, "FA", b"").bytes());
    assert_eq!(count(&director), (0, 1));
    director.wait(59);
    assert_eq!(count(&director), (0, 1), "CLOSE_WAIT lasts 60 s");
    director.wait(2);
    assert_eq!(count(&director), (0, 0));
    assert_eq!(director.event_count(Event::FlowExpired), 1);
}

#[test]
fn a_new_syn_takes_the_place_of_a_connection_that_is_over() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    director.one(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes());
    director.one(FRONT, &from_client(CLIENT4, VIP4, "A", b"").bytes());
    director.one(FRONT, &from_client(CLIENT4, VIP4, "R", b"").bytes());
    let to = parse(&director.one(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes()).1).destination;
    assert_eq!(to, ip("10.2.0.11"), "scheduled anew");
    assert_eq!(director.event_count(Event::FlowReused), 1);
    let counts = |n: usize| (director.counts[n].active(), director.counts[n].inactive());
    assert_eq!((counts(1), counts(0)), ((0, 0), (1, 0)));
}

#[test]
fn a_removed_server_is_silent_until_its_flow_ends_and_a_drained_one_goes_on() {
    let mut setup = Setup::new(Method::Nat);
    let mut director = Director::new(&setup);
    director.one(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes());
    setup.servers4 = vec![("10.2.0.11", 1), ("10.2.0.12", 0)];
    director.publish(&setup);
    assert_eq!(director.one(FRONT, &from_client(CLIENT4, VIP4, "A", b"").bytes()).0, BACK);
    setup.servers4 = vec![];
    setup.servers6 = vec![];
    director.publish(&setup);
    assert_eq!(director.dropped(FRONT, &from_client(CLIENT4, VIP4, "A", b"").bytes()), ["destination_gone"]);
}

#[test]
fn a_route_change_reaches_established_flows() {
    let mut setup = Setup::new(Method::Nat);
    let mut director = Director::new(&setup);
    director.one(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes());
    let reply = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), (CLIENT4, 40_000), "SA", b"");
    let (_, out) = director.one(BACK, &reply.bytes());
    assert_eq!(out[..6], ROUTER_MAC);
    assert_eq!(director.event_count(Event::RouteRefreshed), 0, "the first look is none again");
    setup.router = [2, 0, 0, 0, 0, 0xc2];
    setup.generation += 1;
    director.publish(&setup);
    let (_, out) = director.one(BACK, &reply.bytes());
    assert_eq!(out[..6], [2, 0, 0, 0, 0, 0xc2]);
    assert_eq!(director.event_count(Event::RouteRefreshed), 1);
}

#[test]
fn an_on_link_client_is_answered_where_it_was_heard() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let mac = [2, 0, 0, 0, 0, 0x77];
    director.one(FRONT, &tcp(mac, FRONT_MAC, ("10.1.0.9", 40_000), (VIP4, 80), "S", b"").bytes());
    let reply = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), ("10.1.0.9", 40_000), "SA", b"");
    let (port, out) = director.one(BACK, &reply.bytes());
    assert_eq!((port, &out[..6]), (FRONT, &mac[..]));
}

#[test]
fn an_unknown_neighbour_is_asked_for() {
    let mut setup = Setup::new(Method::Dr);
    setup.servers4 = vec![("10.2.0.99", 1)];
    let mut director = Director::new(&setup);
    assert_eq!(director.dropped(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes()), ["no_neighbour"]);
    assert_eq!(director.shared.wanted.pop(), Some(ip("10.2.0.99")));
}

#[test]
fn a_local_server_is_reached_through_the_kernel_port() {
    for (client, vip, local, kernel) in
        [(CLIENT4, VIP4, "10.2.0.1", "169.254.77.1"), (CLIENT6, VIP6, "fd02::1", "fe80::77:1")]
    {
        let mut setup = Setup::new(Method::Dr);
        setup.servers4 = vec![("10.2.0.1", 1)];
        setup.servers6 = vec![("fd02::1", 1)];
        let mut director = Director::new(&setup);
        let (port, out) = director.one(FRONT, &from_client(client, vip, "S", b"").bytes());
        let unchanged = tcp([2, 0, 0, 0, 0, 3], KERNEL_MAC, (client, 40_000), (vip, 80), "S", b"");
        assert_eq!((port, out), (KERNEL, unchanged.bytes()), "DR delivers it as it is");

        setup.method = Method::Nat;
        let mut director = Director::new(&setup);
        let (port, out) = director.one(FRONT, &from_client(client, vip, "S", b"").bytes());
        verify(&out);
        let request = parse(&out);
        assert_eq!((port, request.source, request.destination), (KERNEL, ip(kernel), ip(local)));
        let reply = tcp(KERNEL_MAC, [2, 0, 0, 0, 0, 3], (local, 8080), (kernel, request.source_port), "SA", b"");
        let (port, out) = director.one(KERNEL, &reply.bytes());
        let to_client = tcp(FRONT_MAC, ROUTER_MAC, (vip, 80), (client, 40_000), "SA", b"").ttl(63);
        assert_eq!((port, out), (FRONT, to_client.bytes()));
    }
}

#[test]
fn what_nobody_claims_goes_to_the_kernel_within_a_rate() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let other = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), ("203.0.113.5", 1234), "SA", b"");
    let (port, out) = director.one(BACK, &other.bytes());
    assert_eq!((port, &out[14..]), (KERNEL, &other.bytes()[14..]));
    for _ in 0..200 {
        director.pass(BACK, &other.bytes());
    }
    assert!(director.drop_count(Drop::KernelLimited) > 50);
}

#[test]
fn icmp_errors_reach_the_side_that_sent_the_packet() {
    for (client, vip, server, n) in [(CLIENT4, VIP4, "10.2.0.12", 12), (CLIENT6, VIP6, "fd02::12", 0x12)] {
        let mut director = Director::new(&Setup::new(Method::Nat));
        let request = from_client(client, vip, "S", b"");
        let forwarded = director.one(FRONT, &request.bytes()).1;

        // A router behind the director about a packet to the server: the client is told of its own packet.
        let router = if ip(client).is_ipv4() { "10.2.0.250" } else { "fd02::250" };
        let error = packet::too_big([2, 9, 9, 9, 9, 9], BACK_MAC, router, client, 1300, &forwarded[14..]);
        let (port, out) = director.one(BACK, &error);
        verify(&out);
        let told = parse(&out);
        assert_eq!((port, told.source, told.destination, told.icmp_word), (FRONT, ip(router), ip(client), 1300));
        assert_eq!(told.payload, request.ttl(63).bytes()[14..]);

        // The client about a packet of the server: the server is told of its own packet.
        let reply = tcp(server_mac(n), BACK_MAC, (server, 8080), (client, 40_000), "SA", b"");
        let to_client = director.one(BACK, &reply.bytes()).1;
        let error = packet::too_big(ROUTER_MAC, FRONT_MAC, client, vip, 1280, &to_client[14..]);
        let (port, out) = director.one(FRONT, &error);
        verify(&out);
        let told = parse(&out);
        assert_eq!((port, told.source, told.destination), (BACK, ip(client), ip(server)));
        assert_eq!(told.payload, reply.ttl(63).bytes()[14..]);
        assert_eq!(director.event_count(Event::IcmpTranslated), 2);
    }
}

#[test]
fn later_fragments_follow_the_first() {
    for (client, vip, server) in [(CLIENT4, VIP4, "10.2.0.12"), (CLIENT6, VIP6, "fd02::12")] {
        let mut director = Director::new(&Setup::new(Method::Nat));
        let whole = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), &[9; 2000]);
        let fragments = packet::fragment(&whole.bytes(), 1208);
        let out: Vec<_> = fragments.iter().map(|f| director.one(FRONT, f).1).collect();
        let expected = udp(
            BACK_MAC,
            common::server_mac(if ip(vip).is_ipv4() { 12 } else { 0x12 }),
            (client, 5353),
            (server, 8080),
            &[9; 2000],
        );
        assert_eq!(packet::reassemble(&out), packet::transport(&expected.bytes()));
    }
}

#[test]
fn full_checksums_are_completed_verified_and_refused() {
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        let mut setup = Setup::new(Method::Nat);
        setup.checksum = ChecksumMode::Full;
        let mut director = Director::new(&setup);
        let (_, out) = director.one(FRONT, &from_client(client, vip, "S", b"").partial_checksum().bytes());
        verify(&out);
        assert_eq!(director.event_count(Event::ChecksumCompleted), 1);
        let mut wrong = from_client(client, vip, "A", b"data").bytes();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(director.dropped(FRONT, &wrong), ["bad_checksum"]);
    }
}

#[test]
fn one_syn_on_two_workers_makes_one_flow() {
    let setup = Setup::new(Method::Nat);
    let mut director = Director::with_workers(&setup, 2);
    let request = from_client(CLIENT4, VIP4, "S", b"").bytes();
    let first = director.pass_by(0, FRONT, &request);
    let second = director.pass_by(1, FRONT, &request);
    assert_eq!(first, second, "the same server");
    assert_eq!(director.event_count(Event::FlowCreated), 1);
    assert_eq!(director.counts.iter().map(|c| c.inactive() + c.active()).sum::<u32>(), 1);
}

#[test]
fn a_syn_and_its_data_in_one_burst_belong_together() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let worker = &mut director.workers[0];
    for flags in ["S", "A", "PA"] {
        assert!(worker.ports_mut().inject(FRONT, &from_client(CLIENT4, VIP4, flags, b"").bytes()));
    }
    assert_eq!(director.turn(0), 3);
    assert_eq!(director.sent().len(), 3);
    assert_eq!(director.drops(), []);
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_the_old() {
    let mut setup = Setup::new(Method::Dr);
    setup.capacity = 64;
    let mut director = Director::new(&setup);
    let syn = |n: u16| tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 1024 + n), (VIP4, 80), "S", b"").bytes();
    let ack = |n: u16| tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 1024 + n), (VIP4, 80), "A", b"").bytes();
    for n in 0..60 {
        director.pass(FRONT, &syn(n));
        director.pass(FRONT, &ack(n));
    }
    for n in 100..400 {
        director.pass(FRONT, &syn(n));
    }
    assert!(director.drop_count(Drop::TableFull) > 0, "{:?}", director.drops());
    for n in 0..60 {
        assert_eq!(director.pass(FRONT, &ack(n)).len(), 1, "an established flow was evicted");
    }
}

#[test]
fn a_full_table_gives_up_datagrams_seen_once_and_keeps_conversations() {
    let mut setup = Setup::new(Method::Nat);
    setup.capacity = 64;
    let mut director = Director::new(&setup);
    let request = |n: u16| udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 1024 + n), (VIP4, 80), b"?").bytes();
    let servers = |director: &mut Director, n| parse(&director.one(FRONT, &request(n)).1).destination;
    let answer = |server: std::net::IpAddr, n: u16| {
        let mac = server_mac(if server == ip("10.2.0.11") { 11 } else { 12 });
        udp(mac, BACK_MAC, (&server.to_string(), 8080), (CLIENT4, 1024 + n), b"!").bytes()
    };
    // Ten are answered, ten ask twice.
    let chosen: Vec<_> = (0..20).map(|n| servers(&mut director, n)).collect();
    for n in 0..10 {
        assert_eq!(director.one(BACK, &answer(chosen[usize::from(n)], n)).0, FRONT);
        director.one(FRONT, &request(10 + n));
    }
    for n in 100..400 {
        director.pass(FRONT, &request(n));
    }
    assert!(director.event_count(Event::FlowEvicted) > 100);
    for n in 0..20 {
        assert_eq!(director.one(BACK, &answer(chosen[usize::from(n)], n)).0, FRONT, "flow {n} was evicted");
    }
}

#[test]
fn loopback_addresses_come_from_no_wire() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    for (from, to) in [("127.0.0.1", VIP4), (CLIENT4, "127.8.8.8"), ("::1", VIP6), (CLIENT6, "::1")] {
        assert_eq!(director.dropped(FRONT, &from_client(from, to, "S", b"").bytes()), ["martian"], "{from} {to}");
    }
}

#[test]
fn what_the_kernel_sends_does_not_go_back_to_it() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let own = udp(KERNEL_MAC, [2, 0, 0, 0, 0, 3], ("169.254.77.9", 5353), ("203.0.113.5", 5353), b"");
    assert_eq!(director.dropped(KERNEL, &own.bytes()), ["not_for_us"]);
}

#[test]
fn another_server_serves_where_the_reverse_key_is_taken() {
    let mut setup = Setup::new(Method::Nat);
    setup.scheduler = SchedulerKind::Wlc;
    let mut director = Director::new(&setup);
    let mut server = |vip, port| {
        let out = director.one(FRONT, &udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 5353), (vip, port), b"").bytes());
        parse(&out.1).destination
    };
    assert_eq!(server(VIP4, 80), ip("10.2.0.12"));
    assert_eq!(server("192.0.2.81", 8080), ip("10.2.0.11"), "10.2.0.12 would answer by the same key");
    let loads: Vec<_> = director.counts.iter().map(|counts| counts.inactive()).collect();
    assert_eq!((loads.iter().sum::<u32>(), loads[3], loads[4]), (2, 1, 1), "a try that failed is not counted");
}

#[test]
fn a_flow_keeps_its_method() {
    let mut setup = Setup::new(Method::Nat);
    let mut director = Director::new(&setup);
    director.one(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes());
    setup.method = Method::Dr;
    director.publish(&setup);
    let out = director.one(FRONT, &from_client(CLIENT4, VIP4, "A", b"").bytes()).1;
    assert_eq!(parse(&out).destination, ip("10.2.0.12"), "still translated");
}

#[test]
fn an_icmp_error_does_not_prolong_a_flow() {
    let mut director = Director::new(&Setup::new(Method::Dr));
    director.one(FRONT, &from_client(CLIENT4, VIP4, "S", b"").bytes());
    director.wait(40);
    let answer = tcp(server_mac(12), ROUTER_MAC, (VIP4, 80), (CLIENT4, 40_000), "SA", b"").bytes();
    let error = packet::too_big(ROUTER_MAC, FRONT_MAC, CLIENT4, VIP4, 1280, &answer[14..]);
    assert_eq!(director.one(FRONT, &error).0, BACK, "it goes the way of the flow");
    director.wait(21);
    assert_eq!(director.event_count(Event::FlowExpired), 1, "SYN_RECV lasts 60 s");
}

#[test]
fn a_syn_that_comes_twice_in_a_burst_opens_one_flow() {
    for (method, client, vip) in
        [Method::Nat, Method::Dr, Method::Tun].into_iter().flat_map(|m| [(m, CLIENT4, VIP4), (m, CLIENT6, VIP6)])
    {
        let mut director = Director::new(&Setup::new(method));
        for flags in ["S", "S", "A"] {
            assert!(director.workers[0].ports_mut().inject(FRONT, &from_client(client, vip, flags, b"").bytes()));
        }
        assert_eq!(director.turn(0), 3);
        let links: Vec<_> = director.sent().into_iter().map(|(port, frame)| (port, frame[..6].to_vec())).collect();
        assert_eq!((links.len(), links[0].0), (3, BACK), "{method:?}");
        assert!(links.iter().all(|link| *link == links[0]), "all go to one server: {links:?}");
        assert_eq!((director.event_count(Event::FlowCreated), director.drops()), (1, vec![]));
        assert_eq!(director.counts.iter().map(|c| c.all()).sum::<u32>(), 1);
    }
}

#[test]
fn a_reply_key_that_is_taken_sends_a_flow_of_a_burst_elsewhere() {
    // Replies of both services come from port 80 of the same servers.
    let mut director = Director::new(&Setup { server_port: 80, ..Setup::new(Method::Nat) });
    let frames = |port| {
        ["192.0.2.80", "192.0.2.81"].map(|vip| udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, port), (vip, 80), b"").bytes())
    };
    for frame in (4000..4016).flat_map(frames) {
        assert!(director.workers[0].ports_mut().inject(FRONT, &frame));
    }
    assert_eq!(director.turn(0), 32);
    let to: BTreeSet<_> = director.sent().iter().map(|(_, frame)| (frame[5], parse(frame).source_port)).collect();
    assert_eq!((to.len(), director.event_count(Event::FlowCreated)), (32, 32), "{:?}", director.drops());
}

#[test]
fn a_worker_that_slept_makes_up_for_it() {
    let mut director = Director::new(&Setup::new(Method::Dr));
    for n in 0..500 {
        director.pass(FRONT, &tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 1024 + n), (VIP4, 80), "S", b"").bytes());
    }
    director.now += std::time::Duration::from_secs(61);
    director.turn(0);
    assert_eq!(director.event_count(Event::FlowExpired), 500);
}

#[test]
fn absurd_frames_are_counted_and_none_is_lost() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let whole = from_client(CLIENT4, VIP4, "S", b"data").bytes();
    for length in 0..whole.len() {
        assert!(director.pass(FRONT, &whole[..length]).is_empty(), "{length}");
    }
    for pattern in [0u8, 0x45, 0x60, 0xff] {
        assert!(director.pass(FRONT, &vec![pattern; 1500]).is_empty());
    }
    let dropped: u64 = director.drops().iter().map(|(_, n)| n).sum();
    assert_eq!(dropped, whole.len() as u64 + 4);
}

#[test]
fn the_mss_is_clamped_where_the_service_asks_for_it() {
    let syn = |from: ([u8; 6], [u8; 6]), source: (&str, u16), destination: (&str, u16), is_answer: bool| {
        let link = etherparse::PacketBuilder::ethernet2(from.0, from.1);
        let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
        let tcp = link.ipv4(octets(source.0), octets(destination.0), 64).tcp(source.1, destination.1, 1, 1000).syn();
        let tcp = if is_answer { tcp.ack(2) } else { tcp };
        let mut frame = Vec::new();
        let options = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
        tcp.options(&options).unwrap().write(&mut frame, &[]).unwrap();
        frame
    };
    let mss = |frame: &[u8]| u16::from_be_bytes([frame[56], frame[57]]);
    for (clamp, mtu, expected) in [
        (MssClamp::Off, 1400, 1460),
        (MssClamp::ByWay, 1500, 1460),
        (MssClamp::ByWay, 1400, 1360),
        (MssClamp::To(1200), 1500, 1200),
    ] {
        let mut setup = Setup { mtu, ..Setup::new(Method::Nat) };
        setup.settings.mss_clamp = clamp;
        let mut director = Director::new(&setup);
        let (_, out) = director.one(FRONT, &syn((ROUTER_MAC, FRONT_MAC), (CLIENT4, 40_000), (VIP4, 80), false));
        verify(&out);
        assert_eq!(mss(&out), expected);
        let answer = syn((server_mac(12), BACK_MAC), ("10.2.0.12", 8080), (CLIENT4, 40_000), true);
        let (_, out) = director.one(BACK, &answer);
        verify(&out);
        assert_eq!(mss(&out), expected);
    }
    let mut setup = Setup::new(Method::Tun);
    setup.settings.mss_clamp = MssClamp::ByWay;
    let mut director = Director::new(&setup);
    let (_, out) = director.one(FRONT, &syn((ROUTER_MAC, FRONT_MAC), (CLIENT4, 40_000), (VIP4, 80), false));
    assert_eq!(mss(&out[20..]), 1440, "the outer header's 20 bytes less");
}
