//! New flows open the same way whether a burst of them takes the fast way or each the general one, which a rule that
//! matches nothing leads to: the same frames but for numbers that each table draws, the same flows, the same counts.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::packet::{Segment, tcp, udp, verify};
use common::{Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, ip};
use dataplane::counters::{Drop, Event};
use dataplane::flow::{Find, FlowKey, flag};
use dataplane::ident::{NetPort, PortIndex, Protocol, WorkerIndex};
use dataplane::rules::{Action, Gates, Rule, Rules, Selector};
use dataplane::sched::SchedulerKind;
use dataplane::service::{
    ClientAddress, LocalPair, LocalPorts, Mark, Method, ProxyVersion, ServiceSettings, TcpTimestamps, Toa,
};
use dataplane::syn_proxy::SynProxy;

const FAMILIES: [(&str, &str); 2] = [("198.51.100.7", "192.0.2.80"), ("2001:db8:c::7", "2001:db8::80")];
/// Options of SYNs: none, those of Linux, those of others, time stamps at an odd place.
const OPTIONS: [&[u8]; 5] = [
    &[],
    &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7],
    &[2, 4, 2, 0x18, 1, 3, 3, 8, 1, 1, 4, 2],
    &[2, 4, 5, 0xb4, 1, 3, 3, 6, 1, 1, 8, 10, 9, 8, 7, 6, 0, 0, 0, 0, 4, 2, 0, 0],
    &[1, 8, 10, 9, 8, 7, 6, 0, 0, 0, 0, 0],
];

type Sent = Vec<(PortIndex, Vec<u8>)>;

/// Two directors that differ in nothing but the way that their new flows take.
struct Ways {
    setups: [Setup; 2],
    directors: [Director; 2],
}

impl Ways {
    fn new(make: impl Fn() -> Setup) -> Self {
        let selector =
            Selector { from: None, to: Some("198.18.0.0/16".parse().unwrap()), protocol: None, ports: (0, u16::MAX) };
        let rule = Rule { action: Action::Mark(Mark::new(7).unwrap()), selector };
        let gates = Gates { rules: Arc::new(Rules::new(&[rule], None)), ..Gates::default() };
        let setups = [make(), Setup { gates, ..make() }];
        let directors = setups.each_ref().map(Director::new);
        Self { setups, directors }
    }

    /// Lets a burst come to both, and compares what leaves. Gives what left the first and the second.
    fn burst(&mut self, frames: &[Segment]) -> [Sent; 2] {
        let sent = self.directors.each_mut().map(|director| {
            for frame in frames {
                assert!(director.workers[0].ports_mut().inject(FRONT, &frame.bytes()));
            }
            assert_eq!(director.turn(0), frames.len());
            director.sent()
        });
        let [fast, general] =
            sent.each_ref().map(|sent| sent.iter().map(|(port, frame)| (*port, blurred(frame))).collect::<Vec<_>>());
        assert_eq!(fast, general);
        self.compare();
        sent
    }

    /// Compares counters, loads and local ports.
    fn compare(&self) {
        let counted = self.directors.each_ref().map(|director| {
            let events: Vec<_> = Event::ALL.iter().map(|event| (event.name(), director.event_count(*event))).collect();
            let drops: Vec<_> = Drop::ALL.iter().map(|drop| (drop.name(), director.drop_count(*drop))).collect();
            let loads: Vec<_> = director.counts.iter().map(|counts| (counts.active(), counts.inactive())).collect();
            (events, drops, loads, director.shared.flows4.len(), director.shared.flows6.extensions_used())
        });
        assert_eq!(counted[0], counted[1]);
        let pairs = self.setups.each_ref().map(|setup| {
            let pairs = setup.pairs.lock().unwrap();
            pairs.iter().map(|(key, pair)| (*key, pair.in_use(), pair.conflicts())).collect::<Vec<_>>()
        });
        assert_eq!(pairs[0], pairs[1]);
    }
}

/// A frame without what is drawn: its sequence number, its `TSval`, and the checksum over them.
fn blurred(frame: &[u8]) -> Vec<u8> {
    verify(frame);
    let mut frame = frame.to_vec();
    let (l4, protocol) = if frame[14] >> 4 == 4 { (34, frame[23]) } else { (54, frame[20]) };
    if protocol == Protocol::Tcp.number() {
        frame[l4 + 4..l4 + 8].fill(0);
        frame[l4 + 16..l4 + 18].fill(0);
        let (end, mut place) = (l4 + usize::from(frame[l4 + 12] >> 4) * 4, l4 + 20);
        while place < end && frame[place] != 0 {
            if frame[place] == 8 {
                frame[place + 2..place + 6].fill(0);
            }
            place += if frame[place] == 1 { 1 } else { usize::from(frame[place + 1]) };
        }
    }
    frame
}

fn syn((client, vip): (&str, &str), port: u16) -> Segment {
    let options = OPTIONS[usize::from(port) % OPTIONS.len()];
    tcp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), "S", b"").options(options)
}

