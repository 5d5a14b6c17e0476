//! Makes the packets of all streams, each when it is due, and sends them on a port.

use std::time::Duration;

use dataplane::ident::{MacAddr, PortIndex};
use dataplane::port::{BURST, Frame, Ports};
use dataplane::wire::TcpFlags;
use serde::Serialize;

use crate::stream::{Endpoints, Kind, Link, Order, Pacer, Packet, Probe, Rate, Sizes, mix};
use crate::tcp::Segment;

/// A stream whose packets can be made: with its addresses and its schedule.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) kind: Kind,
    pub(crate) from: Endpoints,
    pub(crate) to: Endpoints,
    pub(crate) sizes: Sizes,
    pub(crate) rate: Rate,
    pub(crate) order: Order,
    pub(crate) to_mac: MacAddr,
}

/// All streams of a run and how far they are.
#[derive(Debug)]
pub(crate) struct Generator {
    run: u8,
    from_mac: MacAddr,
    streams: Vec<Running>,
    sent: Sent,
    /// Packets that may still be sent.
    left: u64,
}

#[derive(Debug)]
struct Running {
    stream: Stream,
    pacer: Pacer,
    sent: u64,
}

/// What was sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    /// Without FCS.
    pub(crate) bytes: u64,
    /// Times that the ring was full, or no frame was free: the kernel had not sent what was queued.
    pub(crate) stalls: u64,
}

impl Generator {
    /// Begins the streams at `now`; all of them together send `count` packets at most.
    pub(crate) fn new(run: u8, from_mac: MacAddr, streams: &[Stream], count: u64, now: Duration) -> Self {
        let running =
            |stream: &Stream| Running { pacer: Pacer::new(stream.rate, now), stream: stream.clone(), sent: 0 };
        Self { run, from_mac, streams: streams.iter().map(running).collect(), sent: Sent::default(), left: count }
    }

    /// Sends what is due, a burst of each stream at most; the number of packets.
    pub(crate) fn turn(&mut self, ports: &mut impl Ports, port: PortIndex, now: Duration) -> usize {
        let before = self.sent.packets;
        for index in 0..self.streams.len() {
            if !self.burst(index, ports, port, now) {
                self.sent.stalls += 1;
                break;
            }
        }
        ports.flush();
        (self.sent.packets - before) as usize
    }

    /// Sends what is due of one stream; false when the port takes no more.
    fn burst(&mut self, index: usize, ports: &mut impl Ports, port: PortIndex, now: Duration) -> bool {
        let Some(running) = self.streams.get_mut(index) else { return true };
        let due = running.pacer.due(now, running.sent).min(self.left).min(BURST as u64);
        for _ in 0..due {
            let Some(mut frame) = ports.allocate() else { return false };
            let packet = running.packet(self.from_mac);
            running.write(&packet, Mark { run: self.run, stream: index as u8 }, now, &mut frame, ports);
            let bytes = frame.len() as u64;
            if let Err(frame) = ports.transmit(port, frame) {
                ports.free(frame);
                return false;
            }
            running.sent += 1;
            self.left -= 1;
            self.sent.packets += 1;
            self.sent.bytes += bytes;
        }
        true
    }

    /// When the next packet is due.
    pub(crate) fn next(&self, now: Duration) -> Duration {
        self.streams.iter().map(|s| s.pacer.time_of(s.sent, now)).min().unwrap_or(now)
    }

    /// Whether all that may be sent is sent.
    pub(crate) const fn is_done(&self) -> bool {
        self.left == 0
    }

    /// What was sent so far.
    pub(crate) const fn sent(&self) -> Sent {
        self.sent
    }

    /// Packets of each stream.
    pub(crate) fn by_stream(&self) -> Vec<u64> {
        self.streams.iter().map(|s| s.sent).collect()
    }
}

impl Running {
    /// The next packet.
    #[inline]
    fn packet(&self, from_mac: MacAddr) -> Packet {
        let Stream { from, to, sizes, order, to_mac, .. } = &self.stream;
        let sources = from.count();
        let flow = order.flow(self.sent, sources.saturating_mul(to.count()));
        Packet {
            link: Link { from: from_mac, to: *to_mac },
            from: from.at(flow % sources),
            to: to.at(flow / sources),
            size: sizes.at(self.sent),
        }
    }

