//! FULLNAT towards the server over memory ports: it is told who its client is, and no local port goes back in numbers
//! or time. Every frame that leaves is given in full.

// The lint knows tests, not their helpers.
#![allow(clippy::unwrap_used)]

mod common;

use common::packet::{self, SEQUENCE, Segment, parse, tcp, udp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::Event;
use dataplane::ident::PortIndex;
use dataplane::service::{
    ClientAddress, ExpireReset, LocalPorts, Method, ProxyVersion, ServiceSettings, TcpTimestamps, Toa,
};

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";
/// What the server calls its first sequence number.
const SERVER: u32 = 5_000;
const PORT: u16 = 40_000;

fn setup(toa: Toa, proxy: Option<ProxyVersion>) -> Setup {
    let settings = ServiceSettings { client_address: ClientAddress { toa, proxy }, ..ServiceSettings::default() };
    Setup {
        servers4: vec![("10.2.0.12", 1)],
        servers6: vec![("fd02::12", 1)],
        local_ports: LocalPorts::new(7000, 7000).unwrap(),
        settings,
        ..Setup::new(Method::FullNat)
    }
}

/// One connection: what the client sends begins at `SEQUENCE`, and `delta` is what the director adds.
struct Talk {
    director: Director,
    is_v6: bool,
    delta: u32,
}

impl Talk {
    fn new(setup: &Setup, is_v6: bool) -> Self {
        Self { director: Director::with_workers(setup, 2), is_v6, delta: 0 }
    }

    fn pick(&self, v4: &'static str, v6: &'static str) -> &'static str {
        if self.is_v6 { v6 } else { v4 }
    }

    fn server(&self) -> (&'static str, [u8; 6]) {
        if self.is_v6 { ("fd02::12", server_mac(0x12)) } else { ("10.2.0.12", server_mac(12)) }
    }

    /// A client's segment; numbers count from its SYN and from the server's.
    fn client(&self, flags: &str, sequence: u32, acknowledged: u32, payload: &[u8]) -> Segment {
        let (client, vip) = (self.pick(CLIENT4, CLIENT6), self.pick(VIP4, VIP6));
        let segment = tcp(ROUTER_MAC, FRONT_MAC, (client, PORT), (vip, 80), flags, payload);
        segment.numbers(SEQUENCE + sequence, SERVER + acknowledged)
    }

    /// What the server should get; numbers count from the client's SYN as the server knows it.
    fn to_server(&self, flags: &str, sequence: u32, acknowledged: u32, payload: &[u8]) -> Segment {
        let (server, mac) = self.server();
        let local = self.pick("10.2.0.201", "fd02::201");
        let segment = tcp(BACK_MAC, mac, (local, 7000), (server, 8080), flags, payload).ttl(63);
        segment.numbers((SEQUENCE + sequence).wrapping_add(self.delta), SERVER + acknowledged)
    }

    /// A segment of the server; numbers as in [`Talk::to_server`].
    fn answer(&self, flags: &str, sequence: u32, acknowledged: u32, payload: &[u8]) -> Segment {
        let (server, mac) = self.server();
        let local = self.pick("10.2.0.201", "fd02::201");
        let segment = tcp(mac, BACK_MAC, (server, 8080), (local, 7000), flags, payload);
        segment.numbers(SERVER + sequence, (SEQUENCE + acknowledged).wrapping_add(self.delta))
    }

    /// What the client should get.
    fn to_client(&self, flags: &str, sequence: u32, acknowledged: u32, payload: &[u8]) -> Segment {
        let (client, vip) = (self.pick(CLIENT4, CLIENT6), self.pick(VIP4, VIP6));
        let segment = tcp(FRONT_MAC, ROUTER_MAC, (vip, 80), (client, PORT), flags, payload).ttl(63);
        segment.numbers(SERVER + sequence, SEQUENCE + acknowledged)
    }

    /// Passes a client's segment by a worker and compares all that leaves.
    fn expect(&mut self, worker: usize, sent: &Segment, expected: &[Segment]) {
        self.compare(worker, FRONT, sent, BACK, expected);
    }

    /// The same of a server's.
    fn expect_back(&mut self, worker: usize, sent: &Segment, expected: &Segment) {
        self.compare(worker, BACK, sent, FRONT, std::slice::from_ref(expected));
    }

    fn compare(&mut self, worker: usize, from: PortIndex, sent: &Segment, to: PortIndex, expected: &[Segment]) {
        let out = self.director.pass_by(worker, from, &sent.bytes());
        for (_, frame) in &out {
            verify(frame);
        }
        let expected: Vec<_> = expected.iter().map(|segment| (to, segment.bytes())).collect();
        assert_eq!(out, expected, "{:?}", self.director.drops());
    }

    /// SYN and SYN-ACK; learns what the director adds.
    fn open(&mut self) {
        let syn = self.client("S", 0, 0, b"");
        let (_, out) = self.director.one(FRONT, &syn.bytes());
        self.delta = parse(&out).sequence.wrapping_sub(SEQUENCE);
        let option = if self.is_toa() { self.toa() } else { vec![] };
        assert_eq!(out, self.to_server("S", 0, 0, b"").options(&option).bytes());
        let (answer, expected) = (self.answer("SA", 0, 1, b""), self.to_client("SA", 0, 1, b""));
        self.expect_back(1, &answer, &expected);
    }

    fn is_toa(&self) -> bool {
        let snapshot = self.director.shared.snapshot.load();
        snapshot.services.iter().next().unwrap().settings.client_address.toa == Toa::On
    }

    fn toa(&self) -> Vec<u8> {
        let [high, low] = PORT.to_be_bytes();
        match ip(self.pick(CLIENT4, CLIENT6)) {
            std::net::IpAddr::V4(address) => [&[254, 8, high, low], &address.octets()[..]].concat(),
            std::net::IpAddr::V6(address) => [&[253, 20, high, low], &address.octets()[..]].concat(),
        }
    }

    fn header(&self, version: ProxyVersion) -> Vec<u8> {
        match (version, self.is_v6) {
            (ProxyVersion::V1, false) => b"PROXY TCP4 198.51.100.7 192.0.2.80 40000 80\r\n".to_vec(),
            (ProxyVersion::V1, true) => b"PROXY TCP6 2001:db8:c::7 2001:db8::80 40000 80\r\n".to_vec(),
            (ProxyVersion::V2, _) => {
                let octets = |address: &str| match ip(address) {
                    std::net::IpAddr::V4(a) => a.octets().to_vec(),
                    std::net::IpAddr::V6(a) => a.octets().to_vec(),
                };
                let (kind, length) = if self.is_v6 { (0x21, 36) } else { (0x11, 12) };
                let addresses = [octets(self.pick(CLIENT4, CLIENT6)), octets(self.pick(VIP4, VIP6))].concat();
                let ports = [PORT.to_be_bytes(), 80u16.to_be_bytes()].concat();
                [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[kind, 0, length], &addresses, &ports].concat()
            }
        }
    }
}

