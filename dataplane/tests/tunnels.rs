//! TUN in all its forms over memory ports: what leaves is given in full, and read by libraries other than ours.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::IpAddr;

use common::packet::{Segment, tcp, udp};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::ident::NetPort;
use dataplane::service::{Encapsulation, GreChecksum, GueChecksum, Method, Tunnel};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, UdpHeader};
use smoltcp::wire;

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";
const PORT: u16 = 6080;

/// Client and VIP of either family, with tunnel ends of either family and the server's number.
const WAYS: [(&str, &str, &str, &str, u8); 4] = [
    (CLIENT4, VIP4, "10.2.0.1", "10.2.0.11", 11),
    (CLIENT4, VIP4, "fd02::1", "fd02::11", 0x11),
    (CLIENT6, VIP6, "10.2.0.1", "10.2.0.11", 11),
    (CLIENT6, VIP6, "fd02::1", "fd02::11", 0x11),
];

fn gue(checksum: GueChecksum) -> Encapsulation {
    Encapsulation::Gue { port: NetPort::new(PORT), checksum }
}

/// A director whose only server, for both families, is at the end `to` of a tunnel.
fn setup(to: &'static str, encapsulation: Encapsulation) -> Setup {
    let tunnel = Tunnel { encapsulation, sources: None };
    let servers = vec![(to, 1)];
    Setup { tunnel, servers4: servers.clone(), servers6: servers, ..Setup::new(Method::Tun) }
}

fn from_client(client: &str, vip: &str, port: u16) -> Segment {
    tcp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), "S", b"odd").tos(0xb9)
}

/// An outer packet as it must be, but for the identification, which is taken from what was sent.
fn outer(from: &str, to: &str, protocol: u8, n: u8, id: u16, body: &[u8]) -> Vec<u8> {
    let mut out = [server_mac(n), BACK_MAC].concat();
    match (ip(from), ip(to)) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            out.extend([8, 0]);
            let length = body.len() as u16;
            let mut header = Ipv4Header::new(length, 64, IpNumber(protocol), s.octets(), d.octets()).unwrap();
            (header.identification, header.dont_fragment) = (id, true);
            header.dscp = etherparse::IpDscp::try_new(0xb9 >> 2).unwrap();
            header.ecn = etherparse::IpEcn::try_new(0xb9 & 3).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut out).unwrap();
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            out.extend([0x86, 0xdd]);
            let header = Ipv6Header {
                traffic_class: 0xb9,
                payload_length: body.len() as u16,
                next_header: IpNumber(protocol),
                hop_limit: 64,
                source: s.octets(),
                destination: d.octets(),
                ..Ipv6Header::default()
            };
            header.write(&mut out).unwrap();
        }
        _ => panic!("mixed families"),
    }
    out.extend(body);
    out
}

fn id(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[18], frame[19]])
}

/// The ones' complement sum, word by word.
fn sum(bytes: &[u8]) -> u16 {
    let total: u32 = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    let folded = (total & 0xffff) + (total >> 16);
    (folded & 0xffff) as u16 + (folded >> 16) as u16
}

#[test]
fn gre_goes_between_the_outer_header_and_the_packet() {
    for (client, vip, from, to, n) in WAYS {
        for checksum in [GreChecksum::Absent, GreChecksum::Present] {
            let mut director = Director::new(&setup(to, Encapsulation::Gre(checksum)));
            let (port, out) = director.one(FRONT, &from_client(client, vip, 40_000).bytes());
            let inner = from_client(client, vip, 40_000).ttl(63).bytes()[14..].to_vec();
            let kind: [u8; 2] = if ip(client).is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
            let mut body = match checksum {
                GreChecksum::Absent => vec![0, 0, kind[0], kind[1]],
                GreChecksum::Present => vec![0x80, 0, kind[0], kind[1], 0, 0, 0, 0],
            };
            body.extend(&inner);
            if checksum == GreChecksum::Present {
                let value = (!sum(&body)).to_be_bytes();
                body[4..6].copy_from_slice(&value);
                assert_eq!(sum(&body), 0xffff);
            }
            let expected = outer(from, to, 47, n, id(&out), &body);
            assert_eq!((port, out), (BACK, expected), "{client} over {from} {checksum:?}");
        }
    }
}

