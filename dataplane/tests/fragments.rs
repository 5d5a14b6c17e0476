//! Fragments through the worker: later ones follow the first in every order, across workers, and floods find bounds.

mod common;

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::packet::{self, udp};
use common::{BACK, BACK_MAC, Director, FRAMES, FRONT, FRONT_MAC, ROUTER_MAC, Setup, held, ip, server_mac};
use dataplane::counters::Event;
use dataplane::service::Method;
use dataplane::worker::Idle;

/// Client, VIP and the first server, with the last byte of its Ethernet address.
const ENDS: [(&str, &str, &str, u8); 2] =
    [("198.51.100.7", "192.0.2.80", "10.2.0.12", 12), ("2001:db8:c::7", "2001:db8::80", "fd02::12", 0x12)];

fn request(client: &str, vip: &str) -> Vec<Vec<u8>> {
    let whole = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), &[9; 2000]);
    packet::fragment(&whole.bytes(), 1208)
}

/// What leaves when the director gets these pieces of a datagram in this order, and the reasons of drops.
fn pass_pieces(director: &mut Director, whole: &[u8], ranges: &[Range<usize>]) -> (usize, Vec<(&'static str, u64)>) {
    let sent = ranges.iter().map(|range| director.pass(FRONT, &packet::piece(whole, range.clone())).len()).sum();
    (sent, director.drops())
}

fn waiting(director: &Director) -> usize {
    director.shared.boards.iter().map(held).sum()
}

#[test]
fn a_fragment_before_its_first_waits_for_it() {
    for (client, vip, server, last) in ENDS {
        let mut director = Director::new(&Setup::new(Method::Nat));
        let fragments = request(client, vip);
        assert!(director.pass(FRONT, &fragments[1]).is_empty());
        assert_eq!(waiting(&director), 1);
        let out: Vec<_> = director.pass(FRONT, &fragments[0]).into_iter().map(|(_, frame)| frame).collect();
        let expected = udp(BACK_MAC, server_mac(last), (client, 5353), (server, 8080), &[9; 2000]);
        assert_eq!(packet::reassemble(&out), packet::transport(&expected.bytes()));
        assert_eq!(waiting(&director), 0);
        assert!(director.drops().is_empty(), "{:?}", director.drops());
    }
}

#[test]
fn a_fragment_waits_at_one_worker_for_the_first_at_another() {
    for (client, vip, ..) in ENDS {
        let mut director = Director::with_workers(&Setup::new(Method::Nat), 2);
        let fragments = request(client, vip);
        assert!(director.pass_by(1, FRONT, &fragments[1]).is_empty());
        assert_eq!(director.pass_by(0, FRONT, &fragments[0]).len(), 1);
        director.turn(1);
        let sent = director.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0, BACK);
    }
}

#[test]
fn a_fragment_whose_first_never_comes_is_dropped_in_a_second() {
    for (client, vip, ..) in ENDS {
        let mut director = Director::new(&Setup::new(Method::Nat));
        assert!(director.pass(FRONT, &request(client, vip)[1]).is_empty());
        director.now += Duration::from_millis(990);
        director.turn(0);
        assert_eq!(waiting(&director), 1);
        director.wait(1);
        assert_eq!((waiting(&director), director.drops()), (0, vec![("fragment_unknown", 1)]));
        assert!(director.sent().is_empty());
    }
}

#[test]
fn a_flood_of_one_sender_leaves_room_for_others() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let mut later = request("198.51.100.66", "192.0.2.80").remove(1);
    for id in 0..1000u16 {
        later[18..20].copy_from_slice(&id.to_be_bytes());
        packet::fix_ip(&mut later);
        assert!(director.pass(FRONT, &later).is_empty());
    }
    assert_eq!((waiting(&director), director.drops()), (64, vec![("fragment_limited", 936)]));
    let (client, vip, ..) = ENDS[0];
    let fragments = request(client, vip);
    assert!(director.pass(FRONT, &fragments[1]).is_empty());
    assert_eq!(director.pass(FRONT, &fragments[0]).len(), 2);
}

#[test]
fn a_flood_of_many_senders_pushes_out_the_oldest() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let mut later = request("198.51.100.66", "192.0.2.80").remove(1);
    for sender in 0..5000u16 {
        later[26..28].copy_from_slice(&[20, 1]);
        later[28..30].copy_from_slice(&sender.to_be_bytes());
        packet::fix_ip(&mut later);
        assert!(director.pass(FRONT, &later).is_empty());
    }
    assert_eq!(waiting(&director), 256);
    let (client, vip, ..) = ENDS[0];
    let fragments = request(client, vip);
    assert!(director.pass(FRONT, &fragments[1]).is_empty());
    assert_eq!(director.pass(FRONT, &fragments[0]).len(), 2, "the newest waits on");
    assert!(ip(client).is_ipv4() && director.event_count(Event::FlowCreated) == 1);
}

