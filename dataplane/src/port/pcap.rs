//! Ports for replay: packets of captures come in one at a time, what the worker sends is kept in the order of sending.
//!
//! The port does no file access of its own ([`super::capture`] does): nothing on the worker's way makes system calls.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Burst, Frame, FramePool, HEADROOM, Ports};
use crate::ident::PortIndex;

/// Bytes that a frame holds: captures may contain packets larger than a link's MTU (segments merged on receipt).
const FRAME_BYTES: usize = 65_535;
/// A burst in hand, as many frames again for what the worker sends of its own, and those that it may hold for a while.
const FRAMES: u32 = 8 * super::BURST as u32;

/// All ports of one worker in a replay.
#[derive(Debug)]
pub struct PcapPorts {
    pool: FramePool<{ FRAME_BYTES + HEADROOM as usize }>,
    arrived: Vec<VecDeque<Frame>>,
    departed: VecDeque<(PortIndex, Frame)>,
}

/// A frame that did not fit: the worker has to take some first, or there is no such port.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("port {} has no room for another packet", .0.0)]
pub struct NoRoom(pub PortIndex);

impl PcapPorts {
    /// `ports` ports with nothing to receive.
    pub fn new(ports: usize) -> Self {
        Self {
            pool: FramePool::new(FRAMES),
            arrived: (0..ports).map(|_| VecDeque::with_capacity(FRAMES as usize)).collect(),
            departed: VecDeque::with_capacity(FRAMES as usize),
        }
    }

    /// Puts a captured packet into a port's input. Bytes beyond the 65535th are cut off, as a snap length would.
    ///
    /// # Errors
    /// [`NoRoom`] when every frame is in use, or for a port that does not exist.
    pub fn arrive(&mut self, port: PortIndex, packet: &[u8]) -> Result<(), NoRoom> {
        let input = self.arrived.get_mut(port.0 as usize).ok_or(NoRoom(port))?;
        let mut frame = self.pool.allocate().ok_or(NoRoom(port))?;
        let packet = &packet[..packet.len().min(FRAME_BYTES)];
        frame.set_len(packet.len());
        self.pool.bytes_mut(&frame).copy_from_slice(packet);
        input.push_back(frame);
        Ok(())
    }

    /// Takes the frame that was sent first of those not taken yet, over all ports, and shows it to `see`.
    pub fn depart<R>(&mut self, see: impl FnOnce(PortIndex, &[u8]) -> R) -> Option<R> {
        let (port, frame) = self.departed.pop_front()?;
        let seen = see(port, self.pool.bytes(&frame));
        self.pool.free(frame);
        Some(seen)
    }

    /// Whether a packet waits to be received.
    pub fn has_arrivals(&self) -> bool {
        self.arrived.iter().any(|queue| !queue.is_empty())
    }

    /// Frames that are neither queued nor in the worker's hands.
    pub fn available(&self) -> usize {
        self.pool.available()
    }
}

impl Ports for PcapPorts {
    fn count(&self) -> usize {
        self.arrived.len()
    }

    fn receive(&mut self, port: PortIndex, burst: &mut Burst) {
        if let Some(queue) = self.arrived.get_mut(port.0 as usize) {
            let take = queue.len().min(burst.remaining_capacity());
            burst.extend(queue.drain(..take));
        }
    }

    fn bytes(&self, frame: &Frame) -> &[u8] {
        self.pool.bytes(frame)
    }

    fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.pool.bytes_mut(frame)
    }

    fn allocate(&mut self) -> Option<Frame> {
        self.pool.allocate()
    }

    fn transmit(&mut self, port: PortIndex, frame: Frame) -> Result<(), Frame> {
        if port.0 as usize >= self.arrived.len() {
            return Err(frame);
        }
        self.departed.push_back((port, frame));
        Ok(())
    }

    fn free(&mut self, frame: Frame) {
        self.pool.free(frame);
    }

    fn flush(&mut self) {}

    fn wait(&mut self, _timeout: Duration) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_leave_in_the_order_of_sending_over_all_ports() {
        let mut ports = PcapPorts::new(2);
        ports.arrive(PortIndex(1), &[1; 60]).unwrap();
        ports.arrive(PortIndex(0), &[2; 61]).unwrap();
        let mut burst = Burst::new();
        ports.receive(PortIndex(1), &mut burst);
        ports.receive(PortIndex(0), &mut burst);
        assert!(!ports.has_arrivals());
        for (frame, to) in burst.drain(..).zip([0, 1]) {
            ports.transmit(PortIndex(to), frame).unwrap();
        }
        assert_eq!(ports.depart(|port, bytes| (port.0, bytes.to_vec())), Some((0, vec![1; 60])));
        assert_eq!(ports.depart(|port, bytes| (port.0, bytes.to_vec())), Some((1, vec![2; 61])));
        assert_eq!(ports.depart(|_, _| ()), None);
        assert_eq!(ports.available(), FRAMES as usize);
    }

    #[test]
    fn a_full_or_unknown_port_takes_nothing_and_a_giant_is_cut() {
        let mut ports = PcapPorts::new(1);
        assert_eq!(ports.arrive(PortIndex(1), &[0; 60]), Err(NoRoom(PortIndex(1))));
        ports.arrive(PortIndex(0), &vec![7; 70_000]).unwrap();
        let mut burst = Burst::new();
        ports.receive(PortIndex(0), &mut burst);
        assert_eq!(ports.bytes(&burst[0]), vec![7; 65_535]);
        for _ in 1..FRAMES {
            ports.arrive(PortIndex(0), &[0; 60]).unwrap();
        }
        assert_eq!(ports.arrive(PortIndex(0), &[0; 60]), Err(NoRoom(PortIndex(0))));
    }

    #[test]
    fn a_port_that_does_not_exist_gives_the_frame_back() {
        let mut ports = PcapPorts::new(1);
        let frame = ports.allocate().unwrap();
        let frame = ports.transmit(PortIndex(1), frame).unwrap_err();
        ports.free(frame);
        assert_eq!(ports.available(), FRAMES as usize);
    }
}
