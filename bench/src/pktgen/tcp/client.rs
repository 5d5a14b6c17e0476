//! A TCP client that opens, uses and ends many connections: handshake, one request, the answer, the end.
//!
//! A connection is a slot with its place in the life of a connection; its source endpoint is the slot's number, so an
//! answer finds its slot by arithmetic. Data is taken in order only; what is lost comes again from either side.

use std::net::IpAddr;
use std::time::Duration;

use dataplane::ident::{Endpoint, PortIndex};
use dataplane::port::{BURST, Burst, Ports};
use dataplane::wire::TcpFlags;
use serde::Serialize;

use super::{Arrived, Segment};
use crate::measure::{Latency, Recorder};
use crate::stream::{Endpoints, Link, Pacer, Packet, Rate};

/// What a client does.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) from: Endpoints,
    pub(crate) to: Endpoints,
    pub(crate) link: Link,
    /// Connections a second.
    pub(crate) rate: Rate,
    /// Connections at once, at most: no more than there are sources.
    pub(crate) most: usize,
    /// Connections in all.
    pub(crate) count: u64,
    /// What is asked; empty to end a connection as soon as it is open.
    pub(crate) request: Vec<u8>,
    /// When a connection has failed.
    pub(crate) timeout: Duration,
}

/// What became of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ClientCounts {
    pub(crate) begun: u64,
    /// Their handshake is done.
    pub(crate) opened: u64,
    /// Ended by both sides.
    pub(crate) completed: u64,
    /// Reset before they were open.
    pub(crate) refused: u64,
    /// Reset after.
    pub(crate) reset: u64,
    /// Not ended in time.
    pub(crate) timed_out: u64,
    /// Segments sent again.
    pub(crate) retransmitted: u64,
    /// Bytes of answers.
    pub(crate) bytes: u64,
}

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    SynSent,
    /// The request is sent.
    Open,
    /// Our FIN is sent; the server's may have come.
    Ending,
}

#[derive(Clone, Copy, Debug)]
struct Connection {
    place: Place,
    /// When it was due.
    due: Duration,
    /// When what is not acknowledged is sent again.
    again: Duration,
    tries: u8,
    /// The first number that is not acknowledged, and the one after the last that was sent.
    unacknowledged: u32,
    next: u32,
    /// What is expected of the server.
    expected: u32,
    /// Whether the server has ended it.
    is_ended: bool,
}

const FREE: Connection = Connection {
    place: Place::Free,
    due: Duration::ZERO,
    again: Duration::ZERO,
    tries: 0,
    unacknowledged: 0,
    next: 0,
    expected: 0,
    is_ended: false,
};

/// Until a segment is sent again the first time; twice as long each time after (RFC 6298 asks for 1 s in the beginning).
const AGAIN: Duration = Duration::from_millis(300);
/// Slots that are looked at for their timers in each turn.
const SWEEP: usize = 64;

/// The connections of a plan.
#[derive(Debug)]
pub(crate) struct Client {
    plan: Plan,
    pacer: Pacer,
    slots: Box<[Connection]>,
    /// Where the search for a free slot and the sweep go on.
    cursor: usize,
    swept: usize,
    open: usize,
    counts: ClientCounts,
    /// From when it was due to its handshake's end.
    pub(crate) handshake: Latency,
    /// From when it was due to its end.
    pub(crate) whole: Recorder,
}

impl Client {
    /// A client that begins at `now`. It has a slot for each source, a million at most.
    pub(crate) fn new(plan: Plan, now: Duration) -> Result<Self, hdrhistogram::CreationError> {
        let slots = plan.from.count().min(1 << 20) as usize;
        Ok(Self {
            pacer: Pacer::new(plan.rate, now),
            slots: vec![FREE; slots].into(),
            cursor: 0,
            swept: 0,
            open: 0,
            counts: ClientCounts::default(),
            handshake: Latency::new()?,
            whole: Recorder::new()?,
            plan,
        })
    }

    /// What became of connections so far.
    pub(crate) const fn counts(&self) -> ClientCounts {
        self.counts
    }

    /// Whether all connections were begun and ended.
    pub(crate) const fn is_done(&self) -> bool {
        self.counts.begun >= self.plan.count && self.open == 0
    }

    /// Begins no more connections.
    pub(crate) const fn finish(&mut self) {
        self.plan.count = self.counts.begun;
    }

    /// When the next connection is due.
    pub(crate) fn next(&self, now: Duration) -> Duration {
        self.pacer.time_of(self.counts.begun, now)
    }

