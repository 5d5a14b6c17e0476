//! FTP under FULLNAT at the packet level: servers are told a local address and a port of it, clients the VIP, and the
//! data connections come through with right numbers. Frames that leave are given in full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::packet::{Segment, parse, tcp, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, ip, server_mac};
use dataplane::counters::Event;
use dataplane::service::{ClientAddress, Ftp, Method, ProxyVersion, ServiceSettings, Toa};

/// Client, VIP, the server that is picked, the last byte of its address, the local address.
#[derive(Clone, Copy)]
struct Ends {
    client: &'static str,
    vip: &'static str,
    server: &'static str,
    n: u8,
    local: &'static str,
}

const V4: Ends = Ends { client: "198.51.100.7", vip: "192.0.2.80", server: "10.2.0.12", n: 12, local: "10.2.0.201" };
const V6: Ends = Ends { client: "2001:db8:c::7", vip: "2001:db8::80", server: "fd02::12", n: 0x12, local: "fd02::201" };

/// What the client and the server call the first byte that they send.
const CLIENT: u32 = 1_000_001;
const SERVER: u32 = 5_001;

fn setup(told: ClientAddress) -> Setup {
    let settings = ServiceSettings { ftp: Ftp::On, client_address: told, ..ServiceSettings::default() };
    let (servers4, servers6) = (vec![("10.2.0.12", 1)], vec![("fd02::12", 1)]);
    Setup { servers4, servers6, settings, ..Setup::new(Method::FullNat) }
}

fn untold() -> Setup {
    setup(ClientAddress::default())
}

/// A client's commands are connected; data is from port 79, for the service is on port 80.
struct Scene {
    director: Director,
    ends: Ends,
    /// By what the director moves the client's numbers.
    moved: u32,
}

impl Scene {
    fn new(setup: &Setup, ends: Ends) -> Self {
        let mut scene = Self { director: Director::new(setup), ends, moved: 0 };
        let open = scene.command("S", CLIENT - 1, 0, b"").bytes();
        let (_, out) = scene.director.one(FRONT, &open);
        scene.moved = parse(&out).sequence.wrapping_sub(CLIENT - 1);
        scene
    }

    /// A segment of the client's commands.
    fn command(&self, flags: &str, sequence: u32, acknowledged: u32, text: &[u8]) -> Segment {
        let ends = self.ends;
        let segment = tcp(ROUTER_MAC, FRONT_MAC, (ends.client, 40_000), (ends.vip, 80), flags, text);
        segment.numbers(sequence, acknowledged)
    }

    /// What the server gets of it; its numbers are the client's but for `grown`.
    fn commanded(&self, flags: &str, sequence: u32, acknowledged: u32, text: &[u8]) -> Segment {
        let ends = self.ends;
        let to = (ends.server, 8080);
        let segment = tcp(BACK_MAC, server_mac(ends.n), (ends.local, 5000), to, flags, text).ttl(63);
        segment.numbers(sequence.wrapping_add(self.moved), acknowledged)
    }

    /// A segment of the server's replies, in the client's numbers.
    fn reply(&self, sequence: u32, acknowledged: u32, text: &[u8]) -> Segment {
        let ends = self.ends;
        let segment = tcp(server_mac(ends.n), BACK_MAC, (ends.server, 8080), (ends.local, 5000), "PA", text);
        segment.numbers(sequence, acknowledged.wrapping_add(self.moved))
    }

    fn replied(&self, sequence: u32, acknowledged: u32, text: &[u8]) -> Segment {
        let ends = self.ends;
        let segment = tcp(FRONT_MAC, ROUTER_MAC, (ends.vip, 80), (ends.client, 40_000), "PA", text).ttl(63);
        segment.numbers(sequence, acknowledged)
    }

    fn client_sends(&self, ports: (u16, u16), flags: &str) -> Segment {
        tcp(ROUTER_MAC, FRONT_MAC, (self.ends.client, ports.0), (self.ends.vip, ports.1), flags, b"")
    }

    fn client_gets(&self, ports: (u16, u16), flags: &str) -> Segment {
        tcp(FRONT_MAC, ROUTER_MAC, (self.ends.vip, ports.0), (self.ends.client, ports.1), flags, b"").ttl(63)
    }

