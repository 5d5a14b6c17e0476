//! Ports in plain memory: what tests and benchmarks put in comes out as bursts, what workers send is kept or counted.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Burst, Frame, FramePool, Ports};
use crate::ident::PortIndex;

/// Bytes of a frame: 2 KiB fit an Ethernet frame, tests send larger ones.
const CHUNK: usize = 4096;

/// Ports over a [`FramePool`] with an input and an output queue each.
#[derive(Debug)]
pub struct MemoryPorts {
    pool: FramePool<CHUNK>,
    input: Vec<VecDeque<Frame>>,
    output: Vec<VecDeque<Frame>>,
}

impl MemoryPorts {
    /// `ports` ports over a pool of `frames` frames of 4 KiB.
    pub fn new(ports: usize, frames: u32) -> Self {
        let queues = || (0..ports).map(|_| VecDeque::with_capacity(frames as usize)).collect();
        Self { pool: FramePool::new(frames), input: queues(), output: queues() }
    }

    /// Puts a packet into a port's input. False when the pool is empty, the packet too long or the port unknown.
    #[must_use]
    pub fn inject(&mut self, port: PortIndex, packet: &[u8]) -> bool {
        let Some(queue) = self.input.get_mut(port.0 as usize) else {
            return false;
        };
        if packet.len() > FramePool::<CHUNK>::CAPACITY {
            return false;
        }
        let Some(mut frame) = self.pool.allocate() else {
            return false;
        };
        frame.set_len(packet.len());
        self.pool.bytes_mut(&frame).copy_from_slice(packet);
        queue.push_back(frame);
        true
    }

    /// Takes the next packet that was sent on a port.
    pub fn sent(&mut self, port: PortIndex) -> Option<Vec<u8>> {
        let frame = self.output.get_mut(port.0 as usize)?.pop_front()?;
        let bytes = self.pool.bytes(&frame).to_vec();
        self.pool.free(frame);
        Some(bytes)
    }

    /// Frames in the pool: all of them, when none is queued or leaked.
    pub fn available(&self) -> usize {
        self.pool.available()
    }
}

impl Ports for MemoryPorts {
    fn count(&self) -> usize {
        self.input.len()
    }

    fn receive(&mut self, port: PortIndex, burst: &mut Burst) {
        if let Some(queue) = self.input.get_mut(port.0 as usize) {
            let take = queue.len().min(burst.remaining_capacity());
            burst.extend(queue.drain(..take));
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

    fn transmit(&mut self, port: PortIndex, frame: Frame) -> Result<(), Frame> {
        match self.output.get_mut(port.0 as usize) {
            Some(queue) => {
                queue.push_back(frame);
                Ok(())
            }
            None => Err(frame),
        }
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
    fn frames_pass_through_and_none_is_lost() {
        let mut ports = MemoryPorts::new(2, 4);
        for n in 0..4u8 {
            assert!(ports.inject(PortIndex(0), &[n; 60]));
        }
        assert!(!ports.inject(PortIndex(0), &[9; 60]), "the pool is empty");
        let mut burst = Burst::new();
        ports.receive(PortIndex(0), &mut burst);
        for frame in burst.drain(..) {
            ports.transmit(PortIndex(1), frame).unwrap();
        }
        for n in 0..4u8 {
            assert_eq!(ports.sent(PortIndex(1)).unwrap(), vec![n; 60]);
        }
        assert_eq!(ports.available(), 4);
    }
}