    /// Answers what came, begins what is due, sends again what was lost; the number of frames taken and connections begun.
    pub(crate) fn turn(&mut self, ports: &mut impl Ports, port: PortIndex, now: Duration) -> usize {
        let mut burst = Burst::new();
        ports.receive(port, &mut burst);
        let mut work = burst.len();
        for mut frame in burst.drain(..) {
            let arrived = Arrived::read(ports.bytes_mut(&mut frame));
            ports.free(frame);
            if let Some(arrived) = arrived {
                self.arrived(&arrived, ports, port, now);
            }
        }
        work += self.begin(ports, port, now);
        self.sweep(ports, port, now);
        ports.flush();
        work
    }

    /// Begins the connections that are due; how many.
    fn begin(&mut self, ports: &mut impl Ports, port: PortIndex, now: Duration) -> usize {
        let room = self.plan.most.min(self.slots.len()).saturating_sub(self.open) as u64;
        let left = self.plan.count.saturating_sub(self.counts.begun);
        let due = self.pacer.due(now, self.counts.begun).min(left).min(room).min(BURST as u64);
        for begun in 0..due {
            let Some(index) = self.free_slot() else { return begun as usize };
            // By the clock, so that a server that remembers the last connection takes the next (RFC 9293, 3.4.1).
            let first = (now.as_micros() / 4) as u32;
            self.slots[index] = Connection {
                place: Place::SynSent,
                due: self.pacer.time_of(self.counts.begun, now),
                again: now + AGAIN,
                unacknowledged: first,
                next: first.wrapping_add(1),
                ..FREE
            };
            self.counts.begun += 1;
            self.open += 1;
            self.send(index, ports, port);
        }
        due as usize
    }

    fn free_slot(&mut self) -> Option<usize> {
        let slots = self.slots.len();
        let found = (0..slots).map(|n| (self.cursor + n) % slots).find(|at| self.slots[*at].place == Place::Free)?;
        self.cursor = (found + 1) % slots;
        Some(found)
    }

    /// The slot of the connection that a segment answers.
    fn slot_of(&self, end: Endpoint) -> Option<usize> {
        let ports = self.plan.from.ports()?;
        let port = end.port.host().checked_sub(ports.first).filter(|_| end.port.host() <= ports.last)?;
        let host = match (end.address, self.plan.from.first()) {
            (IpAddr::V4(a), IpAddr::V4(first)) => u128::from(a.to_bits().checked_sub(first.to_bits())?),
            (IpAddr::V6(a), IpAddr::V6(first)) => a.to_bits().checked_sub(first.to_bits())?,
            _ => return None,
        };
        let each = u128::from(ports.last - ports.first) + 1;
        let index = usize::try_from(host.checked_mul(each)? + u128::from(port)).ok()?;
        (index < self.slots.len()).then_some(index)
    }

    /// What a segment does to its connection.
    fn arrived(&mut self, arrived: &Arrived, ports: &mut impl Ports, port: PortIndex, now: Duration) {
        let Some(index) = self.slot_of(arrived.to) else { return };
        let connection = self.slots[index];
        if connection.place == Place::Free || self.destination(index) != arrived.from {
            return;
        }
        let has = |flag| arrived.flags.contains(flag);
        if has(TcpFlags::RST) {
            match connection.place {
                Place::SynSent => self.counts.refused += 1,
                _ => self.counts.reset += 1,
            }
            self.release(index);
        } else if connection.place == Place::SynSent {
            if has(TcpFlags::SYN.with(TcpFlags::ACK)) && arrived.acknowledgement == connection.next {
                self.opened(index, arrived, ports, port, now);
            }
        } else {
            self.went_on(index, arrived, ports, port, now);
        }
    }

    /// The handshake is done: the request goes out, or the end.
    fn opened(&mut self, index: usize, arrived: &Arrived, ports: &mut impl Ports, port: PortIndex, now: Duration) {
        self.counts.opened += 1;
        let connection = &mut self.slots[index];
        self.handshake.note(now, connection.due, Duration::ZERO);
        connection.unacknowledged = arrived.acknowledgement;
        connection.expected = arrived.end();
        (connection.tries, connection.again) = (0, now + AGAIN);
        if self.plan.request.is_empty() {
            connection.place = Place::Ending;
            connection.next = connection.next.wrapping_add(1);
        } else {
            connection.place = Place::Open;
            connection.next = connection.next.wrapping_add(self.plan.request.len() as u32);
        }
        self.send(index, ports, port);
    }

