//! FTP at the packet level: announced data connections come through, text and numbers are right on both sides, and what
//! leads elsewhere does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::packet::{Segment, parse, tcp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, server_mac};
use dataplane::counters::Event;
use dataplane::service::{Ftp, Method, ServiceSettings};
use dataplane::wire::checksum::Delta;

const CLIENT4: &str = "198.51.100.7";
const CLIENT6: &str = "2001:db8:c::7";
const VIP4: &str = "192.0.2.80";
const VIP6: &str = "2001:db8::80";

/// A director with the commands of one client's connection open. The service is on port 80, so data is from port 79.
struct Scene {
    director: Director,
    client: &'static str,
    vip: &'static str,
    server: &'static str,
    n: u8,
}

impl Scene {
    fn new(client: &'static str) -> Self {
        let settings = ServiceSettings { ftp: Ftp::On, ..ServiceSettings::default() };
        let director = Director::new(&Setup { settings, ..Setup::new(Method::Nat) });
        let (vip, server, n) = if client == CLIENT4 { (VIP4, "10.2.0.12", 12) } else { (VIP6, "fd02::12", 0x12) };
        let mut scene = Self { director, client, vip, server, n };
        let open = scene.command("S", b"");
        scene.director.one(FRONT, &open.bytes());
        scene
    }

    fn command(&self, flags: &str, text: &[u8]) -> Segment {
        tcp(ROUTER_MAC, FRONT_MAC, (self.client, 40_000), (self.vip, 80), flags, text)
    }

    fn reply(&self, text: &[u8]) -> Segment {
        tcp(server_mac(self.n), BACK_MAC, (self.server, 8080), (self.client, 40_000), "PA", text)
    }

    fn client_opens(&self, ports: (u16, u16), flags: &str) -> Vec<u8> {
        tcp(ROUTER_MAC, FRONT_MAC, (self.client, ports.0), (self.vip, ports.1), flags, b"").bytes()
    }

    fn server_opens(&self, ports: (u16, u16), flags: &str) -> Vec<u8> {
        tcp(server_mac(self.n), BACK_MAC, (self.server, ports.0), (self.client, ports.1), flags, b"").bytes()
    }

    fn events(&self) -> [u64; 3] {
        [Event::FtpExpected, Event::FtpRefused, Event::FtpUnreadable].map(|event| self.director.event_count(event))
    }
}

/// A frame of IPv4 with other sequence and acknowledgement numbers.
fn numbered(mut frame: Vec<u8>, sequence: u32, acknowledgement: u32) -> Vec<u8> {
    let mut delta = Delta::default();
    for (at, number) in [(38, sequence), (42, acknowledgement)] {
        let new = number.to_be_bytes();
        let old: [u8; 4] = frame[at..at + 4].try_into().unwrap();
        delta = delta.replace(old, new);
        frame[at..at + 4].copy_from_slice(&new);
    }
    let field = delta.apply([frame[50], frame[51]]);
    frame[50..52].copy_from_slice(&field);
    frame
}

fn numbers(frame: &[u8]) -> (u32, u32) {
    let at = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
    (at(38), at(42))
}

#[test]
fn a_passive_connection_is_announced_and_let_through() {
    let mut s = Scene::new(CLIENT4);
    let reply = s.reply(b"227 Entering Passive Mode (10,2,0,12,200,7).\r\n").bytes();
    let (port, out) = s.director.one(BACK, &numbered(reply.clone(), 1000, 500));
    verify(&out);
    assert_eq!((port, &parse(&out).payload[..]), (FRONT, &b"227 Entering Passive Mode (192,0,2,80,200,7).\r\n"[..]));
    assert_eq!(numbers(&out), (1000, 500));
    // The text is 46 bytes from the server, 47 to the client: what comes after is moved by one, both ways.
    let again = s.director.one(BACK, &numbered(reply, 1000, 500)).1;
    assert_eq!(again, out, "sent again, it is the same");
    let next = s.reply(b"150 Ok\r\n").bytes();
    let (_, out) = s.director.one(BACK, &numbered(next, 1046, 500));
    verify(&out);
    assert_eq!(numbers(&out), (1047, 500));
    let ack = s.command("A", b"").bytes();
    let (_, out) = s.director.one(FRONT, &numbered(ack, 500, 1047));
    verify(&out);
    assert_eq!(numbers(&out), (500, 1046));
    let data = s.client_opens((50_000, 51_207), "S");
    let (port, out) = s.director.one(FRONT, &data);
    let expected = tcp(BACK_MAC, server_mac(12), (CLIENT4, 50_000), ("10.2.0.12", 51_207), "S", b"").ttl(63);
    assert_eq!((port, out), (BACK, expected.bytes()));
    let answer = s.server_opens((51_207, 50_000), "SA");
    let (port, out) = s.director.one(BACK, &answer);
    let expected = tcp(FRONT_MAC, ROUTER_MAC, (VIP4, 51_207), (CLIENT4, 50_000), "SA", b"").ttl(63);
    assert_eq!((port, out), (FRONT, expected.bytes()));
    assert_eq!((s.events(), s.director.event_count(Event::FlowCreated)), ([1, 0, 0], 2));
}

