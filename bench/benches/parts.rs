//! The parts of a packet's way, each alone: checksum, parser, hash, lookup, schedulers, cookies, the rewrite of each
//! method. The whole is `sluice-bench`'s.

#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dataplane::clock::Tick;
use dataplane::flow::{Family, Find, FlowKey, FlowTable, Insert, NewFlow, V4, V6};
use dataplane::forward::nat::Rewrite;
use dataplane::forward::tun::{self, Shim, TunnelEnds};
use dataplane::forward::{nat, plain};
use dataplane::ident::{Endpoint, NetPort, Protocol, Weight, WorkerIndex};
use dataplane::sched::{Arrival, HashFlags, Scheduler, SchedulerKind};
use dataplane::service::{Destination, DestinationCounts, DestinationSlot, Method, ServiceState};
use dataplane::syn_proxy::cookie::{Agreement, Connection, Cookies, Secret};
use dataplane::wire;
use dataplane::wire::checksum::{self, Delta};
use dataplane::wire::plain::Transport;
use etherparse::PacketBuilder;

/// Flows in the table that is looked up: enough to leave the second-level cache.
const FLOWS: u32 = 100_000;

fn frame(v6: bool) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = if v6 { builder.ipv6([1; 16], [2; 16], 64) } else { builder.ipv4([10; 4], [11; 4], 64) };
    let mut frame = Vec::new();
    builder.tcp(40_000, 80, 1, 512).ack(1).write(&mut frame, &[0; 10]).unwrap();
    frame
}

fn checksums(c: &mut Criterion) {
    let long = vec![0xa5; 1460];
    c.bench_function("checksum/1460 bytes", |b| b.iter(|| checksum::of(black_box(&long))));
    c.bench_function("checksum/20 bytes", |b| b.iter(|| checksum::of(black_box(&long[..20]))));
}

fn parsers(c: &mut Criterion) {
    for (name, v6) in [("parse/IPv4 TCP", false), ("parse/IPv6 TCP", true)] {
        let frame = frame(v6);
        assert!(wire::parse(&frame).is_ok());
        c.bench_function(name, |b| b.iter(|| wire::parse(black_box(&frame))));
    }
}

fn key(n: u32) -> FlowKey<Ipv4Addr> {
    FlowKey {
        source: Ipv4Addr::from_bits(0x0a80_0000 + (n >> 12)),
        destination: Ipv4Addr::new(192, 0, 2, 1),
        source_port: NetPort::new(1024 + (n & 0xfff) as u16),
        destination_port: NetPort::new(80),
        protocol: Protocol::Tcp,
    }
}

fn table(c: &mut Criterion) {
    let table = FlowTable::<V4>::anonymous(FLOWS * 2, 1).unwrap();
    let mut worker = table.register(WorkerIndex(0)).unwrap();
    for n in 0..FLOWS {
        let new = NewFlow {
            forward: key(n),
            reverse: None,
            destination: 0,
            state: 0,
            flags: 0,
            deadline: Tick::new(1 << 30),
            client_mac: None,
            return_hop: 0,
            extension: None,
            controller: None,
        };
        assert!(matches!(table.insert(&mut worker, &new), Insert::Created(_)));
    }
    c.bench_function("hash/IPv4 key", |b| b.iter(|| table.hash(black_box(&key(7)))));
    let mut n = 0u32;
    let mut next = move || {
        n = n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(n) * u64::from(FLOWS)) >> 32) as u32
    };
    c.bench_function("lookup/hit, one at a time", |b| {
        b.iter(|| assert!(matches!(table.lookup(&key(next())), Find::Hit { .. })));
    });
    let mut miss = FLOWS;
    c.bench_function("lookup/miss, one at a time", |b| {
        b.iter(|| {
            miss = FLOWS + (miss + 1) % FLOWS;
            assert_eq!(table.lookup(&key(miss)), Find::Miss);
        });
    });
    c.bench_function("lookup/hit, burst of 64 prefetched", |b| {
        b.iter_batched(
            || [(); 64].map(|()| V4::pack(&key(next()))),
            |keys| {
                let mut probes = keys.map(|key| table.aim(&key));
                for probe in &mut probes {
                    table.probe(probe);
                }
                keys.iter().zip(&probes).filter(|(key, probe)| table.likely(key, probe).is_some()).count()
            },
            BatchSize::SmallInput,
        );
    });
}