    fn server_sends(&self, ports: (u16, u16), flags: &str) -> Segment {
        let from = (self.ends.server, ports.0);
        tcp(server_mac(self.ends.n), BACK_MAC, from, (self.ends.local, ports.1), flags, b"")
    }

    fn server_gets(&self, ports: (u16, u16), flags: &str) -> Segment {
        let to = (self.ends.server, ports.1);
        tcp(BACK_MAC, server_mac(self.ends.n), (self.ends.local, ports.0), to, flags, b"").ttl(63)
    }

    /// Passes a frame on and says what must leave by the other port.
    fn pass(&mut self, frame: &Segment, expected: &Segment) {
        let from = if frame.bytes()[..6] == FRONT_MAC { FRONT } else { BACK };
        let (port, out) = self.director.one(from, &frame.bytes());
        verify(&out);
        assert_ne!(port, from);
        assert_eq!(out, expected.bytes(), "{:?} and not {:?}", parse(&out), parse(&expected.bytes()));
    }

    fn events(&self) -> [u64; 3] {
        [Event::FtpExpected, Event::FtpRefused, Event::FtpUnreadable].map(|event| self.director.event_count(event))
    }
}

#[test]
fn a_passive_connection_comes_from_the_local_address_of_its_commands() {
    for (ends, said, told) in [
        (V4, "227 Entering Passive Mode (10,2,0,12,200,7).\r\n", "227 Entering Passive Mode (192,0,2,80,200,7).\r\n"),
        (V4, "229 Ok (|||51207|)\r\n", "229 Ok (|||51207|)\r\n"),
        (V6, "229 Ok (|||51207|)\r\n", "229 Ok (|||51207|)\r\n"),
    ] {
        let setup = untold();
        let mut s = Scene::new(&setup, ends);
        let grown = (told.len() - said.len()) as u32;
        for again in ["", "sent again"] {
            let (reply, expected) =
                (s.reply(SERVER, CLIENT, said.as_bytes()), s.replied(SERVER, CLIENT, told.as_bytes()));
            s.pass(&reply, &expected);
            assert_eq!(s.events(), [1, 0, 0], "{again}");
        }
        let end = SERVER + said.len() as u32;
        s.pass(&s.command("A", CLIENT, end + grown, b""), &s.commanded("A", CLIENT, end, b""));
        s.pass(&s.reply(end, CLIENT, b"150 Ok\r\n"), &s.replied(end + grown, CLIENT, b"150 Ok\r\n"));
        // Its numbers rise on its local port like those of any other connection.
        let (port, out) = s.director.one(FRONT, &s.client_sends((50_000, 51_207), "S").numbers(70, 0).bytes());
        let moved = parse(&out).sequence.wrapping_sub(70);
        let syn = s.server_gets((5001, 51_207), "S").numbers(moved.wrapping_add(70), 0);
        assert_eq!((port, out), (BACK, syn.bytes()));
        let answer = s.server_sends((51_207, 5001), "SA").numbers(9, moved.wrapping_add(71));
        s.pass(&answer, &s.client_gets((51_207, 50_000), "SA").numbers(9, 71));
        s.pass(
            &s.client_sends((50_000, 51_207), "A").numbers(71, 10),
            &s.server_gets((5001, 51_207), "A").numbers(moved.wrapping_add(71), 10),
        );
        assert_eq!(s.director.event_count(Event::FlowCreated), 2);
        assert_eq!(setup.ports_in_use(), 1, "the server has other ports for data");
        s.director.wait(2000);
        s.director.wait(2000);
        assert_eq!((s.director.event_count(Event::FlowExpired), setup.ports_in_use()), (2, 0));
    }
}

