//! FULLNAT over memory ports: what servers see comes from a local address, and finds its way back from there.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::packet::{self, Segment, parse, tcp, udp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, KERNEL, KERNEL_MAC, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::ident::{Endpoint, NetPort, Protocol};
use dataplane::rss::{HashedByKind, HashedFields, Rss};
use dataplane::service::{LocalPorts, Method};

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";
const LOCAL4: &str = "10.2.0.201";
const LOCAL6: &str = "fd02::201";

/// Client, VIP, the server that is picked first, the last byte of its address, and the local address.
const FAMILIES: [(&str, &str, &str, u8, &str); 2] =
    [(CLIENT4, VIP4, "10.2.0.12", 12, LOCAL4), (CLIENT6, VIP6, "fd02::12", 0x12, LOCAL6)];

fn from_client(client: &str, port: u16, vip: &str, flags: &str, payload: &[u8]) -> Segment {
    tcp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), flags, payload)
}

fn one_server() -> Setup {
    Setup { servers4: vec![("10.2.0.12", 1)], servers6: vec![("fd02::12", 1)], ..Setup::new(Method::FullNat) }
}

#[test]
fn both_ends_are_rewritten_both_ways() {
    for (client, vip, server, n, local) in FAMILIES {
        let mut director = Director::new(&Setup::new(Method::FullNat));
        // What the SYN's sequence number was moved by, all others are.
        let mut moved = None;
        for (flags, payload) in [("S", &b""[..]), ("A", b""), ("PA", b"GET / HTTP/1.1\r\n\r\n")] {
            let out = director.one(FRONT, &from_client(client, 40_000, vip, flags, payload).bytes());
            let sequence = *moved.get_or_insert(parse(&out.1).sequence);
            let to_server = tcp(BACK_MAC, server_mac(n), (local, 5000), (server, 8080), flags, payload).ttl(63);
            assert_eq!(out, (BACK, to_server.numbers(sequence, packet::ACKNOWLEDGED).bytes()), "{flags}");
            verify(&out.1);
        }
        let reply = tcp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), "PA", b"hello");
        let out = director.one(BACK, &reply.numbers(packet::SEQUENCE, moved.unwrap().wrapping_add(1)).bytes());
        let to_client = tcp(FRONT_MAC, ROUTER_MAC, (vip, 80), (client, 40_000), "PA", b"hello").ttl(63);
        assert_eq!(out, (FRONT, to_client.numbers(packet::SEQUENCE, packet::SEQUENCE + 1).bytes()));
        assert_eq!(director.event_count(Event::FlowCreated), 1);
    }
}

#[test]
fn datagrams_come_from_a_local_address_too() {
    let mut director = Director::new(&Setup::new(Method::FullNat));
    for checksum in [packet::UdpChecksum::Computed, packet::UdpChecksum::Absent] {
        let request = udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 5353), (VIP4, 80), b"odd").checksum(checksum);
        let out = director.one(FRONT, &request.bytes());
        let expected =
            udp(BACK_MAC, server_mac(12), (LOCAL4, 5000), ("10.2.0.12", 8080), b"odd").ttl(63).checksum(checksum);
        assert_eq!(out, (BACK, expected.bytes()));
    }
}

#[test]
fn one_local_port_serves_every_server_and_another_every_client() {
    let mut director = Director::new(&Setup::new(Method::FullNat));
    let ports: Vec<_> = (0..4)
        .map(|n| {
            let (_, out) = director.one(FRONT, &from_client(CLIENT4, 40_000 + n, VIP4, "S", b"").bytes());
            let seen = parse(&out);
            (seen.destination.to_string(), seen.source_port)
        })
        .collect();
    let expected = [("10.2.0.12", 5000), ("10.2.0.11", 5000), ("10.2.0.12", 5001), ("10.2.0.11", 5001)];
    assert_eq!(ports, expected.map(|(server, port)| (server.to_owned(), port)));
}

