//! The steering program's decisions, packet by packet, as the kernel runs it (`BPF_PROG_TEST_RUN`). Needs root, hence the
//! names; run with `cargo nextest run -E 'test(/^root_/)'`.

#![cfg(feature = "afxdp")]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use dataplane::ident::{MacAddr, NetPort, Protocol};
use dataplane::service::LocalPorts;
use dataplane::steer::{Decision, Steer, SteerError, SteerLimits, SteerPlan, SteerPrefix, TunnelEnd, Verdict};
use support::{director_mac, ethernet, ipv4, ipv6, ports, service};

const TCP: u8 = 6;
const UDP: u8 = 17;
const CLIENT: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP: &str = "192.0.2.1";
const VIP6: &str = "2001:db8::1";
/// All ports, TCP only.
const WHOLE: &str = "192.0.2.2";
const SERVER: &str = "10.0.0.5";
const SERVER6: &str = "fd00::5";
/// All ports of this real server, UDP only.
const WHOLE_SERVER: &str = "10.0.0.6";
const OWN: &str = "10.0.0.1";
/// Local addresses of FULLNAT; the first is the host's own, too.
const LOCAL: &str = "10.0.0.200";
const LOCAL6: &str = "fd00::200";
const MORE: u16 = 0x2000;

fn plan() -> SteerPlan {
    SteerPlan {
        macs: [director_mac(0)].into(),
        services: [
            service(Protocol::Tcp, VIP, 80),
            service(Protocol::Udp, VIP, 53),
            service(Protocol::Tcp, VIP6, 80),
            service(Protocol::Tcp, WHOLE, 0),
        ]
        .into(),
        prefixes: [
            prefix(Protocol::Tcp, "198.18.0.0/16", 80, 80),
            prefix(Protocol::Tcp, "198.18.7.0/24", 443, 444),
            prefix(Protocol::Udp, "2001:db8:a::/48", 0, u16::MAX),
        ]
        .into(),
        replies: [
            service(Protocol::Tcp, SERVER, 8080),
            service(Protocol::Tcp, SERVER6, 8080),
            service(Protocol::Udp, WHOLE_SERVER, 0),
        ]
        .into(),
        own: [OWN.parse().unwrap(), "fd00::1".parse().unwrap(), LOCAL.parse().unwrap()].into(),
        locals: [LOCAL, LOCAL6].map(|a| (a.parse().unwrap(), LocalPorts::new(5000, 0xefff).unwrap())).into(),
        ..SteerPlan::default()
    }
}

fn prefix(protocol: Protocol, prefix: &str, low: u16, high: u16) -> SteerPrefix {
    SteerPrefix { protocol, prefix: prefix.parse().unwrap(), low, high }
}

fn loaded() -> Steer {
    let mut steer = Steer::load(&SteerLimits::default()).expect("this test needs root");
    steer.apply(&plan()).unwrap();
    steer
}

fn counted(steer: &Steer) -> Vec<(Verdict, u64)> {
    Verdict::ALL.iter().map(|v| (*v, steer.counter(*v).unwrap())).collect()
}

/// Runs one frame and checks both what happens to it and what is counted for it. A hit is dropped here, for there is no
/// socket.
fn expect(steer: &Steer, what: &str, frame: &[u8], verdict: Verdict) {
    let before = counted(steer);
    let hit = verdict >= Verdict::HitService;
    let decision = if hit { Decision::Drop } else { Decision::Pass };
    assert_eq!(steer.decide(frame).unwrap(), decision, "{what}");
    let counted: Vec<Verdict> =
        before.iter().zip(counted(steer)).filter(|(b, a)| b.1 != a.1).map(|(b, _)| b.0).collect();
    let expected = if hit { vec![verdict, Verdict::NoSocket] } else { vec![verdict] };
    assert_eq!(counted, expected, "{what}");
}

fn v4(packet: &[u8]) -> Vec<u8> {
    ethernet(director_mac(0), &[], 0x0800, packet)
}

fn v6(packet: &[u8]) -> Vec<u8> {
    ethernet(director_mac(0), &[], 0x86dd, packet)
}

