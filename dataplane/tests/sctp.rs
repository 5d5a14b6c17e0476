//! SCTP over memory ports: packets made by hand, their CRC taken bit by bit.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::IpAddr;
use std::sync::Arc;

use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, at, ip, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::ident::{Protocol, ServiceKey};
use dataplane::port::ChecksumMode;
use dataplane::service::{Method, ServiceSpec, ServicesBuilder};
use dataplane::snapshot::{Snapshot, StraySctp};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header};

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";
const WAYS: [(&str, &str, &str, u8); 2] = [(CLIENT4, VIP4, "10.2.0.11", 11), (CLIENT6, VIP6, "fd02::11", 0x11)];

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const SHUTDOWN_COMPLETE: u8 = 14;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

/// The CRC-32C of RFC 9260 appendix A, bit by bit, as it stands in the header.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let step = |register: u32, _| (register >> 1) ^ if register & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let register = bytes.iter().fold(!0, |register: u32, byte| (0..8).fold(register ^ u32::from(*byte), step));
    (!register).to_le_bytes()
}

/// An SCTP packet of one chunk with some bytes in it.
fn packet(macs: ([u8; 6], [u8; 6]), from: (&str, u16), to: (&str, u16), chunk: u8, ttl: u8) -> Vec<u8> {
    let mut sctp = [&from.1.to_be_bytes()[..], &to.1.to_be_bytes(), &[0, 0, 0, 9], &[0; 4], &[chunk, 0, 0, 9]].concat();
    sctp.extend([1, 2, 3, 4, 5, 0, 0, 0]);
    let sum = crc(&sctp);
    sctp[8..12].copy_from_slice(&sum);
    let mut out = [macs.1, macs.0].concat();
    match (ip(from.0), ip(to.0)) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            out.extend([8, 0]);
            let number = IpNumber(132);
            let mut header = Ipv4Header::new(sctp.len() as u16, ttl, number, s.octets(), d.octets()).unwrap();
            header.header_checksum = header.calc_header_checksum();
            header.write(&mut out).unwrap();
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            out.extend([0x86, 0xdd]);
            let header = Ipv6Header {
                payload_length: sctp.len() as u16,
                next_header: IpNumber(132),
                hop_limit: ttl,
                source: s.octets(),
                destination: d.octets(),
                ..Ipv6Header::default()
            };
            header.write(&mut out).unwrap();
        }
        _ => panic!("mixed families"),
    }
    out.extend(sctp);
    out
}

/// A director with SCTP services on port 80 of both VIPs, of one server each.
fn director(setup: &Setup) -> Director {
    let director = Director::new(setup);
    let snapshot = setup.snapshot(&director.counts);
    let mut services = ServicesBuilder::default();
    for vip in [VIP4, VIP6] {
        let key = |protocol| ServiceKey { protocol, at: at(vip, 80) };
        let (_, tcp) = snapshot.services.find(Protocol::Tcp, key(Protocol::Tcp).at).unwrap();
        let list = tcp.destinations.clone();
        services.add(ServiceSpec::new(key(Protocol::Sctp), setup.scheduler, list)).unwrap();
    }
    director.swap(Snapshot { services: Arc::new(services.build()), ..snapshot });
    director
}

fn setup(method: Method) -> Setup {
    Setup { servers4: vec![("10.2.0.11", 1)], servers6: vec![("fd02::11", 1)], ..Setup::new(method) }
}

fn from_client(client: &str, vip: &str, chunk: u8) -> Vec<u8> {
    packet((ROUTER_MAC, FRONT_MAC), (client, 40_000), (vip, 80), chunk, 64)
}

#[test]
fn nat_changes_ports_and_checksum() {
    for (client, vip, server, n) in WAYS {
        let mut director = director(&setup(Method::Nat));
        for chunk in [INIT, COOKIE_ECHO, DATA] {
            let out = director.one(FRONT, &from_client(client, vip, chunk));
            let expected = packet((BACK_MAC, server_mac(n)), (client, 40_000), (server, 8080), chunk, 63);
            assert_eq!(out, (BACK, expected), "{chunk}");
        }
        let reply = packet((server_mac(n), BACK_MAC), (server, 8080), (client, 40_000), COOKIE_ACK, 64);
        let expected = packet((FRONT_MAC, ROUTER_MAC), (vip, 80), (client, 40_000), COOKIE_ACK, 63);
        assert_eq!(director.one(BACK, &reply), (FRONT, expected));
        assert_eq!(director.event_count(Event::FlowCreated), 1);
        let counts = director.counts.iter().map(|counts| (counts.active(), counts.inactive()));
        assert_eq!(counts.filter(|both| *both != (0, 0)).collect::<Vec<_>>(), [(1, 0)], "ESTABLISHED");
    }
}

