//! FTP behind the SYN proxy: the commands' numbers are moved for the handshake and for the texts that change their
//! length, and the data connections that they announce go to the server without a cookie.

use dataplane::counters::Event;
use dataplane::service::{Ftp, Method};
use dataplane::syn_proxy::SynProxy;

use crate::common::packet::{Segment, parse, tcp, verify};
use crate::common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, server_mac};
use crate::hand::{Hand, Side, options};
use crate::{ENDS, greet, proxied};

/// What the server calls the first byte that it sends.
const SERVER: u32 = 900_000_001;
/// The last byte of the server's Ethernet address in each family.
const SERVERS: [u8; 2] = [11, 0x11];

/// Commands that are joined: the client's numbers are as in `client`, the server's begin at [`SERVER`].
struct Commands {
    director: Director,
    family: usize,
    client: Hand,
    /// As whom the server sees the client, and what it calls the client's next byte.
    seen: ((&'static str, u16), u32),
}

impl Commands {
    fn new(method: Method, family: usize) -> Self {
        let mut setup = Setup { method, ..proxied(SynProxy::default()) };
        setup.settings.ftp = Ftp::On;
        let mut director = Director::new(&setup);
        let client = greet(&mut director, &Hand::new(Side::Client, ENDS[family], 40_000), 5000);
        let (_, syn) = director.one(FRONT, &client.segment("A", &options::stamps(78, client.echo), b""));
        let syn = parse(&syn);
        let address = if method == Method::Nat { ENDS[family][0] } else { ["10.2.0.201", "fd02::201"][family] };
        let seen = ((address, syn.source_port), syn.sequence.wrapping_add(1));
        let mut commands = Self { director, family, client, seen };
        let answer = commands.server("SA", SERVER - 1, 0, b"").bytes();
        commands.director.one(BACK, &answer);
        assert_eq!(commands.director.event_count(Event::HandshakeJoined), 1);
        commands
    }

    /// A segment of the server that acknowledges so much.
    fn server(&self, flags: &str, sequence: u32, acknowledged: u32, text: &[u8]) -> Segment {
        let (to, next) = self.seen;
        let segment = tcp(server_mac(SERVERS[self.family]), BACK_MAC, (ENDS[self.family][2], 8080), to, flags, text);
        segment.numbers(sequence, next.wrapping_add(acknowledged))
    }

    /// What the client gets of it: numbers from the first byte that it expects, its own, text.
    fn reply(&mut self, place: u32, acknowledged: u32, text: &[u8]) -> (u32, u32, Vec<u8>) {
        let frame = self.server("PA", SERVER + place, acknowledged, text).bytes();
        let read = self.client.read(&self.director.one(BACK, &frame).1);
        let Hand { sequence, acknowledged, .. } = self.client;
        (read.sequence.wrapping_sub(acknowledged), read.acknowledged - sequence, read.payload)
    }

    /// What the server gets of a client's segment: numbers from the client's first byte, its own, text.
    fn command(&mut self, place: u32, acknowledged: u32, text: &[u8]) -> (u32, u32, Vec<u8>) {
        let Hand { sequence, acknowledged: first, .. } = self.client;
        let client = self.client.with(sequence + place, first.wrapping_add(acknowledged));
        let (_, frame) = self.director.one(FRONT, &client.segment("PA", &[], text));
        verify(&frame);
        let seen = parse(&frame);
        let data = frame.len() - seen.payload.len();
        let acknowledged = u32::from_be_bytes(frame[data - 12..data - 8].try_into().unwrap());
        (seen.sequence.wrapping_sub(self.seen.1), acknowledged.wrapping_sub(SERVER), seen.payload)
    }

    /// A client's SYN to a port of the VIP, and what the server gets of it: source port, destination.
    fn opens(&mut self, ports: (u16, u16)) -> (u16, String) {
        let [client, vip, _] = ENDS[self.family];
        let syn = tcp(ROUTER_MAC, FRONT_MAC, (client, ports.0), (vip, ports.1), "S", b"");
        let (port, frame) = self.director.one(FRONT, &syn.bytes());
        verify(&frame);
        assert_eq!((port, parse(&frame).flags.as_str()), (BACK, "S"));
        (parse(&frame).source_port, parse(&frame).destination.to_string())
    }
}

#[test]
fn passive_connections_of_proxied_commands_come_through() {
    for method in [Method::Nat, Method::FullNat] {
        let mut commands = Commands::new(method, 0);
        let said = b"227 Entering Passive Mode (10,2,0,11,200,7).\r\n";
        let told = b"227 Entering Passive Mode (192,0,2,80,200,7).\r\n".to_vec();
        for _ in 0..2 {
            assert_eq!(commands.reply(0, 0, said), (0, 0, told.clone()), "and sent again");
        }
        // 46 bytes became 47.
        assert_eq!(commands.reply(46, 0, b"150 Ok\r\n"), (47, 0, b"150 Ok\r\n".to_vec()));
        assert_eq!(commands.command(0, 47, b"NOOP\r\n"), (0, 46, b"NOOP\r\n".to_vec()));
        let (from, to) = commands.opens((50_000, 51_207));
        assert_eq!((from == 50_000, to.as_str()), (method == Method::Nat, "10.2.0.11"));
        let mut commands = Commands::new(method, 1);
        let extended = b"229 Ok (|||51207|)\r\n";
        assert_eq!(commands.reply(0, 0, extended), (0, 0, extended.to_vec()));
        assert_eq!(commands.opens((50_000, 51_207)).1, "fd02::11");
        assert_eq!(commands.director.event_count(Event::CookieSent), 1, "for the commands alone");
    }
}

#[test]
fn active_connections_of_proxied_commands_come_through() {
    for (method, family, said) in [
        (Method::Nat, 0, "PORT 198,51,100,7,195,80\r\n"),
        (Method::FullNat, 0, "PORT 198,51,100,7,195,80\r\n"),
        (Method::Nat, 1, "EPRT |2|2001:db8:c::7|50000|\r\n"),
        (Method::FullNat, 1, "EPRT |2|2001:db8:c::7|50000|\r\n"),
    ] {
        let mut commands = Commands::new(method, family);
        let ((address, port), _) = commands.seen;
        let at = if method == Method::Nat { 50_000 } else { port + 1 };
        let told = match (method, family) {
            (Method::Nat, _) => said.to_owned(),
            (_, 0) => format!("PORT 10,2,0,201,{},{}\r\n", at >> 8, at & 255),
            _ => format!("EPRT |2|{address}|{at}|\r\n"),
        };
        let shrunk = (said.len() - told.len()) as u32;
        let end = said.len() as u32;
        for _ in 0..2 {
            assert_eq!(commands.command(0, 0, said.as_bytes()), (0, 0, told.as_bytes().to_vec()), "and sent again");
        }
        assert_eq!(commands.reply(0, end - shrunk, b"200 Ok\r\n"), (0, end, b"200 Ok\r\n".to_vec()));
        assert_eq!(commands.command(end, 8, b"LIST\r\n"), (end - shrunk, 8, b"LIST\r\n".to_vec()));
        let [client, vip, server] = ENDS[family];
        let syn = tcp(server_mac(SERVERS[family]), BACK_MAC, (server, 20), (address, at), "S", b"");
        let (port, frame) = commands.director.one(BACK, &syn.bytes());
        let expected = tcp(FRONT_MAC, ROUTER_MAC, (vip, 79), (client, 50_000), "S", b"").ttl(63);
        assert_eq!((port, frame), (FRONT, expected.bytes()));
        let answer = tcp(ROUTER_MAC, FRONT_MAC, (client, 50_000), (vip, 79), "SA", b"");
        let (port, frame) = commands.director.one(FRONT, &answer.bytes());
        let expected = tcp(BACK_MAC, server_mac(SERVERS[family]), (address, at), (server, 20), "SA", b"").ttl(63);
        assert_eq!((port, frame), (BACK, expected.bytes()));
    }
}