#[test]
fn sequence_numbers_are_moved_and_come_back() {
    for is_v6 in [false, true] {
        let mut talk = Talk::new(&setup(Toa::Off, None), is_v6);
        talk.open();
        let syn = talk.to_server("S", 0, 0, b"");
        talk.expect(1, &talk.client("S", 0, 0, b""), &[syn]);
        talk.expect(1, &talk.client("A", 1, 1, b""), &[talk.to_server("A", 1, 1, b"")]);
        talk.expect(0, &talk.client("PA", 1, 1, b"question"), &[talk.to_server("PA", 1, 1, b"question")]);
        talk.expect_back(0, &talk.answer("PA", 1, 9, b"answer"), &talk.to_client("PA", 1, 9, b"answer"));
        let blocks = |n: u32| [&[1, 1, 5, 10], &n.to_be_bytes()[..], &(n + 3).to_be_bytes()[..]].concat();
        let sack = blocks((SEQUENCE + 12).wrapping_add(talk.delta));
        let seen = talk.to_client("A", 7, 9, b"").options(&blocks(SEQUENCE + 12));
        talk.expect_back(1, &talk.answer("A", 7, 9, b"").options(&sack), &seen);
        assert_eq!(talk.director.shared.flows4.extensions_used() + talk.director.shared.flows6.extensions_used(), 1);
    }
}

