//! FULLNAT behind the SYN proxy: the server is told of its client, and sees numbers that rise from flow to flow.

use dataplane::counters::Event;
use dataplane::service::{ClientAddress, LocalPorts, Method, ProxyVersion, TcpTimestamps, Toa};
use dataplane::syn_proxy::SynProxy;
use smoltcp::socket::tcp::State;

use crate::common::packet::{Segment, parse, tcp, verify};
use crate::common::{BACK, BACK_MAC, Director, FRONT, Setup, ip, server_mac};
use crate::hand::{Hand, Side, options};
use crate::{ENDS, bytes, conserves, greet, net, proxied};

const PORT: u16 = 40_000;
/// The local addresses of a family.
const LOCALS: [&str; 2] = ["10.2.0.201", "fd02::201"];

fn setup(toa: Toa, proxy: Option<ProxyVersion>) -> Setup {
    let mut setup = proxied(SynProxy::default());
    setup.method = Method::FullNat;
    setup.settings.client_address = ClientAddress { toa, proxy };
    setup
}

fn option(family: usize) -> Vec<u8> {
    let [high, low] = PORT.to_be_bytes();
    match ip(ENDS[family][0]) {
        std::net::IpAddr::V4(address) => [&[254, 8, high, low], &address.octets()[..]].concat(),
        std::net::IpAddr::V6(address) => [&[253, 20, high, low], &address.octets()[..]].concat(),
    }
}

fn header(version: ProxyVersion, family: usize) -> Vec<u8> {
    let octets = |address: &str| match ip(address) {
        std::net::IpAddr::V4(a) => a.octets().to_vec(),
        std::net::IpAddr::V6(a) => a.octets().to_vec(),
    };
    let [client, vip, _] = ENDS[family];
    if version == ProxyVersion::V1 {
        return format!("PROXY TCP{} {client} {vip} {PORT} 80\r\n", [4, 6][family]).into_bytes();
    }
    let (kind, length) = [(0x11, 12), (0x21, 36)][family];
    let ports = [PORT.to_be_bytes(), 80u16.to_be_bytes()].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[kind, 0, length], &octets(client), &octets(vip), &ports].concat()
}

/// The TCP part of an IP packet: its options and its data.
fn parts(packet: &[u8]) -> (&[u8], &[u8]) {
    let segment = &packet[if packet[0] >> 4 == 4 { 20 } else { 40 }..];
    let (header, data) = segment.split_at(usize::from(segment[12] >> 4) * 4);
    (&header[20..], data)
}

/// A whole connection between two stacks, whose server gets `front` before what the client sends. Gives what went to
/// the server.
fn talk(setup: &Setup, family: usize, loss: u32, [up, down]: [usize; 2], front: &[u8]) -> (Director, Vec<Vec<u8>>) {
    let mut net = net(setup, family, [100_000, 100_000]);
    (net.workers, net.loss) = ([0, 1], loss);
    net.server.socket().listen(8080).unwrap();
    net.client.connect(ENDS[family][1], 80, PORT);
    net.client.to_send.extend(bytes(up));
    net.server.to_send.extend(bytes(down));
    let all = front.len() + up;
    net.until(120_000, |net| net.server.received.len() >= all && net.client.received.len() >= down);
    net.client.socket().close();
    net.until(120_000, |net| net.server.socket().state() == State::CloseWait);
    assert!(net.server.received == [front, &bytes(up)].concat() && net.client.received == bytes(down));
    conserves(&net.director);
    assert_eq!(net.director.event_count(Event::HandshakeJoined), 1);
    (net.director, net.to_server)
}

#[test]
fn the_option_is_in_the_handshake_and_the_data_until_the_server_has_answered() {
    for family in [0, 1] {
        let option = option(family);
        for loss in [0, 40] {
            let (director, packets) = talk(&setup(Toa::On, None), family, loss, [50_000, 50_000], b"");
            // The SYN and the acknowledgement are the director's own.
            let first: Vec<_> = packets.iter().take(3).map(|packet| parts(packet)).collect();
            assert!(first.iter().all(|(options, _)| options.starts_with(&option)), "{first:?}");
            assert!(packets.iter().any(|packet| parts(packet).0.starts_with(&option) && !parts(packet).1.is_empty()));
            assert!(!parts(packets.last().unwrap()).0.starts_with(&option));
            // What the client was promised leaves room for it.
            assert_eq!(director.event_count(Event::ClientUntold), 0);
            assert!(packets.iter().all(|packet| packet.len() <= 1500));
        }
    }
}

#[test]
fn a_header_comes_once_and_before_the_data() {
    for family in [0, 1] {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let header = header(version, family);
            for (toa, loss) in [(Toa::Off, 0), (Toa::Off, 15), (Toa::On, 0), (Toa::On, 30)] {
                let setup = setup(toa, Some(version));
                talk(&setup, family, loss, [50_000, 50_000], &header);
                // A server that speaks first has it with the acknowledgement.
                let (_, packets) = talk(&setup, family, loss, [0, 1000], &header);
                let data = packets.iter().map(|packet| parts(packet).1).find(|data| !data.is_empty());
                assert_eq!(data, Some(&header[..]));
            }
        }
    }
}

/// A connection by hand, and what the server calls its client's SYN.
struct Talk {
    director: Director,
    family: usize,
    client: Hand,
    initial: u32,
}

impl Talk {
    fn server(&self, flags: &str, sequence: u32, acknowledged: u32) -> Segment {
        let at = (ENDS[self.family][2], 8080);
        tcp(server_mac(11), BACK_MAC, at, (LOCALS[self.family], 7000), flags, b"")
            .numbers(sequence, self.initial.wrapping_add(acknowledged))
    }

