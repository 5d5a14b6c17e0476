//! Schedulers against IPVS's own answers (scripts/vm), and their properties.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::clock::Ticks;
use crate::ident::{NetPort, Weight};
use crate::service::{Activity, DestinationCounts, DestinationSlot, Method};

/// Destinations A, B, C… with these weights, added in this order: kept last first.
fn list(weights: &[u32]) -> Vec<Destination> {
    let mut list: Vec<_> = (0..).zip(weights).map(|(n, w)| destination(n, *w)).collect();
    list.reverse();
    list
}

fn destination(n: u8, weight: u32) -> Destination {
    let at = Endpoint { address: IpAddr::from([10, 0, 0, n + 1]), port: NetPort::new(80) };
    let (slot, weight) = (DestinationSlot(u32::from(n)), Weight::new(weight).unwrap());
    Destination::new(slot, at, Method::Nat, weight, Arc::new(DestinationCounts::new(1)))
}

fn client(n: u16) -> Arrival {
    let [a, b] = n.to_be_bytes();
    let client = Endpoint { address: IpAddr::from([192, 0, a, b]), port: NetPort::new(40_000) };
    Arrival { client, vip: IpAddr::from([203, 0, 113, 1]), now: Tick::new(0) }
}

fn letter(destination: &Destination) -> char {
    char::from(b'A' + destination.slot.0 as u8)
}

fn sequence(kind: SchedulerKind, weights: &[u32], length: usize) -> String {
    let list = list(weights);
    let (scheduler, state) = (Scheduler::new(kind, &list), ServiceState::default());
    let pick = |_| scheduler.pick(&list, &state, || client(1)).map_or('-', letter).to_string();
    (0..length).map(pick).collect::<Vec<_>>().join(" ")
}

/// Every scheduler, those that hash with a way out.
fn all() -> [SchedulerKind; 14] {
    SchedulerKind::all(HashFlags { fallback: Fallback::Walk, ..HashFlags::default() })
}

/// The answers of IPVS itself, as scripts/vm/sequences.sh took them in the virtual machine.
fn ipvs(fixture: &str) -> &str {
    fixture.lines().find(|line| !line.starts_with('#')).unwrap()
}

#[test]
fn rr_and_wrr_give_the_sequences_of_ipvs() {
    let rr = ipvs(include_str!("../../../scripts/vm/fixtures/rr-1-1-1.txt"));
    assert_eq!(sequence(SchedulerKind::Rr, &[1, 1, 1], 18), rr);
    for (weights, fixture) in [
        ([1, 1, 1], include_str!("../../../scripts/vm/fixtures/wrr-1-1-1.txt")),
        ([1, 2, 3], include_str!("../../../scripts/vm/fixtures/wrr-1-2-3.txt")),
        ([3, 2, 1], include_str!("../../../scripts/vm/fixtures/wrr-3-2-1.txt")),
        ([4, 2, 2], include_str!("../../../scripts/vm/fixtures/wrr-4-2-2.txt")),
    ] {
        assert_eq!(sequence(SchedulerKind::Wrr, &weights, 18), ipvs(fixture), "{weights:?}");
    }
}

#[test]
fn weight_zero_drains_under_every_scheduler() {
    for kind in all() {
        assert!(!sequence(kind, &[1, 0, 5], 50).contains('B'), "{kind:?}");
        assert_eq!(sequence(kind, &[0, 0], 1), "-", "{kind:?}");
        assert_eq!(sequence(kind, &[], 1), "-", "{kind:?}");
    }
}

#[test]
fn rr_keeps_its_place_when_the_list_changes() {
    let (state, before) = (ServiceState::default(), list(&[1, 1, 1]));
    assert_eq!(Scheduler::Rr.pick(&before, &state, || client(1)).map(letter), Some('C'));
    let after: Vec<_> = before.iter().filter(|d| letter(d) != 'A').cloned().collect();
    assert_eq!(Scheduler::Rr.pick(&after, &state, || client(1)).map(letter), Some('B'));
    assert_eq!(Scheduler::Rr.pick(&after, &state, || client(1)).map(letter), Some('C'));
}