#[test]
fn a_local_port_never_goes_back() {
    let stamp = |value: u32| [&[1, 1, 8, 10], &value.to_be_bytes()[..], &[0; 4]].concat();
    let mut talk = Talk::new(&setup(Toa::Off, None), false);
    let mut last = None;
    for (n, value) in [(0, 4_000_000_000), (1, 7), (2, 2_000_000_000)] {
        let client = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, PORT + n), (VIP4, 80), "S", b"");
        let sequence = 4_000_000_000u32.wrapping_mul(u32::from(n) + 1);
        let (_, out) = talk.director.one(FRONT, &client.numbers(sequence, 0).options(&stamp(value)).bytes());
        verify(&out);
        let seen = (parse(&out).sequence, u32::from_be_bytes(out[58..62].try_into().unwrap()));
        if let Some((sequence, stamp)) = last {
            let is_ahead = |now: u32, before: u32| (1..1 << 31).contains(&now.wrapping_sub(before));
            assert!(is_ahead(seen.0, sequence) && is_ahead(seen.1, stamp), "{seen:?} {last:?}");
        }
        last = Some(seen);
        // The server echoes what it got, and the client sees its own.
        let answer = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), ("10.2.0.201", 7000), "SA", b"");
        let echo = [&[1, 1, 8, 10, 0, 0, 0, 9], &seen.1.to_be_bytes()[..]].concat();
        let (_, out) = talk.director.one(BACK, &answer.numbers(SERVER, seen.0.wrapping_add(1)).options(&echo).bytes());
        let expected = tcp(FRONT_MAC, ROUTER_MAC, (VIP4, 80), (CLIENT4, PORT + n), "SA", b"").ttl(63);
        let echo = [&[1, 1, 8, 10, 0, 0, 0, 9], &value.to_be_bytes()[..]].concat();
        assert_eq!(out, expected.numbers(SERVER, sequence.wrapping_add(1)).options(&echo).bytes());
        let reset = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, PORT + n), (VIP4, 80), "R", b"");
        talk.director.one(FRONT, &reset.numbers(sequence.wrapping_add(1), 0).bytes());
        talk.director.wait(60);
    }
}

#[test]
fn time_stamps_are_removed_where_a_service_asks_for_it() {
    let mut setup = setup(Toa::Off, None);
    setup.settings.tcp_timestamps = TcpTimestamps::Remove;
    let mut talk = Talk::new(&setup, false);
    let linux = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 7, 0, 0, 0, 0, 1, 3, 3, 7];
    let (_, out) = talk.director.one(FRONT, &talk.client("S", 0, 0, b"").options(&linux).bytes());
    verify(&out);
    assert_eq!(out[54..], [2, 4, 5, 180, 4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3, 7]);
}

#[test]
fn the_option_is_there_until_the_server_has_answered_data() {
    for is_v6 in [false, true] {
        let mut talk = Talk::new(&setup(Toa::On, None), is_v6);
        talk.open();
        let option = talk.toa();
        let ack = talk.to_server("A", 1, 1, b"").options(&option);
        talk.expect(1, &talk.client("A", 1, 1, b""), &[ack]);
        let data = talk.to_server("PA", 1, 1, b"odd").options(&option);
        talk.expect(0, &talk.client("PA", 1, 1, b"odd"), std::slice::from_ref(&data));
        talk.expect(0, &talk.client("PA", 1, 1, b"odd"), &[data]);
        talk.expect(0, &talk.client("FA", 4, 1, b""), &[talk.to_server("FA", 4, 1, b"")]);
        // What the server says before says nothing of the data.
        talk.expect_back(1, &talk.answer("A", 1, 1, b""), &talk.to_client("A", 1, 1, b""));
        let more = talk.to_server("PA", 4, 1, b"more").options(&option);
        talk.expect(0, &talk.client("PA", 4, 1, b"more"), &[more]);
        talk.expect_back(1, &talk.answer("A", 1, 4, b""), &talk.to_client("A", 1, 4, b""));
        talk.expect(0, &talk.client("PA", 4, 1, b"more"), &[talk.to_server("PA", 4, 1, b"more")]);
    }
}

