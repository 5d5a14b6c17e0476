//! The SYN proxy through the whole worker: handshakes segment by segment, and whole connections between the stacks of
//! another library.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails has to say so")]

#[path = "../common/mod.rs"]
mod common;
mod ftp;
mod hand;
mod peer;
mod told;

use common::packet::{parse, too_big, verify};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::service::{Method, ServiceSettings};
use dataplane::syn_proxy::SynProxy;
use hand::{Hand, Side, options};
use peer::Net;
use smoltcp::socket::tcp::State;

/// The client, the VIP and the server of a family.
const ENDS: [[&str; 3]; 2] =
    [["198.51.100.7", "192.0.2.80", "10.2.0.11"], ["2001:db8:c::7", "2001:db8::80", "fd02::11"]];

fn proxied(proxy: SynProxy) -> Setup {
    let mut setup = Setup::new(Method::Nat);
    setup.servers4 = vec![("10.2.0.11", 1)];
    setup.servers6 = vec![("fd02::11", 1)];
    setup.settings = ServiceSettings { syn_proxy: Some(proxy), ..ServiceSettings::default() };
    setup
}

/// A client and a server that are connected by a director with two workers.
fn net(setup: &Setup, family: usize, buffers: [usize; 2]) -> Net {
    let [client, _, server] = ENDS[family];
    Net::new(Director::with_workers(setup, 2), [client, server], buffers)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|n| (n * 7 % 251) as u8).collect()
}

/// Every frame that came or was made went out, was dropped for a reason or is held.
fn conserves(director: &Director) {
    for board in &director.shared.boards {
        let event = |event| board.counters.event(event).read();
        let ports = board.counters.ports().iter();
        let (received, sent) =
            ports.fold((0, 0), |(r, s), port| (r + port.received.packets.read(), s + port.sent.packets.read()));
        let dropped: u64 = Drop::ALL.iter().map(|reason| board.counters.drop(*reason).read()).sum();
        let made = event(Event::ResetSent) + event(Event::IcmpSent) + event(Event::HandshakeSent);
        assert_eq!(received + made + event(Event::Released), sent + dropped + event(Event::Held));
    }
}

/// Both ends send so much and get what the other sent.
fn exchange(net: &mut Net, family: usize, port: u16, up: usize, down: usize) {
    let vip = ENDS[family][1];
    net.server.socket().abort();
    net.tick();
    net.server.socket().listen(8080).unwrap();
    net.client.connect(vip, 80, port);
    net.client.to_send.extend(bytes(up));
    net.server.to_send.extend(bytes(down));
    net.client.received.clear();
    net.server.received.clear();
    net.until(120_000, |net| net.server.received.len() >= up && net.client.received.len() >= down);
    assert!(net.server.received == bytes(up) && net.client.received == bytes(down));
    net.client.socket().close();
    net.until(120_000, |net| net.server.socket().state() == State::CloseWait);
    net.server.socket().close();
    net.until(120_000, |net| !net.server.socket().is_open() || net.server.socket().state() == State::TimeWait);
    conserves(&net.director);
}

#[test]
fn another_stack_talks_through_it_both_ways() {
    for family in [0, 1] {
        // Buffers with window scales of 0, 1 and 4: what is told is 7 at first.
        for buffers in [[60_000, 60_000], [100_000, 1_000_000], [1_000_000, 100_000]] {
            let mut net = net(&proxied(SynProxy::default()), family, buffers);
            exchange(&mut net, family, 40_000, 300_000, 300_000);
            assert_eq!(net.director.event_count(Event::HandshakeJoined), 1);
            assert_eq!(net.director.event_count(Event::HandshakeRetried), 0);
            // What was learnt is told to the next.
            exchange(&mut net, family, 40_001, 1, 100_000);
            assert_eq!(net.director.event_count(Event::HandshakeJoined), 2);
        }
    }
}

#[test]
fn fullnat_connections_are_proxied_too() {
    for family in [0, 1] {
        let mut setup = proxied(SynProxy::default());
        setup.method = Method::FullNat;
        let mut net = net(&setup, family, [100_000, 100_000]);
        net.workers = [0, 1];
        net.loss = 100;
        for n in 0..3 {
            exchange(&mut net, family, 40_000 + n, 50_000, 50_000);
        }
        let from = net.server.socket().remote_endpoint();
        assert!(from.is_none_or(|end| end.addr.to_string() != ENDS[family][0]), "{from:?}");
    }
}

