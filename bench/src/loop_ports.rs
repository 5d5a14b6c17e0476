//! Ports that cost as little as ports can: packets are made where they are received and forgotten where they are sent.
//!
//! What they still cost (taking a frame, writing its headers, giving it back) is measured alone by the same loop and
//! printed beside every result. Frames are reused last in, first out, as a memory port's stay in the cache.

#![allow(clippy::inline_always, reason = "one body for each kind of packet, whose places the compiler then knows")]

use std::sync::Arc;
use std::time::Duration;

use dataplane::ident::PortIndex;
use dataplane::port::{BURST, Burst, Frame, FramePool, Ports};

use crate::packets::{Family, Kind, Peer, Template};

/// The port that clients are on.
pub(crate) const CLIENTS: PortIndex = PortIndex(0);
/// The port that real servers are on.
pub(crate) const SERVERS: PortIndex = PortIndex(1);

/// Distance of frames in memory. No power of two: at 2 KiB the headers of a burst share two of the 64 sets of a
/// first-level cache, and the port would cost what the forwarding should be measured for.
const CHUNK: usize = 2048 + 3 * 64;
/// A burst in hand of each port and as many for what the worker sends of its own.
const FRAMES: u32 = 3 * BURST as u32;
/// Peers that are drawn together, two cache lines of them: drawing one at a time from millions would cost a cache miss
/// each, which no real port has.
const DRAWN: usize = 16;

/// Whose packets arrive, in which order.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// The client of each flow of a range once.
    Each(std::ops::Range<u32>),
    /// The clients of a range of flows at random for ever.
    Random(std::ops::Range<u32>),
    /// Servers to each of these peers once, in this order.
    EachPeer(Arc<[Peer]>),
    /// Servers to these peers, which stand in no order themselves, at random for ever.
    RandomPeers(Arc<[Peer]>),
}

/// Draws peers in an order.
#[derive(Clone, Debug)]
struct Draw {
    order: Order,
    /// Place among the peers.
    place: usize,
    /// State of the generator.
    state: u64,
}

impl Draw {
    #[inline(always)]
    fn next(&mut self, family: Family) -> Option<Peer> {
        match &mut self.order {
            Order::Each(range) => range.next().map(|flow| Peer::client(family, flow)),
            Order::Random(flows) => {
                let flow = flows.start + random(&mut self.state, flows.len()) as u32;
                Some(Peer::client(family, flow))
            }
            Order::EachPeer(peers) => {
                self.place += 1;
                peers.get(self.place - 1).copied()
            }
            Order::RandomPeers(peers) => {
                if self.place.is_multiple_of(DRAWN) {
                    self.place = random(&mut self.state, peers.len().div_ceil(DRAWN)) * DRAWN;
                }
                self.place += 1;
                // The last group may be short: the first peer stands for what it lacks.
                peers.get(self.place - 1).or(peers.first()).copied()
            }
        }
    }
}

/// The packets that arrive at a port.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// One for each size of a mix.
    templates: Vec<Template>,
    /// Place in the mix.
    turn: usize,
    draw: Draw,
    /// The next segment's sequence number. Rising by one a packet, it rises in every flow.
    sequence: u32,
}

impl Stream {
    /// Packets of the templates' sizes in turn.
    pub(crate) fn new(templates: &[Template], order: Order) -> Self {
        Self { templates: templates.to_vec(), turn: 0, draw: Draw { order, place: 0, state: 1 }, sequence: 0 }
    }

    /// The same with another beginning of what is random.
    pub(crate) const fn seeded(mut self, seed: u64) -> Self {
        self.draw.state = seed;
        self
    }

    /// The same with another first sequence number.
    pub(crate) const fn beginning(mut self, sequence: u32) -> Self {
        self.sequence = sequence;
        self
    }

    #[inline]
    fn receive(&mut self, pool: &mut FramePool<CHUNK>, burst: &mut Burst) {
        match self.templates.first().map(Template::kind).filter(|_| self.templates.len() == 1) {
            Some(Kind::TCP_V4) => self.receive_as(Some(Kind::TCP_V4), pool, burst),
            Some(Kind::TCP_V6) => self.receive_as(Some(Kind::TCP_V6), pool, burst),
            Some(Kind::UDP_V4) => self.receive_as(Some(Kind::UDP_V4), pool, burst),
            Some(Kind::UDP_V6) => self.receive_as(Some(Kind::UDP_V6), pool, burst),
            _ => self.receive_as(None, pool, burst),
        }
    }

    /// Packets of one size and this kind, or of whatever the templates are.
    #[inline(always)]
    fn receive_as(&mut self, only: Option<Kind>, pool: &mut FramePool<CHUNK>, burst: &mut Burst) {
        for _ in 0..burst.remaining_capacity() {
            let turn = if only.is_some() { 0 } else { self.turn };
            let Some(template) = self.templates.get(turn) else { return };
            let kind = only.unwrap_or(template.kind());
            let Some(peer) = self.draw.next(kind.family()) else { return };
            let Some(mut frame) = pool.allocate() else { return };
            frame.set_len(template.length());
            template.write(kind, peer, self.sequence, pool.bytes_mut(&frame));
            self.sequence = self.sequence.wrapping_add(1);
            if only.is_none() {
                self.turn = if turn + 1 >= self.templates.len() { 0 } else { turn + 1 };
            }
            burst.push(frame);
        }
    }
}