#[test]
fn a_server_that_speaks_first_has_the_option_too() {
    let mut talk = Talk::new(&setup(Toa::On, None), false);
    talk.open();
    let option = talk.toa();
    talk.expect(0, &talk.client("A", 1, 1, b""), &[talk.to_server("A", 1, 1, b"").options(&option)]);
    talk.expect_back(1, &talk.answer("PA", 1, 1, b"220 hello"), &talk.to_client("PA", 1, 1, b"220 hello"));
    talk.expect(0, &talk.client("A", 1, 10, b""), &[talk.to_server("A", 1, 10, b"")]);
}

#[test]
fn the_largest_segment_leaves_room_for_the_option() {
    for (is_v6, reduced) in [(false, 1452u16), (true, 1440)] {
        let mut talk = Talk::new(&setup(Toa::On, None), is_v6);
        talk.open();
        let mss = |mss: u16| [&[2, 4], &mss.to_be_bytes()[..]].concat();
        let answer = talk.answer("SA", 0, 1, b"").options(&mss(1460));
        talk.expect_back(0, &answer, &talk.to_client("SA", 0, 1, b"").options(&mss(reduced)));
    }
}

#[test]
fn without_room_the_option_is_left_out_and_counted() {
    let mut talk = Talk::new(&setup(Toa::On, None), false);
    talk.open();
    let full = vec![1; 1460];
    talk.expect(0, &talk.client("A", 1, 1, &full), &[talk.to_server("A", 1, 1, &full)]);
    let options = [1; 36];
    let crowded = talk.to_server("A", 1, 1, b"x").options(&options);
    talk.expect(0, &talk.client("A", 1, 1, b"x").options(&options), &[crowded]);
    assert_eq!(talk.director.event_count(Event::ClientUntold), 2);
}

#[test]
fn the_acknowledgement_of_the_handshake_carries_the_header() {
    for (version, is_v6) in [ProxyVersion::V1, ProxyVersion::V2].into_iter().flat_map(|v| [(v, false), (v, true)]) {
        let mut talk = Talk::new(&setup(Toa::Off, Some(version)), is_v6);
        talk.open();
        let header = talk.header(version);
        let length = header.len() as u32;
        talk.expect(1, &talk.client("A", 1, 1, b""), &[talk.to_server("A", 1, 1, &header)]);
        // The first data is behind it, and needs none; its repetition carries the header again.
        let question = talk.client("PA", 1, 1, b"question");
        talk.expect(0, &question, &[talk.to_server("PA", 1 + length, 1, b"question")]);
        let both = [&header[..], b"question"].concat();
        talk.expect(1, &question, &[talk.to_server("PA", 1, 1, &both)]);
        talk.expect(0, &talk.client("A", 9, 1, b"more"), &[talk.to_server("A", 9 + length, 1, b"more")]);
        // A part of the header is not the client's to know; all of it ends the repetitions.
        talk.expect_back(0, &talk.answer("A", 1, 5, b""), &talk.to_client("A", 1, 1, b""));
        talk.expect(1, &question, &[talk.to_server("PA", 1, 1, &both)]);
        talk.expect_back(0, &talk.answer("A", 1, 1 + length, b""), &talk.to_client("A", 1, 1, b""));
        talk.expect(1, &question, &[talk.to_server("PA", 1 + length, 1, b"question")]);
        let answer = talk.answer("PA", 1, 13 + length, b"answer");
        talk.expect_back(1, &answer, &talk.to_client("PA", 1, 13, b"answer"));
        talk.expect(0, &talk.client("FA", 13, 7, b""), &[talk.to_server("FA", 13 + length, 7, b"")]);
    }
}