#[test]
fn connections_survive_loss_and_two_workers() {
    for family in [0, 1] {
        for (workers, loss) in [([0, 1], 0), ([1, 0], 50), ([0, 0], 20)] {
            let mut net = net(&proxied(SynProxy::default()), family, [200_000, 200_000]);
            net.workers = workers;
            net.loss = loss;
            for n in 0..3 {
                exchange(&mut net, family, 40_000 + n, 50_000, 50_000);
            }
            assert!(net.director.event_count(Event::HandshakeJoined) >= 3);
        }
    }
}

#[test]
fn time_stamps_pass_in_both_directions() {
    let mut net = net(&proxied(SynProxy::default()), 0, [100_000, 100_000]);
    net.client.socket().set_tsval_generator(Some(|| 5));
    net.server.socket().set_tsval_generator(Some(|| 3_000_000_000));
    exchange(&mut net, 0, 40_000, 100_000, 100_000);
    assert!(net.client.socket().timestamp_enabled());
}

#[test]
fn server_first_protocols_work_and_a_lost_third_acknowledgement_recovers() {
    for family in [0, 1] {
        let mut net = net(&proxied(SynProxy::default()), family, [60_000, 60_000]);
        exchange(&mut net, family, 40_000, 0, 1000);
        // Of the client's packets the second, its acknowledgement, is lost: data opens the flow as well.
        let mut net = self::net(&proxied(SynProxy::default()), family, [60_000, 60_000]);
        net.lose = |number, port, _| port == FRONT && number == 3;
        exchange(&mut net, family, 40_000, 1000, 0);
        assert_eq!(net.director.event_count(Event::HandshakeJoined), 1);
    }
}

#[test]
fn a_lost_syn_to_the_server_is_sent_again() {
    for family in [0, 1] {
        let mut net = net(&proxied(SynProxy::default()), family, [60_000, 60_000]);
        net.lose = |number, port, _| port == BACK && number < 8;
        exchange(&mut net, family, 40_000, 1000, 1000);
        assert!(net.director.event_count(Event::HandshakeRetried) >= 1);
    }
}

#[test]
fn a_syn_is_answered_by_a_cookie_and_uses_no_memory() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy::default()));
        let client = Hand::new(Side::Client, ends, 40_000);
        let mut cookies = std::collections::HashSet::new();
        for n in 0..500u32 {
            let syn = client.with(n * 1000, 0).segment("S", &options::all(1460, 3, 77, 0), b"");
            let (port, frame) = director.one(FRONT, &syn);
            let answer = client.read(&frame);
            assert_eq!((port, answer.flags.as_str(), answer.acknowledged), (FRONT, "SA", n * 1000 + 1));
            let mss = if ends[0].contains(':') { 1440 } else { 1460 };
            assert_eq!((answer.mss, answer.scale, answer.sack), (Some(mss), Some(7), true));
            assert_eq!(answer.timestamps.unwrap().1, 77);
            assert_eq!(answer.window, 4 * (mss - 12));
            cookies.insert(answer.sequence);
        }
        assert_eq!(cookies.len(), 500);
        assert_eq!(director.event_count(Event::CookieSent), 500);
        assert!(director.shared.flows4.is_empty() && director.shared.flows6.is_empty());
    }
}

/// Answers a client's SYN and gives what the client sends then: its acknowledgement's numbers and time stamp.
fn greet(director: &mut Director, client: &Hand, sequence: u32) -> Hand {
    let syn = client.with(sequence, 0).segment("S", &options::all(1460, 3, 77, 0), b"");
    let (_, frame) = director.one(FRONT, &syn);
    let answer = client.read(&frame);
    client.with(sequence + 1, answer.sequence.wrapping_add(1)).echoing(answer.timestamps.unwrap().0)
}

