//! Nothing on a worker's way allocates or frees memory.
//!
//! Every turn of every packet test is counted (`common/allocation.rs`): all methods, the SYN proxy, fragments, ICMP,
//! expiry, new snapshots. Here is what they have not got, traffic without order, a worker's thread as it runs in
//! production, and the proof that the count can be other than zero.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::allocation;
use common::packet::tcp;
use common::traffic::{self, Dice};
use common::{Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup};
use dataplane::clock;
use dataplane::counters::Event;
use dataplane::sched::{HashFlags, SchedulerKind};
use dataplane::service::{
    ClientAddress, ConnectionLimits, ExpireReset, Limit, Method, Persistence, ProxyVersion, Refusal, Toa,
};
use dataplane::syn_proxy::SynProxy;
use dataplane::watch::{Filter, Scope, Watch};
use dataplane::worker::Idle;

fn syn(port: u16) -> Vec<u8> {
    tcp(ROUTER_MAC, FRONT_MAC, ("198.51.100.7", port), ("192.0.2.80", 80), "S", b"").bytes()
}

/// Traffic of all kinds into a small table, with time going by and a new snapshot now and then.
fn stir(setup: &mut Setup, steps: u32) -> Director {
    (setup.capacity, setup.mtu) = (64, 1400);
    let mut director = Director::new(setup);
    let mut dice = Dice(u64::from(steps));
    for step in 0..steps {
        let (port, bytes) = traffic::frame(&mut dice);
        director.pass(port, &bytes);
        director.now += Duration::from_millis(dice.choose(&[0, 1, 50, 500]));
        if step % 100 == 0 {
            setup.generation = setup.generation.wrapping_add(1);
            director.publish(setup);
        }
    }
    director.wait(1000);
    director
}

#[test]
fn traffic_without_order_needs_no_memory() {
    for method in [Method::Nat, Method::Dr, Method::Tun, Method::FullNat] {
        let mut setup = Setup::new(method);
        setup.settings.client_address = ClientAddress { toa: Toa::On, proxy: Some(ProxyVersion::V2) };
        setup.settings.expire_reset = ExpireReset::On;
        let director = stir(&mut setup, 5_000);
        let happened = [Event::FlowCreated, Event::FlowExpired, Event::ResetSent, Event::IcmpSent, Event::Held];
        for event in happened {
            assert!(director.event_count(event) > 0, "{method:?}: {}", event.name());
        }
        setup.settings.persistence = Some(Persistence::new(60));
        assert!(stir(&mut setup, 1_000).event_count(Event::TemplateCreated) > 0);
        if method.is_two_way() {
            setup.settings.syn_proxy = Some(SynProxy::default());
            assert!(stir(&mut setup, 1_000).event_count(Event::CookieSent) > 0);
        }
    }
}

#[test]
fn no_scheduler_and_no_limit_needs_memory() {
    for scheduler in SchedulerKind::all(HashFlags::default()) {
        let mut setup = Setup { scheduler, ..Setup::new(Method::Nat) };
        let limit = |most| Some(Limit { most, refusal: Refusal::Reset });
        setup.settings.limits = ConnectionLimits { flows: limit(20), rate: limit(5) };
        assert!(stir(&mut setup, 1_000).event_count(Event::FlowCreated) > 0, "{}", scheduler.name());
    }
}

#[test]
fn a_watched_packet_needs_no_memory() {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let watch = Arc::new(Watch::new(Filter::All(vec![]), Scope::Steps, 1000));
    let mut snapshot = Setup::new(Method::Nat).snapshot(&director.counts);
    snapshot.watch = Some(Arc::clone(&watch));
    director.swap(snapshot);
    let mut dice = Dice(1);
    for _ in 0..500 {
        let (port, bytes) = traffic::frame(&mut dice);
        director.pass(port, &bytes);
    }
    assert!(watch.take().is_some());
}

/// Calls of a worker's thread that opens so many flows, then idles for a while and ends.
fn run(idle: Idle, flows: u16) -> u64 {
    let mut director = Director::new(&Setup::new(Method::Nat));
    let (mut worker, stop) = (director.workers.remove(0), Arc::new(AtomicBool::new(false)));
    for port in 0..flows {
        assert!(worker.ports_mut().inject(FRONT, &syn(1024 + port)));
    }
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        // The first look of a thread at the snapshot makes a record of the thread, once: arc-swap's way.
        worker.turn(clock::since_boot());
        allocation::count(|| worker.run(&stopped, idle)).1
    });
    while director.event_count(Event::FlowCreated) < u64::from(flows) {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(20));
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap()
}

#[test]
fn a_running_worker_that_works_and_sleeps_needs_no_memory() {
    for idle in [Idle::Busy, Idle::Adaptive, Idle::Sleep] {
        // Whatever it did, it frees at its end what it was made of.
        assert_eq!(run(idle, 300), run(idle, 0), "{idle:?}");
    }
}

#[test]
fn the_count_sees_what_a_thread_asks_and_frees() {
    let (kept, calls) = allocation::count(|| Box::new(7));
    assert_eq!(calls, 1);
    let (text, calls) = allocation::count(|| {
        drop(kept);
        "abc".repeat(100)
    });
    assert_eq!((text.len(), calls), (300, 2));
    let (sum, calls) = allocation::count(|| (0..100).sum::<u32>());
    assert_eq!((sum, calls), (4950, 0));
    // What a turn costs that does free memory: nobody else has the old snapshot.
    let setup = Setup::new(Method::Nat);
    let mut director = Director::new(&setup);
    director.shared.snapshot.store(Arc::new(setup.snapshot(&director.counts)));
    let (worker, now) = (&mut director.workers[0], director.now);
    let (_, calls) = allocation::count(|| worker.turn(now));
    assert!(calls > 5, "{calls}");
}
