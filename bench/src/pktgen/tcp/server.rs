//! A TCP server without state: every answer follows from the segment that it answers.
//!
//! Its initial sequence number is a hash of the connection's ends, so an acknowledgement shows how far the connection is.
//! A request is answered, and the connection ended, in one segment; a client that ends it without a request is followed.

use dataplane::ident::{Endpoint, NetPort, PortIndex};
use dataplane::port::{Burst, Ports};
use dataplane::wire::TcpFlags;
use serde::Serialize;

use super::{Arrived, Segment};
use crate::stream::{Link, Packet, mix};

/// What a server saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Served {
    pub(crate) received: u64,
    pub(crate) syns: u64,
    pub(crate) requests: u64,
    pub(crate) fins: u64,
    pub(crate) resets: u64,
    /// Answers that the ring did not take.
    pub(crate) tx_full: u64,
    /// No TCP, or a wrong checksum.
    pub(crate) ignored: u64,
}

/// A server with one answer for every request.
#[derive(Debug)]
pub(crate) struct Server {
    answer: Vec<u8>,
    served: Served,
}

const FIN_ACK: TcpFlags = TcpFlags::FIN.with(TcpFlags::ACK);

impl Server {
    /// One that answers with so many bytes, 1400 at most.
    pub(crate) fn new(answer: usize) -> Self {
        Self { answer: vec![b'x'; answer.min(1400)], served: Served::default() }
    }

    /// What it saw so far.
    pub(crate) const fn served(&self) -> Served {
        self.served
    }

    /// Answers a burst; the number of frames.
    pub(crate) fn turn(&mut self, ports: &mut impl Ports, port: PortIndex) -> usize {
        let mut burst = Burst::new();
        ports.receive(port, &mut burst);
        let taken = burst.len();
        for mut frame in burst.drain(..) {
            self.served.received += 1;
            let arrived = Arrived::read(ports.bytes_mut(&mut frame));
            let Some(arrived) = arrived else {
                self.served.ignored += 1;
                ports.free(frame);
                continue;
            };
            let Some(segment) = self.answer(&arrived) else {
                ports.free(frame);
                continue;
            };
            let packet = back(&arrived);
            let length = packet.tcp_length(&segment);
            frame.set_len(length);
            packet.write_tcp(&segment, ports.bytes_mut(&mut frame));
            if let Err(frame) = ports.transmit(port, frame) {
                self.served.tx_full += 1;
                ports.free(frame);
            }
        }
        ports.flush();
        taken
    }

    /// What a segment is answered with.
    fn answer(&mut self, arrived: &Arrived) -> Option<Segment<'_>> {
        let has = |flag| arrived.flags.contains(flag);
        let first = initial(arrived.from, arrived.to);
        let answer = |sequence, flags, payload| Segment { sequence, acknowledgement: arrived.end(), flags, payload };
        if has(TcpFlags::RST) {
            self.served.resets += 1;
            return None;
        }
        if has(TcpFlags::SYN) {
            self.served.syns += 1;
            return Some(answer(first, TcpFlags::SYN.with(TcpFlags::ACK), &[]));
        }
        if arrived.length > 0 {
            self.served.requests += 1;
            return Some(answer(arrived.acknowledgement, FIN_ACK.with(TcpFlags::PSH), &self.answer));
        }
        if !has(TcpFlags::FIN) {
            return None;
        }
        self.served.fins += 1;
        let is_ended = arrived.acknowledgement != first.wrapping_add(1);
        Some(answer(arrived.acknowledgement, if is_ended { TcpFlags::ACK } else { FIN_ACK }, &[]))
    }
}

/// A packet to where a segment came from.
fn back(arrived: &Arrived) -> Packet {
    let Link { from, to } = arrived.link;
    Packet { link: Link { from: to, to: from }, from: arrived.to, to: arrived.from, size: 0 }
}

/// The initial sequence number of a connection.
fn initial(client: Endpoint, server: Endpoint) -> u32 {
    let address = |end: Endpoint| match end.address {
        std::net::IpAddr::V4(address) => u64::from(address.to_bits()),
        std::net::IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 64) as u64 ^ bits as u64
        }
    };
    let ports = |a: NetPort, b: NetPort| u64::from(a.host()) << 16 | u64::from(b.host());
    mix(mix(address(client)) ^ address(server) ^ ports(client.port, server.port) << 32) as u32
}