#[test]
fn without_a_port_new_flows_are_refused_and_the_old_go_on() {
    let mut setup = one_server();
    setup.local_ports = LocalPorts::new(7000, 7003).unwrap();
    let mut director = Director::with_workers(&setup, 3);
    for n in 0..4 {
        assert_eq!(director.one(FRONT, &from_client(CLIENT4, 40_000 + n, VIP4, "S", b"").bytes()).0, BACK, "{n}");
    }
    assert_eq!(setup.ports_in_use(), 4);
    for n in 4..20 {
        let refused = director.dropped(FRONT, &from_client(CLIENT4, 40_000 + n, VIP4, "S", b"").bytes());
        assert_eq!(refused, ["no_local_port"]);
    }
    assert_eq!(director.drop_count(Drop::NoLocalPort), 16);
    let mut ports: Vec<_> = (0..4)
        .map(|n| parse(&director.one(FRONT, &from_client(CLIENT4, 40_000 + n, VIP4, "A", b"on").bytes()).1).source_port)
        .collect();
    ports.sort_unstable();
    assert_eq!(ports, [7000, 7001, 7002, 7003]);
    // Another transport has ports of its own, and so has a port whose flow ended.
    let other = udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 40_000), (VIP4, 80), b"");
    assert_eq!(director.one(FRONT, &other.bytes()).0, BACK);
    director.wait(1000);
    assert_eq!(setup.ports_in_use(), 0);
    assert_eq!(director.one(FRONT, &from_client(CLIENT4, 50_000, VIP4, "S", b"").bytes()).0, BACK);
}

#[test]
fn a_second_local_address_helps_out() {
    let mut setup = one_server();
    setup.local_ports = LocalPorts::new(7000, 7001).unwrap();
    setup.locals = vec!["10.2.0.201", "10.2.0.202"];
    let mut director = Director::new(&setup);
    let mut seen: Vec<_> = (0..4)
        .map(|n| {
            let (_, out) = director.one(FRONT, &from_client(CLIENT4, 40_000 + n, VIP4, "S", b"").bytes());
            (parse(&out).source, parse(&out).source_port)
        })
        .collect();
    seen.sort_unstable();
    let expected = [("10.2.0.201", 7000), ("10.2.0.201", 7001), ("10.2.0.202", 7000), ("10.2.0.202", 7001)];
    assert_eq!(seen, expected.map(|(address, port)| (ip(address), port)));
}

#[test]
fn workers_keep_to_slices_until_theirs_is_used_up() {
    let mut setup = one_server();
    setup.local_ports = LocalPorts::new(7000, 7005).unwrap();
    let mut director = Director::with_workers(&setup, 2);
    let mut port = |worker, n: u16| {
        let out = director.pass_by(worker, FRONT, &from_client(CLIENT4, 40_000 + n, VIP4, "S", b"").bytes());
        parse(&out[0].1).source_port
    };
    let of_second: Vec<_> = (0..3).map(|n| port(1, n)).collect();
    assert_eq!(of_second, [7001, 7003, 7005]);
    assert_eq!(port(0, 10), 7000);
    let mut rest = [port(1, 11), port(1, 12)];
    rest.sort_unstable();
    assert_eq!(rest, [7002, 7004]);
}

/// A card with four queues, a key as drivers draw it, and a table that `ethtool -X` made uneven.
fn card(hashed: HashedFields) -> Option<Rss> {
    let mut state = 0x2545_f491_u32;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let key: Vec<u8> = (0..40).map(|_| random() as u8).collect();
    let table: Vec<u32> = (0..128).map(|_| random() >> 8 & 3).collect();
    Rss::new(&key, &table, HashedByKind { tcp4: hashed, udp4: hashed, tcp6: hashed, udp6: hashed })
}

/// The worker, of `workers`, that gets the reply to a frame to a server.
fn reply_worker(card: &Rss, frame: &[u8], workers: u32) -> Option<u32> {
    let seen = parse(frame);
    let server = Endpoint { address: seen.destination, port: NetPort::new(8080) };
    let replies = card.packets(Protocol::Tcp, server, seen.source)?;
    Some(replies.queue(NetPort::new(seen.source_port)).0 % workers)
}