fn schedulers(c: &mut Criterion) {
    let destinations: Vec<Destination> = (0..10)
        .map(|n| {
            let at = Endpoint { address: IpAddr::from([10, 1, 0, n as u8]), port: NetPort::new(80) };
            let (weight, counts) = (Weight::new(n % 3 + 1).unwrap(), Arc::new(DestinationCounts::new(1)));
            Destination::new(DestinationSlot(n), at, Method::Nat, weight, counts)
        })
        .collect();
    let client = Endpoint { address: IpAddr::from([198, 51, 100, 7]), port: NetPort::new(40_000) };
    let arrival = Arrival { client, vip: IpAddr::from([203, 0, 113, 7]), now: Tick::new(0) };
    for kind in SchedulerKind::all(HashFlags::default()) {
        let state = ServiceState::default();
        state.prepare(kind);
        let scheduler = Scheduler::new(kind, &destinations);
        let name = format!("schedule/{} over 10", kind.name());
        c.bench_function(&name, |b| b.iter(|| scheduler.pick(&destinations, &state, || black_box(arrival)).is_some()));
    }
}

fn cookies(c: &mut Criterion) {
    let agreement = Agreement { mss: 1440, scales: Some((7, 7)), sack: true, timestamps: true };
    let cookies = Cookies::new(Secret([1, 2]), Tick::new(9_000_000));
    let v4 = [IpAddr::from([198, 51, 100, 7]), IpAddr::from([203, 0, 113, 7])];
    let v6 = [IpAddr::from([1; 16]), IpAddr::from([2; 16])];
    for (family, [from, to]) in [("IPv4", v4), ("IPv6", v6)] {
        let end = |address, port| Endpoint { address, port: NetPort::new(port) };
        let connection = Connection { client: end(from, 40_000), service: end(to, 80), sequence: 7 };
        c.bench_function(&format!("cookie/make, {family}"), |b| {
            b.iter(|| cookies.make(black_box(&connection), agreement));
        });
        let made = cookies.make(&connection, agreement);
        let check = |sequence| cookies.check(&connection, sequence, Some(made.timestamp), [Some(7), None]);
        assert_eq!(check(made.sequence), Some(agreement));
        c.bench_function(&format!("cookie/check, {family}"), |b| b.iter(|| check(black_box(made.sequence))));
        c.bench_function(&format!("cookie/check a forged one, {family}"), |b| b.iter(|| check(black_box(1))));
    }
}

fn key_of<A: Copy>(to: &Rewrite<A>) -> FlowKey<A> {
    FlowKey {
        source: to.source,
        destination: to.destination,
        source_port: to.source_port,
        destination_port: to.destination_port,
        protocol: Protocol::Tcp,
    }
}

/// Each frame is edited again and again: what is written does not matter to the cost.
fn rewrites(c: &mut Criterion) {
    let link = [6; plain::LINK];
    let port = NetPort::new(8080);
    let to4 = Rewrite {
        source: Ipv4Addr::new(10, 2, 0, 1),
        source_port: port,
        destination: Ipv4Addr::new(10, 1, 0, 10),
        destination_port: port,
    };
    let to6 = Rewrite {
        source: Ipv6Addr::from([3; 16]),
        source_port: port,
        destination: Ipv6Addr::from([4; 16]),
        destination_port: port,
    };
    let words4 = V4::pack(&key_of(&to4));
    let words6 = V6::pack(&key_of(&to6));
    let (mut v4, mut v6) = (frame(false), frame(true));
    let (headers4, headers6) = (wire::parse(&v4).unwrap(), wire::parse(&v6).unwrap());
    c.bench_function("rewrite/NAT and FULLNAT, IPv4", |b| {
        b.iter(|| plain::translate_v4(black_box(&mut v4), Transport::Tcp, &link, &words4, Delta::default()));
    });
    c.bench_function("rewrite/NAT and FULLNAT, IPv6", |b| {
        b.iter(|| plain::translate_v6(black_box(&mut v6), Transport::Tcp, &link, &words6, Delta::default()));
    });
    c.bench_function("rewrite/NAT and FULLNAT with tags or options, IPv4", |b| {
        b.iter(|| nat::rewrite_v4(black_box(&mut v4), &headers4, &to4));
    });
    c.bench_function("rewrite/NAT and FULLNAT with tags or extension headers, IPv6", |b| {
        b.iter(|| nat::rewrite_v6(black_box(&mut v6), &headers6, &to6));
    });
    c.bench_function("rewrite/DR, IPv4", |b| b.iter(|| plain::route_v4(black_box(&mut v4), &link)));
    c.bench_function("rewrite/DR, IPv6", |b| b.iter(|| plain::route_v6(black_box(&mut v6), &link)));
    let ends4 = TunnelEnds::V4(to4.source, to4.destination);
    let ends6 = TunnelEnds::V6(to6.source, to6.destination);
    for (name, ends, inner) in [("rewrite/TUN, IPv4", ends4, &v4[14..]), ("rewrite/TUN, IPv6", ends6, &v6[14..])] {
        let mut outer = vec![0; ends.overhead()];
        c.bench_function(name, |b| {
            b.iter(|| tun::write_outer(black_box(&mut outer), black_box(inner), ends, Shim::None, 1));
        });
    }
}

criterion_group!(benches, checksums, parsers, table, schedulers, cookies, rewrites);
criterion_main!(benches);
