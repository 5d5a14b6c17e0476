//! A watched packet: every step is written down, in order, and it goes the way that it goes unwatched.

mod common;

use std::sync::Arc;

use common::packet::tcp;
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::flow::Direction;
use dataplane::service::Method;
use dataplane::watch::{Filter, Found, Place, Scope, Shown, Side, Step, Test, Watch};

const CLIENT: &str = "198.51.100.7";
const VIP: &str = "192.0.2.80";

fn host(address: &str) -> Filter {
    Filter::Test(Test::Net(Side::Either, common::ip(address).into()))
}

fn watching(setup: &Setup, filter: Filter, scope: Scope) -> (Director, Arc<Watch>) {
    let director = Director::new(setup);
    let watch = Arc::new(Watch::new(filter, scope, 1000));
    let mut snapshot = setup.snapshot(&director.counts);
    snapshot.watch = Some(Arc::clone(&watch));
    director.swap(snapshot);
    (director, watch)
}

fn steps(watch: &Watch) -> Vec<Step> {
    let records: Vec<_> = std::iter::from_fn(|| watch.take()).collect();
    let steps = records.iter().map(|record| record.step).collect();
    assert!(records.last().is_none_or(|last| last.place == Place::Last));
    for record in records {
        watch.give_back(record);
    }
    steps
}

#[test]
fn a_request_and_its_reply_show_every_step() {
    let (mut director, watch) = watching(&Setup::new(Method::Nat), host(VIP), Scope::Steps);
    let syn = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT, 5000), (VIP, 80), "S", b"").bytes();
    assert_eq!(director.one(FRONT, &syn).0, BACK);
    let seen = steps(&watch);
    assert_eq!(seen[..2], [Step::Arrived, Step::LookedUp(Found::None)]);
    assert!(seen.contains(&Step::Left) && seen.contains(&Step::Noted(Event::FlowCreated)), "{seen:?}");
    assert!(seen.iter().any(|step| matches!(step, Step::Flow(flow) if flow.client.port.host() == 5000)));
    // The reply has the VIP on its other side only.
    let reply = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), (CLIENT, 5000), "SA", b"").bytes();
    assert_eq!(director.one(BACK, &reply).0, FRONT);
    let seen = steps(&watch);
    assert!(matches!(seen[1], Step::LookedUp(Found::Flow { direction: Direction::Reverse, .. })), "{seen:?}");
    assert!(seen.contains(&Step::Left));
    // Somebody else's packet is not shown.
    let other = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT, 5000), ("192.0.2.99", 80), "S", b"").bytes();
    director.pass(FRONT, &other);
    assert!(steps(&watch).is_empty());
    assert_eq!(watch.lost(), 0);
}

#[test]
fn drops_are_shown_by_their_reason() {
    let filter = Filter::Test(Test::Dropped(Some(Drop::NoFlow)));
    let frames = Scope::Frames { ingress: Shown::No, egress: Shown::No, drop: Shown::Yes };
    let (mut director, watch) = watching(&Setup::new(Method::Nat), filter, frames);
    director.pass(FRONT, &tcp(ROUTER_MAC, FRONT_MAC, (CLIENT, 5000), (VIP, 80), "S", b"").bytes());
    let stray = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT, 5001), (VIP, 80), "A", b"").bytes();
    director.pass(FRONT, &stray);
    let record = watch.take().unwrap();
    assert_eq!((record.step, record.bytes()), (Step::Dropped(Drop::NoFlow), &stray[..]));
    assert!(watch.take().is_none());
}

#[test]
fn a_reader_that_does_not_keep_up_loses_records_and_no_packets() {
    let (mut director, watch) = watching(&Setup::new(Method::Nat), Filter::All(vec![]), Scope::Steps);
    let syn = tcp(ROUTER_MAC, FRONT_MAC, (CLIENT, 5000), (VIP, 80), "S", b"").bytes();
    for _ in 0..2000 {
        assert_eq!(director.pass(FRONT, &syn).len(), 1);
    }
    assert!(watch.lost() > 100);
    while let Some(record) = watch.take() {
        watch.give_back(record);
    }
    let lost = watch.lost();
    director.wait(1);
    director.pass(FRONT, &syn);
    assert!(!steps(&watch).is_empty());
    assert_eq!(watch.lost(), lost);
}
