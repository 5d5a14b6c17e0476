//! AF_XDP ports of one worker: one UMEM, one socket for each (interface, queue) that the worker serves.
//!
//! xsk-rs creates the UMEM and the sockets; the rings are worked by code of our own on the same shared memory. That
//! lets a packet's head move: the kernel leaves 256 bytes before each packet (`XDP_PACKET_HEADROOM`), an outer header
//! is written into them and the TX descriptor points to its begin, so encapsulation moves no packet. It also takes
//! and gives whole batches without a foreign call for each descriptor, and puts any free chunk into any ring: a frame
//! received on one port is sent on another without a copy, and refills whichever ring needs it.
//!
//! Every frame is in exactly one place, see [`FrameAudit`].

mod config;
mod kernel;
mod mapping;
mod ring;
mod socket;
mod umem;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

pub use config::{BindMode, BusyPoll, CopyMode, FrameAudit, SocketPlace, WakeUp, XskConfig, XskError, XskStatistics};
pub use kernel::statistics;

use super::{BURST, Burst, Frame, Ports};
use crate::ident::PortIndex;
use kernel::Waiting;
use socket::Socket;
use umem::UmemArea;

/// Largest ring that is accepted, in entries.
const MAX_RING: u32 = 32_768;

/// The longest sleep by epoll while the kernel has not taken all frames that are to be sent.
const RETRY: Duration = Duration::from_millis(1);

/// The sockets of one port.
#[derive(Debug, Default)]
struct Port {
    sockets: Vec<usize>,
    /// Which of them is asked first next time: no queue starves another.
    turn: usize,
}

/// All AF_XDP ports of one worker. It may be opened on one thread and moved to the worker's.
///
/// On a port where the worker has no queue nothing is received, and [`Ports::transmit`] gives frames back: such a worker
/// needs another one to send for it. [`Ports::count`] reaches to the highest port that has a queue.
#[derive(Debug)]
pub struct XskPorts {
    // Before the UMEM: sockets are closed before the memory goes.
    sockets: Vec<Socket>,
    area: UmemArea,
    ports: Vec<Port>,
    waiting: Waiting,
    held: u32,
}

impl XskPorts {
    /// Opens sockets on `places`, in the network namespace of this thread, for interfaces with an MTU of at most `mtu`
    /// bytes. Takes 10 ms to 1 s a socket, and up to 2 s more for a queue that its last owner is just leaving.
    ///
    /// All sockets share the copy mode of the first: the kernel lets no UMEM serve both.
    ///
    /// # Errors
    /// For impossible sizes, a queue that does not exist or is taken, an MTU that fits no frame, want of privilege, or a kernel
    /// without [`WakeUp::Epoll`].
    pub fn open(places: &[SocketPlace], config: &XskConfig, mtu: u32) -> Result<Self, XskError> {
        check(places, config)?;
        let area = UmemArea::new(config, places.len() as u32, mtu)?;
        let count = places.iter().map(|p| p.port.0 as usize + 1).max().unwrap_or(0);
        let mut ports = Self {
            sockets: Vec::with_capacity(places.len()),
            area,
            ports: (0..count).map(|_| Port::default()).collect(),
            waiting: Waiting::new(config.wake_up).map_err(XskError::Wait)?,
            held: 0,
        };
        for place in places {
            ports.add(Socket::open(place, config, &ports.area)?)?;
        }
        tracing::info!(
            sockets = ports.sockets.len(),
            umem_bytes = ports.area.bytes_mapped(),
            ring_bytes = ring_bytes(config) * places.len() as u64,
            "AF_XDP sockets are open"
        );
        Ok(ports)
    }

    /// Each socket's place, descriptor (for the XSKMAP) and mode, in the order in which they were opened.
    pub fn sockets(&self) -> impl Iterator<Item = (&SocketPlace, RawFd, CopyMode)> {
        self.sockets.iter().map(|s| (s.place(), s.fd(), s.mode()))
    }

    /// What the kernel counted on each socket, in the same order. One system call a socket.
    pub fn statistics(&self) -> impl Iterator<Item = (&SocketPlace, io::Result<XskStatistics>)> {
        self.sockets.iter().map(|s| (s.place(), s.statistics()))
    }

    /// Where all frames are. Its total is [`XskPorts::frames`], whatever is under way.
    pub fn audit(&mut self) -> FrameAudit {
        let mut audit = FrameAudit { free: self.area.available() as u32, held: self.held, ..FrameAudit::default() };
        for socket in &mut self.sockets {
            socket.audit(&mut audit);
        }
        audit
    }

    /// Frames of the UMEM.
    pub const fn frames(&self) -> u32 {
        self.area.frames()
    }

    /// Size of the packet memory in bytes, without the rings.
    pub const fn umem_bytes(&self) -> u64 {
        self.area.bytes_mapped()
    }

    fn add(&mut self, mut socket: Socket) -> Result<(), XskError> {
        let place = socket.place();
        let (name, queue) = (place.interface.as_str(), place.queue.0);
        match socket.mode() {
            CopyMode::ZeroCopy => tracing::info!(interface = name, queue, "AF_XDP in zero-copy mode"),
            CopyMode::Copy => tracing::info!(interface = name, queue, "AF_XDP in copy mode"),
        }
        if let Some(port) = self.ports.get_mut(place.port.0 as usize) {
            port.sockets.push(self.sockets.len());
        }
        socket.refill(&mut self.area);
        self.waiting.add(socket.fd()).map_err(XskError::Wait)?;
        self.sockets.push(socket);
        Ok(())
    }
}

