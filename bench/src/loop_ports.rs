//! Ports that cost as little as ports can: packets are made where they are received and forgotten where they are sent.
//!
//! What they still cost (taking a frame, writing its headers, giving it back) is measured alone by the same loop and
//! printed beside every result. Frames are reused last in, first out, as a memory port's stay in the cache.

use std::time::Duration;

use dataplane::ident::PortIndex;
use dataplane::port::{BURST, Burst, Frame, FramePool, Ports};

use crate::packets::Template;

/// The port that clients are on.
pub(crate) const CLIENTS: PortIndex = PortIndex(0);
/// The port that real servers are on.
pub(crate) const SERVERS: PortIndex = PortIndex(1);

/// Distance of frames in memory. No power of two: at 2 KiB the headers of a burst share two of the 64 sets of a
/// first-level cache, and the port would cost what the forwarding should be measured for.
const CHUNK: usize = 2048 + 3 * 64;
/// A burst in hand and as many for what the worker sends of its own.
const FRAMES: u32 = 2 * BURST as u32;

/// Which flows' packets arrive, in which order.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// Each flow of a range once.
    Each(std::ops::Range<u32>),
    /// Flows 0 to `flows - 1` at random for ever.
    Random {
        /// How many flows there are.
        flows: u32,
        /// State of the generator.
        state: u64,
    },
}

impl Order {
    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Each(range) => range.next(),
            Self::Random { flows, state } => {
                // Knuth's MMIX generator; its high half is random enough to choose a flow.
                *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                Some((((*state >> 32) * u64::from(*flows)) >> 32) as u32)
            }
        }
    }
}

/// Two ports: packets of clients arrive on [`CLIENTS`], and whatever is sent on either is counted.
#[derive(Debug)]
pub(crate) struct LoopPorts {
    pool: FramePool,
    template: Template,
    order: Order,
    sent: u64,
}

impl LoopPorts {
    /// Ports on which these packets arrive.
    pub(crate) fn new(template: Template, order: Order) -> Self {
        Self { pool: FramePool::new(FRAMES, CHUNK), template, order, sent: 0 }
    }

    /// Lets other packets arrive from now on.
    pub(crate) fn load(&mut self, template: Template, order: Order) {
        self.template = template;
        self.order = order;
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
        if port != CLIENTS {
            return;
        }
        for _ in 0..burst.remaining_capacity() {
            let Some(flow) = self.order.next() else { return };
            let Some(mut frame) = self.pool.allocate() else { return };
            frame.set_len(self.template.length());
            self.template.write(flow, self.pool.bytes_mut(&frame));
            burst.push(frame);
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
    use crate::packets::{Family, Segment, tests::shape};

    fn ports(order: Order) -> LoopPorts {
        LoopPorts::new(Template::new(shape(Family::V4, 64), Segment::Ack), order)
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
        let mut order = Order::Random { flows: 100, state: 1 };
        let mut drawn = [false; 100];
        for _ in 0..5_000 {
            drawn[order.next().unwrap() as usize] = true;
        }
        assert!(drawn.iter().all(|d| *d));
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