    /// What goes to the server when the client sends data with numbers from its first byte: numbers from its SYN, data.
    fn send(&mut self, place: u32, data: &[u8]) -> (u32, Vec<u8>) {
        let client = self.client.with(self.client.sequence + place, self.client.acknowledged);
        let (port, frame) = self.director.one(FRONT, &client.segment("PA", &[], data));
        verify(&frame);
        assert_eq!(port, BACK);
        (parse(&frame).sequence.wrapping_sub(self.initial), parts(&frame[14..]).1.to_vec())
    }
}

#[test]
fn a_repetition_of_the_first_data_has_the_header_until_it_is_acknowledged() {
    for (family, ends) in ENDS.into_iter().enumerate() {
        let header = header(ProxyVersion::V1, family);
        let length = header.len() as u32;
        let mut setup = setup(Toa::Off, Some(ProxyVersion::V1));
        setup.local_ports = LocalPorts::new(7000, 7000).unwrap();
        setup.settings.tcp_timestamps = TcpTimestamps::Remove;
        let mut director = Director::new(&setup);
        let syn = Hand::new(Side::Client, ends, PORT).with(5000, 0);
        let (_, answer) = director.one(FRONT, &syn.segment("S", &options::all(1460, 3, 77, 0), b""));
        let answer = syn.read(&answer);
        assert_eq!((answer.timestamps, answer.sack), (None, true));
        let client = syn.with(5001, answer.sequence.wrapping_add(1));
        let (_, frame) = director.one(FRONT, &client.segment("A", &[], b""));
        let mut talk = Talk { director, family, client, initial: parse(&frame).sequence };
        let joining = talk.server("SA", 900, 1).bytes();
        for _ in 0..2 {
            // The server's SYN again means that our acknowledgement was lost, and the header with it.
            let (_, frame) = talk.director.one(BACK, &joining);
            verify(&frame);
            assert_eq!(parse(&frame).sequence, talk.initial.wrapping_add(1));
            assert_eq!(parts(&frame[14..]).1, header);
        }
        assert_eq!(talk.send(0, b"GET /"), (1 + length, b"GET /".to_vec()));
        assert_eq!(talk.send(0, b"GET /"), (1, [&header[..], b"GET /"].concat()));
        assert_eq!(talk.send(5, b" HTTP"), (6 + length, b" HTTP".to_vec()));
        // The server has it; what it acknowledges comes back in the client's numbers.
        let ack = talk.server("A", 901, 6 + length).bytes();
        let read = talk.client.read(&talk.director.one(BACK, &ack).1);
        assert_eq!((read.sequence, read.acknowledged), (talk.client.acknowledged, 5006));
        assert_eq!(talk.send(0, b"GET /"), (1 + length, b"GET /".to_vec()));
    }
}

#[test]
fn numbers_of_a_local_port_rise_and_the_option_has_room() {
    for (family, ends) in ENDS.into_iter().enumerate() {
        let mut setup = setup(Toa::On, None);
        setup.local_ports = LocalPorts::new(7000, 7000).unwrap();
        let mut director = Director::new(&setup);
        let first = Hand::new(Side::Client, ends, PORT).with(1, 0);
        let (_, answer) = director.one(FRONT, &first.segment("S", &options::all(1460, 3, 77, 0), b""));
        assert_eq!(first.read(&answer).mss, Some([1452, 1420][family]));
        let mut last = None;
        for (n, (sequence, value)) in
            [(3_000_000_000, 4_000_000_000), (7, 7), (2_000_000_000, 5)].into_iter().enumerate()
        {
            let client = greet(&mut director, &Hand::new(Side::Client, ends, PORT + n as u16), sequence);
            let (_, syn) = director.one(FRONT, &client.segment("A", &options::stamps(value, client.echo), b""));
            verify(&syn);
            let stamps = |frame: &[u8]| {
                let options = parts(&frame[14..]).0;
                let at = options.windows(2).position(|pair| pair == [8, 10]).unwrap() + 2;
                u32::from_be_bytes(options[at..at + 4].try_into().unwrap())
            };
            let seen = (parse(&syn).sequence, stamps(&syn));
            if let Some((sequence, stamp)) = last {
                let is_ahead = |now: u32, before: u32| (1..1 << 31).contains(&now.wrapping_sub(before));
                assert!(is_ahead(seen.0, sequence) && is_ahead(seen.1, stamp), "{seen:?} {last:?}");
            }
            last = Some(seen);
            // The acknowledgement and what the client says next go on from there.
            let echo = [&[1, 1, 8, 10, 0, 0, 0, 9], &seen.1.to_be_bytes()[..]].concat();
            let answer = tcp(server_mac(11), BACK_MAC, (ends[2], 8080), (LOCALS[family], 7000), "SA", b"");
            let answer = answer.numbers(900, seen.0.wrapping_add(1)).options(&echo).bytes();
            let (_, ack) = director.one(BACK, &answer);
            assert_eq!((parse(&ack).sequence, stamps(&ack)), (seen.0.wrapping_add(1), seen.1));
            let data = client.segment("PA", &options::stamps(value + 3, client.echo), b"x");
            let (_, data) = director.one(FRONT, &data);
            assert_eq!((parse(&data).sequence, stamps(&data)), (seen.0.wrapping_add(1), seen.1 + 3));
            let reset = client.with(client.sequence + 1, client.acknowledged).segment("R", &[], b"");
            director.one(FRONT, &reset);
            director.wait(60);
        }
    }
}