#[test]
fn data_without_an_acknowledgement_before_has_the_header_in_front() {
    let mut talk = Talk::new(&setup(Toa::On, Some(ProxyVersion::V1)), false);
    talk.open();
    let (header, option) = (talk.header(ProxyVersion::V1), talk.toa());
    let both = [&header[..], b"question"].concat();
    let expected = talk.to_server("PA", 1, 1, &both).options(&option);
    talk.expect(0, &talk.client("PA", 1, 1, b"question"), &[expected]);
}

#[test]
fn a_full_segment_has_the_header_in_a_segment_in_front() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        for is_v6 in [false, true] {
            let mut talk = Talk::new(&setup(Toa::Off, Some(version)), is_v6);
            talk.open();
            let header = talk.header(version);
            let full = vec![7; if is_v6 { 1428 } else { 1448 }];
            let stamp = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0];
            let expected = [
                talk.to_server("PA", 1, 1, &header).options(&stamp),
                talk.to_server("A", 1 + header.len() as u32, 1, &full).options(&stamp),
            ];
            talk.expect(0, &talk.client("A", 1, 1, &full).options(&stamp), &expected);
            talk.expect(1, &talk.client("A", 1, 1, &full).options(&stamp), &expected);
            assert_eq!(talk.director.event_count(Event::SegmentSent), 2);
        }
    }
}

#[test]
fn a_client_that_begins_anew_gets_its_header_at_the_new_place() {
    let mut talk = Talk::new(&setup(Toa::Off, Some(ProxyVersion::V2)), false);
    talk.open();
    let header = talk.header(ProxyVersion::V2);
    talk.expect(0, &talk.client("S", 500, 0, b""), &[talk.to_server("S", 500, 0, b"")]);
    talk.expect(0, &talk.client("A", 501, 1, b""), &[talk.to_server("A", 501, 1, &header)]);
}

#[test]
fn a_client_that_resets_at_once_resets_what_the_server_knows() {
    let mut talk = Talk::new(&setup(Toa::Off, Some(ProxyVersion::V2)), false);
    talk.open();
    talk.expect(0, &talk.client("R", 1, 1, b""), &[talk.to_server("R", 1, 1, b"")]);
}

#[test]
fn the_first_datagram_has_a_header_of_version_2() {
    for (client, vip, server, local, n) in
        [(CLIENT4, VIP4, "10.2.0.12", "10.2.0.201", 12), (CLIENT6, VIP6, "fd02::12", "fd02::201", 0x12)]
    {
        let mut director = Director::new(&setup(Toa::On, Some(ProxyVersion::V2)));
        let talk = Talk::new(&setup(Toa::Off, None), ip(client).is_ipv6());
        let mut header = talk.header(ProxyVersion::V2);
        header[13] += 1;
        for expected in [[&header[..], b"question"].concat(), b"question".to_vec()] {
            let (_, out) =
                director.one(FRONT, &udp(ROUTER_MAC, FRONT_MAC, (client, PORT), (vip, 80), b"question").bytes());
            assert_eq!(out, udp(BACK_MAC, server_mac(n), (local, 7000), (server, 8080), &expected).ttl(63).bytes());
        }
    }
}

#[test]
fn an_icmp_error_shows_the_numbers_that_its_reader_knows() {
    for is_v6 in [false, true] {
        let mut talk = Talk::new(&setup(Toa::Off, Some(ProxyVersion::V1)), is_v6);
        talk.open();
        let length = talk.header(ProxyVersion::V1).len() as u32;
        talk.expect(0, &talk.client("A", 1, 1, b""), &[talk.to_server("A", 1, 1, &talk.header(ProxyVersion::V1))]);
        let data = talk.to_server("A", 1 + length, 1, &[7; 1000]);
        talk.expect(0, &talk.client("A", 1, 1, &[7; 1000]), std::slice::from_ref(&data));
        let (router, local) = (talk.pick("10.2.0.250", "fd02::250"), talk.pick("10.2.0.201", "fd02::201"));
        let about = data.ttl(60).bytes();
        let error = packet::too_big(server_mac(12), BACK_MAC, router, local, 1300, &about[14..]);
        let (port, out) = talk.director.one(BACK, &error);
        verify(&out);
        let sent = talk.client("A", 1, 1, &[7; 1000]).ttl(60).bytes();
        assert_eq!(port, FRONT);
        assert_eq!(parse(&out).payload, sent[14..], "the client's own packet");
    }
}