/// An IPv6 extension header of `length` bytes (a multiple of 8).
fn extension(next: u8, length: usize) -> Vec<u8> {
    let mut header = vec![0; length];
    header[0] = next;
    header[1] = (length / 8 - 1) as u8;
    header
}

fn fragment6(next: u8, offset: u16, more: bool) -> Vec<u8> {
    [&[next, 0][..], &((offset * 8) | u16::from(more)).to_be_bytes(), &[0, 0, 0, 9]].concat()
}

fn icmp(kind: u8, about: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], about].concat()
}

#[test]
fn root_services_are_caught_by_protocol_address_and_port() {
    let steer = loaded();
    let cases = [
        ("the service", TCP, VIP, 80, Verdict::HitService),
        ("its other transport", UDP, VIP, 80, Verdict::PassedMiss),
        ("another port", TCP, VIP, 81, Verdict::PassedMiss),
        ("the service's port as the client's", TCP, VIP, 40_000, Verdict::PassedMiss),
        ("a UDP service", UDP, VIP, 53, Verdict::HitService),
        ("a whole address", TCP, WHOLE, 12_345, Verdict::HitService),
        ("a whole address, other transport", UDP, WHOLE, 12_345, Verdict::PassedMiss),
        ("SCTP", 132, VIP, 80, Verdict::PassedMiss),
        ("an address of nobody", TCP, "192.0.2.9", 80, Verdict::PassedMiss),
    ];
    for (what, protocol, to, port, verdict) in cases {
        expect(&steer, what, &v4(&ipv4(protocol, (CLIENT, to), 0, 0, &ports(80, port))), verdict);
    }
    let to = |address, port| v6(&ipv6(TCP, (CLIENT6, address), &ports(9, port)));
    expect(&steer, "an IPv6 service", &to(VIP6, 80), Verdict::HitService);
    expect(&steer, "another port", &to(VIP6, 81), Verdict::PassedMiss);
    expect(&steer, "an IPv4 service mapped into IPv6", &to("::ffff:192.0.2.1", 80), Verdict::PassedMalformed);
    expect(&steer, "IPv4 options", &v4(&ipv4(TCP, (CLIENT, VIP), 40, 0, &ports(9, 80))), Verdict::HitService);
}

#[test]
fn root_replies_are_caught_unless_they_answer_the_director_itself() {
    let steer = loaded();
    let from = |protocol, source, port, to| v4(&ipv4(protocol, (source, to), 0, 0, &ports(port, 80)));
    expect(&steer, "a reply", &from(TCP, SERVER, 8080, CLIENT), Verdict::HitReply);
    expect(&steer, "a health check's answer", &from(TCP, SERVER, 8080, OWN), Verdict::PassedOwn);
    expect(&steer, "another port of the server", &from(TCP, SERVER, 22, CLIENT), Verdict::PassedMiss);
    expect(&steer, "another transport", &from(UDP, SERVER, 8080, CLIENT), Verdict::PassedMiss);
    expect(&steer, "any port", &from(UDP, WHOLE_SERVER, 777, CLIENT), Verdict::HitReply);
    expect(&steer, "any port, other transport", &from(TCP, WHOLE_SERVER, 777, CLIENT), Verdict::PassedMiss);
    expect(&steer, "a server as a service's client", &from(TCP, SERVER, 8080, VIP), Verdict::HitService);
    let from6 = |to| v6(&ipv6(TCP, (SERVER6, to), &ports(8080, 9)));
    expect(&steer, "an IPv6 reply", &from6(CLIENT6), Verdict::HitReply);
    expect(&steer, "an IPv6 health check's answer", &from6("fd00::1"), Verdict::PassedOwn);
}