#[test]
fn the_handshake_segment_by_segment() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy::default()));
        let client = greet(&mut director, &Hand::new(Side::Client, ends, 40_000), 5000);
        let server = Hand::new(Side::Server, ends, 40_000);
        // The client's acknowledgement becomes the SYN, with the client's own options.
        let ack = client.segment("A", &options::stamps(78, client.echo), b"");
        let (port, frame) = director.one(FRONT, &ack);
        let syn = server.read(&frame);
        assert_eq!((port, syn.flags.as_str(), syn.sequence, syn.acknowledged), (BACK, "S", 5000, 0));
        let mss = 1440;
        assert_eq!((syn.scale, syn.sack, syn.timestamps), (Some(3), true, Some((78, 0))));
        assert!(syn.mss == Some(if ends[0].contains(':') { mss } else { 1460 }));
        // The client is held off with all but data, which is kept.
        assert_eq!(director.dropped(FRONT, &ack), ["handshake_pending"]);
        let data = client.segment("PA", &options::stamps(79, client.echo), b"GET /");
        assert!(director.pass(FRONT, &data).is_empty());
        // The server's answer becomes the acknowledgement; the data follows.
        let server = server.with(900_000_000, 5001);
        let out = director.pass(BACK, &server.segment("SA", &options::all(1460, 9, 4_000_000_000, 78), b""));
        assert_eq!(out.len(), 2, "{:?}", director.drops());
        let ack = server.read(&out[0].1);
        assert_eq!((ack.flags.as_str(), ack.sequence, ack.acknowledged), ("A", 5001, 900_000_001));
        assert_eq!(ack.timestamps, Some((78, 4_000_000_000)));
        let data = server.read(&out[1].1);
        assert_eq!((data.sequence, data.acknowledged, data.payload), (5001, 900_000_001, b"GET /".to_vec()));
        assert_eq!(data.timestamps, Some((79, 4_000_000_000)));
        // The client was told a window scale of 7, the server has 9: its windows are shifted to the left.
        let reply = server.with(900_000_001, 5006).segment("PA", &options::stamps(4_000_000_100, 79), b"hello");
        let read = client.read(&director.one(BACK, &reply).1);
        assert_eq!((read.sequence, read.acknowledged, read.window), (client.acknowledged, 5006, 8192 << 2));
        assert_eq!(read.timestamps, Some((client.echo.wrapping_add(100), 79)));
        // Selective acknowledgements go back by as much.
        let sack = options::sack(client.acknowledged.wrapping_add(10), client.acknowledged.wrapping_add(20));
        let read =
            server.read(&director.one(FRONT, &client.with(5006, client.acknowledged).segment("A", &sack, b"")).1);
        assert_eq!((read.acknowledged, read.sack_block), (900_000_001, Some((900_000_011, 900_000_021))));
        // The server's SYN again means that our acknowledgement was lost.
        let again = director.one(BACK, &server.segment("SA", &options::all(1460, 9, 4_000_000_000, 78), b""));
        let ack = server.read(&again.1);
        assert_eq!((again.0, ack.flags.as_str(), ack.acknowledged), (BACK, "A", 900_000_001));
        // The next client is told what this server said.
        let next = Hand::new(Side::Client, ends, 40_001);
        let syn = next.with(1, 0).segment("S", &options::all(1460, 3, 77, 0), b"");
        assert_eq!(next.read(&director.one(FRONT, &syn).1).scale, Some(9));
    }
}

#[test]
fn forged_and_old_cookies_are_reset() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy::default()));
        let client = greet(&mut director, &Hand::new(Side::Client, ends, 40_000), 5000);
        for bit in [13, 20, 31] {
            let forged = client.with(5001, client.acknowledged ^ 1 << bit);
            let (port, frame) = director.one(FRONT, &forged.segment("A", &options::stamps(78, client.echo), b""));
            assert_eq!((port, client.read(&frame).flags.as_str()), (FRONT, "R"));
        }
        director.now += std::time::Duration::from_secs(165);
        let (_, frame) = director.one(FRONT, &client.segment("A", &options::stamps(78, client.echo), b""));
        assert_eq!(client.read(&frame).flags, "R");
        assert_eq!(director.event_count(Event::CookieRejected), 4);
        assert!(director.shared.flows4.is_empty() && director.shared.flows6.is_empty());
    }
}

