//! What the SYN proxy costs: a SYN answered by a cookie, the acknowledgement that brings it back and opens the flow,
//! and the server's answer that joins both ends.
//!
//! Connections are in the table already, opened the same way, so that the SYN's lookup misses in a table of that size.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::clock;
use dataplane::counters::Event;
use dataplane::ident::{PortIndex, WorkerIndex};
use dataplane::port::{Burst, Frame, Ports};
use dataplane::worker::{Shared, Worker};

use crate::drive::{established, expect, pin};
use crate::error::BenchError;
use crate::loop_ports::{CLIENTS, LoopPorts, Order, Stream, bare_turn};
use crate::machine::Quiet;
use crate::measure::Stopwatch;
use crate::packets::{Family, Peer, Segment, Sender, Size, Template, take};
use crate::plan::{Plan, chunks};
use crate::results::{Measured, Row};
use crate::scene::Handshake;

/// Connections opened in one repetition, in chunks, at most: fewer than a worker remembers handshakes for.
const STEP: u64 = 1 << 16;
/// At least: a burst.
const BURST: u64 = 64;

/// Measures with the plan's first core.
///
/// # Errors
/// When it cannot be set up, the method has no SYN proxy, or a packet was not treated as it should.
pub(crate) fn run(plan: &Plan) -> Result<Measured, BenchError> {
    if !plan.method.is_two_way() {
        return Err(BenchError::NoProxy);
    }
    let core = plan.cores.first().copied().unwrap_or(0);
    pin(core)?;
    let packets = (plan.packets / u64::from(plan.repetitions)).max(1);
    let step = packets.clamp(BURST, STEP) as u32;
    let all = plan.flows + step * (plan.repetitions + 1);
    // As short as headers are: a segment with data would be kept until its server has answered.
    let size = Size::Fixed(0);
    let sized = Plan { handshake: Handshake::Proxied, flows: all, cores: vec![core], size, ..plan.clone() };
    let mut bench = Bench::new(&sized)?;
    let mut unused = Watches::new()?;
    for chunk in chunks(0..plan.flows) {
        bench.open(chunk, &mut unused)?;
    }
    let (quiet, begin) = (Quiet::watch(), Instant::now());
    let mut watches = Watches::new()?;
    for round in 0..=plan.repetitions {
        if round == 1 {
            watches = Watches::new()?;
        }
        bench.flood(Segment::Syn, packets, &mut watches.syn)?;
        bench.flood(Segment::LinuxSyn, packets, &mut watches.linux_syn)?;
        bench.bare(packets, &mut watches.port);
        let first = plan.flows + round * step;
        for chunk in chunks(first..first + step) {
            bench.open(chunk, &mut watches)?;
        }
    }
    let disturbance = quiet.disturbance(begin.elapsed().as_secs_f64());
    let joined = established(&bench.shared, plan.family);
    expect("connections joined", u64::from(all), joined, &bench.shared.boards[0].counters)?;
    Ok(Measured { rows: watches.rows(&sized, plan.flows), warnings: disturbance.into_iter().collect() })
}

/// What is measured.
struct Watches {
    syn: Stopwatch,
    linux_syn: Stopwatch,
    acknowledgement: Stopwatch,
    join: Stopwatch,
    port: Stopwatch,
}

impl Watches {
    fn new() -> Result<Self, BenchError> {
        Ok(Self {
            syn: Stopwatch::new()?,
            linux_syn: Stopwatch::new()?,
            acknowledgement: Stopwatch::new()?,
            join: Stopwatch::new()?,
            port: Stopwatch::new()?,
        })
    }

    /// A row for each that was measured, with `flows` connections in the table before.
    fn rows(&self, plan: &Plan, flows: u32) -> Vec<Row> {
        let row = |what, watch: &Stopwatch| {
            let cost = watch.cost()?;
            let row = plan.describe().with("flows", flows).with("packet", what).with("ns", cost.batches.p50);
            Some(row.with("p1_ns", cost.batches.p1).with("p99_ns", cost.batches.p99))
        };
        let rows = [
            row("SYN without options, answered", &self.syn),
            row("SYN with the options of Linux, answered", &self.linux_syn),
            row("acknowledgement that opens the connection", &self.acknowledgement),
            row("server's answer that joins it", &self.join),
            row("of each, the bare port", &self.port),
        ];
        rows.into_iter().flatten().collect()
    }
}