    /// A segment of an open connection.
    fn went_on(&mut self, index: usize, arrived: &Arrived, ports: &mut impl Ports, port: PortIndex, now: Duration) {
        let connection = &mut self.slots[index];
        let is_newer = arrived.acknowledgement.wrapping_sub(connection.unacknowledged) < 1 << 31;
        if is_newer && arrived.acknowledgement.wrapping_sub(connection.next).cast_signed() <= 0 {
            connection.unacknowledged = arrived.acknowledgement;
        }
        let occupies = arrived.end() != arrived.sequence;
        let is_expected = arrived.sequence == connection.expected;
        if occupies && is_expected {
            connection.expected = arrived.end();
            connection.is_ended |= arrived.flags.contains(TcpFlags::FIN);
            self.counts.bytes += u64::from(arrived.length);
        }
        let is_all_acknowledged = connection.unacknowledged == connection.next;
        if connection.place == Place::Open && connection.is_ended {
            connection.place = Place::Ending;
            connection.unacknowledged = connection.next;
            connection.next = connection.next.wrapping_add(1);
            (connection.tries, connection.again) = (0, now + AGAIN);
            self.send(index, ports, port);
        } else if connection.place == Place::Ending && connection.is_ended && is_all_acknowledged {
            if occupies {
                self.acknowledge(index, ports, port);
            }
            self.counts.completed += 1;
            let due = self.slots[index].due;
            self.whole.note(now, due, Duration::ZERO);
            self.release(index);
        } else if occupies {
            self.acknowledge(index, ports, port);
        }
    }

    fn release(&mut self, index: usize) {
        self.slots[index].place = Place::Free;
        self.open -= 1;
    }

    /// Sends again what was not acknowledged in time, and gives up what takes too long.
    fn sweep(&mut self, ports: &mut impl Ports, port: PortIndex, now: Duration) {
        for _ in 0..SWEEP.min(self.slots.len()) {
            let index = self.swept;
            self.swept = (self.swept + 1) % self.slots.len();
            let connection = &mut self.slots[index];
            if connection.place == Place::Free || now < connection.again {
                continue;
            }
            if now.saturating_sub(connection.due) > self.plan.timeout {
                self.counts.timed_out += 1;
                self.release(index);
                continue;
            }
            connection.tries = connection.tries.saturating_add(1);
            connection.again = now + AGAIN * 2u32.saturating_pow(u32::from(connection.tries));
            if connection.unacknowledged != connection.next {
                self.counts.retransmitted += 1;
                self.send(index, ports, port);
            }
        }
    }

    /// Sends what a connection has to send now: SYN, request or FIN.
    fn send(&self, index: usize, ports: &mut impl Ports, port: PortIndex) {
        let connection = self.slots[index];
        let (flags, payload): (TcpFlags, &[u8]) = match connection.place {
            Place::Free => return,
            Place::SynSent => (TcpFlags::SYN, &[]),
            Place::Open => (TcpFlags::ACK.with(TcpFlags::PSH), &self.plan.request),
            Place::Ending => (TcpFlags::ACK.with(TcpFlags::FIN), &[]),
        };
        let sequence = match connection.place {
            Place::Open => connection.next.wrapping_sub(payload.len() as u32),
            _ => connection.next.wrapping_sub(1),
        };
        self.write(index, &Segment { sequence, acknowledgement: connection.expected, flags, payload }, ports, port);
    }

    fn acknowledge(&self, index: usize, ports: &mut impl Ports, port: PortIndex) {
        let Connection { next, expected, .. } = self.slots[index];
        let segment = Segment { sequence: next, acknowledgement: expected, flags: TcpFlags::ACK, payload: &[] };
        self.write(index, &segment, ports, port);
    }

    /// A segment that finds no frame or no room in the ring is lost, and comes again by its timer.
    fn write(&self, index: usize, segment: &Segment<'_>, ports: &mut impl Ports, port: PortIndex) {
        let Some(mut frame) = ports.allocate() else { return };
        let (from, to) = (self.plan.from.at(index as u64), self.destination(index));
        let packet = Packet { link: self.plan.link, from, to, size: 0 };
        frame.set_len(packet.tcp_length(segment));
        packet.write_tcp(segment, ports.bytes_mut(&mut frame));
        if let Err(frame) = ports.transmit(port, frame) {
            ports.free(frame);
        }
    }

    /// Where the connection of a slot goes: slots take the destinations in turn.
    fn destination(&self, index: usize) -> Endpoint {
        self.plan.to.at(index as u64 % self.plan.to.count())
    }
}
