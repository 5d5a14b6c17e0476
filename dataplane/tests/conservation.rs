//! The law of conservation: whatever comes in, every frame is sent or dropped for a counted reason, and at the end no
//! flow is counted that is not there. On one worker step by step, and on two that race for the same few flows.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::packet::tcp;
use common::traffic::{Dice, frame};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, KERNEL, ROUTER_MAC, Setup, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::port::{ChecksumMode, MemoryPorts};
use dataplane::service::{ClientAddress, ExpireReset, Method, ProxyVersion, Toa};
use dataplane::worker::{Shared, Worker};

/// Whether all that came in or was made went out, was dropped or is held; gives what was sent.
fn account(shared: &Shared) -> u64 {
    let (mut came, mut went) = (0, 0);
    for board in &shared.boards {
        let counters = &board.counters;
        let event = |event| counters.event(event).read();
        let ports = counters.ports().iter();
        let (received, sent) =
            ports.fold((0, 0), |(r, s), port| (r + port.received.packets.read(), s + port.sent.packets.read()));
        let dropped: u64 = Drop::ALL.iter().map(|reason| counters.drop(*reason).read()).sum();
        let made = event(Event::ResetSent) + event(Event::IcmpSent) + event(Event::HandshakeSent);
        let made = made + event(Event::SegmentSent);
        came += received + made + event(Event::Released);
        went += sent + dropped + event(Event::Held);
        assert_eq!(event(Event::Forwarded), sent);
        assert!(event(Event::ToKernel) <= sent);
    }
    assert_eq!(came, went);
    shared.boards.iter().map(|board| board.counters.event(Event::Forwarded).read()).sum()
}

#[test]
fn every_frame_is_sent_or_dropped_for_a_reason() {
    for method in [Method::Nat, Method::Dr, Method::Tun, Method::FullNat] {
        let mut setup = Setup::new(method);
        setup.settings.client_address = ClientAddress { toa: Toa::On, proxy: Some(ProxyVersion::V2) };
        setup.settings.expire_reset = ExpireReset::On;
        setup.capacity = 16;
        setup.mtu = 1400;
        setup.policy.replies_per_second = 500;
        setup.checksum = if method == Method::Dr { ChecksumMode::Full } else { ChecksumMode::Offload };
        let mut director = Director::new(&setup);
        let mut dice = Dice(method as u64);
        let mut left = 0;
        for step in 0..20_000 {
            let (port, bytes) = frame(&mut dice);
            left += director.pass(port, &bytes).len() as u64;
            director.now += Duration::from_millis(dice.choose(&[0, 1, 50]));
            if step % 1000 == 0 {
                let servers =
                    dice.choose(&[&[("10.2.0.11", 1), ("10.2.0.12", 1)][..], &[("10.2.0.11", 0), ("10.2.0.1", 1)]]);
                setup.servers4 = servers.to_vec();
                director.publish(&setup);
            }
        }
        assert_eq!(account(&director.shared), left);
        assert!(director.drops().len() > 8, "too little was tried: {:?}", director.drops());
        director.wait(1000);
        assert!(director.counts.iter().all(|counts| counts.is_idle()), "flows are counted that are not there");
    }
}

/// Takes frames as they come from its own dice, and gives the worker back with nothing left in it.
fn race(mut worker: Worker<MemoryPorts>, seed: u64, now: Duration) -> Worker<MemoryPorts> {
    let mut dice = Dice(seed);
    for turn in 0..4000 {
        for _ in 0..8 {
            let (vip, port) = ("192.0.2.80", 40_000 + dice.roll(3) as u16);
            let flags = dice.choose(&["S", "S", "A", "R", "FA"]);
            let request = tcp(ROUTER_MAC, FRONT_MAC, ("198.51.100.7", port), (vip, 80), flags, b"").bytes();
            let reply = tcp(server_mac(12), BACK_MAC, ("10.2.0.12", 8080), ("198.51.100.7", port), flags, b"").bytes();
            let (from, bytes) = if dice.roll(3) == 0 { (BACK, reply) } else { (FRONT, request) };
            assert!(worker.ports_mut().inject(from, &bytes));
        }
        worker.turn(now + Duration::from_millis(turn * 30));
        for port in [FRONT, BACK, KERNEL] {
            while worker.ports_mut().sent(port).is_some() {}
        }
        assert_eq!(worker.ports_mut().available(), common::FRAMES as usize, "a frame was lost");
    }
    worker
}

#[test]
fn two_workers_that_end_and_reuse_the_same_flows_agree_on_the_counts() {
    let setup = Setup::new(Method::Nat);
    let mut director = Director::with_workers(&setup, 2);
    let now = director.now;
    let workers: Vec<_> = std::mem::take(&mut director.workers);
    // As control does, so that no worker frees the last one that it had.
    let mut kept = Vec::new();
    director.workers = std::thread::scope(|scope| {
        let started: Vec<_> = (1..).zip(workers).map(|(seed, w)| scope.spawn(move || race(w, seed, now))).collect();
        for _ in 0..200 {
            kept.push(director.shared.snapshot.swap(Arc::new(setup.snapshot(&director.counts))));
            std::thread::sleep(Duration::from_millis(1));
        }
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    account(&director.shared);
    assert!(director.event_count(Event::FlowReused) > 100);
    director.wait(2000);
    assert!(director.counts.iter().all(|counts| counts.is_idle()), "flows are counted that are not there");
}