/// The worker and the packets of every step.
struct Bench<'p> {
    plan: &'p Plan,
    shared: Arc<Shared>,
    worker: Worker<Handshakes>,
    /// Clients that no connection of this run will have.
    strangers: Range<u32>,
}

impl<'p> Bench<'p> {
    fn new(plan: &'p Plan) -> Result<Self, BenchError> {
        let shared = plan.scene().shared()?;
        let ports = Handshakes::new(plan);
        let worker = Worker::new(WorkerIndex(0), Arc::clone(&shared), ports, clock::since_boot());
        let strangers = plan.flows..plan.flows + 10_000_000;
        Ok(Self { plan, shared, worker: worker.ok_or(BenchError::NoWorker(0))?, strangers })
    }

    fn stream(&self, sender: Sender, segment: Segment, order: Order) -> Stream {
        Stream::new(&self.plan.templates(sender, 0, segment), order)
    }

    /// SYNs of strangers; each has to be answered.
    fn flood(&mut self, segment: Segment, packets: u64, watch: &mut Stopwatch) -> Result<(), BenchError> {
        let stream = self.stream(Sender::Client, segment, Order::Random(self.strangers.clone()));
        let ports = self.worker.ports_mut();
        ports.begin(Step::Flood);
        ports.loops.load(Some(stream), None);
        let before = self.answered();
        let sent = watch.repeat(packets, || self.worker.turn(clock::since_boot()));
        expect("SYNs answered", sent, self.answered() - before, &self.shared.boards[0].counters)
    }

    fn answered(&self) -> u64 {
        self.shared.boards[0].counters.event(Event::CookieSent).read()
    }

    /// The same SYNs by the bare port.
    fn bare(&self, packets: u64, watch: &mut Stopwatch) {
        let mut ports = Handshakes::new(self.plan);
        let order = Order::Random(self.strangers.clone());
        ports.loops.load(Some(self.stream(Sender::Client, Segment::Syn, order)), None);
        watch.repeat(packets, || bare_turn(&mut ports));
    }

    /// Opens connections: SYN, the acknowledgement of its cookie, the server's answer.
    fn open(&mut self, flows: Range<u32>, watches: &mut Watches) -> Result<(), BenchError> {
        let count = flows.len() as u64;
        let syns = self.stream(Sender::Client, Segment::Syn, Order::Each(flows.clone()));
        self.worker.ports_mut().begin(Step::Syn(flows.start));
        self.pass(Some(syns), None, None);
        // Each client's number is one behind that of its SYN: both rise from packet to packet.
        let acknowledgements = self.stream(Sender::Client, Segment::Ack, Order::Each(flows.clone())).beginning(1);
        self.worker.ports_mut().begin(Step::Acknowledgement(flows.start));
        self.pass(Some(acknowledgements), None, Some(&mut watches.acknowledgement));
        let counters = &self.shared.boards[0].counters;
        let asked: Arc<[Peer]> = self.worker.ports_mut().asked.iter().map(|(peer, _)| *peer).collect();
        expect("servers asked", count, asked.len() as u64, counters)?;
        let answers = self.stream(Sender::Server, Segment::SynAck, Order::EachPeer(asked));
        self.worker.ports_mut().begin(Step::Answer);
        self.pass(None, Some(answers), Some(&mut watches.join));
        Ok(())
    }

    fn pass(&mut self, requests: Option<Stream>, replies: Option<Stream>, watch: Option<&mut Stopwatch>) {
        self.worker.ports_mut().loops.load(requests, replies);
        match watch {
            Some(watch) => drop(watch.repeat(u64::MAX, || self.worker.turn(clock::since_boot()))),
            None => while self.worker.turn(clock::since_boot()) > 0 {},
        }
    }
}

/// What arrives, and with that what has to be read of it or written into it.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// SYNs whose answers nobody reads.
    Flood,
    /// SYNs of the flows from this one on.
    Syn(u32),
    /// What acknowledges their answers.
    Acknowledgement(u32),
    /// What servers answer to the SYNs that they got.
    Answer,
}

/// [`LoopPorts`] whose clients acknowledge what they were answered, and whose servers too.
#[derive(Debug)]
struct Handshakes {
    loops: LoopPorts,
    family: Family,
    step: Step,
    /// The templates of which packets are changed, for their offsets.
    acknowledgement: Option<Template>,
    answer: Option<Template>,
    /// Where a TCP header begins.
    transport: usize,
    /// Of each flow of a chunk the number that its SYN was answered with.
    cookies: Vec<u32>,
    /// Whom servers were asked by, with the number of the SYN.
    asked: Vec<(Peer, u32)>,
    /// Place of the next answer among them.
    place: usize,
}