#[test]
fn root_local_addresses_are_caught_by_a_range_of_ports() {
    let steer = loaded();
    for (port, own, verdict) in [
        (4999, Verdict::PassedOwn, Verdict::PassedMiss),
        (5000, Verdict::HitReply, Verdict::HitReply),
        (0xefff, Verdict::HitReply, Verdict::HitReply),
        (0xf000, Verdict::PassedOwn, Verdict::PassedMiss),
    ] {
        let to = v4(&ipv4(TCP, (SERVER, LOCAL), 0, 0, &ports(8080, port)));
        expect(&steer, &format!("a NAT server to port {port}"), &to, own);
        let to6 = v6(&ipv6(UDP, (CLIENT6, LOCAL6), &ports(8080, port)));
        expect(&steer, &format!("anybody's datagram to port {port}"), &to6, verdict);
    }
    let later = v4(&ipv4(UDP, (CLIENT, LOCAL), 0, MORE + 185, &ports(1, 2)));
    expect(&steer, "a later fragment", &later, Verdict::HitFragment);
    let about = |port| ipv4(TCP, (LOCAL, "10.7.0.7"), 0, 0, &ports(port, 80));
    let error = |about: &[u8]| v4(&ipv4(1, ("203.0.113.1", LOCAL), 0, 0, &icmp(3, about)));
    expect(&steer, "an error about a request", &error(&about(5000)), Verdict::HitIcmpError);
    expect(&steer, "an error about the host's own", &error(&about(4999)), Verdict::PassedMiss);
    expect(&steer, "a ping", &v4(&ipv4(1, (CLIENT, LOCAL), 0, 0, &icmp(8, &[]))), Verdict::PassedMiss);
}

#[test]
fn root_only_frames_to_our_macs_with_at_most_two_tags_are_looked_at() {
    let steer = loaded();
    let packet = ipv4(TCP, (CLIENT, VIP), 0, 0, &ports(9, 80));
    let packet6 = ipv6(TCP, (CLIENT6, VIP6), &ports(9, 80));
    for tags in [&[][..], &[0x8100], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100]] {
        let tagged = ethernet(director_mac(0), tags, 0x0800, &packet);
        expect(&steer, &format!("{tags:x?}"), &tagged, Verdict::HitService);
        let tagged = ethernet(director_mac(0), tags, 0x86dd, &packet6);
        expect(&steer, &format!("{tags:x?}, IPv6"), &tagged, Verdict::HitService);
        let others = ethernet(director_mac(1), tags, 0x0800, &packet);
        expect(&steer, &format!("{tags:x?}, another MAC"), &others, Verdict::PassedNotOurs);
    }
    let three = ethernet(director_mac(0), &[0x88a8, 0x8100, 0x8100], 0x0800, &packet);
    expect(&steer, "three tags", &three, Verdict::PassedNotIp);
    expect(&steer, "broadcast", &ethernet(MacAddr::BROADCAST, &[], 0x0800, &packet), Verdict::PassedNotOurs);
    expect(&steer, "ARP", &ethernet(director_mac(0), &[], 0x0806, &[0; 46]), Verdict::PassedNotIp);
    expect(&steer, "a wrong version", &ethernet(director_mac(0), &[], 0x86dd, &packet), Verdict::PassedMalformed);
}

#[test]
fn root_extension_headers_are_walked_as_far_as_eight() {
    let steer = loaded();
    let packet =
        |first, headers: &[Vec<u8>]| v6(&ipv6(first, (CLIENT6, VIP6), &[headers.concat(), ports(9, 80)].concat()));
    let authentication = |next| [&[next, 4, 0, 0][..], &[0; 20]].concat();
    let hit = Verdict::HitService;
    expect(&steer, "hop by hop", &packet(0, &[extension(TCP, 8)]), hit);
    expect(&steer, "destination options, large", &packet(60, &[extension(TCP, 256)]), hit);
    expect(&steer, "routing, then destination", &packet(43, &[extension(60, 24), extension(TCP, 16)]), hit);
    expect(&steer, "authentication", &packet(51, &[authentication(TCP)]), hit);
    expect(&steer, "an atomic fragment", &packet(44, &[fragment6(TCP, 0, false)]), hit);
    let chain = |count: usize| {
        let headers: Vec<_> = (1..=count).map(|n| extension(if n == count { TCP } else { 60 }, 8)).collect();
        packet(60, &headers)
    };
    expect(&steer, "eight", &chain(8), hit);
    expect(&steer, "nine", &chain(9), Verdict::PassedMalformed);
    expect(&steer, "no next header", &v6(&ipv6(59, (CLIENT6, VIP6), &[])), Verdict::PassedMiss);
    let beyond = [&[TCP, 200][..], &[0; 30]].concat();
    expect(&steer, "beyond the end", &v6(&ipv6(60, (CLIENT6, VIP6), &beyond)), Verdict::PassedMalformed);
}

