//! What is to be measured: flows, their packets, and on which cores.

use std::ops::Range;

use dataplane::ident::Protocol;
use dataplane::service::Method;

use crate::packets::{Family, Segment, Sender, Size, Template};
use crate::results::Row;
use crate::scene::{Handshake, Scene};

/// Whose packets are forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flowing {
    /// Those of clients.
    Request,
    /// Those of real servers.
    Reply,
    /// As many of each.
    Both,
}

impl Flowing {
    /// What they are called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Request => "requests",
            Self::Reply => "replies",
            Self::Both => "both",
        }
    }
}

/// What to measure.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) method: Method,
    pub(crate) family: Family,
    pub(crate) protocol: Protocol,
    pub(crate) handshake: Handshake,
    pub(crate) direction: Flowing,
    pub(crate) flows: u32,
    pub(crate) size: Size,
    /// Packets of each worker, over all repetitions.
    pub(crate) packets: u64,
    /// The core of each worker.
    pub(crate) cores: Vec<usize>,
    pub(crate) repetitions: u32,
    /// Services, over which the workers are spread.
    pub(crate) services: u16,
}

/// Flows that are opened before their next segment comes: few enough that the table sees none as embryonic for long.
const CHUNK: u32 = 4096;

impl Plan {
    /// The director for it, with room for an eighth more flows, so that no embryonic flow has to go.
    pub(crate) fn scene(&self) -> Scene {
        Scene {
            method: self.method,
            family: self.family,
            protocol: self.protocol,
            handshake: self.handshake,
            capacity: self.flows + self.flows / 8 + 4096,
            workers: self.cores.len(),
            services: self.services,
        }
    }

    /// The packets of a kind to or from a service, one template for each size.
    pub(crate) fn templates(&self, sender: Sender, service: u16, segment: Segment) -> Vec<Template> {
        let scene = self.scene();
        let template = |size: &usize| Template::new(scene.shape(sender, service, *size), segment);
        self.size.sizes().iter().map(template).collect()
    }

    /// What opens a flow.
    pub(crate) const fn opening(&self) -> Segment {
        match self.protocol {
            Protocol::Tcp => Segment::Syn,
            Protocol::Udp | Protocol::Sctp => Segment::Datagram,
        }
    }

    /// What comes after it, from either side.
    pub(crate) const fn later(&self) -> Segment {
        match self.protocol {
            Protocol::Tcp => Segment::Ack,
            Protocol::Udp | Protocol::Sctp => Segment::Datagram,
        }
    }

    /// Bytes of a frame as it arrives, without FCS; of a mix, on average.
    pub(crate) fn length(&self) -> usize {
        let templates = self.templates(Sender::Client, 0, self.later());
        templates.iter().map(Template::length).sum::<usize>() / templates.len().max(1)
    }

    /// The beginning of a row: mode, family and transport.
    pub(crate) fn describe(&self) -> Row {
        let mode = match self.method {
            Method::Nat => "NAT",
            Method::Dr => "DR",
            Method::Tun => "TUN",
            Method::FullNat => "FULLNAT",
        };
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        Row::default().with("mode", mode).with("family", family).with("protocol", self.protocol.name())
    }

    /// The flows that a worker opens.
    pub(crate) fn share(&self, worker: usize) -> Range<u32> {
        let workers = self.cores.len() as u64;
        let border = |n: usize| (u64::from(self.flows) * n as u64 / workers) as u32;
        border(worker)..border(worker + 1)
    }

    /// The service of a worker's flows.
    pub(crate) fn service(&self, worker: usize) -> u16 {
        worker as u16 % self.services.max(1)
    }
}

/// A range in parts that are opened together.
pub(crate) fn chunks(range: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let end = range.end;
    range.step_by(CHUNK as usize).map(move |start| start..end.min(start.saturating_add(CHUNK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_the_whole_range_once() {
        let parts: Vec<_> = chunks(5..CHUNK + 10).collect();
        assert_eq!(parts, [5..CHUNK + 5, CHUNK + 5..CHUNK + 10]);
        assert_eq!(chunks(3..3).count(), 0);
    }
}
