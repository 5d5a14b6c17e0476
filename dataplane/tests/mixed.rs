//! FULLNAT between the families over memory ports: every packet that leaves is of the other family, whole and right.

mod common;

use common::packet::{self, parse, tcp, udp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::service::{ClientAddress, Method, ProxyVersion, Toa};

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";
const LOCAL4: &str = "10.2.0.201";
const LOCAL6: &str = "fd02::201";
const SERVER4: &str = "10.2.0.12";
const SERVER6: &str = "fd02::12";

/// Client, VIP, server, the last byte of its address, local address.
const ACROSS: [(&str, &str, &str, u8, &str); 2] =
    [(CLIENT4, VIP4, SERVER6, 0x12, LOCAL6), (CLIENT6, VIP6, SERVER4, 12, LOCAL4)];

/// Each service has its servers in the other family.
fn crossed() -> Setup {
    Setup { servers4: vec![(SERVER6, 1)], servers6: vec![(SERVER4, 1)], ..Setup::new(Method::FullNat) }
}

/// What identifications and flags of made IPv4 headers are, is not the transport's business: both are cut out.
fn without_id(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[12] == 8 {
        frame[18..22].fill(0);
        frame[24..26].fill(0);
    }
    frame
}

#[test]
fn segments_cross_both_ways() {
    for (client, vip, server, n, local) in ACROSS {
        let mut director = Director::new(&crossed());
        // What the SYN's sequence number was moved by, all others are.
        let mut moved = None;
        for (flags, payload) in [("S", &b""[..]), ("A", b""), ("PA", b"GET / HTTP/1.1\r\n\r\n")] {
            let request = tcp(ROUTER_MAC, FRONT_MAC, (client, 40_000), (vip, 80), flags, payload).tos(0xb9);
            let (port, out) = director.one(FRONT, &request.bytes());
            let expected =
                tcp(BACK_MAC, server_mac(n), (local, 5000), (server, 8080), flags, payload).ttl(63).tos(0xb9);
            verify(&out);
            let expected = expected.numbers(*moved.get_or_insert(parse(&out).sequence), packet::ACKNOWLEDGED);
            assert_eq!((port, without_id(&out)), (BACK, without_id(&expected.bytes())), "{flags}");
        }
        let reply = tcp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), "PA", b"hello");
        let reply = reply.numbers(packet::SEQUENCE, moved.unwrap().wrapping_add(1));
        let (port, out) = director.one(BACK, &reply.bytes());
        verify(&out);
        let expected = tcp(FRONT_MAC, ROUTER_MAC, (vip, 80), (client, 40_000), "PA", b"hello").ttl(63);
        let expected = expected.numbers(packet::SEQUENCE, packet::SEQUENCE + 1);
        assert_eq!((port, without_id(&out)), (FRONT, without_id(&expected.bytes())));
        assert_eq!(director.event_count(Event::FlowCreated), 1);
        director.wait(2000);
        assert_eq!(director.event_count(Event::FlowExpired), 1);
    }
}

#[test]
fn servers_of_the_other_family_learn_who_their_client_is() {
    for (client, vip, server, n, local) in ACROSS {
        let mut setup = crossed();
        setup.settings.client_address = ClientAddress { toa: Toa::On, proxy: Some(ProxyVersion::V1) };
        let mut director = Director::new(&setup);
        let (option, header) = if ip(client).is_ipv4() {
            let address = [254, 8, 0x9c, 0x40, 198, 51, 100, 7].to_vec();
            (address, format!("PROXY TCP4 {client} {vip} 40000 80\r\n"))
        } else {
            let std::net::IpAddr::V6(address) = ip(client) else { continue };
            let address = [&[253, 20, 0x9c, 0x40], &address.octets()[..]].concat();
            (address, format!("PROXY TCP6 {client} {vip} 40000 80\r\n"))
        };
        let mut moved = None;
        for (flags, more, payload) in [("S", 0, ""), ("A", 1, header.as_str())] {
            let request = tcp(ROUTER_MAC, FRONT_MAC, (client, 40_000), (vip, 80), flags, b"");
            let request = request.numbers(packet::SEQUENCE + more, packet::ACKNOWLEDGED);
            let (_, out) = director.one(FRONT, &request.bytes());
            verify(&out);
            let sequence = moved.get_or_insert(parse(&out).sequence).wrapping_add(more);
            let expected =
                tcp(BACK_MAC, server_mac(n), (local, 5000), (server, 8080), flags, payload.as_bytes()).ttl(63);
            let expected = expected.numbers(sequence, packet::ACKNOWLEDGED).options(&option);
            assert_eq!(without_id(&out), without_id(&expected.bytes()), "{flags}");
        }
    }
}

#[test]
fn a_missing_udp_checksum_is_computed_for_ipv6() {
    let mut director = Director::new(&crossed());
    for checksum in [packet::UdpChecksum::Computed, packet::UdpChecksum::Absent] {
        let request = udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 5353), (VIP4, 80), b"odd").checksum(checksum);
        let (_, out) = director.one(FRONT, &request.bytes());
        verify(&out);
        assert_eq!(out, udp(BACK_MAC, server_mac(0x12), (LOCAL6, 5000), (SERVER6, 8080), b"odd").ttl(63).bytes());
    }
}

#[test]
fn fragments_cross_and_datagrams_come_out_whole() {
    for (client, vip, server, n, local) in ACROSS {
        let mut director = Director::new(&crossed());
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
    // Without a checksum no part of it can be told from the first fragment.
    let mut director = Director::new(&crossed());
    let request = udp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 40_000), (VIP4, 80), &[7; 200]);
    let request = request.checksum(packet::UdpChecksum::Absent).bytes();
    assert_eq!(director.dropped(FRONT, &packet::fragment(&request, 64)[0]), ["untranslatable"]);
}