fn fullnat() -> Setup {
    let mut setup = Setup::new(Method::FullNat);
    setup.scheduler = SchedulerKind::Wlc;
    setup.locals = vec!["10.2.0.201", "10.2.0.202", "fd02::201", "fd02::202", "fd02::203"];
    // Every TCP flow has an extension record, of which there are fewer than flows.
    setup.capacity = 4096;
    setup
}

#[test]
fn fullnat_opens_the_same_flows() {
    let told = |toa, proxy| ClientAddress { toa, proxy };
    let all = [
        ServiceSettings::default(),
        ServiceSettings { client_address: told(Toa::On, None), ..ServiceSettings::default() },
        ServiceSettings { client_address: told(Toa::Off, Some(ProxyVersion::V1)), ..ServiceSettings::default() },
        ServiceSettings { client_address: told(Toa::On, Some(ProxyVersion::V2)), ..ServiceSettings::default() },
        ServiceSettings { tcp_timestamps: TcpTimestamps::Remove, ..ServiceSettings::default() },
    ];
    for (settings, ends) in all.iter().flat_map(|settings| FAMILIES.map(|ends| (settings, ends))) {
        let mut ways = Ways::new(|| Setup { settings: settings.clone(), ..fullnat() });
        let syns: Vec<_> = (40_000..40_050).map(|port| syn(ends, port)).collect();
        let first = ways.burst(&syns);
        assert_eq!((first[0].len(), ways.setups[0].ports_in_use()), (50, 50));
        // What comes again finds the flow, whose record says how it was changed.
        let again = ways.burst(&syns);
        assert_eq!(again, first);
        let datagrams: Vec<_> =
            (40_000..40_020).map(|port| udp(ROUTER_MAC, FRONT_MAC, (ends.0, port), (ends.1, 80), b"data")).collect();
        ways.burst(&datagrams);
        // Data of a SYN, a packet that nobody may send on, and one that is too long.
        let long = vec![1; 1450];
        ways.burst(&[
            tcp(ROUTER_MAC, FRONT_MAC, (ends.0, 41_000), (ends.1, 80), "S", b"early"),
            syn(ends, 41_001).ttl(1),
            tcp(ROUTER_MAC, FRONT_MAC, (ends.0, 41_002), (ends.1, 80), "S", &long).options(OPTIONS[1]),
        ]);
        for port in (40_000..40_050).chain(41_000..41_003) {
            assert_eq!(record(&ways.directors[0], ends, port), record(&ways.directors[1], ends, port), "{port}");
        }
    }
}

/// What is kept of a flow, but for what is drawn.
fn record(director: &Director, (client, vip): (&str, &str), port: u16) -> impl PartialEq + std::fmt::Debug {
    fn of<F: dataplane::flow::Family>(
        table: &dataplane::flow::FlowTable<F>,
        key: &FlowKey<F::Addr>,
    ) -> impl PartialEq + std::fmt::Debug + use<F> {
        let Find::Hit { flow, .. } = table.lookup(key) else { return None };
        let entry = table.entry(flow);
        let record = table.extension(entry).unwrap();
        let [shift, other] = record.shifts();
        assert_ne!(entry.state().flags() & flag::EXTENDED, 0);
        let state = (entry.state().state(), entry.state().flags(), entry.deadline(), entry.client_mac());
        let shifts = (shift.from, shift.after.wrapping_sub(shift.before), other);
        let next = [dataplane::flow::Direction::Forward, dataplane::flow::Direction::Reverse].map(|of| record.next(of));
        Some((
            state,
            entry.reverse(),
            entry.destination(),
            shifts,
            next,
            (record.bits(), record.terms(), record.link()),
        ))
    }
    let [source_port, destination_port] = [NetPort::new(port), NetPort::new(80)];
    let protocol = Protocol::Tcp;
    match (ip(client), ip(vip)) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => {
            let key = FlowKey { source, destination, source_port, destination_port, protocol };
            format!("{:?}", of(&director.shared.flows4, &key))
        }
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => {
            let key = FlowKey { source, destination, source_port, destination_port, protocol };
            format!("{:?}", of(&director.shared.flows6, &key))
        }
        _ => String::new(),
    }
}

#[test]
fn ports_run_out_the_same_way() {
    for ends in FAMILIES {
        let mut ways = Ways::new(|| Setup {
            servers4: vec![("10.2.0.12", 1)],
            servers6: vec![("fd02::12", 1)],
            locals: vec!["10.2.0.201", "fd02::201"],
            local_ports: LocalPorts::new(7000, 7099).unwrap(),
            ..fullnat()
        });
        for first in [40_000, 40_060, 40_120] {
            let syns: Vec<_> = (first..first + 60).map(|port| syn(ends, port)).collect();
            ways.burst(&syns);
        }
        assert_eq!((ways.setups[0].ports_in_use(), ways.directors[0].drop_count(Drop::NoLocalPort)), (100, 80));
    }
}