#[test]
fn root_later_fragments_follow_the_address() {
    let steer = loaded();
    // What follows a later fragment's header is data; here it would read as other ports.
    let data = ports(1, 2);
    let later = |protocol, source, to| v4(&ipv4(protocol, (source, to), 0, MORE + 185, &data));
    let first = |port| v4(&ipv4(UDP, (CLIENT, VIP), 0, MORE, &ports(9, port)));
    expect(&steer, "the first, by its ports", &first(53), Verdict::HitService);
    expect(&steer, "the first of no service", &first(54), Verdict::PassedMiss);
    expect(&steer, "a later one", &later(UDP, CLIENT, VIP), Verdict::HitFragment);
    expect(&steer, "a later one to a whole address", &later(TCP, CLIENT, WHOLE), Verdict::HitFragment);
    expect(&steer, "of a transport without a service", &later(UDP, CLIENT, WHOLE), Verdict::PassedMiss);
    expect(&steer, "of ICMP", &later(1, CLIENT, VIP), Verdict::PassedMiss);
    expect(&steer, "of a reply", &later(TCP, SERVER, CLIENT), Verdict::HitFragment);
    expect(&steer, "of a health check's answer", &later(TCP, SERVER, OWN), Verdict::PassedOwn);
    expect(&steer, "of a reply to a local address", &later(UDP, "203.0.113.9", LOCAL), Verdict::HitFragment);
    expect(&steer, "of nobody", &later(TCP, CLIENT, "192.0.2.9"), Verdict::PassedMiss);
    let last = v4(&ipv4(UDP, (CLIENT, VIP), 0, 185, &[0xff; 3]));
    expect(&steer, "the last, three bytes long", &last, Verdict::HitFragment);

    let later6 = |offset, to| v6(&ipv6(44, (CLIENT6, to), &[fragment6(TCP, offset, true), data.clone()].concat()));
    expect(&steer, "IPv6, a later one", &later6(181, VIP6), Verdict::HitFragment);
    expect(&steer, "IPv6, of a reply to a local address", &later6(181, LOCAL6), Verdict::HitFragment);
    expect(&steer, "IPv6, of nobody", &later6(181, "2001:db8::9"), Verdict::PassedMiss);
    let first6 = ipv6(44, (CLIENT6, VIP6), &[fragment6(TCP, 0, true), ports(9, 80)].concat());
    expect(&steer, "IPv6, the first", &v6(&first6), Verdict::HitService);
    let reply6 = ipv6(44, (SERVER6, CLIENT6), &[fragment6(TCP, 181, false), data.clone()].concat());
    expect(&steer, "IPv6, of a reply", &v6(&reply6), Verdict::HitFragment);
}