#[test]
fn replies_come_to_the_worker_that_opened_the_flow_where_rss_is_known() {
    for (client, vip, ..) in FAMILIES {
        let card = card(HashedFields::AddressesAndPorts).unwrap();
        let mut setup = Setup::new(Method::FullNat);
        setup.rss = Some(Arc::new(card.clone()));
        // Every TCP flow has an extension record, of which there are fewer than flows.
        setup.capacity = 16_384;
        let mut director = Director::with_workers(&setup, 2);
        let mut ends = BTreeSet::new();
        for n in 0..300 {
            let worker = usize::from(n % 3 == 0);
            let out = director.pass_by(worker, FRONT, &from_client(client, 10_000 + n, vip, "S", b"").bytes());
            let seen = parse(&out[0].1);
            assert_eq!(reply_worker(&card, &out[0].1, 2), Some(worker as u32), "{n}: {}", seen.source_port);
            assert!(ends.insert((seen.destination, seen.source_port)));
        }
        assert_eq!(director.event_count(Event::ReplyElsewhere), 0);
        // The ports come in the order of the usual slices without it.
        let mut director = Director::with_workers(&Setup::new(Method::FullNat), 2);
        let out = director.pass_by(1, FRONT, &from_client(client, 10_000, vip, "S", b"").bytes());
        assert_eq!(parse(&out[0].1).source_port, 5001);
    }
}

#[test]
fn where_no_port_leads_replies_here_any_serves() {
    // As the ports of this worker's run out, those of the other serve; and where ports are not hashed, all are the same.
    for (hashed, ports) in [(HashedFields::AddressesAndPorts, 64), (HashedFields::Addresses, 1000)] {
        let card = card(hashed).unwrap();
        let mut setup = one_server();
        setup.local_ports = LocalPorts::new(7000, 6999 + ports).unwrap();
        setup.rss = Some(Arc::new(card.clone()));
        // Every TCP flow has an extension record, of which there are fewer than flows.
        setup.capacity = 16_384;
        let mut director = Director::with_workers(&setup, 2);
        let mut elsewhere = 0;
        for n in 0..48 {
            let out = director.pass_by(1, FRONT, &from_client(CLIENT4, 10_000 + n, VIP4, "S", b"").bytes());
            elsewhere += u64::from(reply_worker(&card, &out[0].1, 2) != Some(1));
        }
        assert_eq!(director.event_count(Event::ReplyElsewhere), elsewhere);
        assert!(if hashed == HashedFields::Addresses { [0, 48].contains(&elsewhere) } else { elsewhere > 0 });
    }
}

#[test]
fn a_reply_of_no_flow_is_reset_and_never_reaches_the_kernel() {
    for (_, _, server, n, local) in FAMILIES {
        let mut director = Director::new(&Setup::new(Method::FullNat));
        let late = tcp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), "PA", b"late");
        let (port, out) = director.one(BACK, &late.bytes());
        verify(&out);
        let reset = parse(&out);
        assert_eq!((port, reset.flags.as_str(), reset.source, reset.destination), (BACK, "R", ip(local), ip(server)));
        assert_eq!(director.drops(), [("stray_reply", 1)]);
        for silent in [
            tcp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), "R", b""),
            udp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), b"late"),
        ] {
            assert!(director.pass(BACK, &silent.bytes()).is_empty());
        }
        assert_eq!(director.drops(), [("stray_reply", 3)]);
        // Below the range are the kernel's own ports.
        let own = tcp(server_mac(n), BACK_MAC, (server, 8080), (local, 4999), "PA", b"own");
        assert_eq!(director.one(BACK, &own.bytes()).0, KERNEL);
    }
}