#[test]
fn an_active_connection_goes_to_a_port_of_the_local_address() {
    for (ends, said, told) in [
        (V4, "PORT 198,51,100,7,195,80\r\n", "PORT 10,2,0,201,19,137\r\n"),
        (V4, "EPRT |1|198.51.100.7|50000|\r\n", "EPRT |1|10.2.0.201|5001|\r\n"),
        (V6, "EPRT |2|2001:db8:c::7|50000|\r\n", "EPRT |2|fd02::201|5001|\r\n"),
    ] {
        for from in [20, 33_333] {
            let setup = untold();
            let mut s = Scene::new(&setup, ends);
            let shrunk = (said.len() - told.len()) as u32;
            for again in ["", "sent again"] {
                let command = s.command("PA", CLIENT, SERVER, said.as_bytes());
                s.pass(&command, &s.commanded("PA", CLIENT, SERVER, told.as_bytes()));
                assert_eq!(s.events(), [1, 0, 0], "{again}");
            }
            // What the server acknowledges is less than what the client sent, and what comes after is moved.
            let end = CLIENT + said.len() as u32;
            s.pass(&s.reply(SERVER, end - shrunk, b"200 Ok\r\n"), &s.replied(SERVER, end, b"200 Ok\r\n"));
            s.pass(
                &s.command("PA", end, SERVER + 8, b"LIST\r\n"),
                &s.commanded("PA", end - shrunk, SERVER + 8, b"LIST\r\n"),
            );
            s.pass(&s.server_sends((from, 5001), "S"), &s.client_gets((79, 50_000), "S"));
            s.pass(&s.client_sends((50_000, 79), "SA"), &s.server_gets((5001, from), "SA"));
            s.pass(&s.server_sends((from, 5001), "A"), &s.client_gets((79, 50_000), "A"));
            assert_eq!((s.director.event_count(Event::FlowCreated), setup.ports_in_use()), (2, 1));
        }
    }
}

#[test]
fn commands_of_the_next_connection_get_another_port() {
    let mut s = Scene::new(&untold(), V4);
    let mut at = CLIENT;
    for (n, told) in ["PORT 10,2,0,201,19,137\r\n", "PORT 10,2,0,201,19,138\r\n"].into_iter().enumerate() {
        let said = format!("PORT 198,51,100,7,195,{}\r\n", 80 + n);
        let (_, out) = s.director.one(FRONT, &s.command("PA", at, SERVER, said.as_bytes()).bytes());
        verify(&out);
        assert_eq!(parse(&out).payload, told.as_bytes());
        // Each text is two bytes shorter than the client's.
        assert_eq!(parse(&out).sequence, (at - 2 * n as u32).wrapping_add(s.moved));
        at += said.len() as u32;
    }
    s.pass(&s.server_sends((20, 5002), "S"), &s.client_gets((79, 50_001), "S"));
    s.pass(&s.server_sends((20, 5001), "S"), &s.client_gets((79, 50_000), "S"));
}

#[test]
fn the_server_is_told_of_the_client_with_the_data_as_with_the_commands() {
    let told = ClientAddress { toa: Toa::On, proxy: Some(ProxyVersion::V1) };
    let option = |port: u16| [&[254, 8][..], &port.to_be_bytes(), &[198, 51, 100, 7]].concat();
    let mut s = Scene::new(&setup(told), V4);
    let header = format!("PROXY TCP4 {} {} 40000 80\r\n", V4.client, V4.vip).into_bytes();
    let synack = tcp(server_mac(12), BACK_MAC, (V4.server, 8080), (V4.local, 5000), "SA", b"");
    s.director.one(BACK, &synack.numbers(SERVER - 1, CLIENT.wrapping_add(s.moved)).bytes());
    let (_, out) = s.director.one(FRONT, &s.command("A", CLIENT, SERVER, b"").bytes());
    assert_eq!(parse(&out).payload, header);
    // Before the header is acknowledged, the client's numbers cannot be moved for anything else.
    let text = b"PORT 198,51,100,7,195,80\r\n";
    let (_, out) = s.director.one(FRONT, &s.command("PA", CLIENT, SERVER, text).bytes());
    assert_eq!((parse(&out).payload.ends_with(text), s.events()), (true, [0, 1, 0]));
    let after = header.len() as u32;
    s.pass(&s.reply(SERVER, CLIENT + after, b"220 Ok\r\n"), &s.replied(SERVER, CLIENT, b"220 Ok\r\n"));
    let (_, out) = s.director.one(FRONT, &s.command("PA", CLIENT, SERVER + 8, text).bytes());
    let expected = s.commanded("PA", CLIENT + after, SERVER + 8, b"PORT 10,2,0,201,19,137\r\n");
    assert_eq!(out, expected.bytes());
    // Data has the option, and no header of its own.
    s.director.one(BACK, &s.reply(SERVER + 8, CLIENT + after, b"229 Ok (|||51207|)\r\n").bytes());
    let (_, out) = s.director.one(FRONT, &s.client_sends((50_000, 51_207), "S").numbers(70, 0).bytes());
    let moved = parse(&out).sequence.wrapping_sub(70);
    let syn = s.server_gets((5002, 51_207), "S").numbers(moved.wrapping_add(70), 0).options(&option(50_000));
    assert_eq!(out, syn.bytes());
    s.director.one(BACK, &s.server_sends((51_207, 5002), "SA").numbers(9, moved.wrapping_add(71)).bytes());
    s.pass(
        &s.client_sends((50_000, 51_207), "A").numbers(71, 10),
        &s.server_gets((5002, 51_207), "A").numbers(moved.wrapping_add(71), 10).options(&option(50_000)),
    );
}