#[test]
fn wrr_ends_for_any_weights() {
    for weights in [&[Weight::MAX, 1][..], &[Weight::MAX, 0], &[7, 7, 3], &[65_536, 256]] {
        assert!(!sequence(SchedulerKind::Wrr, weights, 100).contains('-'), "{weights:?}");
    }
}

#[test]
fn wlc_prefers_the_least_loaded_for_its_weight() {
    let list = list(&[1, 2]);
    let scheduler = Scheduler::new(SchedulerKind::Wlc, &list);
    let pick = || scheduler.pick(&list, &ServiceState::default(), || client(1)).map(letter);
    assert_eq!(pick(), Some('B'), "a tie goes to the first in the list");
    list[0].counts.begin(Activity::Active);
    assert_eq!(pick(), Some('A'));
    list[1].counts.begin(Activity::Active);
    assert_eq!(pick(), Some('B'), "one of weight 2 against one of weight 1");
    list[0].counts.shift(Activity::Active, Activity::Inactive);
    assert_eq!(pick(), Some('B'), "an inactive connection weighs a 256th");
}

#[test]
fn mh_balances_by_weight_and_moves_little_when_one_leaves() {
    let all = list(&[1, 1, 2]);
    let kind = SchedulerKind::Mh(HashFlags::default());
    let picks = |list: &[Destination]| -> Vec<_> {
        let (mh, state) = (Scheduler::new(kind, list), ServiceState::default());
        (0..2000).map(|n| mh.pick(list, &state, || client(n)).map(letter)).collect()
    };
    let before = picks(&all);
    let mut share = HashMap::new();
    for destination in &before {
        *share.entry(*destination).or_insert(0) += 1;
    }
    assert!((900..1100).contains(&share[&Some('C')]), "{share:?}");
    let after = picks(&all.iter().filter(|d| letter(d) != 'A').cloned().collect::<Vec<_>>());
    let moved = before.iter().zip(&after).filter(|(was, is)| **was != Some('A') && was != is).count();
    assert!(moved < 200, "{moved} of 2000 flows moved between servers that stayed");
}

/// What a connection of a fixture's client came to, for our counts.
struct Held<'d> {
    destination: Option<&'d Destination>,
    is_reset: bool,
}

/// Plays the steps of a fixture (see scripts/vm/schedulers.sh) and gives what answered.
fn play(kind: SchedulerKind, weights: &[u32], steps: &str) -> String {
    let list = list(weights);
    let state = ServiceState::default();
    let scheduler = Scheduler::new(kind, &list);
    let mut opened: Vec<Held<'_>> = Vec::new();
    let mut answers = Vec::new();
    for step in steps.split(' ') {
        match step.split_at(1) {
            ("+", _) => {
                let destination = scheduler.pick(&list, &state, || client(1));
                if let Some(d) = destination {
                    d.counts.begin(Activity::Active);
                }
                answers.push(destination.map_or('-', letter).to_string());
                opened.push(Held { destination, is_reset: false });
            }
            ("w", _) => {
                for held in opened.iter_mut().filter(|held| held.is_reset) {
                    if let Some(d) = held.destination.take() {
                        d.counts.end(Activity::Inactive);
                    }
                }
            }
            (how, which) => {
                let held = &mut opened[which.parse::<usize>().unwrap()];
                held.is_reset = how == "x";
                if let Some(d) = held.destination {
                    d.counts.shift(Activity::Active, Activity::Inactive);
                }
            }
        }
    }
    answers.join(" ")
}