/// A number below `range`: the high half of Knuth's MMIX generator is random enough to choose a flow.
#[inline]
pub(crate) fn random(state: &mut u64, range: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (((*state >> 32) * range as u64) >> 32) as usize
}

/// Two ports: packets of clients arrive on [`CLIENTS`], of servers on [`SERVERS`], and whatever is sent on either is
/// counted.
#[derive(Debug)]
pub(crate) struct LoopPorts {
    pool: FramePool<CHUNK>,
    requests: Option<Stream>,
    replies: Option<Stream>,
    sent: u64,
}

impl LoopPorts {
    /// Ports on which nothing arrives yet.
    pub(crate) fn new() -> Self {
        Self { pool: FramePool::new(FRAMES), requests: None, replies: None, sent: 0 }
    }

    /// Lets these packets arrive from now on.
    pub(crate) fn load(&mut self, requests: Option<Stream>, replies: Option<Stream>) {
        self.requests = requests;
        self.replies = replies;
    }

    /// Frames sent so far.
    pub(crate) const fn sent(&self) -> u64 {
        self.sent
    }

    /// Largest frame, in bytes.
    pub(crate) const fn largest() -> usize {
        1514
    }
}

impl Ports for LoopPorts {
    fn count(&self) -> usize {
        2
    }

    #[inline]
    fn receive(&mut self, port: PortIndex, burst: &mut Burst) {
        let stream = if port == CLIENTS { &mut self.requests } else { &mut self.replies };
        if let Some(stream) = stream {
            stream.receive(&mut self.pool, burst);
        }
    }

    #[inline]
    fn bytes(&self, frame: &Frame) -> &[u8] {
        self.pool.bytes(frame)
    }

    #[inline]
    fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.pool.bytes_mut(frame)
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.pool.allocate()
    }

    #[inline]
    fn transmit(&mut self, _port: PortIndex, frame: Frame) -> Result<(), Frame> {
        self.sent += 1;
        self.pool.free(frame);
        Ok(())
    }

    #[inline]
    fn free(&mut self, frame: Frame) {
        self.pool.free(frame);
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _timeout: Duration) {}
}

/// One turn of a worker that does nothing: every burst leaves as it came. The bare port's cost.
#[inline]
pub(crate) fn bare_turn(ports: &mut impl Ports) -> usize {
    let mut burst = Burst::new();
    let mut taken = 0;
    for port in [CLIENTS, SERVERS] {
        ports.receive(port, &mut burst);
        taken += burst.len();
        for frame in burst.drain(..) {
            if let Err(frame) = ports.transmit(SERVERS, frame) {
                ports.free(frame);
            }
        }
    }
    ports.flush();
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{Segment, Sender, tests::shape};

    fn ports(order: Order) -> LoopPorts {
        let mut ports = LoopPorts::new();
        let template = Template::new(shape(Family::V4, Sender::Client, 64), Segment::Ack);
        ports.load(Some(Stream::new(&[template], order)), None);
        ports
    }

    #[test]
    fn each_flow_arrives_once_and_every_frame_comes_back() {
        let mut ports = ports(Order::Each(0..100));
        assert_eq!(bare_turn(&mut ports), 64);
        assert_eq!(bare_turn(&mut ports), 36);
        assert_eq!(bare_turn(&mut ports), 0);
        assert_eq!(ports.sent(), 100);
        assert_eq!(ports.pool.available(), FRAMES as usize);
    }

    #[test]
    fn random_flows_are_all_drawn_and_none_beyond() {
        let peers: Arc<[Peer]> = (0..100).map(|n| Peer { host: 1000 + n, port: 1, server: 1 }).collect();
        for order in [Order::Random(0..100), Order::RandomPeers(peers)] {
            let mut draw = Draw { order, place: 0, state: 1 };
            let mut drawn = [false; 100];
            for _ in 0..5_000 {
                let peer = draw.next(Family::V4).unwrap();
                let flow = if peer.server == 0 { peer.flow(Family::V4) } else { peer.host - 1000 };
                drawn[flow as usize] = true;
            }
            assert!(drawn.iter().all(|d| *d));
        }
    }

    #[test]
    fn sizes_take_turns() {
        let template = |size| Template::new(shape(Family::V4, Sender::Client, size), Segment::Ack);
        let mut ports = LoopPorts::new();
        ports.load(Some(Stream::new(&[template(64), template(1514)], Order::Each(0..4))), None);
        let mut burst = Burst::new();
        ports.receive(CLIENTS, &mut burst);
        assert_eq!(burst.iter().map(Frame::len).collect::<Vec<_>>(), [64, 1514, 64, 1514]);
    }

    #[test]
    fn a_frame_that_was_changed_is_whole_again_when_it_is_reused() {
        let mut ports = ports(Order::Each(0..1000));
        let mut fresh = None;
        for _ in 0..3 {
            let mut burst = Burst::new();
            ports.receive(CLIENTS, &mut burst);
            for mut frame in burst.drain(..) {
                let bytes = ports.bytes(&frame).to_vec();
                assert!(crate::verify::parse(&bytes).is_ok());
                fresh.get_or_insert(bytes.len());
                assert!(frame.grow_front(20));
                ports.bytes_mut(&mut frame).fill(0xff);
                ports.transmit(SERVERS, frame).unwrap();
            }
        }
        assert_eq!(fresh, Some(64));
    }
}