#[test]
fn root_icmp_errors_follow_the_packet_inside() {
    let steer = loaded();
    let error = |kind, to, about: &[u8]| v4(&ipv4(1, ("203.0.113.1", to), 0, 0, &icmp(kind, about)));
    let reply = ipv4(TCP, (VIP, CLIENT), 0, 0, &ports(80, 9));
    let request = ipv4(TCP, (CLIENT, SERVER), 0, 0, &ports(9, 8080));
    let hit = Verdict::HitIcmpError;
    for kind in [3, 4, 11, 12] {
        expect(&steer, &format!("type {kind} about a reply"), &error(kind, VIP, &reply), hit);
        expect(&steer, &format!("type {kind} about a request"), &error(kind, CLIENT, &request), hit);
    }
    for kind in [0, 5, 8, 13] {
        expect(&steer, &format!("type {kind}"), &error(kind, VIP, &reply), Verdict::PassedMiss);
    }
    expect(&steer, "not to the packet's sender", &error(3, CLIENT, &reply), Verdict::PassedMiss);
    let check = ipv4(TCP, (OWN, SERVER), 0, 0, &ports(9, 8080));
    expect(&steer, "about a health check", &error(3, OWN, &check), Verdict::PassedOwn);
    let others = ipv4(TCP, (VIP, CLIENT), 0, 0, &ports(81, 9));
    expect(&steer, "about no service", &error(3, VIP, &others), Verdict::PassedMiss);
    // Under DR a packet to the virtual service is the client's; its errors are the client's, too.
    let forwarded = ipv4(TCP, (CLIENT, VIP), 0, 0, &ports(9, 80));
    expect(&steer, "about a forwarded packet", &error(3, CLIENT, &forwarded), Verdict::PassedMiss);
    let later = ipv4(UDP, (VIP, CLIENT), 0, 185, &ports(0, 0));
    expect(&steer, "about a later fragment", &error(11, VIP, &later), hit);
    let options = ipv4(TCP, (VIP, CLIENT), 24, 0, &ports(80, 9));
    expect(&steer, "with options inside", &error(3, VIP, &options), hit);
    expect(&steer, "about ICMP", &error(3, VIP, &ipv4(1, (VIP, CLIENT), 0, 0, &[0; 8])), Verdict::PassedMiss);
    expect(&steer, "cut before the ports", &error(3, VIP, &reply[..22]), Verdict::PassedMalformed);
    expect(&steer, "with nothing inside", &error(3, VIP, &[]), Verdict::PassedMalformed);
    let ping = v4(&ipv4(1, (CLIENT, VIP), 0, 0, &icmp(8, b"ping")));
    expect(&steer, "ping", &ping, Verdict::PassedMiss);
}

#[test]
fn root_icmp_errors_about_outer_packets_come_to_us() {
    let mut steer = loaded();
    let end = |address: &str, protocol, port| TunnelEnd {
        address: address.parse().unwrap(),
        protocol,
        port: NetPort::new(port),
    };
    let tunnels = [end(SERVER, 4, 0), end(SERVER, 47, 0), end(SERVER, UDP, 6080), end(SERVER6, 41, 0)].into();
    steer.apply(&SteerPlan { tunnels, ..plan() }).unwrap();
    let error = |to, about: &[u8]| v4(&ipv4(1, ("203.0.113.1", to), 0, 0, &icmp(3, about)));
    let outer = |protocol, port| ipv4(protocol, (OWN, SERVER), 0, 0, &ports(50_000, port));
    for (protocol, port) in [(4, 1), (47, 1), (UDP, 6080)] {
        expect(&steer, &format!("about {protocol}"), &error(OWN, &outer(protocol, port)), Verdict::HitIcmpError);
        expect(&steer, "not to its sender", &error(VIP, &outer(protocol, port)), Verdict::PassedMiss);
    }
    expect(&steer, "about another port", &error(OWN, &outer(UDP, 6081)), Verdict::PassedMiss);
    expect(&steer, "about another protocol", &error(OWN, &outer(41, 0)), Verdict::PassedMiss);
    let spread = ipv4(47, ("172.16.3.4", SERVER), 0, 0, &ports(0, 0x800));
    expect(&steer, "from a source of the flow's own", &error("172.16.3.4", &spread), Verdict::HitIcmpError);
    let outer6 = ipv6(41, ("fd00::1", SERVER6), &[0x60; 48]);
    let error6 = v6(&ipv6(58, ("fd00::99", "fd00::1"), &icmp(2, &outer6)));
    expect(&steer, "over IPv6", &error6, Verdict::HitIcmpError);
}