#[test]
fn a_server_that_refuses_resets_the_client() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy::default()));
        let client = greet(&mut director, &Hand::new(Side::Client, ends, 40_000), 5000);
        director.pass(FRONT, &client.segment("PA", &options::stamps(78, client.echo), b"GET /"));
        let server = Hand::new(Side::Server, ends, 40_000);
        let (port, frame) = director.one(BACK, &server.with(0, 5001).segment("RA", &[], b""));
        let reset = client.read(&frame);
        assert_eq!((port, reset.flags.as_str(), reset.sequence), (FRONT, "RA", client.acknowledged));
        director.wait(1);
        assert_eq!(director.drop_count(Drop::HandshakeFailed), 1);
        assert!(director.shared.flows4.is_empty() && director.shared.flows6.is_empty());
        assert!(director.counts.iter().all(|counts| counts.is_idle()));
    }
}

#[test]
fn a_server_that_never_answers_is_asked_again_and_given_up() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy { retries: 2, ..SynProxy::default() }));
        let client = greet(&mut director, &Hand::new(Side::Client, ends, 40_000), 5000);
        director.one(FRONT, &client.segment("A", &options::stamps(78, client.echo), b""));
        let mut seen = Vec::new();
        for second in 1..=12 {
            director.wait(1);
            for (port, frame) in director.sent() {
                let read = if port == FRONT { client.read(&frame) } else { client.other().read(&frame) };
                seen.push((second, port, read.flags, read.sequence));
            }
        }
        let syn = |second| (second, BACK, "S".to_owned(), 5000);
        assert_eq!(seen, [syn(1), syn(3), (7, FRONT, "RA".to_owned(), client.acknowledged)]);
        assert!(director.shared.flows4.is_empty() && director.shared.flows6.is_empty());
        assert!(director.counts.iter().all(|counts| counts.is_idle()));
    }
}

#[test]
fn deferred_services_wait_for_data() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy { defer: true, ..SynProxy::default() }));
        let client = greet(&mut director, &Hand::new(Side::Client, ends, 40_000), 5000);
        let stamps = options::stamps(78, client.echo);
        assert_eq!(director.dropped(FRONT, &client.segment("A", &stamps, b"")), ["deferred"]);
        let (port, frame) = director.one(FRONT, &client.segment("PA", &stamps, b"GET /"));
        assert_eq!((port, client.other().read(&frame).flags.as_str()), (BACK, "S"));
        director.wait(60);
    }
}

#[test]
fn what_the_client_sends_meanwhile_is_bounded() {
    let mut director = Director::new(&proxied(SynProxy::default()));
    let client = greet(&mut director, &Hand::new(Side::Client, ENDS[0], 40_000), 5000);
    for n in 0..6 {
        director.pass(FRONT, &client.segment("PA", &options::stamps(78 + n, client.echo), &[b'x'; 1400]));
    }
    assert_eq!(director.drop_count(Drop::HandshakeFull), 2);
    director.wait(60);
    assert_eq!(director.drop_count(Drop::HandshakeFailed), 4);
}

#[test]
fn an_old_connection_of_the_server_is_reset_first() {
    let mut director = Director::new(&proxied(SynProxy::default()));
    let client = greet(&mut director, &Hand::new(Side::Client, ENDS[0], 40_000), 5000);
    director.one(FRONT, &client.segment("A", &options::stamps(78, client.echo), b""));
    let server = Hand::new(Side::Server, ENDS[0], 40_000);
    let (port, frame) = director.one(BACK, &server.with(44, 33).segment("A", &[], b""));
    let reset = server.read(&frame);
    assert_eq!((port, reset.flags.as_str(), reset.sequence), (BACK, "R", 33));
    director.wait(60);
}