#[test]
fn a_port_that_is_taken_is_counted_and_another_one_found() {
    for ends in FAMILIES {
        let mut ways = Ways::new(|| Setup {
            servers4: vec![("10.2.0.12", 1)],
            servers6: vec![("fd02::12", 1)],
            locals: vec!["10.2.0.201", "fd02::201"],
            ..fullnat()
        });
        let syns = |first| (first..first + 10).map(|port| syn(ends, port)).collect::<Vec<_>>();
        ways.burst(&syns(40_000));
        for setup in &ways.setups {
            setup.pairs.lock().unwrap().values().for_each(|pair| pair.set_cursor(WorkerIndex(0), 0));
        }
        // Which port each gets depends on the way then.
        for director in &mut ways.directors {
            for frame in syns(40_100) {
                assert!(director.workers[0].ports_mut().inject(FRONT, &frame.bytes()));
            }
            assert_eq!((director.turn(0), director.sent().len()), (10, 10));
        }
        ways.compare();
        let conflicts: u64 = ways.setups[0].pairs.lock().unwrap().values().map(LocalPair::conflicts).sum();
        assert_eq!((conflicts, ways.setups[0].ports_in_use()), (10, 20));
    }
}

#[test]
fn cookies_are_the_same_but_for_their_secrets() {
    for (method, toa) in [(Method::Nat, Toa::Off), (Method::FullNat, Toa::Off), (Method::FullNat, Toa::On)] {
        for ends in FAMILIES {
            let client_address = ClientAddress { toa, proxy: None };
            let settings =
                ServiceSettings { syn_proxy: Some(SynProxy::default()), client_address, ..ServiceSettings::default() };
            let mut ways = Ways::new(|| Setup { settings: settings.clone(), method, ..fullnat() });
            let syns: Vec<_> = (40_000..40_020).map(|port| syn(ends, port)).collect();
            assert_eq!(ways.burst(&syns)[0].len(), 20);
            ways.burst(&[
                syn(ends, 40_020).ttl(1),
                tcp(ROUTER_MAC, FRONT_MAC, (ends.0, 9), (ends.1, 80), "S", b"data"),
            ]);
            // Both take what they made, whatever its way was, and open the same connections.
            let answered = ways.directors.each_mut().map(|director| {
                for frame in syns.iter().map(Segment::bytes) {
                    assert!(director.workers[0].ports_mut().inject(FRONT, &frame));
                }
                director.turn(0);
                director.sent()
            });
            let asked = [0, 1].map(|n| {
                let director = &mut ways.directors[n];
                let cookies = (40_000..).zip(&answered[n]);
                // The last one comes twice, and one is forged.
                for (port, (_, cookie)) in cookies.clone().chain(cookies.skip(19)) {
                    let ack = acknowledgement(ends, port, cookie);
                    assert!(director.workers[0].ports_mut().inject(FRONT, &ack.bytes()));
                }
                let forged = tcp(ROUTER_MAC, FRONT_MAC, (ends.0, 40_100), (ends.1, 80), "A", b"");
                assert!(director.workers[0].ports_mut().inject(FRONT, &forged.bytes()));
                assert_eq!(director.turn(0), 22);
                director.sent().iter().map(|(port, frame)| (*port, blurred(frame))).collect::<Vec<_>>()
            });
            assert_eq!(sorted(&asked[0]), sorted(&asked[1]), "{method:?}");
            ways.compare();
            assert_eq!(ways.directors[0].event_count(Event::CookieAccepted), 20);
        }
    }
}

/// A reset of what is forged may leave before what was scheduled.
fn sorted(sent: &[(PortIndex, Vec<u8>)]) -> Vec<(u8, Vec<u8>)> {
    let mut sent: Vec<_> = sent.iter().map(|(port, frame)| (port.0, frame.clone())).collect();
    sent.sort_unstable();
    sent
}

/// What a client answers to a cookie, with its time stamps if it has any.
fn acknowledgement((client, vip): (&str, &str), port: u16, cookie: &[u8]) -> Segment {
    let l4 = if ip(client).is_ipv4() { 34 } else { 54 };
    let word = |place: usize| u32::from_be_bytes(cookie[place..place + 4].try_into().unwrap());
    let segment = tcp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), "A", b"");
    let segment = segment.numbers(common::packet::SEQUENCE + 1, word(l4 + 4).wrapping_add(1));
    let (end, mut place) = (l4 + usize::from(cookie[l4 + 12] >> 4) * 4, l4 + 20);
    while place < end {
        if cookie[place] == 8 {
            let mut stamps = vec![1, 1, 8, 10, 1, 2, 3, 5];
            stamps.extend(&cookie[place + 2..place + 6]);
            return segment.options(&stamps);
        }
        place += if cookie[place] == 1 { 1 } else { usize::from(cookie[place + 1]) };
    }
    segment
}
