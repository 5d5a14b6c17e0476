//! Fragments through the worker: later ones follow the first in every order, across workers, and floods find bounds.

mod common;

use std::time::Duration;

use common::packet::{self, udp};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, held, ip, server_mac};
use dataplane::counters::Event;
use dataplane::service::Method;

/// Client, VIP and the first server, with the last byte of its Ethernet address.
const ENDS: [(&str, &str, &str, u8); 2] =
    [("198.51.100.7", "192.0.2.80", "10.2.0.12", 12), ("2001:db8:c::7", "2001:db8::80", "fd02::12", 0x12)];

fn request(client: &str, vip: &str) -> Vec<Vec<u8>> {
    let whole = udp(ROUTER_MAC, FRONT_MAC, (client, 5353), (vip, 80), &[9; 2000]);
    packet::fragment(&whole.bytes(), 1208)
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
        let now = director.now;
        director.workers[1].turn(now);
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
        let now = director.now;
        director.workers[0].turn(now);
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