#[test]
fn arrivals_and_endings_give_the_sequences_of_ipvs() {
    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../scripts/vm/fixtures/play-", $name, ".txt"))
        };
    }
    for (kind, weights, fixture) in [
        (SchedulerKind::Rr, [1, 1, 1], fixture!("rr-1-1-1")),
        (SchedulerKind::Wrr, [3, 2, 1], fixture!("wrr-3-2-1")),
        (SchedulerKind::Lc, [1, 1, 1], fixture!("lc-1-1-1")),
        (SchedulerKind::Wlc, [1, 2, 3], fixture!("wlc-1-2-3")),
        (SchedulerKind::Wlc, [3, 0, 1], fixture!("wlc-3-0-1")),
        (SchedulerKind::Sed, [1, 2, 3], fixture!("sed-1-2-3")),
        (SchedulerKind::Nq, [1, 2, 3], fixture!("nq-1-2-3")),
        (SchedulerKind::Fo, [1, 3, 2], fixture!("fo-1-3-2")),
        (SchedulerKind::Ovf, [2, 3, 1], fixture!("ovf-2-3-1")),
    ] {
        let mut lines = fixture.lines().filter(|line| !line.starts_with('#'));
        let (steps, answers) = (lines.next().unwrap(), lines.next().unwrap());
        assert_eq!(play(kind, &weights, steps), answers, "{kind:?} {weights:?}");
    }
}

/// Asks a scheduler as a fixture's clients asked IPVS, and gives the fixture as it would be.
fn hashed(kind: SchedulerKind, weights: &[u32], fixture: &str) -> String {
    let answer = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let [address, port, vip, _] = words[..] else { panic!("{line}") };
        let is_v6 = address.contains(':');
        // What is hashed of servers, too, is their address.
        let list: Vec<_> = list(weights).into_iter().map(|d| Destination { at: real(d.slot, is_v6), ..d }).collect();
        let client = Endpoint {
            address: address.parse().unwrap(),
            port: NetPort::new(if port == "-" { 40_000 } else { port.parse().unwrap() }),
        };
        let arrival = Arrival { client, vip: vip.parse().unwrap(), now: Tick::new(0) };
        let picked = Scheduler::new(kind, &list).pick(&list, &ServiceState::default(), || arrival).map_or('-', letter);
        format!("{address} {port} {vip} {picked}")
    };
    fixture.lines().filter(|line| !line.starts_with('#')).map(answer).collect::<Vec<_>>().join("\n")
}

fn real(slot: DestinationSlot, is_v6: bool) -> Endpoint {
    let n = slot.0 + 1;
    let address = if is_v6 { format!("fd02:{n}::2") } else { format!("10.2.{n}.2") };
    Endpoint { address: address.parse().unwrap(), port: NetPort::new(80) }
}

#[test]
fn hashes_choose_as_ipvs_does() {
    macro_rules! fixture {
        ($name:literal) => {
            include_str!(concat!("../../../scripts/vm/fixtures/hash-", $name, ".txt"))
        };
    }
    let plain = HashFlags::default();
    let port = HashFlags { port: HashPort::Included, ..plain };
    let walk = HashFlags { fallback: Fallback::Walk, ..plain };
    for (kind, weights, fixture) in [
        (SchedulerKind::Dh, [1, 5, 1], fixture!("dh")),
        (SchedulerKind::Sh(plain), [1, 2, 3], fixture!("sh")),
        (SchedulerKind::Sh(port), [1, 1, 1], fixture!("sh-port")),
        (SchedulerKind::Sh(plain), [1, 0, 2], fixture!("sh-refuse")),
        (SchedulerKind::Sh(walk), [1, 0, 2], fixture!("sh-fallback")),
        (SchedulerKind::Mh(plain), [1, 2, 3], fixture!("mh")),
        (SchedulerKind::Mh(port), [1, 1, 1], fixture!("mh-port")),
        (SchedulerKind::Mh(walk), [1, 0, 2], fixture!("mh-fallback")),
    ] {
        let theirs: Vec<_> = fixture.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(hashed(kind, &weights, fixture), theirs.join("\n"), "{kind:?} {weights:?}");
    }
}

#[test]
fn sh_and_dh_are_balanced_and_stay() {
    let all = list(&[1, 1, 2]);
    let sh = Scheduler::new(SchedulerKind::Sh(HashFlags::default()), &all);
    let dh = Scheduler::new(SchedulerKind::Dh, &all);
    let state = ServiceState::default();
    let mut shares = [HashMap::new(), HashMap::new()];
    for n in 0..4000 {
        let arrival = client(n);
        let for_vip = Arrival { vip: arrival.client.address, ..arrival };
        for (share, (scheduler, arrival)) in shares.iter_mut().zip([(&sh, arrival), (&dh, for_vip)]) {
            let picked = scheduler.pick(&all, &state, || arrival).map(letter);
            assert_eq!(scheduler.pick(&all, &state, || arrival).map(letter), picked);
            *share.entry(picked).or_insert(0) += 1;
        }
    }
    assert!((1800..2200).contains(&shares[0][&Some('C')]), "by weight: {shares:?}");
    assert!((1200..1450).contains(&shares[1][&Some('C')]), "whatever the weights: {shares:?}");
}

