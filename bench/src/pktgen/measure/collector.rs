//! Takes frames from a port and sorts their probes into streams.

use std::io::{self, Write};
use std::time::Duration;

use dataplane::clock;
use dataplane::ident::PortIndex;
use dataplane::port::{Burst, Ports};
use dataplane::wire::{checksum, number, parse, udp};
use serde::Serialize;

use super::{Latency, LatencyResult, Recorder, Tally};
use crate::report::Rate;
use crate::stream::Probe;

/// Whose probes count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Those of every sender.
    All,
    /// Those of one run: what is left of the one before is foreign.
    Only(u8),
}

/// Streams that are told apart.
const MOST_STREAMS: usize = 1024;

/// What was received so far.
#[derive(Debug)]
pub(crate) struct Collector {
    runs: Runs,
    streams: Vec<(Key, Tally)>,
    /// The stream of the last packet: mostly that of the next.
    last: usize,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    foreign: u64,
    bad_checksum: u64,
    latency: Recorder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    run: u8,
    stream: u8,
}

/// What is told of what was received.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Received {
    /// All frames that the port gave.
    pub(crate) frames: u64,
    /// Their bytes, without FCS.
    pub(crate) bytes: u64,
    /// Frames without a probe of these runs.
    pub(crate) foreign: u64,
    /// Frames with a wrong transport checksum.
    pub(crate) bad_checksum: u64,
    /// All streams together.
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicates: u64,
    pub(crate) streams: Vec<StreamResult>,
    pub(crate) latency: Option<LatencyResult>,
}

/// What is told of one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StreamResult {
    pub(crate) run: u8,
    pub(crate) stream: u8,
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    pub(crate) duplicates: u64,
}

impl Collector {
    /// One that counts the probes of `runs`.
    pub(crate) fn new(runs: Runs) -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            runs,
            streams: Vec::new(),
            last: 0,
            frames: 0,
            bytes: 0,
            foreign: 0,
            bad_checksum: 0,
            latency: Recorder::new()?,
        })
    }

    /// Takes a burst from a port; the number of frames.
    pub(crate) fn turn(&mut self, ports: &mut impl Ports, port: PortIndex) -> usize {
        let mut burst = Burst::new();
        ports.receive(port, &mut burst);
        if burst.is_empty() {
            return 0;
        }
        // Read after the frames were there, so that no latency is negative.
        let now = clock::since_boot();
        let taken = burst.len();
        for mut frame in burst.drain(..) {
            self.note(ports.bytes_mut(&mut frame), now);
            ports.free(frame);
        }
        taken
    }

    /// Notes a frame that came at `now`. A transport checksum that was left to a device is completed on the way.
    fn note(&mut self, frame: &mut [u8], now: Duration) {
        self.frames += 1;
        self.bytes += frame.len() as u64;
        let Ok(headers) = parse(frame) else {
            self.foreign += 1;
            return;
        };
        if checksum::settle(frame, &headers).is_err() {
            self.bad_checksum += 1;
            return;
        }
        let payload = frame.get(headers.l4 as usize + udp::LENGTH..headers.end as usize);
        let probe = payload.filter(|_| headers.protocol == number::UDP).and_then(Probe::decode);
        let Some(probe) = probe.filter(|p| matches!(self.runs, Runs::All) || self.runs == Runs::Only(p.run)) else {
            self.foreign += 1;
            return;
        };
        let Some(tally) = self.tally(Key { run: probe.run, stream: probe.stream }) else {
            self.foreign += 1;
            return;
        };
        tally.note(probe.sequence);
        self.latency.note(now, probe.due, probe.late);
    }

    /// What is known of a stream; `None` when there are too many.
    #[inline]
    fn tally(&mut self, key: Key) -> Option<&mut Tally> {
        if self.streams.get(self.last).is_none_or(|(k, _)| *k != key) {
            self.last = match self.streams.iter().position(|(k, _)| *k == key) {
                Some(at) => at,
                None if self.streams.len() < MOST_STREAMS => {
                    self.streams.push((key, Tally::new()));
                    self.streams.len() - 1
                }
                None => return None,
            };
        }
        self.streams.get_mut(self.last).map(|(_, tally)| tally)
    }

    /// The latency since the last call, which is added to the whole and begins anew; `visit` may keep it.
    pub(crate) fn interval(&mut self, visit: impl FnOnce(&Latency)) {
        self.latency.interval(visit);
    }

    /// Probes of all streams.
    pub(crate) fn packets(&self) -> u64 {
        self.streams.iter().map(|(_, tally)| tally.received()).sum()
    }

    /// Numbers up to the highest seen that did not come, of all streams.
    pub(crate) fn lost(&self) -> u64 {
        self.streams.iter().map(|(_, tally)| tally.lost()).sum()
    }

    /// The result. `sent` has the packets of each stream, where the sender is known; else what is missing after the
    /// last packet that came is not known either.
    pub(crate) fn result(&mut self, sent: Option<&[u64]>) -> Received {
        if let (Runs::Only(run), Some(sent)) = (self.runs, sent) {
            // A stream of which nothing came is lost, too.
            for stream in 0..sent.len() {
                self.tally(Key { run, stream: stream as u8 });
            }
        }
        let sent_of = |stream: u8| sent.and_then(|s| s.get(usize::from(stream)));
        let stream = |(key, tally): &(Key, Tally)| StreamResult {
            run: key.run,
            stream: key.stream,
            packets: tally.received(),
            lost: sent_of(key.stream).map_or_else(|| tally.lost(), |n| tally.lost_of(*n)),
            reordered: tally.reordered(),
            duplicates: tally.duplicates(),
        };
        let streams: Vec<StreamResult> = self.streams.iter().map(stream).collect();
        let sum = |of: fn(&StreamResult) -> u64| streams.iter().map(of).sum();
        Received {
            frames: self.frames,
            bytes: self.bytes,
            foreign: self.foreign,
            bad_checksum: self.bad_checksum,
            packets: sum(|s| s.packets),
            lost: sum(|s| s.lost),
            reordered: sum(|s| s.reordered),
            duplicates: sum(|s| s.duplicates),
            latency: self.latency.result(),
            streams,
        }
    }
}