#[test]
fn root_icmpv6_errors_follow_the_packet_inside() {
    let steer = loaded();
    let error = |kind, to, about: &[u8]| v6(&ipv6(58, ("2001:db8:f::1", to), &icmp(kind, about)));
    let reply = ipv6(TCP, (VIP6, CLIENT6), &ports(80, 9));
    let request = ipv6(TCP, (CLIENT6, SERVER6), &ports(9, 8080));
    for kind in 1..=4 {
        expect(&steer, &format!("type {kind} about a reply"), &error(kind, VIP6, &reply), Verdict::HitIcmpError);
        expect(&steer, &format!("type {kind} about a request"), &error(kind, CLIENT6, &request), Verdict::HitIcmpError);
    }
    for kind in [0, 5, 128, 135, 136] {
        expect(&steer, &format!("type {kind}"), &error(kind, VIP6, &reply), Verdict::PassedMiss);
    }
    let extended = ipv6(60, (VIP6, CLIENT6), &[extension(TCP, 16), ports(80, 9)].concat());
    expect(&steer, "with an extension inside", &error(2, VIP6, &extended), Verdict::HitIcmpError);
    let check = ipv6(TCP, ("fd00::1", SERVER6), &ports(9, 8080));
    expect(&steer, "about a health check", &error(1, "fd00::1", &check), Verdict::PassedOwn);
    // ICMP of the other family is no error of anything here.
    let mixed = v6(&ipv6(1, ("2001:db8:f::1", VIP6), &icmp(3, &reply)));
    expect(&steer, "ICMPv4 in IPv6", &mixed, Verdict::PassedMiss);
}

#[test]
fn root_every_cut_of_a_packet_passes_or_hits_and_none_harms() {
    let steer = loaded();
    let chain = [extension(43, 8), extension(44, 16), fragment6(TCP, 0, true), ports(9, 80)].concat();
    let error6 = ipv6(58, (CLIENT6, VIP6), &icmp(2, &ipv6(TCP, (VIP6, CLIENT6), &ports(80, 9))));
    let whole = [
        (ethernet(director_mac(0), &[0x88a8, 0x8100], 0x0800, &ipv4(TCP, (CLIENT, VIP), 40, 0, &ports(9, 80))), 4),
        (v6(&ipv6(60, (CLIENT6, VIP6), &chain)), 4),
        (v4(&ipv4(1, (CLIENT, VIP), 0, 0, &icmp(3, &ipv4(TCP, (VIP, CLIENT), 0, 0, &ports(80, 9))))), 4),
        (v6(&error6), 4),
    ];
    for (frame, needed) in whole {
        // Of the transport header the four bytes of ports are enough.
        for length in 14..=frame.len() {
            let complete = length > frame.len() - 8 + needed - 1;
            let decision = if complete { Decision::Drop } else { Decision::Pass };
            assert_eq!(steer.decide(&frame[..length]).unwrap(), decision, "{length} of {}", frame.len());
        }
    }
    assert!(matches!(steer.decide(&[0; 13]), Err(SteerError::Trial { bytes: 13, .. })));
}

#[test]
fn root_garbage_passes() {
    let steer = loaded();
    // A small generator of its own keeps the run repeatable.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    for round in 0..2000 {
        let length = 14 + usize::from(byte());
        let mut frame: Vec<u8> = (0..length).map(|_| byte()).collect();
        frame[..6].copy_from_slice(&director_mac(0).0);
        let ethertype: [u8; 2] = [[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00], [byte(), byte()]][round % 4];
        frame[12..14].copy_from_slice(&ethertype);
        assert_eq!(steer.decide(&frame).unwrap(), Decision::Pass, "{frame:x?}");
    }
}

