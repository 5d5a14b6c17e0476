//! Ports: where bursts of frames come from and go to.
//!
//! A worker owns one [`Ports`]: all its ports over one pool of frames, so that a frame received on one can be sent
//! on another without a copy. Every [`Frame`] is either in the pool, in a ring, or in exactly one worker's hands.

pub mod capture;
mod frame;
mod memory;
mod pcap;
#[cfg(feature = "afxdp")]
pub mod xsk;

pub use frame::{Frame, FramePool, HEADROOM};
pub use memory::MemoryPorts;
pub use pcap::{NoRoom, PcapPorts};

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::ident::PortIndex;

/// Most frames that a worker takes from a port at once.
pub const BURST: usize = 64;

/// Frames received together.
pub type Burst = ArrayVec<Frame, BURST>;

/// What a port does about transport checksums of the frames that it hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumMode {
    /// They are complete; they are updated incrementally (RFC 1624).
    Offload,
    /// They may hold only the pseudo-header's sum, as veth delivers them: complete or verify each one.
    Full,
}

/// All ports of one worker over one pool of frames. Nothing here blocks (but [`Ports::wait`]) or allocates.
pub trait Ports {
    /// How many ports there are: their indexes are 0 to `count() - 1`.
    fn count(&self) -> usize;

    /// Appends frames that arrived on `port` to `burst`, up to its capacity. Tops up the fill ring first.
    fn receive(&mut self, port: PortIndex, burst: &mut Burst);

    /// The bytes of a frame: from the Ethernet header to the end.
    fn bytes(&self, frame: &Frame) -> &[u8];

    /// The bytes of a frame, to edit in place.
    fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8];

    /// Takes an empty frame from the pool for a packet of the worker's own, or `None` when there is none to spare.
    /// It has the usual headroom and a length of zero; [`Frame::set_len`] sizes it.
    fn allocate(&mut self) -> Option<Frame>;

    /// Queues a frame for sending on `port`; it leaves at the latest at the next [`Ports::flush`].
    ///
    /// # Errors
    /// Gives the frame back when the ring is full or the port cannot send; the caller counts and frees it.
    fn transmit(&mut self, port: PortIndex, frame: Frame) -> Result<(), Frame>;

    /// Returns a frame to the pool.
    fn free(&mut self, frame: Frame);

    /// Sends what is queued (waking the kernel until its rings are drained) and takes completed frames back.
    fn flush(&mut self);

    /// Whether frames wait to be received, as far as a look at the rings tells; ports without rings never know.
    fn has_arrivals(&self) -> bool {
        false
    }

    /// Sleeps until a frame arrives on any port, or for `timeout`; not at all while frames wait.
    fn wait(&mut self, timeout: Duration);
}