#[test]
fn gue_goes_in_udp_with_a_source_port_of_the_flow() {
    for (client, vip, from, to, n) in WAYS {
        for checksum in [GueChecksum::Absent, GueChecksum::Present] {
            let mut director = Director::new(&setup(to, gue(checksum)));
            let (port, out) = director.one(FRONT, &from_client(client, vip, 40_000).bytes());
            let inner = from_client(client, vip, 40_000).ttl(63).bytes()[14..].to_vec();
            let start = if ip(from).is_ipv4() { 34 } else { 54 };
            let source = u16::from_be_bytes([out[start], out[start + 1]]);
            assert!(source >= 49_152);
            let payload = [&[0, if ip(client).is_ipv4() { 4 } else { 41 }, 0, 0][..], &inner].concat();
            let mut header = UdpHeader::without_ipv4_checksum(source, PORT, payload.len()).unwrap();
            if checksum == GueChecksum::Present {
                header.checksum = udp_checksum(&header, from, to, &payload);
            }
            let body = [&header.to_bytes()[..], &payload].concat();
            let expected = outer(from, to, 17, n, id(&out), &body);
            assert_eq!((port, out), (BACK, expected), "{client} over {from} {checksum:?}");
        }
    }
}

fn udp_checksum(header: &UdpHeader, from: &str, to: &str, payload: &[u8]) -> u16 {
    match (ip(from), ip(to)) {
        (IpAddr::V4(s), IpAddr::V4(d)) => header.calc_checksum_ipv4_raw(s.octets(), d.octets(), payload).unwrap(),
        (IpAddr::V6(s), IpAddr::V6(d)) => header.calc_checksum_ipv6_raw(s.octets(), d.octets(), payload).unwrap(),
        _ => panic!("mixed families"),
    }
}

#[test]
fn a_remote_checksum_is_completed_by_the_receiver() {
    for (client, vip, from, to, _) in WAYS {
        let mut director = Director::new(&setup(to, gue(GueChecksum::Remote)));
        let request = from_client(client, vip, 40_000);
        let (_, out) = director.one(FRONT, &request.bytes());
        let start = if ip(from).is_ipv4() { 34 } else { 54 };
        let outer = wire::UdpPacket::new_checked(&out[start..]).unwrap();
        assert!(outer.verify_checksum(&ip(from).into(), &ip(to).into()), "the outer checksum covers all");
        let payload = outer.payload();
        let l4 = if ip(client).is_ipv4() { 20 } else { 40 };
        assert_eq!(payload[..4], [2, if l4 == 20 { 4 } else { 41 }, 0, 1]);
        assert_eq!(payload[4..12], [0x80, 0, 0, 0, 0, l4, 0, l4 + 16]);
        let mut inner = payload[12..].to_vec();
        let expected = request.ttl(63).bytes()[14..].to_vec();
        let l4 = usize::from(l4);
        assert_ne!(inner, expected);
        // The receiver sums from `start` to the end, pseudo header included by what the field holds.
        let value = (!sum(&inner[l4..])).to_be_bytes();
        inner[l4 + 16..l4 + 18].copy_from_slice(&value);
        assert_eq!(inner, expected);
    }
}

#[test]
fn without_a_checksum_of_its_own_a_packet_has_none_to_leave() {
    let mut director = Director::new(&setup("10.2.0.11", gue(GueChecksum::Remote)));
    let request = udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 5353), (VIP4, 80), b"odd");
    let request = request.checksum(common::packet::UdpChecksum::Absent);
    let (_, out) = director.one(FRONT, &request.bytes());
    assert_eq!(out[42..46], [0, 4, 0, 0], "no option");
    assert_eq!(out[46..], request.ttl(63).bytes()[14..]);
}

#[test]
fn flows_differ_in_port_and_source_and_packets_of_one_do_not() {
    let port = |out: &[u8]| u16::from_be_bytes([out[34], out[35]]);
    let mut director = Director::new(&setup("10.2.0.11", gue(GueChecksum::Absent)));
    let mut ports: Vec<_> = (0..64)
        .map(|n| port(&director.one(FRONT, &from_client(CLIENT4, VIP4, 40_000 + n).bytes()).1))
        .inspect(|port| assert!(*port >= 49_152))
        .collect();
    assert_eq!(port(&director.one(FRONT, &from_client(CLIENT4, VIP4, 40_000).bytes()).1), ports[0]);
    ports.sort_unstable();
    ports.dedup();
    assert!(ports.len() > 60, "{}", ports.len());

    for (to, prefix, at, length) in [("10.2.0.11", "172.16.0.0/16", 26, 4), ("fd02::11", "fd00:9::/64", 22, 16)] {
        let mut setup = setup(to, Encapsulation::Ipip);
        setup.tunnel.sources = Some(prefix.parse().unwrap());
        let mut director = Director::new(&setup);
        let mut sources: Vec<_> = (0..64)
            .map(|n| director.one(FRONT, &from_client(CLIENT4, VIP4, 40_000 + n).bytes()).1[at..at + length].to_vec())
            .collect();
        let start: &[u8] = if length == 4 { &[172, 16] } else { &[0xfd, 0, 0, 9, 0, 0, 0, 0] };
        assert!(sources.iter().all(|source| source.starts_with(start)), "{sources:?}");
        let again = director.one(FRONT, &from_client(CLIENT4, VIP4, 40_000).bytes()).1;
        assert_eq!(again[at..at + length], sources[0]);
        sources.sort_unstable();
        sources.dedup();
        assert!(sources.len() > 60, "{}", sources.len());
    }
}