#[test]
fn lblc_keeps_a_vip_with_its_cache_until_that_is_too_loaded() {
    let list = list(&[2, 2, 2]);
    let (lblc, state) = (Scheduler::new(SchedulerKind::Lblc, &list), prepared(SchedulerKind::Lblc));
    let pick = |vip: u8| lblc.pick(&list, &state, || towards(vip)).map(letter);
    assert_eq!(pick(1), Some('C'));
    for _ in 0..2 {
        list[0].counts.begin(Activity::Active);
        assert_eq!(pick(1), Some('C'), "at its weight");
    }
    assert_eq!(pick(2), Some('B'), "the least loaded for a VIP that is new");
    list[0].counts.begin(Activity::Active);
    assert_eq!(pick(1), Some('B'), "above its weight, and others idle");
    list[0].counts.end(Activity::Active);
    assert_eq!(pick(1), Some('B'), "it has moved");
}

#[test]
fn lblcr_lets_a_vip_have_more_caches_and_takes_them_away_after_a_day() {
    let list = list(&[2, 2]);
    let (lblcr, state) = (Scheduler::new(SchedulerKind::Lblcr, &list), prepared(SchedulerKind::Lblcr));
    let pick = |hours: u32| {
        let now = Tick::new(0).after(Ticks::seconds(hours * 3600));
        lblcr.pick(&list, &state, || Arrival { now, ..towards(1) }).map(letter)
    };
    assert_eq!(pick(0), Some('B'));
    for _ in 0..3 {
        list[0].counts.begin(Activity::Active);
    }
    assert_eq!(pick(0), Some('A'), "joins");
    list[1].counts.begin(Activity::Active);
    list[0].counts.end(Activity::Active);
    list[0].counts.end(Activity::Active);
    list[0].counts.end(Activity::Active);
    assert_eq!(pick(1), Some('B'), "the less loaded of both");
    assert_eq!(pick(20), Some('B'));
    assert_eq!(pick(26), Some('B'), "and A, the most loaded, leaves");
    list[0].counts.begin(Activity::Active);
    list[0].counts.begin(Activity::Active);
    assert_eq!(pick(26), Some('B'), "alone again");
}

fn prepared(kind: SchedulerKind) -> ServiceState {
    let state = ServiceState::default();
    state.prepare(kind);
    state
}

fn towards(vip: u8) -> Arrival {
    Arrival { vip: IpAddr::from([203, 0, 113, vip]), ..client(1) }
}

#[test]
fn affinity_is_bounded_and_forgets_the_oldest() {
    let list = list(&[1, 1]);
    let (lblc, state) = (Scheduler::new(SchedulerKind::Lblc, &list), prepared(SchedulerKind::Lblc));
    for n in 0..100_000_u32 {
        let vip = IpAddr::from(n.to_be_bytes());
        assert!(lblc.pick(&list, &state, || Arrival { vip, ..client(1) }).is_some());
    }
}

#[test]
fn twos_prefers_the_less_loaded_and_draws_by_weight() {
    let list = list(&[1, 3]);
    let (twos, state) = (Scheduler::new(SchedulerKind::Twos, &list), ServiceState::default());
    let share = |wanted: char| {
        let picks = (0..4000).filter(|_| twos.pick(&list, &state, || client(1)).map(letter) == Some(wanted));
        picks.count()
    };
    assert!((2800..3200).contains(&share('B')), "both idle: the first draw decides");
    (0..12).for_each(|_| list[0].counts.begin(Activity::Active));
    let heavy = share('B');
    assert!((2100..2400).contains(&heavy), "only when both draws are B, 9 of 16: {heavy}");
}
