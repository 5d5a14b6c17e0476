//! Looking into a running director: a watch says which packets are shown, workers write down what becomes of them.
//!
//! A watch stands in the snapshot, so that without one a worker sees no more than an empty field once a burst. Records
//! are made before and go round: blank ones to the workers, filled ones to control, which gives them back. Where none
//! is blank, or more packets match than the watch may show, they are counted as lost.

mod filter;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

pub use filter::{Address, Fate, Filter, Side, Subject, Test};

use crate::counters::{Drop, Event};
use crate::flow::Direction;
use crate::ident::{Endpoint, PortIndex, Protocol, WorkerIndex};

/// Bytes of a frame that a record holds, from the Ethernet header on.
pub const SNAP: usize = 2048;
/// Records that go round.
const RECORDS: usize = 2048;
/// Records that one packet can have; what is beyond is lost.
pub const STEPS: usize = 24;

/// What is shown, and where records wait.
#[derive(Debug)]
pub struct Watch {
    /// Which packets.
    pub filter: Filter,
    /// What of them.
    pub scope: Scope,
    /// Packets a second that each worker shows.
    pub rate: u32,
    blank: ArrayQueue<Box<Record>>,
    filled: ArrayQueue<Box<Record>>,
    lost: AtomicU64,
}

/// What of a packet is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every step.
    Steps,
    /// Frames: as they arrive, as they leave, as they are dropped.
    Frames {
        /// As they arrive.
        ingress: Shown,
        /// As they leave.
        egress: Shown,
        /// As they are when they are dropped.
        drop: Shown,
    },
}

/// Whether something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It is.
    Yes,
    /// It is not.
    No,
}

impl Scope {
    /// Whether it has room for this step.
    pub fn shows(self, step: &Step) -> bool {
        match (self, step) {
            (Self::Steps, _) => true,
            (Self::Frames { ingress, .. }, Step::Arrived) => ingress == Shown::Yes,
            (Self::Frames { egress, .. }, Step::Left) => egress == Shown::Yes,
            (Self::Frames { drop, .. }, Step::Dropped(_)) => drop == Shown::Yes,
            (Self::Frames { .. }, _) => false,
        }
    }
}

/// One step of a packet.
#[derive(Debug)]
pub struct Record {
    /// The packet's number at its worker.
    pub packet: u64,
    /// The worker.
    pub worker: WorkerIndex,
    /// When its burst was taken, since boot.
    pub time: Duration,
    /// What happened.
    pub step: Step,
    /// Whether this is the packet's last record.
    pub place: Place,
    /// Where it came from or went to, for steps with a frame.
    pub port: PortIndex,
    /// The frame's length; the record may hold less.
    pub length: u16,
    bytes: [u8; SNAP],
}

/// Which of a packet's records one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Others follow.
    Inner,
    /// The last.
    Last,
}

/// What can happen to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It came, with these bytes.
    Arrived,
    /// The flow table was asked for it.
    LookedUp(Found),
    /// The flow that it belongs to afterwards.
    Flow(FlowSeen),
    /// Something that is counted happened.
    Noted(Event),
    /// A frame left, with these bytes: the packet, or an answer to it.
    Left,
    /// It was dropped, with these bytes.
    Dropped(Drop),
}

/// What the flow table knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A flow in this state.
    Flow {
        /// Which of its directions the packet runs.
        direction: Direction,
        /// The state before the packet.
        state: u8,
    },
    /// No flow.
    None,
    /// Other workers were inserting it.
    Unsettled,
    /// The packet has no ports to ask by: a later fragment, an ICMP message, something unknown.
    NoPorts,
}

/// A flow, as it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowSeen {
    /// Its transport.
    pub protocol: Protocol,
    /// Which of its directions the packet runs.
    pub direction: Direction,
    /// The client.
    pub client: Endpoint,
    /// What the client talks to.
    pub vip: Endpoint,
    /// Server, and the address that the server answers to; `None` where the server answers past the director.
    pub server_side: Option<(Endpoint, Endpoint)>,
    /// The destination's slot.
    pub destination: u32,
    /// The state after the packet.
    pub state: u8,
}

impl Record {
    fn blank() -> Self {
        Self {
            packet: 0,
            worker: WorkerIndex(0),
            time: Duration::ZERO,
            step: Step::Arrived,
            place: Place::Inner,
            port: PortIndex(0),
            length: 0,
            bytes: [0; SNAP],
        }
    }

    /// The frame, as far as it was kept; empty for steps without one.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or(&self.bytes)
    }

    /// Puts a frame in.
    pub(crate) fn fill(&mut self, frame: &[u8]) {
        self.length = u16::try_from(frame.len()).unwrap_or(u16::MAX);
        let kept = frame.len().min(SNAP);
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..kept), frame.get(..kept)) {
            to.copy_from_slice(from);
        }
    }
}

impl Watch {
    /// A watch with all its records made: about 4 MiB.
    pub fn new(filter: Filter, scope: Scope, rate: u32) -> Self {
        let (blank, filled) = (ArrayQueue::new(RECORDS), ArrayQueue::new(RECORDS));
        while blank.push(Box::new(Record::blank())).is_ok() {}
        Self { filter, scope, rate, blank, filled, lost: AtomicU64::new(0) }
    }

    /// The next record that a worker filled.
    pub fn take(&self) -> Option<Box<Record>> {
        self.filled.pop()
    }

    /// Lets workers write on a record again.
    pub fn give_back(&self, record: Box<Record>) {
        // There are as many places as records.
        let _ = self.blank.push(record);
    }

    /// Packets and steps that matched and could not be shown.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// An empty record for a worker, or none, which is counted.
    pub(crate) fn blank(&self) -> Option<Box<Record>> {
        let record = self.blank.pop();
        if record.is_none() {
            self.lose();
        }
        record
    }

    /// Hands a filled record to control.
    pub(crate) fn put(&self, record: Box<Record>) {
        // There are as many places as records.
        let _ = self.filled.push(record);
    }

    pub(crate) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}