impl Ports for XskPorts {
    fn count(&self) -> usize {
        self.ports.len()
    }

    #[inline]
    fn receive(&mut self, port: PortIndex, burst: &mut Burst) {
        let Some(Port { sockets, turn }) = self.ports.get_mut(port.0 as usize) else {
            return;
        };
        *turn = if *turn + 1 < sockets.len() { *turn + 1 } else { 0 };
        let (after, before) = sockets.split_at(*turn);
        for index in before.iter().chain(after) {
            if let Some(socket) = self.sockets.get_mut(*index) {
                socket.refill(&mut self.area);
                self.held += socket.receive(&self.area, burst);
            }
        }
    }

    #[inline]
    fn bytes(&self, frame: &Frame) -> &[u8] {
        self.area.bytes(frame)
    }

    #[inline]
    fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        self.area.bytes_mut(frame)
    }

    fn allocate(&mut self) -> Option<Frame> {
        if self.area.available() == 0 {
            self.sockets.iter_mut().for_each(|s| s.reap(&mut self.area));
        }
        let chunk = self.area.take()?;
        self.held += 1;
        Some(Frame::new(chunk, umem::HEADROOM, 0))
    }

    /// Sends by the first socket that the worker has on the port. An empty packet is given back, too: the kernel would
    /// refuse it and keep the frame.
    #[inline]
    fn transmit(&mut self, port: PortIndex, frame: Frame) -> Result<(), Frame> {
        let index = self.ports.get(port.0 as usize).and_then(|p| p.sockets.first());
        let Some(socket) = index.and_then(|i| self.sockets.get_mut(*i)) else {
            return Err(frame);
        };
        let Some(descriptor) = self.area.descriptor(&frame) else {
            return Err(frame);
        };
        if !socket.queue(descriptor, &mut self.area) {
            return Err(frame);
        }
        self.held -= 1;
        Ok(())
    }

    #[inline]
    fn free(&mut self, frame: Frame) {
        self.area.put(frame.chunk());
        self.held -= 1;
    }

    /// Costs one comparison for a socket with nothing under way. To be called in every pass of the worker, also in one that
    /// sent nothing: what the kernel could not send at once is tried again.
    #[inline]
    fn flush(&mut self) {
        for socket in &mut self.sockets {
            socket.flush(&mut self.area);
        }
    }

    #[inline]
    fn has_arrivals(&self) -> bool {
        self.sockets.iter().any(Socket::has_arrivals)
    }

    fn wait(&mut self, timeout: Duration) {
        if self.has_arrivals() {
            return;
        }
        if let Waiting::Poll(_) = self.waiting {
            return self.waiting.wait(timeout);
        }
        // Poll would wake both sides of each socket itself. Here the kernel is woken for buffers that it asks for, and asked again
        // after the next turn to take what it did not take.
        self.sockets.iter().for_each(Socket::wake_rx_if_asked);
        let has_left = self.sockets.iter_mut().any(Socket::has_unsent);
        self.waiting.wait(if has_left { timeout.min(RETRY) } else { timeout });
    }
}

fn check(places: &[SocketPlace], config: &XskConfig) -> Result<(), XskError> {
    if places.is_empty() {
        return Err(XskError::NoPlaces);
    }
    for (what, value) in [("rx_size", config.rx_size), ("tx_size", config.tx_size)] {
        if !value.is_power_of_two() || value > MAX_RING {
            return Err(XskError::RingSize { what, value });
        }
    }
    if config.frames_per_socket < 2 * config.rx_size + BURST as u32 {
        return Err(XskError::FewFrames { frames: config.frames_per_socket, rx_size: config.rx_size });
    }
    Ok(())
}

/// Bytes of a socket's four rings.
const fn ring_bytes(config: &XskConfig) -> u64 {
    let (descriptor, address) = (size_of::<libc::xdp_desc>() as u64, size_of::<u64>() as u64);
    let (rx, tx) = (config.rx_size as u64, config.tx_size as u64);
    (rx + tx) * descriptor + (2 * rx + tx) * address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::QueueIndex;

    fn open(config: XskConfig, mtu: u32) -> XskError {
        let place = SocketPlace { port: PortIndex(0), interface: "none".to_owned(), queue: QueueIndex(0) };
        XskPorts::open(&[place], &config, mtu).unwrap_err()
    }

    #[test]
    fn impossible_sizes_are_refused_before_anything_is_opened() {
        let default = XskConfig::default();
        assert!(matches!(XskPorts::open(&[], &default, 1500), Err(XskError::NoPlaces)));
        assert!(matches!(open(XskConfig { rx_size: 1000, ..default }, 1500), XskError::RingSize { value: 1000, .. }));
        assert!(matches!(open(XskConfig { tx_size: 65_536, ..default }, 1500), XskError::RingSize { .. }));
        let few = open(XskConfig { frames_per_socket: 2048, ..default }, 1500);
        assert_eq!(few.to_string(), "frames_per_socket is 2048: with rx_size 1024 it must be 2112 at least");
        assert!(matches!(open(default, 9000), XskError::MtuTooLarge { .. }));
    }

    #[test]
    fn ports_may_move_to_the_workers_thread() {
        fn sendable<T: Send>() {}
        sendable::<XskPorts>();
    }
}
