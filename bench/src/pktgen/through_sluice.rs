//! A generator, a Sluice worker and a sink in one process, over memory ports: the same code as over AF_XDP.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arrayvec::ArrayVec;
use dataplane::clock;
use dataplane::flow::{Capacity, FlowTable};
use dataplane::ident::{Endpoint, MacAddr, NetPort, PortIndex, Protocol, ServiceKey, Weight, WorkerIndex};
use dataplane::next_hop::{Egress, Exit, Hop, NextHopsBuilder};
use dataplane::port::{Burst, ChecksumMode, Frame, MemoryPorts, Ports};
use dataplane::sched::SchedulerKind;
use dataplane::service::{Destination, DestinationCounts, DestinationSlot, Method, ServiceSpec, ServicesBuilder};
use dataplane::snapshot::{Policy, PortSettings, Snapshot};
use dataplane::worker::{Idle, Shared, Worker};

use crate::generate::Stream;
use crate::measure::LatencyLog;
use crate::progress::{Progress, Show};
use crate::stop::Stop;
use crate::stream::{Kind, Order};
use crate::trial::{self, Back, Ends, Outcome};

const DIRECTOR: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const SERVER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

/// A worker with NAT for UDP 10.20.0.100:53 to 10.30.0.1:5353; clients are at port 0, the server at port 1.
fn director() -> Worker<MemoryPorts> {
    let end = |address: [u8; 4], port| Endpoint { address: address.into(), port: NetPort::new(port) };
    let slot = DestinationSlot(0);
    let counts = Arc::new(DestinationCounts::new(1));
    let server = Destination::new(slot, end([10, 30, 0, 1], 5353), Method::Nat, Weight::ONE, counts);
    let mut services = ServicesBuilder::default();
    let key = ServiceKey { protocol: Protocol::Udp, at: end([10, 20, 0, 100], 53) };
    services.add(ServiceSpec::new(key, SchedulerKind::Wlc, vec![server])).unwrap();
    let mut hops = NextHopsBuilder::new(1);
    let egress = Egress { exit: Exit::One(PortIndex(1)), source: DIRECTOR, tags: ArrayVec::new(), mtu: 1500 };
    let hop = hops.hop(Hop::neighbour(&egress, SERVER)).unwrap();
    hops.destination(slot, hop);
    let settings =
        |name: &str| PortSettings { name: name.into(), mac: DIRECTOR, checksum: ChecksumMode::Offload, rss: None };
    let snapshot = Snapshot {
        gates: dataplane::rules::Gates::default(),
        services: Arc::new(services.build()),
        hops: Arc::new(hops.build()),
        ports: [settings("clients"), settings("servers")].into(),
        kernel: None,
        policy: Policy::default(),
        watch: None,
    };
    let capacity = Capacity { flows: 10_000, extensions: 0 };
    let flows4 = FlowTable::anonymous(capacity, 1).unwrap();
    let flows6 = FlowTable::anonymous(Capacity { flows: 1, extensions: 0 }, 1).unwrap();
    let shared = Arc::new(Shared::new(Arc::new(snapshot), flows4, flows6, 1, 2));
    Worker::new(WorkerIndex(0), shared, MemoryPorts::new(2, 1024), clock::since_boot()).unwrap()
}

/// A line between a port of the generator and one of the director, which drops every so manieth frame.
struct Line {
    ports: MemoryPorts,
    director: Rc<RefCell<Worker<MemoryPorts>>>,
    at: PortIndex,
    drops_each: Option<u32>,
    passed: u32,
}

const OWN: PortIndex = PortIndex(0);
/// Free frames of the director's that a line wants to see: as many as it may hold itself.
const ROOM: usize = 256;

impl Ports for Line {
    fn count(&self) -> usize {
        1
    }