#[test]
fn what_does_not_fit_is_answered_with_the_size_of_the_senders_family() {
    for ((client, vip, ..), mtu, kind) in [(ACROSS[0], 1380, (3, 4)), (ACROSS[1], 1420, (2, 0))] {
        let mut setup = crossed();
        setup.mtu = 1400;
        let mut director = Director::new(&setup);
        let request = |payload: usize| tcp(ROUTER_MAC, FRONT_MAC, (client, 40_000), (vip, 80), "S", &vec![0; payload]);
        let header = if ip(client).is_ipv4() { 40 } else { 60 };
        assert_eq!(director.one(FRONT, &request(mtu as usize - header).bytes()).0, BACK);
        let (port, out) = director.one(FRONT, &request(mtu as usize - header + 1).bytes());
        verify(&out);
        let error = parse(&out);
        assert_eq!((port, error.icmp.unwrap(), error.icmp_word), (FRONT, kind, mtu));
        assert_eq!((error.source, error.destination), (ip(vip), ip(client)));
        assert_eq!(director.drop_count(Drop::TooBig), 1);
        let last = tcp(ROUTER_MAC, FRONT_MAC, (client, 40_000), (vip, 80), "A", b"").ttl(1);
        let (_, out) = director.one(FRONT, &last.bytes());
        verify(&out);
        assert_eq!(parse(&out).source, ip(vip));
    }
}

#[test]
fn icmp_errors_become_those_of_the_other_family() {
    for (client, vip, server, n, local) in ACROSS {
        let mut director = Director::new(&crossed());
        let request = tcp(ROUTER_MAC, FRONT_MAC, (client, 40_000), (vip, 80), "S", b"");
        let (_, to_server) = director.one(FRONT, &request.bytes());
        let is_v4 = ip(client).is_ipv4();
        let router = if is_v4 { "fd09::9" } else { "10.9.9.9" };
        let error = packet::too_big(server_mac(0x77), BACK_MAC, router, local, 1400, &to_server[14..]);
        let (port, out) = director.one(BACK, &error);
        verify(&out);
        let seen = parse(&out);
        let (kind, mtu) = if is_v4 { ((3, 4), 1380) } else { ((2, 0), 1420) };
        assert_eq!((port, seen.icmp.unwrap(), seen.icmp_word), (FRONT, kind, mtu));
        assert_eq!((seen.source, seen.destination), (ip(vip), ip(client)));
        let about = [&[0; 12], &out[12..14], &seen.payload].concat();
        verify(&about);
        let about = parse(&about);
        assert_eq!((about.source, about.destination, about.source_port), (ip(client), ip(vip), 40_000));

        let reply = tcp(server_mac(n), BACK_MAC, (server, 8080), (local, 5000), "PA", b"hello");
        let (_, to_client) = director.one(BACK, &reply.bytes());
        let error = packet::too_big(ROUTER_MAC, FRONT_MAC, client, vip, 1300, &to_client[14..]);
        let (port, out) = director.one(FRONT, &error);
        verify(&out);
        let seen = parse(&out);
        let (kind, mtu) = if is_v4 { ((2, 0), 1320) } else { ((3, 4), 1280) };
        assert_eq!((port, seen.icmp.unwrap(), seen.icmp_word), (BACK, kind, mtu));
        assert_eq!((seen.source, seen.destination), (ip(local), ip(server)));
        let about = [&[0; 12], &out[12..14], &seen.payload].concat();
        verify(&about);
        let about = parse(&about);
        assert_eq!((about.source, about.destination, about.source_port), (ip(server), ip(local), 8080));
    }
}

#[test]
fn servers_of_both_families_stand_in_one_service() {
    for (client, vip) in [(CLIENT4, VIP4), (CLIENT6, VIP6)] {
        let mut setup = crossed();
        setup.servers4 = vec![(SERVER6, 1), (SERVER4, 1)];
        setup.servers6 = vec![(SERVER4, 1), (SERVER6, 1)];
        let mut director = Director::new(&setup);
        for n in 0..4 {
            let syn = tcp(ROUTER_MAC, FRONT_MAC, (client, 40_000 + n), (vip, 80), "S", b"");
            let (_, out) = director.one(FRONT, &syn.bytes());
            verify(&out);
            let seen = parse(&out);
            let (server, local) = (seen.destination.to_string(), seen.source.to_string());
            let last = if server == SERVER4 { 12 } else { 0x12 };
            let answer = tcp(server_mac(last), BACK_MAC, (&server, 8080), (&local, seen.source_port), "SA", b"");
            let (port, out) = director.one(BACK, &answer.bytes());
            verify(&out);
            assert_eq!((port, parse(&out).source, parse(&out).destination), (FRONT, ip(vip), ip(client)));
            // Retransmitted, it finds its flow again.
            assert_eq!(director.one(FRONT, &syn.bytes()).0, BACK);
        }
        assert_eq!(director.event_count(Event::FlowCreated), 4);
    }
}

#[test]
fn flows_stay_when_no_service_is_mixed_any_more() {
    let mut director = Director::new(&crossed());
    let segment = |flags| tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, 40_000), (VIP4, 80), flags, b"");
    let (_, first) = director.one(FRONT, &segment("S").bytes());
    let setup = Setup { servers4: vec![(SERVER4, 1)], servers6: vec![(SERVER6, 1)], ..crossed() };
    director.publish(&setup);
    assert_eq!(parse(&director.one(FRONT, &segment("A").bytes()).1).destination, parse(&first).destination);
}