#[test]
fn root_a_plan_replaces_another_and_an_empty_one_clears_all() {
    let mut steer = loaded();
    let to = |vip, port| v4(&ipv4(TCP, (CLIENT, vip), 0, 0, &ports(9, port)));
    let mut next = plan();
    next.services.remove(&service(Protocol::Tcp, VIP, 80));
    next.services.insert(service(Protocol::Tcp, VIP, 443));
    next.services.insert(service(Protocol::Udp, WHOLE, 0));
    steer.apply(&next).unwrap();
    expect(&steer, "removed", &to(VIP, 80), Verdict::PassedMiss);
    expect(&steer, "added", &to(VIP, 443), Verdict::HitService);
    expect(&steer, "kept", &to(WHOLE, 9), Verdict::HitService);
    let whole_udp = v4(&ipv4(UDP, (CLIENT, WHOLE), 0, 0, &ports(9, 9)));
    expect(&steer, "a transport added to a whole address", &whole_udp, Verdict::HitService);
    steer.apply(&plan()).unwrap();
    expect(&steer, "and taken from it", &whole_udp, Verdict::PassedMiss);
    steer.apply(&SteerPlan { macs: plan().macs, ..SteerPlan::default() }).unwrap();
    expect(&steer, "nothing left", &to(WHOLE, 9), Verdict::PassedMiss);
    steer.apply(&SteerPlan::default()).unwrap();
    expect(&steer, "no MAC left", &to(WHOLE, 9), Verdict::PassedNotOurs);
}

#[test]
fn root_a_plan_beyond_the_limits_changes_nothing() {
    let limits = SteerLimits { services: 4, ..SteerLimits::default() };
    let mut steer = Steer::load(&limits).expect("this test needs root");
    steer.apply(&SteerPlan { services: [].into(), ..plan() }).unwrap();
    let many = |ports: std::ops::Range<u16>| SteerPlan {
        services: ports.map(|port| service(Protocol::Tcp, VIP, port)).collect(),
        ..plan()
    };
    let error = steer.apply(&many(1..6)).unwrap_err();
    assert!(matches!(error, SteerError::Full { map: "services", wanted: 5, limit: 4 }), "{error}");
    expect(&steer, "not applied", &v4(&ipv4(TCP, (CLIENT, VIP), 0, 0, &ports(9, 1))), Verdict::PassedMiss);
    // A whole generation may replace another at the limit, new before old.
    steer.apply(&many(1..5)).unwrap();
    steer.apply(&many(11..15)).unwrap();
    expect(&steer, "the new one", &v4(&ipv4(TCP, (CLIENT, VIP), 0, 0, &ports(9, 14))), Verdict::HitService);
}

#[test]
fn root_prefixes_are_caught_by_the_ports_of_all_that_hold_an_address() {
    let steer = loaded();
    let cases = [
        ("a port of the prefix", TCP, "198.18.1.1", 80, Verdict::HitService),
        ("another port", TCP, "198.18.1.1", 443, Verdict::PassedMiss),
        ("its other transport", UDP, "198.18.1.1", 80, Verdict::PassedMiss),
        ("the longer prefix's port", TCP, "198.18.7.1", 444, Verdict::HitService),
        ("the shorter prefix's port there", TCP, "198.18.7.1", 80, Verdict::HitService),
        ("above both", TCP, "198.18.7.1", 445, Verdict::PassedMiss),
        ("an address beside", TCP, "198.19.0.0", 80, Verdict::PassedMiss),
    ];
    for (what, protocol, to, port, verdict) in cases {
        let frame = v4(&ipv4(protocol, (CLIENT, to), 0, 0, &ports(9, port)));
        expect(&steer, what, &frame, verdict);
        assert_eq!(dataplane::steer::model::decide(&plan(), &frame), verdict, "model: {what}");
    }
    let to = |address| v6(&ipv6(UDP, (CLIENT6, address), &ports(9, 7)));
    expect(&steer, "IPv6", &to("2001:db8:a::1"), Verdict::HitService);
    expect(&steer, "IPv6 beside", &to("2001:db8:b::1"), Verdict::PassedMiss);
    let later = v4(&ipv4(TCP, (CLIENT, "198.18.1.1"), 0, 7, b"data of a fragment"));
    expect(&steer, "a later fragment", &later, Verdict::HitFragment);
    let error =
        v4(&ipv4(1, (CLIENT, "198.18.1.1"), 0, 0, &icmp(3, &ipv4(TCP, ("198.18.1.1", CLIENT), 0, 0, &ports(80, 9)))));
    expect(&steer, "an ICMP error about an answer", &error, Verdict::HitIcmpError);
}