#[test]
fn fragments_of_answers_leave_as_the_vip() {
    for (client, vip, server, last) in ENDS {
        let mut director = Director::new(&Setup::new(Method::Nat));
        let request = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), b"?");
        director.one(FRONT, &request.bytes());
        let answer = udp(server_mac(last), BACK_MAC, (server, 8080), (client, 5353), &[7; 4000]).bytes();
        let pieces = [2800..4008, 1400..2800, 0..1400].map(|range| packet::piece(&answer, range));
        let mut out: Vec<_> =
            pieces.iter().flat_map(|piece| director.pass(BACK, piece)).map(|(_, frame)| frame).collect();
        // The first leaves first; the others came in this order.
        out[1..].reverse();
        let expected = udp(FRONT_MAC, ROUTER_MAC, (vip, 80), (client, 5353), &[7; 4000]).bytes();
        assert!(packet::reassemble(&out) == packet::transport(&expected), "{} frames", out.len());
    }
}

#[test]
fn fragments_to_one_way_servers_go_as_they_are_or_in_a_tunnel() {
    for (method, overhead) in [(Method::Dr, 0), (Method::Tun, 20)] {
        let mut director = Director::new(&Setup::new(method));
        let (client, vip, ..) = ENDS[0];
        for fragment in request(client, vip) {
            let (port, out) = director.one(FRONT, &fragment);
            assert_eq!((port, &out[..6]), (BACK, &server_mac(12)[..]));
            assert_eq!(out[14 + overhead + 12..], fragment[14 + 12..], "but for TTL and checksum");
        }
    }
}

#[test]
fn an_overlap_ends_the_datagram() {
    for (client, vip, ..) in ENDS {
        let whole = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), &[9; 3000]).bytes();
        let mut director = Director::new(&Setup::new(Method::Nat));
        let pieces = [0..1000, 992..2000, 2000..3008];
        assert_eq!(pass_pieces(&mut director, &whole, &pieces), (1, vec![("fragment_overlap", 2)]));
        // Also when the overlapping one came before the first.
        let mut director = Director::new(&Setup::new(Method::Nat));
        let pieces = [8..1000, 0..1000, 1000..2000];
        let drops = vec![("fragment_repeated", 1)];
        assert_eq!(
            pass_pieces(&mut director, &whole, &pieces),
            (2, drops),
            "what the first holds already is not needed"
        );
        let mut director = Director::new(&Setup::new(Method::Nat));
        let pieces = [8..1008, 0..1000, 1008..3008];
        assert_eq!(pass_pieces(&mut director, &whole, &pieces), (1, vec![("fragment_overlap", 2)]));
    }
}

#[test]
fn a_duplicate_passes_once_and_an_identification_may_come_again() {
    for (client, vip, ..) in ENDS {
        let whole = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), &[9; 3000]).bytes();
        let mut director = Director::new(&Setup::new(Method::Nat));
        let pieces = [0..1000, 0..1000, 2000..3008, 2000..3008];
        assert_eq!(pass_pieces(&mut director, &whole, &pieces), (2, vec![("fragment_repeated", 2)]));
        // One that was never whole makes room for a new datagram with its identification after a while.
        director.now += Duration::from_secs(3);
        assert_eq!(pass_pieces(&mut director, &whole, &[0..1000, 1000..2000, 2000..3008]).0, 3);
        // One that was whole, at once.
        assert_eq!(pass_pieces(&mut director, &whole, &[0..1000, 1000..2000, 2000..3008]).0, 3);
    }
}

#[test]
fn impossible_fragments_are_refused() {
    let (client, vip, ..) = ENDS[0];
    let whole = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), &[9; 3000]).bytes();
    let mut director = Director::new(&Setup::new(Method::Nat));
    assert_eq!(director.dropped(FRONT, &packet::piece(&whole, 8..1001)), ["bad_fragment"]);
    let segment = packet::tcp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), "A", &[9; 3000]).bytes();
    assert_eq!(director.dropped(FRONT, &packet::piece(&segment, 8..1000)), ["bad_fragment"]);
    assert_eq!(director.dropped(FRONT, &packet::piece(&segment, 0..16)), ["bad_transport"]);
}

#[test]
fn a_flood_of_first_fragments_leaves_room_for_whole_datagrams() {
    let mut setup = Setup::new(Method::Nat);
    setup.capacity = 64;
    let mut director = Director::new(&setup);
    let (client, vip, ..) = ENDS[0];
    let mut first = request(client, vip).remove(0);
    for id in 0..20_000u16 {
        first[18..20].copy_from_slice(&(id | 0x8000).to_be_bytes());
        packet::fix_ip(&mut first);
        director.pass(FRONT, &first);
        if id % 500 == 0 {
            let sent: usize = request(client, vip).iter().map(|piece| director.pass(FRONT, piece).len()).sum();
            assert_eq!(sent, 2);
        }
    }
    assert!(director.event_count(Event::FragmentTableFull) > 10_000);
}

#[test]
fn what_is_held_at_the_end_is_given_back() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let (client, vip, ..) = ENDS[0];
    assert!(director.pass(FRONT, &request(client, vip)[1]).is_empty());
    let ports = director.workers.remove(0).run(&AtomicBool::new(true), Idle::Busy);
    assert_eq!((ports.available(), waiting(&director)), (FRAMES as usize, 0));
    assert_eq!(director.drops(), [("fragment_unknown", 1)]);
}