    #[inline]
    fn write(&self, packet: &Packet, mark: Mark, now: Duration, frame: &mut Frame, ports: &mut impl Ports) {
        match self.stream.kind {
            Kind::Udp => {
                let due = self.pacer.time_of(self.sent, now);
                let late = now.saturating_sub(due);
                let Mark { run, stream } = mark;
                frame.set_len(packet.udp_length());
                packet.write_udp(&Probe { run, stream, sequence: self.sent as u32, due, late }, ports.bytes_mut(frame));
            }
            Kind::Syn => {
                let sequence = mix(self.sent) as u32;
                let segment = Segment { sequence, acknowledgement: 0, flags: TcpFlags::SYN, payload: &[] };
                frame.set_len(packet.tcp_length(&segment));
                packet.write_tcp(&segment, ports.bytes_mut(frame));
            }
        }
    }
}

/// Whose packet it is.
#[derive(Clone, Copy, Debug)]
struct Mark {
    run: u8,
    stream: u8,
}

#[cfg(test)]
mod tests {
    use dataplane::port::MemoryPorts;

    use super::*;
    use crate::measure::{Collector, Runs};

    const BEGIN: Duration = Duration::from_secs(100);
    const OUT: PortIndex = PortIndex(0);

    fn stream(rate: &str, size: &str) -> Stream {
        Stream {
            kind: Kind::Udp,
            from: "10.0.0.1:1024-1027".parse().unwrap(),
            to: "10.9.0.1-10.9.0.2:7".parse().unwrap(),
            sizes: size.parse().unwrap(),
            rate: rate.parse().unwrap(),
            order: Order::Sequential,
            to_mac: MacAddr([4; 6]),
        }
    }

    fn generator(streams: &[Stream], count: u64) -> Generator {
        Generator::new(1, MacAddr([2; 6]), streams, count, BEGIN)
    }

    #[test]
    fn packets_leave_when_they_are_due_and_no_more_than_allowed() {
        let mut ports = MemoryPorts::new(1, 256);
        let mut generator = generator(&[stream("1000", "60"), stream("100", "60")], 30);
        assert_eq!(generator.turn(&mut ports, OUT, BEGIN), 2, "the first of each");
        assert_eq!(generator.turn(&mut ports, OUT, BEGIN), 0);
        assert_eq!(generator.next(BEGIN), BEGIN + Duration::from_millis(1));
        assert_eq!(generator.turn(&mut ports, OUT, BEGIN + Duration::from_millis(10)), 11);
        assert_eq!(generator.by_stream(), [11, 2]);
        assert_eq!(generator.turn(&mut ports, OUT, BEGIN + Duration::from_secs(1)), 17);
        assert!(generator.is_done());
    }

    #[test]
    fn a_full_port_delays_packets_and_loses_none() {
        let mut ports = MemoryPorts::new(1, 40);
        let mut collector = Collector::new(Runs::Only(1)).unwrap();
        let mut generator = generator(&[stream("max", "imix")], 100);
        let mut turns = 0;
        while !generator.is_done() {
            generator.turn(&mut ports, OUT, BEGIN);
            turns += 1;
            while let Some(frame) = ports.sent(OUT) {
                assert!(ports.inject(OUT, &frame));
                collector.turn(&mut ports, OUT);
            }
        }
        assert_eq!((turns, generator.sent().packets, generator.sent().stalls), (3, 100, 2));
        let received = collector.result(Some(&generator.by_stream()));
        assert_eq!((received.packets, received.lost, received.reordered), (100, 0, 0));
        assert_eq!(received.bytes, generator.sent().bytes);
    }

    #[test]
    fn every_source_sends_to_every_destination() {
        let mut ports = MemoryPorts::new(1, 64);
        let mut generator = generator(&[stream("max", "60")], 8);
        generator.turn(&mut ports, OUT, BEGIN);
        // The last byte of the destination and the source port.
        let flows: Vec<(u8, u16)> = std::iter::from_fn(|| ports.sent(OUT))
            .map(|frame| (frame[33], u16::from_be_bytes([frame[34], frame[35]])))
            .collect();
        assert_eq!(flows[..4], [(1, 1024), (1, 1025), (1, 1026), (1, 1027)]);
        assert_eq!(flows[4..], [(2, 1024), (2, 1025), (2, 1026), (2, 1027)]);
    }
}