    fn receive(&mut self, port: PortIndex, burst: &mut Burst) {
        let mut director = self.director.borrow_mut();
        for _ in 0..burst.remaining_capacity() {
            let Some(frame) = director.ports_mut().sent(self.at) else { break };
            self.passed += 1;
            if self.drops_each.is_none_or(|each| !self.passed.is_multiple_of(each)) {
                assert!(self.ports.inject(OWN, &frame));
            }
        }
        self.ports.receive(port, burst);
    }

    fn flush(&mut self) {
        let mut director = self.director.borrow_mut();
        while let Some(frame) = self.ports.sent(OWN) {
            assert!(director.ports_mut().inject(self.at, &frame));
        }
        while director.turn(clock::since_boot()) > 0 {}
    }

    fn bytes(&self, frame: &Frame) -> &[u8] {
        self.ports.bytes(frame)
    }

    fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.ports.bytes_mut(frame)
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.ports.allocate()
    }

    fn transmit(&mut self, port: PortIndex, frame: Frame) -> Result<(), Frame> {
        // As a full ring: what was sent before has to be taken first.
        if self.director.borrow_mut().ports_mut().available() < ROOM {
            return Err(frame);
        }
        self.ports.transmit(port, frame)
    }

    fn free(&mut self, frame: Frame) {
        self.ports.free(frame);
    }

    fn wait(&mut self, _timeout: Duration) {}
}

/// Flows that are sent at once, each a stream of its own, so that each one's order is seen.
const FLOWS: u16 = 16;

/// Sends `count` datagrams in all through the director to a line that drops every so manieth.
fn send(count: u64, rate: &str, drops_each: Option<u32>) -> Outcome {
    let director = Rc::new(RefCell::new(director()));
    let line = |at, drops_each| Line {
        ports: MemoryPorts::new(1, 256),
        director: Rc::clone(&director),
        at: PortIndex(at),
        drops_each,
        passed: 0,
    };
    let mut ends =
        Ends { out: line(0, None), back: Back::Other(line(1, drops_each)), mac: MacAddr([2, 0, 0, 0, 0, 9]) };
    let stream = |flow| Stream {
        kind: Kind::Udp,
        from: format!("10.10.0.1:{}", 1000 + flow).parse().unwrap(),
        to: "10.20.0.100:53".parse().unwrap(),
        sizes: "imix".parse().unwrap(),
        rate: rate.parse().unwrap(),
        order: Order::Random,
        to_mac: DIRECTOR,
    };
    let streams: Vec<Stream> = (0..FLOWS).map(stream).collect();
    let linger = Duration::from_millis(5);
    let order = trial::Order { run: 1, streams: &streams, count, linger, idle: Idle::Busy };
    let stop = Stop::after(Duration::from_secs(20)).unwrap();
    let now = clock::since_boot();
    trial::run(&mut ends, order, &stop, &mut Progress::new(Show::Never, now), &mut LatencyLog::new(now)).unwrap()
}

#[test]
fn every_packet_is_forwarded_whole_and_in_order() {
    let outcome = send(20_000, "20k", None);
    let received = outcome.received.unwrap();
    assert_eq!(outcome.sent.packets, 20_000);
    assert_eq!((received.packets, received.lost, received.reordered, received.duplicates), (20_000, 0, 0, 0));
    assert_eq!((received.foreign, received.bad_checksum, received.bytes), (0, 0, outcome.sent.bytes));
}

#[test]
fn a_line_that_loses_is_found_out_to_the_packet() {
    let received = send(20_000, "20k", Some(50)).received.unwrap();
    assert_eq!((received.packets, received.lost, received.reordered), (19_600, 400, 0));
}

#[test]
fn a_paced_stream_takes_its_time_and_has_a_latency() {
    let outcome = send(2_000, "625", None);
    assert!((0.19..5.0).contains(&outcome.seconds), "{} s", outcome.seconds);
    let latency = outcome.received.unwrap().latency.unwrap();
    assert_eq!(latency.impossible, 0);
    assert!(latency.corrected_ns.max >= latency.uncorrected_ns.min, "{latency:?}");
}
