//! Looking into the running director: `sluice trace` and `sluice capture`, from the order to the stream of answers.
//!
//! One order at a time. The control loop puts its watch into the snapshot and takes it out again when the lease that
//! came with it is gone: when whoever asked has gone away, whatever the way.

mod filter;
mod pcapng;
mod steps;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use dataplane::clock;
use dataplane::watch::{Place, Record, Scope, Shown, Watch};
use dataplane::worker::Shared;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};

pub use steps::{StepLine, TracedPacket};

use filter::BadFilter;
use pcapng::Blocks;
use steps::Tracer;

/// How long a stream waits when there is nothing to show.
const PAUSE: Duration = Duration::from_millis(20);
/// Records that are put into one piece of a stream.
const PIECE: usize = 256;
/// Packets a second that each worker shows, unless told otherwise.
const TRACE_RATE: u32 = 1000;
const CAPTURE_RATE: u32 = 50_000;

/// What somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Which packets, in the language of `filter.rs`; empty for all.
    pub filter: String,
    /// After how many packets (trace) or frames (capture) the stream ends.
    pub count: Option<u64>,
    /// Packets a second that each worker shows at most.
    pub rate: Option<u32>,
    /// Where frames are captured: `ingress`, `egress`, `drop`. Empty: everywhere. Nothing to a trace.
    pub at: Vec<Point>,
}

/// Where a frame is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Point {
    /// As it arrived.
    Ingress,
    /// As it left.
    Egress,
    /// As it was dropped.
    Drop,
}

/// The form of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Every step of each packet, one packet a line, as JSON.
    Trace,
    /// Frames, as pcapng.
    Capture,
}

/// Why an order is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The filter is not understood.
    #[error("filter: {0}")]
    Filter(#[from] BadFilter),
    /// Somebody else looks already.
    #[error("another trace or capture is running; there can be one at a time")]
    Busy,
}

/// A watch with everything that its stream needs.
#[derive(Debug)]
pub struct Viewer {
    watch: Arc<Watch>,
    /// Held by the stream: while it lives, the watch stays in the snapshot.
    lease: Arc<()>,
    shared: Arc<Shared>,
    form: Form,
    count: Option<u64>,
}

impl Viewer {
    /// Understands an order: `ports` are the names of the director's ports, by index.
    ///
    /// # Errors
    /// [`Refusal::Filter`].
    pub fn new(order: &Order, form: Form, shared: Arc<Shared>, ports: &[String]) -> Result<Self, Refusal> {
        let shown = |point| {
            let is_meant = order.at.is_empty() || order.at.contains(&point);
            if is_meant { Shown::Yes } else { Shown::No }
        };
        let (scope, rate) = match form {
            Form::Trace => (Scope::Steps, TRACE_RATE),
            Form::Capture => {
                let (ingress, egress, drop) = (shown(Point::Ingress), shown(Point::Egress), shown(Point::Drop));
                (Scope::Frames { ingress, egress, drop }, CAPTURE_RATE)
            }
        };
        let filter = filter::parse(&order.filter, ports)?;
        let watch = Arc::new(Watch::new(filter, scope, order.rate.unwrap_or(rate)));
        Ok(Self { watch, lease: Arc::new(()), shared, form, count: order.count })
    }

    /// What workers need of it.
    pub fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    /// What tells whether somebody still looks: no reference to it is left then but this.
    pub fn lease(&self) -> Arc<()> {
        Arc::clone(&self.lease)
    }

    /// The answers, piece by piece, until the count is reached or nobody reads any more.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + 'static {
        let boot = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(clock::since_boot());
        let names = self.shared.snapshot.load().ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
        let writer = match self.form {
            Form::Trace => Writer::Trace(Tracer::new(boot, names)),
            Form::Capture => Writer::Capture(Blocks::new(boot, &names)),
        };
        unfold((self, writer, 0, 0), |(viewer, mut writer, mut shown, mut lost)| async move {
            if viewer.count.is_some_and(|count| shown >= count) {
                return None;
            }
            loop {
                let piece = viewer.piece(&mut writer, &mut shown, &mut lost);
                if !piece.is_empty() {
                    return Some((Ok(Bytes::from(piece)), (viewer, writer, shown, lost)));
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    /// What there is to say now.
    fn piece(&self, writer: &mut Writer, shown: &mut u64, lost: &mut u64) -> Vec<u8> {
        let mut piece = writer.begin();
        let now_lost = self.watch.lost();
        if now_lost > *lost {
            writer.lost(&mut piece, now_lost - *lost, now_lost);
            *lost = now_lost;
        }
        for _ in 0..PIECE {
            if self.count.is_some_and(|count| *shown >= count) {
                break;
            }
            let Some(record) = self.watch.take() else { break };
            *shown += writer.add(&mut piece, &record, &self.shared);
            self.watch.give_back(record);
        }
        piece
    }
}

/// A stream's form, and what it has written so far.
enum Writer {
    Trace(Tracer),
    Capture(Blocks),
}

impl Writer {
    fn begin(&mut self) -> Vec<u8> {
        match self {
            Self::Trace(_) => Vec::new(),
            Self::Capture(blocks) => blocks.begin(),
        }
    }

    /// Adds a record. Returns how many packets or frames it completed.
    fn add(&mut self, out: &mut Vec<u8>, record: &Record, shared: &Shared) -> u64 {
        match self {
            Self::Trace(tracer) => {
                tracer.add(record, shared);
                if record.place == Place::Inner {
                    return 0;
                }
                tracer.finish(out, record);
                1
            }
            Self::Capture(blocks) => {
                blocks.add(out, record);
                1
            }
        }
    }

    /// So many more were lost.
    fn lost(&mut self, out: &mut Vec<u8>, more: u64, all: u64) {
        match self {
            Self::Trace(_) => steps::write_lost(out, all),
            Self::Capture(blocks) => blocks.lost(more),
        }
    }
}