impl Received {
    /// A few lines.
    pub(crate) fn text(&self, out: &mut impl Write, seconds: f64) -> io::Result<()> {
        let Self { packets, lost, reordered, duplicates, foreign, bad_checksum, .. } = self;
        let rate = Rate::of(self.frames, self.bytes, seconds);
        writeln!(out, "  received {packets}, {rate}; lost {lost}, reordered {reordered}, duplicates {duplicates}")?;
        if *foreign > 0 || *bad_checksum > 0 {
            writeln!(out, "  and {foreign} frames of others, {bad_checksum} with a wrong checksum")?;
        }
        self.latency.map_or(Ok(()), |latency| latency.text(out))
    }
}

#[cfg(test)]
mod tests {
    use dataplane::ident::{Endpoint, MacAddr, NetPort};
    use dataplane::port::MemoryPorts;

    use super::*;
    use crate::stream::{Link, Packet};

    const PORT: PortIndex = PortIndex(0);

    fn datagram(run: u8, stream: u8, sequence: u32) -> Vec<u8> {
        let end = |last| Endpoint { address: [10, 0, 0, last].into(), port: NetPort::new(7) };
        let link = Link { from: MacAddr([2; 6]), to: MacAddr([4; 6]) };
        let packet = Packet { link, from: end(1), to: end(2), size: 60 };
        let due = clock::since_boot();
        let mut frame = vec![0; 60];
        packet.write_udp(&Probe { run, stream, sequence, due, late: Duration::ZERO }, &mut frame);
        frame
    }

    #[test]
    fn streams_are_told_apart_and_foreign_frames_are_none_of_them() {
        let mut ports = MemoryPorts::new(1, 64);
        let mut collector = Collector::new(Runs::Only(1)).unwrap();
        let mut broken = datagram(1, 0, 1);
        broken[50] ^= 1;
        let frames = [datagram(1, 0, 0), datagram(1, 1, 0), datagram(1, 0, 2), datagram(2, 0, 1), broken, vec![0; 60]];
        assert!(frames.iter().all(|frame| ports.inject(PORT, frame)));
        assert_eq!(collector.turn(&mut ports, PORT), 6);
        assert_eq!(ports.available(), 64);
        let received = collector.result(Some(&[4, 1, 5]));
        assert_eq!((received.packets, received.foreign, received.bad_checksum), (3, 2, 1));
        let lost: Vec<(u8, u64)> = received.streams.iter().map(|s| (s.stream, s.lost)).collect();
        assert_eq!(lost, [(0, 2), (1, 0), (2, 5)], "also those of which nothing came");
        assert_eq!(received.lost, 7);
        assert!(received.latency.unwrap().corrected_ns.max < 1_000_000_000);
    }

    #[test]
    fn a_sink_counts_every_run_for_itself() {
        let mut ports = MemoryPorts::new(1, 64);
        let mut collector = Collector::new(Runs::All).unwrap();
        for frame in [datagram(1, 0, 0), datagram(2, 0, 0), datagram(1, 0, 1)] {
            assert!(ports.inject(PORT, &frame));
        }
        collector.turn(&mut ports, PORT);
        let received = collector.result(None);
        assert_eq!((received.packets, received.lost, received.duplicates), (3, 0, 0));
        assert_eq!(received.streams.len(), 2);
    }
}