/// A client's connection that its server accepted.
fn joined(director: &mut Director, ends: [&'static str; 3]) -> (Hand, Hand) {
    let client = greet(director, &Hand::new(Side::Client, ends, 40_000), 5000);
    director.one(FRONT, &client.segment("A", &options::stamps(78, client.echo), b""));
    let server = Hand::new(Side::Server, ends, 40_000).with(900_000_000, 5001);
    director.one(BACK, &server.segment("SA", &options::all(1460, 7, 1, 78), b""));
    (client, server.with(900_000_001, 5001))
}

#[test]
fn equal_acknowledgements_without_end_are_cut() {
    let mut director = Director::new(&proxied(SynProxy::default()));
    let (client, _) = joined(&mut director, ENDS[0]);
    let ack = client.segment("A", &options::stamps(80, client.echo), b"");
    let passed = (0..30).filter(|_| !director.pass(FRONT, &ack).is_empty()).count();
    assert_eq!(passed, 10);
    assert_eq!(director.drop_count(Drop::AckStorm), 20);
    director.now += std::time::Duration::from_secs(1);
    director.one(FRONT, &ack);
}

#[test]
fn a_client_begins_anew_where_its_old_connection_is_over() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy::default()));
        let (client, server) = joined(&mut director, ends);
        // While the old connection lives, a SYN is the server's business.
        let syn = client.with(70_000, 0).segment("S", &options::all(1460, 3, 99, 0), b"");
        assert_eq!(director.one(FRONT, &syn).0, BACK);
        director.one(BACK, &server.segment("R", &[], b""));
        let anew = greet(&mut director, &client, 70_000);
        assert_eq!(director.event_count(Event::FlowReused), 0, "nothing ends by a SYN alone");
        let (port, frame) = director.one(FRONT, &anew.segment("A", &options::stamps(99, anew.echo), b""));
        let syn = server.read(&frame);
        assert_eq!((port, syn.flags.as_str(), syn.sequence), (BACK, "S", 70_000));
        assert_eq!(director.event_count(Event::FlowReused), 1);
        director.wait(60);
    }
}

#[test]
fn without_options_nothing_is_promised() {
    let mut director = Director::new(&proxied(SynProxy::default()));
    let client = Hand::new(Side::Client, ENDS[0], 40_000);
    let answer = client.read(&director.one(FRONT, &client.with(1, 0).segment("S", &[], b"")).1);
    assert_eq!((answer.scale, answer.sack, answer.timestamps, answer.mss), (None, false, None, Some(1460)));
    let ack = client.with(2, answer.sequence.wrapping_add(1)).segment("A", &[], b"");
    let syn = client.other().read(&director.one(FRONT, &ack).1);
    assert_eq!((syn.mss, syn.scale, syn.sack, syn.timestamps), (Some(536), None, false, None));
    director.wait(60);
}

/// The frame of an ICMP error about a packet: the TCP numbers in it, as far as it shows them.
fn embedded(frame: &[u8]) -> (u32, u32) {
    verify(frame);
    let about = parse(frame).payload;
    let at = if about[0] >> 4 == 4 { 20 } else { 40 };
    let word = |at: usize| u32::from_be_bytes(about[at..at + 4].try_into().unwrap());
    (word(at + 4), word(at + 8))
}

#[test]
fn errors_show_each_side_the_numbers_that_it_sent() {
    for ends in ENDS {
        let mut director = Director::new(&proxied(SynProxy::default()));
        let (client, server) = joined(&mut director, ends);
        let data = client.segment("PA", &options::stamps(80, client.echo), &bytes(1200));
        let (_, to_server) = director.one(FRONT, &data);
        assert_eq!(server.read(&to_server).acknowledged, server.sequence);
        let router = if ends[0].contains(':') { "fd02::fe" } else { "10.2.0.254" };
        let error = too_big(server_mac(99), BACK_MAC, router, ends[0], 1000, &to_server[14..]);
        let (port, out) = director.one(BACK, &error);
        assert_eq!((port, embedded(&out)), (FRONT, (client.sequence, client.acknowledged)));
        // And about what the server sent.
        let data = server.with(server.sequence, 5001 + 1200).segment("PA", &options::stamps(90, 80), &bytes(1200));
        let (_, to_client) = director.one(BACK, &data);
        assert_eq!(client.read(&to_client).sequence, client.acknowledged);
        let router = if ends[0].contains(':') { "2001:db8:f::1" } else { "203.0.113.1" };
        let error = too_big(ROUTER_MAC, FRONT_MAC, router, ends[1], 1000, &to_client[14..]);
        let (port, out) = director.one(FRONT, &error);
        assert_eq!((port, embedded(&out)), (BACK, (server.sequence, 5001 + 1200)));
        assert_eq!(director.event_count(Event::IcmpTranslated), 2);
    }
}