#[test]
fn a_port_that_the_server_announces_again_is_for_the_last_client() {
    let mut s = Scene::new(&untold(), V4);
    let text = b"229 Ok (|||51207|)\r\n";
    s.director.one(BACK, &s.reply(SERVER, CLIENT, text).bytes());
    let other = "198.51.100.8";
    let command = tcp(ROUTER_MAC, FRONT_MAC, (other, 40_000), (V4.vip, 80), "S", b"");
    let (_, out) = s.director.one(FRONT, &command.bytes());
    assert_eq!(parse(&out).source_port, 5001);
    let reply = tcp(server_mac(12), BACK_MAC, (V4.server, 8080), (V4.local, 5001), "PA", text);
    s.director.one(BACK, &reply.bytes());
    assert_eq!(s.events(), [2, 0, 0]);
    let stray = s.director.pass(FRONT, &s.client_sends((50_000, 51_207), "S").bytes());
    assert!(stray.iter().all(|(port, _)| *port != BACK));
    let data = tcp(ROUTER_MAC, FRONT_MAC, (other, 50_000), (V4.vip, 51_207), "S", b"");
    let (port, out) = s.director.one(FRONT, &data.bytes());
    assert_eq!((port, parse(&out).source), (BACK, ip(V4.local)));
}

#[test]
fn servers_of_the_other_family_are_told_an_address_of_theirs() {
    let across = |ends: Ends, other: Ends| Ends { server: other.server, n: other.n, local: other.local, ..ends };
    for (ends, said, told) in [
        (across(V4, V6), "EPRT |1|198.51.100.7|50000|\r\n", "EPRT |2|fd02::201|5001|\r\n"),
        (across(V6, V4), "EPRT |2|2001:db8:c::7|50000|\r\n", "EPRT |1|10.2.0.201|5001|\r\n"),
    ] {
        let setup = Setup { servers4: vec![("fd02::12", 1)], servers6: vec![("10.2.0.12", 1)], ..untold() };
        let mut s = Scene::new(&setup, ends);
        let (_, out) = s.director.one(FRONT, &s.command("PA", CLIENT, SERVER, said.as_bytes()).bytes());
        verify(&out);
        assert_eq!(parse(&out).payload, told.as_bytes());
        let (_, out) = s.director.one(BACK, &s.server_sends((20, 5001), "S").bytes());
        verify(&out);
        let seen = parse(&out);
        assert_eq!((seen.source, seen.source_port, seen.destination), (ip(ends.vip), 79, ip(ends.client)));
        let (port, out) = s.director.one(FRONT, &s.client_sends((50_000, 79), "SA").bytes());
        assert_eq!((port, parse(&out).source, parse(&out).source_port), (BACK, ip(ends.local), 5001));
        s.director.one(BACK, &s.reply(SERVER, CLIENT, b"229 Ok (|||51207|)\r\n").bytes());
        let (port, out) = s.director.one(FRONT, &s.client_sends((50_001, 51_207), "S").bytes());
        verify(&out);
        assert_eq!((port, parse(&out).destination, parse(&out).source), (BACK, ip(ends.server), ip(ends.local)));
        assert_eq!(s.events(), [2, 0, 0]);
    }
    // What PORT cannot say.
    let setup = Setup { servers4: vec![("fd02::12", 1)], ..untold() };
    let mut s = Scene::new(&setup, across(V4, V6));
    let text = b"PORT 198,51,100,7,195,80\r\n";
    let (_, out) = s.director.one(FRONT, &s.command("PA", CLIENT, SERVER, text).bytes());
    assert_eq!((parse(&out).payload, s.events()), (text.to_vec(), [0, 1, 0]));
}
