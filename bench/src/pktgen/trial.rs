//! One run of a generator and, where what it sends comes back or arrives at another port, of its collector.

use std::io;
use std::time::Duration;

use dataplane::clock;
use dataplane::ident::{MacAddr, PortIndex};
use dataplane::port::Ports;
use dataplane::worker::Idle;

use crate::generate::{Generator, Sent, Stream};
use crate::measure::{Collector, LatencyLog, Received, Runs};
use crate::progress::Progress;
use crate::stop::Stop;

/// Where packets leave and where they are expected.
#[derive(Debug)]
pub(crate) struct Ends<P> {
    pub(crate) out: P,
    pub(crate) back: Back<P>,
    /// The address that packets leave with.
    pub(crate) mac: MacAddr,
}

/// Where packets are expected.
#[derive(Debug)]
pub(crate) enum Back<P> {
    /// Nowhere: somebody else counts them.
    Elsewhere,
    /// Where they left: a reflector sends them back.
    Same,
    /// At another port.
    Other(P),
}

/// What a run is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order<'a> {
    /// What its probes carry.
    pub(crate) run: u8,
    pub(crate) streams: &'a [Stream],
    /// Packets at most, of all streams together.
    pub(crate) count: u64,
    /// How long to wait for packets after the last one that came.
    pub(crate) linger: Duration,
    pub(crate) idle: Idle,
}

/// What a run did.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// From the first packet to the end of sending.
    pub(crate) seconds: f64,
    pub(crate) sent: Sent,
    pub(crate) by_stream: Vec<u64>,
    pub(crate) received: Option<Received>,
}

/// Why a run has no outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrialError {
    #[error("cannot make a histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
    #[error("cannot write progress: {0}")]
    Progress(#[from] io::Error),
}

/// Every port object of the generator has one port.
const PORT: PortIndex = PortIndex(0);
/// A wait is cut by the time that waking up takes.
const WAKE_UP: Duration = Duration::from_micros(60);
/// The longest wait: signals and progress are looked at.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// However long stragglers go on coming.
const LONGEST_LINGER: Duration = Duration::from_secs(10);

/// Sends until `stop`, then waits for what is under way.
pub(crate) fn run<P: Ports>(
    ends: &mut Ends<P>,
    order: Order<'_>,
    stop: &Stop,
    progress: &mut Progress,
    log: &mut LatencyLog,
) -> Result<Outcome, TrialError> {
    let mut collector = match ends.back {
        Back::Elsewhere => None,
        Back::Same | Back::Other(_) => Some(Collector::new(Runs::Only(order.run))?),
    };
    let begin = clock::since_boot();
    let mut generator = Generator::new(order.run, ends.mac, order.streams, order.count, begin);
    let mut now = begin;
    while !generator.is_done() && !stop.is_reached(now) {
        let sent = generator.turn(&mut ends.out, PORT, now);
        let received = ends.collect(collector.as_mut());
        if progress.is_due(now) {
            tell(progress, log, now, &generator, collector.as_mut())?;
        }
        if sent == 0 && received == 0 && order.idle != Idle::Busy {
            ends.rest(generator.next(now).saturating_sub(clock::since_boot()));
        }
        now = clock::since_boot();
    }
    let seconds = now.saturating_sub(begin).as_secs_f64();
    ends.out.flush();
    if let Some(collector) = &mut collector {
        linger(ends, collector, order.linger, generator.sent().packets);
        collector.interval(|latency| log.interval(latency, clock::since_boot()));
    }
    let by_stream = generator.by_stream();
    let received = collector.map(|mut c| c.result(Some(&by_stream)));
    Ok(Outcome { seconds, sent: generator.sent(), by_stream, received })
}

/// Collects until nothing came for a while, or all of them did.
fn linger<P: Ports>(ends: &mut Ends<P>, collector: &mut Collector, time: Duration, sent: u64) {
    let begin = clock::since_boot();
    let mut last = begin;
    loop {
        // Read before it is looked whether something came: however long this thread was kept from running, what waits is
        // taken before the time is over.
        let now = clock::since_boot();
        let since = |then| now.saturating_sub(then);
        if collector.packets() >= sent || since(begin) >= LONGEST_LINGER {
            return;
        }
        if ends.collect(Some(collector)) > 0 {
            last = clock::since_boot();
        } else if since(last) >= time {
            return;
        } else {
            ends.out.flush();
            ends.rest(Duration::from_millis(1));
        }
    }
}

fn tell(
    progress: &mut Progress,
    log: &mut LatencyLog,
    now: Duration,
    generator: &Generator,
    collector: Option<&mut Collector>,
) -> io::Result<()> {
    let Sent { packets, stalls, .. } = generator.sent();
    let Some(collector) = collector else { return progress.tell(now, &[("sent", packets)], ("stalls", stalls)) };
    collector.interval(|latency| log.interval(latency, now));
    progress.tell(now, &[("sent", packets), ("received", collector.frames)], ("lost", collector.lost()))
}

impl<P: Ports> Ends<P> {
    fn collect(&mut self, collector: Option<&mut Collector>) -> usize {
        match (&mut self.back, collector) {
            (Back::Same, Some(collector)) => collector.turn(&mut self.out, PORT),
            (Back::Other(ports), Some(collector)) => collector.turn(ports, PORT),
            (Back::Elsewhere, _) | (_, None) => 0,
        }
    }

    /// Sleeps for `time` or until a frame comes; spins where sleeping would make a packet late.
    fn rest(&mut self, time: Duration) {
        match time.checked_sub(WAKE_UP) {
            None => std::hint::spin_loop(),
            Some(time) => match &mut self.back {
                Back::Other(ports) => ports.wait(time.min(LONGEST_WAIT)),
                Back::Same | Back::Elsewhere => self.out.wait(time.min(LONGEST_WAIT)),
            },
        }
    }
}