#[test]
fn a_server_on_the_director_is_reached_by_the_kernel_port() {
    for (client, vip, server, source) in
        [(CLIENT4, VIP4, "10.2.0.1", "169.254.77.1"), (CLIENT6, VIP6, "fd02::1", "fe80::77:1")]
    {
        let mut setup = Setup::new(Method::FullNat);
        setup.servers4 = vec![("10.2.0.1", 1)];
        setup.servers6 = vec![("fd02::1", 1)];
        let mut director = Director::new(&setup);
        let out = director.one(FRONT, &from_client(client, 40_000, vip, "S", b"").bytes());
        let expected = tcp([2, 0, 0, 0, 0, 3], KERNEL_MAC, (source, 40_000), (server, 8080), "S", b"");
        assert_eq!(out, (KERNEL, expected.bytes()));
        let reply = tcp(KERNEL_MAC, [2, 0, 0, 0, 0, 3], (server, 8080), (source, 40_000), "SA", b"");
        let (port, out) = director.one(KERNEL, &reply.bytes());
        assert_eq!((port, parse(&out).source, parse(&out).destination), (FRONT, ip(vip), ip(client)));
    }
}

#[test]
fn icmp_errors_reach_the_side_that_sent_the_packet() {
    for (client, vip, server, n, local) in FAMILIES {
        let mut director = Director::new(&Setup::new(Method::FullNat));
        let request = from_client(client, 40_000, vip, "S", b"");
        let (_, to_server) = director.one(FRONT, &request.bytes());
        // A router behind the director about the request.
        let router = if ip(client).is_ipv4() { "10.9.9.9" } else { "fd09::9" };
        let error = packet::too_big(server_mac(0x77), BACK_MAC, router, local, 1400, &to_server[14..]);
        let (port, out) = director.one(BACK, &error);
        verify(&out);
        let seen = parse(&out);
        assert_eq!((port, seen.source, seen.destination), (FRONT, ip(router), ip(client)));
        let about = parse(&[&[0; 12], &out[12..14], &seen.payload].concat());
        assert_eq!((about.source, about.destination, about.source_port), (ip(client), ip(vip), 40_000));
        // The client about the reply: to the server it comes from the local address, for it knows no other.
        let reply = tcp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), "PA", b"hello");
        let (_, to_client) = director.one(BACK, &reply.bytes());
        let error = packet::too_big(ROUTER_MAC, FRONT_MAC, client, vip, 1300, &to_client[14..]);
        let (port, out) = director.one(FRONT, &error);
        verify(&out);
        let seen = parse(&out);
        assert_eq!((port, seen.source, seen.destination), (BACK, ip(local), ip(server)));
        let about = parse(&[&[0; 12], &out[12..14], &seen.payload].concat());
        assert_eq!((about.source, about.destination, about.source_port), (ip(server), ip(local), 8080));
        assert_eq!(director.event_count(Event::IcmpTranslated), 2);
    }
}

#[test]
fn later_fragments_follow_the_first_in_both_directions() {
    for (client, vip, server, n, local) in FAMILIES {
        let mut director = Director::new(&Setup::new(Method::FullNat));
        let payload: Vec<u8> = (0..200).collect();
        let request = udp(ROUTER_MAC, FRONT_MAC, (client, 40_000), (vip, 80), &payload).bytes();
        let out: Vec<_> = packet::fragment(&request, 64).iter().map(|piece| director.one(FRONT, piece).1).collect();
        let whole = udp(BACK_MAC, server_mac(n), (local, 5000), (server, 8080), &payload).bytes();
        assert_eq!(packet::reassemble(&out), packet::transport(&whole));
        assert!(out.iter().all(|piece| (parse(piece).source, parse(piece).destination) == (ip(local), ip(server))));
        let reply = udp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), &payload).bytes();
        let out: Vec<_> = packet::fragment(&reply, 64).iter().map(|piece| director.one(BACK, piece).1).collect();
        let whole = udp(FRONT_MAC, ROUTER_MAC, (vip, 80), (client, 40_000), &payload).bytes();
        assert_eq!(packet::reassemble(&out), packet::transport(&whole));
    }
}

#[test]
fn one_syn_on_two_workers_takes_one_port() {
    let setup = one_server();
    let mut director = Director::with_workers(&setup, 2);
    let syn = from_client(CLIENT4, 40_000, VIP4, "S", b"").bytes();
    let first = director.pass_by(0, FRONT, &syn);
    assert_eq!(director.pass_by(1, FRONT, &syn), first);
    assert_eq!(setup.ports_in_use(), 1);
}