#[test]
fn what_does_not_fit_is_told_with_the_tunnels_overhead() {
    for (encapsulation, overhead) in [
        (Encapsulation::Ipip, 20),
        (Encapsulation::Gre(GreChecksum::Absent), 24),
        (Encapsulation::Gre(GreChecksum::Present), 28),
        (gue(GueChecksum::Absent), 32),
        (gue(GueChecksum::Remote), 40),
    ] {
        let mut director = Director::new(&setup("10.2.0.11", encapsulation));
        let room = 1500 - overhead;
        let sized =
            |length: usize| tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 40_000), (VIP4, 80), "S", &vec![7; length - 40]);
        assert_eq!(director.one(FRONT, &sized(room).bytes()).0, BACK);
        let (port, out) = director.one(FRONT, &sized(room + 1).bytes());
        let error = common::packet::parse(&out);
        assert_eq!((port, error.icmp, error.icmp_word), (FRONT, Some((3, 4)), room as u32), "{encapsulation:?}");
    }
}

/// What leaves for a client's packet through a tunnel, without its link header, and the director.
fn sent(client: &str, vip: &str, to: &'static str, encapsulation: Encapsulation) -> (Director, Segment, Vec<u8>) {
    let mut director = Director::new(&setup(to, encapsulation));
    let request = from_client(client, vip, 40_000);
    let (_, out) = director.one(FRONT, &request.bytes());
    (director, request.ttl(63), out[14..].to_vec())
}

/// An ICMP error of a router beyond the director, about an outer packet that it sent.
fn router_error(from: &str, kind: (u8, u8), word: u32, about: &[u8]) -> Vec<u8> {
    let (router, us) = (if ip(from).is_ipv4() { "10.2.0.99" } else { "fd02::99" }, from);
    let mut frame = common::packet::too_big(server_mac(99), BACK_MAC, router, us, 0, about);
    let (at, l3) = if ip(from).is_ipv4() { (34, 14) } else { (54, 14) };
    (frame[at], frame[at + 1]) = kind;
    frame[at + 4..at + 8].copy_from_slice(&word.to_be_bytes());
    frame[at + 2..at + 4].fill(0);
    let mut covered = Vec::new();
    if at == 54 {
        covered.extend(&frame[l3 + 8..l3 + 40]);
        covered.extend((frame.len() as u32 - 54).to_be_bytes());
        covered.extend([0, 0, 0, 58]);
    }
    covered.extend(&frame[at..]);
    let value = (!sum(&covered)).to_be_bytes();
    frame[at + 2..at + 4].copy_from_slice(&value);
    frame
}

const FORMS: [Encapsulation; 5] = [
    Encapsulation::Ipip,
    Encapsulation::Gre(GreChecksum::Absent),
    Encapsulation::Gre(GreChecksum::Present),
    Encapsulation::Gue { port: NetPort::new(PORT), checksum: GueChecksum::Present },
    Encapsulation::Gue { port: NetPort::new(PORT), checksum: GueChecksum::Remote },
];

#[test]
fn too_big_for_the_tunnel_is_too_big_for_the_client_by_less() {
    for (client, vip, from, to, _) in WAYS {
        for form in FORMS {
            let (mut director, request, outer) = sent(client, vip, to, form);
            let overhead = outer.len() - (request.bytes().len() - 14);
            // So that the error asks for less than was sent, as one that is true does.
            let mut about = outer.clone();
            let (at, length) = if ip(from).is_ipv4() { (2, 1500u16) } else { (4, 1460) };
            about[at..at + 2].copy_from_slice(&length.to_be_bytes());
            let (kind, word) = if ip(from).is_ipv4() { ((3, 4), 1400) } else { ((2, 0), 1400) };
            let (port, out) = director.one(BACK, &router_error(from, kind, word, &about));
            common::packet::verify(&out);
            let error = common::packet::parse(&out);
            let expected = if ip(client).is_ipv4() { (3, 4) } else { (2, 0) };
            assert_eq!((port, error.icmp), (FRONT, Some(expected)), "{client} over {from} {form:?}");
            assert_eq!((error.source, error.destination), (ip(vip), ip(client)));
            let mtu = 1400 - overhead as u32;
            assert_eq!(error.icmp_word, if ip(client).is_ipv6() { mtu.max(1280) } else { mtu });
            // What the client sent, but for the checksum that was left to the receiver.
            let ports = if ip(client).is_ipv4() { 28 } else { 48 };
            assert_eq!(error.payload[..ports], request.bytes()[14..14 + ports], "{form:?}");
            assert_eq!(director.drop_count(Drop::TunnelError), 1);
        }
    }
}