#[test]
fn both_sides_are_reset_when_an_established_flow_expires() {
    for (method, is_v6) in [(Method::FullNat, false), (Method::FullNat, true), (Method::Nat, false)] {
        let mut setup = Setup { method, ..setup(Toa::Off, Some(ProxyVersion::V2)) };
        setup.settings.expire_reset = ExpireReset::On;
        let mut talk = Talk::new(&setup, is_v6);
        if method == Method::Nat {
            let client = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, PORT), (VIP4, 80), "S", b"").numbers(SEQUENCE, 0);
            talk.director.one(FRONT, &client.bytes());
            let server = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), (CLIENT4, PORT), "SA", b"");
            talk.director.one(BACK, &server.numbers(SERVER, SEQUENCE + 1).bytes());
            let client = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT4, PORT), (VIP4, 80), "PA", b"12345");
            talk.director.one(FRONT, &client.numbers(SEQUENCE + 1, SERVER + 1).bytes());
            talk.director.wait(1000);
            let to_client = tcp(FRONT_MAC, ROUTER_MAC, (VIP4, 80), (CLIENT4, PORT), "RA", b"");
            let to_server = tcp(BACK_MAC, server_mac(12), (CLIENT4, PORT), ("10.2.0.12", 8080), "RA", b"");
            check_resets(
                &mut talk.director,
                &to_client.numbers(SERVER + 1, SEQUENCE + 6),
                &to_server.numbers(SEQUENCE + 6, SERVER + 1),
            );
            continue;
        }
        talk.open();
        let header = talk.header(ProxyVersion::V2);
        let length = header.len() as u32;
        talk.expect(
            0,
            &talk.client("PA", 1, 1, b"12345"),
            &[talk.to_server("PA", 1, 1, &[&header[..], b"12345"].concat())],
        );
        talk.expect_back(0, &talk.answer("PA", 1, 6 + length, b"answer"), &talk.to_client("PA", 1, 6, b"answer"));
        talk.director.wait(1000);
        let (to_client, to_server) =
            (talk.to_client("RA", 7, 6, b"").ttl(64), talk.to_server("RA", 6 + length, 7, b"").ttl(64));
        check_resets(&mut talk.director, &to_client, &to_server);
    }
}

fn check_resets(director: &mut Director, to_client: &Segment, to_server: &Segment) {
    let mut out = director.sent();
    out.sort_by_key(|(port, _)| *port);
    assert_eq!(out.len(), 2, "{:?}", director.drops());
    for ((_, frame), expected) in out.iter().zip([to_client, to_server]) {
        verify(frame);
        let (is, should) = (parse(frame), parse(&expected.bytes()));
        assert_eq!(
            (is.source, is.destination, is.source_port),
            (should.source, should.destination, should.source_port)
        );
        assert_eq!((is.flags, is.sequence), (should.flags, should.sequence));
        // And what it acknowledges.
        let at = if frame[12] == 8 { 14 + 20 + 8 } else { 14 + 40 + 8 };
        assert_eq!(frame[at..at + 4], expected.bytes()[at..at + 4]);
        assert_eq!(frame[..12], expected.bytes()[..12]);
    }
    assert_eq!(director.event_count(Event::ResetSent), 2);
}

#[test]
fn a_flow_that_was_closed_expires_in_silence() {
    let mut setup = setup(Toa::Off, None);
    setup.settings.expire_reset = ExpireReset::On;
    let mut talk = Talk::new(&setup, false);
    talk.open();
    talk.expect(0, &talk.client("R", 1, 1, b""), &[talk.to_server("R", 1, 1, b"")]);
    talk.director.wait(1000);
    assert_eq!(talk.director.sent(), []);
}