#[test]
fn lengths_that_change_twice_add_up() {
    let mut s = Scene::new(CLIENT4);
    for (n, sequence) in [(0u32, 1000u32), (1, 1046), (2, 1092)] {
        let text = format!("227 Entering Passive Mode (10,2,0,12,200,{n}).\r\n");
        let reply = s.reply(text.as_bytes()).bytes();
        let (_, out) = s.director.one(BACK, &numbered(reply, sequence, 500));
        verify(&out);
        assert_eq!(numbers(&out).0, sequence + n);
    }
    assert_eq!(s.events(), [3, 0, 0]);
}

#[test]
fn extended_passive_needs_no_other_text() {
    for client in [CLIENT4, CLIENT6] {
        let mut s = Scene::new(client);
        let text = b"229 Entering Extended Passive Mode (|||51207|)\r\n";
        let reply = s.reply(text).bytes();
        let (_, out) = s.director.one(BACK, &reply);
        verify(&out);
        assert_eq!(parse(&out).payload, text);
        let (port, out) = s.director.one(FRONT, &s.client_opens((50_000, 51_207), "S"));
        let expected = tcp(BACK_MAC, server_mac(s.n), (client, 50_000), (s.server, 51_207), "S", b"").ttl(63);
        assert_eq!((port, out), (BACK, expected.bytes()));
    }
}

#[test]
fn an_active_connection_comes_from_the_vip() {
    for (client, text) in [
        (CLIENT4, "PORT 198,51,100,7,195,80\r\n".to_owned()),
        (CLIENT4, "EPRT |1|198.51.100.7|50000|\r\n".to_owned()),
        (CLIENT6, format!("EPRT |2|{CLIENT6}|50000|\r\n")),
    ] {
        for from in [20, 33_333] {
            let mut s = Scene::new(client);
            let (_, out) = s.director.one(FRONT, &s.command("PA", text.as_bytes()).bytes());
            verify(&out);
            assert_eq!(parse(&out).payload, text.as_bytes(), "under NAT the client is the client");
            let (port, out) = s.director.one(BACK, &s.server_opens((from, 50_000), "S"));
            let expected = tcp(FRONT_MAC, ROUTER_MAC, (s.vip, 79), (client, 50_000), "S", b"").ttl(63);
            assert_eq!((port, out), (FRONT, expected.bytes()));
            let (port, out) = s.director.one(FRONT, &s.client_opens((50_000, 79), "SA"));
            let expected = tcp(BACK_MAC, server_mac(s.n), (client, 50_000), (s.server, from), "SA", b"").ttl(63);
            assert_eq!((port, out), (BACK, expected.bytes()));
        }
    }
}

#[test]
fn what_leads_elsewhere_passes_as_it_is_and_opens_nothing() {
    for (text, expected) in [
        ("PORT 203,0,113,9,195,80\r\n", [0, 1, 0]),
        ("PORT 198,51,100,7,0,25\r\n", [0, 1, 0]),
        ("EPRT |2|2001:db8::9|50000|\r\n", [0, 1, 0]),
        ("PORT 198,51,100,7,195", [0, 0, 1]),
        ("PORT nonsense\r\n", [0, 0, 1]),
        ("RETR PORT 1,2,3,4,5,6\r\n", [0, 0, 0]),
    ] {
        let mut s = Scene::new(CLIENT4);
        let (_, out) = s.director.one(FRONT, &s.command("PA", text.as_bytes()).bytes());
        verify(&out);
        assert_eq!((parse(&out).payload, s.events()), (text.as_bytes().to_vec(), expected), "{text}");
        let stray = s.director.pass(BACK, &s.server_opens((20, 50_000), "S"));
        assert!(stray.iter().all(|(port, _)| *port != FRONT), "{text}");
    }
    let mut s = Scene::new(CLIENT4);
    let reply = s.reply(b"227 Entering Passive Mode (10,2,0,11,200,7).\r\n").bytes();
    let (_, out) = s.director.one(BACK, &reply);
    assert_eq!(parse(&out).payload, b"227 Entering Passive Mode (10,2,0,11,200,7).\r\n");
    assert_eq!(s.events(), [0, 1, 0], "the address of another server");
}

#[test]
fn a_connection_that_does_not_come_is_expected_for_two_minutes() {
    let mut s = Scene::new(CLIENT4);
    let reply = s.reply(b"227 Entering Passive Mode (10,2,0,12,200,7).\r\n").bytes();
    s.director.one(BACK, &reply);
    assert_eq!(s.director.shared.flows4.len(), 2);
    s.director.wait(121);
    let out = s.director.pass(FRONT, &s.client_opens((50_000, 51_207), "S"));
    assert!(out.iter().all(|(port, _)| *port != BACK));
    assert_eq!(s.director.event_count(Event::TemplateExpired), 1);
}

#[test]
fn the_commands_live_as_long_as_the_data() {
    let mut s = Scene::new(CLIENT4);
    s.director.one(FRONT, &s.command("A", b"").bytes());
    let reply = s.reply(b"229 Ok (|||51207|)\r\n").bytes();
    s.director.one(BACK, &reply);
    s.director.one(FRONT, &s.client_opens((50_000, 51_207), "S"));
    s.director.one(BACK, &s.server_opens((51_207, 50_000), "SA"));
    s.director.one(FRONT, &s.client_opens((50_000, 51_207), "A"));
    for _ in 0..4 {
        s.director.wait(400);
        s.director.one(FRONT, &s.client_opens((50_000, 51_207), "A"));
    }
    assert_eq!(s.director.event_count(Event::FlowExpired), 0, "the commands were silent for 1600 s");
    s.director.wait(901);
    s.director.wait(61);
    assert!(s.director.shared.flows4.is_empty());
}