#[test]
fn what_ails_a_tunnel_makes_the_service_unreachable() {
    for (client, vip, from, to, _) in WAYS {
        let kinds: &[(u8, u8)] =
            if ip(from).is_ipv4() { &[(3, 0), (3, 2), (3, 3), (11, 0)] } else { &[(1, 0), (1, 4), (3, 0), (4, 1)] };
        for kind in kinds {
            let (mut director, _, outer) = sent(client, vip, to, Encapsulation::Ipip);
            let (_, out) = director.one(BACK, &router_error(from, *kind, 0, &outer));
            common::packet::verify(&out);
            let expected = if ip(client).is_ipv4() { (3, 1) } else { (1, 3) };
            assert_eq!(common::packet::parse(&out).icmp, Some(expected), "{kind:?} over {from}");
        }
        // Source quench and most parameter problems concern nobody but the tunnel.
        let (mut director, _, outer) = sent(client, vip, to, Encapsulation::Ipip);
        assert_eq!(director.dropped(BACK, &router_error(from, (4, 0), 0, &outer)), ["icmp_unrelated"]);
    }
}

#[test]
fn errors_that_do_not_fit_the_flow_are_not_believed() {
    let (mut director, _, outer) = sent(CLIENT4, VIP4, "10.2.0.11", Encapsulation::Ipip);
    let unreachable = |about: &[u8]| router_error("10.2.0.1", (3, 1), 0, about);
    let mut other_end = outer.clone();
    other_end[19] = 12;
    assert_eq!(director.dropped(BACK, &unreachable(&other_end)), ["icmp_unrelated"]);
    let mut other_client = outer.clone();
    other_client[20 + 15] = 99;
    assert_eq!(director.dropped(BACK, &unreachable(&other_client)), ["icmp_unrelated"]);
    // All that RFC 792 promises does not reach the packet inside.
    assert_eq!(director.dropped(BACK, &unreachable(&outer[..28])), ["icmp_truncated"]);
    // What was sent fits.
    let fits = router_error("10.2.0.1", (3, 4), 1400, &outer);
    assert_eq!(director.dropped(BACK, &fits), ["icmp_unrelated"]);
    let (port, out) = director.one(BACK, &unreachable(&outer[..48]));
    assert_eq!(port, FRONT);
    common::packet::verify(&out);
}

#[test]
fn an_old_router_that_names_no_mtu_is_guessed_at() {
    let (mut director, _, mut outer) = sent(CLIENT4, VIP4, "10.2.0.11", Encapsulation::Ipip);
    outer[2..4].copy_from_slice(&1500u16.to_be_bytes());
    let (_, out) = director.one(BACK, &router_error("10.2.0.1", (3, 4), 0, &outer));
    assert_eq!(common::packet::parse(&out).icmp_word, 1492 - 20);
}

#[test]
fn errors_to_clients_have_their_limit() {
    let mut setup = setup("10.2.0.11", Encapsulation::Ipip);
    setup.policy.replies_per_second = 10;
    let mut director = Director::new(&setup);
    let (_, out) = director.one(FRONT, &from_client(CLIENT4, VIP4, 40_000).bytes());
    let error = router_error("10.2.0.1", (3, 1), 0, &out[14..]);
    let left: usize = (0..20).map(|_| director.pass(BACK, &error).len()).sum();
    assert_eq!(left, 1);
    assert_eq!(director.event_count(Event::IcmpSuppressed), 19);
    assert_eq!(director.drop_count(Drop::TunnelError), 20);
}

#[test]
fn errors_about_answers_go_to_the_server_by_the_tunnel() {
    for (client, vip, from, to, n) in WAYS {
        let (mut director, _, _) = sent(client, vip, to, Encapsulation::Gre(GreChecksum::Absent));
        let answer = tcp([9; 6], [9; 6], (vip, 80), (client, 40_000), "A", b"answer").bytes();
        let router = if ip(client).is_ipv4() { "203.0.113.1" } else { "2001:db8:f::1" };
        let error = common::packet::too_big(ROUTER_MAC, FRONT_MAC, router, vip, 1300, &answer[14..]);
        let (port, out) = director.one(FRONT, &error);
        let start = if ip(from).is_ipv4() { 34 } else { 54 };
        assert_eq!((port, &out[..6]), (BACK, &server_mac(n)[..]));
        let l4 = if ip(client).is_ipv4() { 20 } else { 40 };
        assert_eq!(out[start + 4 + l4..], error[14 + l4..], "the error as it is, {client} over {from}");
    }
}