/// Offsets in a frame without tags and options.
const IPV4_TRANSPORT: usize = 14 + 20;
const IPV6_TRANSPORT: usize = 14 + 40;

impl Handshakes {
    fn new(plan: &Plan) -> Self {
        let first = |sender, segment| plan.templates(sender, 0, segment).into_iter().next();
        Self {
            loops: LoopPorts::new(),
            family: plan.family,
            step: Step::Flood,
            acknowledgement: first(Sender::Client, Segment::Ack),
            answer: first(Sender::Server, Segment::SynAck),
            transport: if plan.family == Family::V4 { IPV4_TRANSPORT } else { IPV6_TRANSPORT },
            cookies: vec![0; STEP as usize],
            asked: Vec::with_capacity(STEP as usize),
            place: 0,
        }
    }

    fn begin(&mut self, step: Step) {
        self.step = step;
        self.place = 0;
        if matches!(step, Step::Acknowledgement(_)) {
            self.asked.clear();
        }
    }

    /// The last four bytes of the source or destination address, and the port beside it.
    fn peer(&self, bytes: &[u8], is_source: bool) -> Peer {
        let (address, port) = match (self.family, is_source) {
            (Family::V4, true) => (26, 0),
            (Family::V4, false) => (30, 2),
            (Family::V6, true) => (34, 0),
            (Family::V6, false) => (50, 2),
        };
        let host = u32::from_be_bytes(take(bytes, address));
        Peer { host, port: u16::from_be_bytes(take(bytes, self.transport + port)), server: 0 }
    }

    fn sequence(&self, bytes: &[u8]) -> u32 {
        u32::from_be_bytes(take(bytes, self.transport + 4))
    }

    /// Lets a segment that just arrived acknowledge what it answers.
    fn fill_in(&mut self, frame: &mut Frame) {
        let number = match self.step {
            Step::Flood | Step::Syn(_) => return,
            Step::Acknowledgement(first) => {
                let flow = self.peer(self.loops.bytes(frame), true).flow(self.family);
                self.cookies.get((flow - first) as usize)
            }
            Step::Answer => {
                self.place += 1;
                self.asked.get(self.place - 1).map(|(_, number)| number)
            }
        };
        let template = if matches!(self.step, Step::Answer) { &self.answer } else { &self.acknowledgement };
        if let (Some(number), Some(template)) = (number, template) {
            template.acknowledge(self.loops.bytes_mut(frame), number.wrapping_add(1));
        }
    }

    /// Reads what a segment that leaves will be answered by.
    fn read(&mut self, port: PortIndex, frame: &Frame) {
        let bytes = self.loops.bytes(frame);
        match self.step {
            Step::Syn(first) if port == CLIENTS => {
                let flow = self.peer(bytes, false).flow(self.family);
                let number = self.sequence(bytes);
                if let Some(cookie) = self.cookies.get_mut(flow.wrapping_sub(first) as usize) {
                    *cookie = number;
                }
            }
            Step::Acknowledgement(_) if port != CLIENTS => {
                let server = self.peer(bytes, false).host as u16;
                let asked = (Peer { server, ..self.peer(bytes, true) }, self.sequence(bytes));
                self.asked.push(asked);
            }
            _ => {}
        }
    }
}

impl Ports for Handshakes {
    fn count(&self) -> usize {
        self.loops.count()
    }

    #[inline]
    fn receive(&mut self, port: PortIndex, burst: &mut Burst) {
        self.loops.receive(port, burst);
        burst.iter_mut().for_each(|frame| self.fill_in(frame));
    }

    #[inline]
    fn bytes(&self, frame: &Frame) -> &[u8] {
        self.loops.bytes(frame)
    }

    #[inline]
    fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.loops.bytes_mut(frame)
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.loops.allocate()
    }

    #[inline]
    fn transmit(&mut self, port: PortIndex, frame: Frame) -> Result<(), Frame> {
        self.read(port, &frame);
        self.loops.transmit(port, frame)
    }

    #[inline]
    fn free(&mut self, frame: Frame) {
        self.loops.free(frame);
    }

    fn flush(&mut self) {
        self.loops.flush();
    }

    fn wait(&mut self, timeout: Duration) {
        self.loops.wait(timeout);
    }
}