#[test]
fn dr_and_tun_leave_it_as_it_is() {
    for (client, vip, _, n) in WAYS {
        let mut dr = director(&setup(Method::Dr));
        let out = dr.one(FRONT, &from_client(client, vip, INIT));
        let expected = packet((BACK_MAC, server_mac(n)), (client, 40_000), (vip, 80), INIT, 63);
        assert_eq!(out, (BACK, expected.clone()));
        let mut tun = director(&setup(Method::Tun));
        let (_, out) = tun.one(FRONT, &from_client(client, vip, INIT));
        let start = if ip(client).is_ipv4() { 34 } else { 54 };
        assert_eq!(out[start..], expected[14..]);
    }
}

#[test]
fn a_checksum_that_was_left_to_the_device_is_computed_and_a_wrong_one_stays_wrong() {
    let (client, vip, server, n) = WAYS[0];
    let expected = packet((BACK_MAC, server_mac(n)), (client, 40_000), (server, 8080), INIT, 63);
    let unset = |mut frame: Vec<u8>| {
        frame[42..46].fill(0);
        frame
    };
    for mode in [ChecksumMode::Full, ChecksumMode::Offload] {
        let mut director = director(&Setup { checksum: mode, ..setup(Method::Nat) });
        assert_eq!(director.one(FRONT, &unset(from_client(client, vip, INIT))).1, expected, "{mode:?}");
        let mut wrong = from_client(client, vip, INIT);
        wrong[50] ^= 1;
        if mode == ChecksumMode::Full {
            assert_eq!(director.dropped(FRONT, &wrong), ["bad_checksum"]);
            assert_eq!(director.event_count(Event::ChecksumCompleted), 1);
        } else {
            let (_, out) = director.one(FRONT, &wrong);
            let mut zeroed = out[34..].to_vec();
            zeroed[8..12].fill(0);
            assert_ne!(out[42..46], crc(&zeroed));
        }
    }
}

#[test]
fn only_an_init_opens_an_association() {
    let (client, vip, ..) = WAYS[0];
    let mut strict = director(&setup(Method::Nat));
    assert_eq!(strict.dropped(FRONT, &from_client(client, vip, DATA)), ["no_flow"]);
    let mut sloppy = setup(Method::Nat);
    sloppy.policy.stray_sctp = StraySctp::Open;
    let mut sloppy = director(&sloppy);
    assert_eq!(sloppy.dropped(FRONT, &from_client(client, vip, ABORT)), ["no_flow"]);
    assert_eq!(sloppy.one(FRONT, &from_client(client, vip, DATA)).0, BACK);
}

#[test]
fn an_association_that_is_over_makes_room_for_a_new_one() {
    let (client, vip, server, n) = WAYS[0];
    let mut director = director(&setup(Method::Nat));
    director.one(FRONT, &from_client(client, vip, INIT));
    director.one(BACK, &packet((server_mac(n), BACK_MAC), (server, 8080), (client, 40_000), INIT_ACK, 64));
    director.one(FRONT, &from_client(client, vip, ABORT));
    assert_eq!(director.one(FRONT, &from_client(client, vip, INIT)).0, BACK);
    assert_eq!(director.event_count(Event::FlowReused), 1);
    assert_eq!(director.event_count(Event::FlowCreated), 2);
    // A first INIT waits for four seconds, not more.
    director.wait(6);
    assert_eq!(director.event_count(Event::FlowExpired), 1);
    director.one(FRONT, &from_client(client, vip, INIT));
    director.one(FRONT, &from_client(client, vip, SHUTDOWN_COMPLETE));
    director.wait(50);
    assert_eq!(director.event_count(Event::FlowExpired), 1);
    director.wait(14);
    assert_eq!(director.event_count(Event::FlowExpired), 2, "CLOSED after 61 s");
}

#[test]
fn icmp_errors_find_their_association() {
    for (client, vip, server, n) in WAYS {
        let mut director = director(&setup(Method::Nat));
        let (_, request) = director.one(FRONT, &from_client(client, vip, INIT));
        let router = if ip(client).is_ipv4() { "10.2.0.99" } else { "fd02::99" };
        let error = common::packet::too_big(server_mac(99), BACK_MAC, router, client, 1400, &request[14..]);
        let (port, out) = director.one(BACK, &error);
        common::packet::verify(&out);
        let inside = common::packet::parse(&out).payload;
        let start = if ip(client).is_ipv4() { 20 } else { 40 };
        assert_eq!((port, &inside[start..start + 4]), (FRONT, &[0x9c, 0x40, 0, 80][..]), "{server} {n}");
        let short = packet((BACK_MAC, FRONT_MAC), (client, 40_000), (vip, 80), INIT, 64);
        assert_eq!(director.dropped(FRONT, &shorten(short)), ["bad_transport"]);
        assert_eq!(director.drop_count(Drop::BadTransport), 1);
    }
}

/// Cut behind the ports.
fn shorten(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12] == 8 {
        frame.truncate(14 + 28);
        let (mut header, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
        header.total_len = 28;
        header.header_checksum = header.calc_header_checksum();
        frame[14..34].copy_from_slice(&header.to_bytes());
    } else {
        frame.truncate(14 + 48);
        frame[18..20].copy_from_slice(&8u16.to_be_bytes());
    }
    frame
}
