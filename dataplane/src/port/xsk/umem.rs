//! A worker's packet memory: one UMEM, cut into frames, shared by all its sockets.
//!
//! xsk-rs maps and registers it. Where it lies is learnt from the first frame that xsk-rs hands out; from then on
//! frames are addressed by number here, and every access is checked against the chunk that its frame token names.

#![allow(unsafe_code)]

use std::num::NonZeroU32;
use std::ptr::NonNull;

use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use super::config::{XskConfig, XskError};
use crate::port::{self, BURST, Frame};

/// Room before a packet in its frame, in bytes: `XDP_PACKET_HEADROOM`, where the kernel puts received packets.
pub(super) const HEADROOM: u16 = port::HEADROOM;

/// Ethernet header and two VLAN tags, in bytes: what a frame has beyond the MTU.
const LINK_OVERHEAD: u32 = 14 + 8;

/// Frames that filling leaves in the pool, for packets of the worker's own.
const RESERVE: usize = BURST;

/// The memory and the list of its free chunks.
#[derive(Debug)]
pub(super) struct UmemArea {
    base: NonNull<u8>,
    frames: u32,
    shift: u32,
    free: Vec<u32>,
    /// Keeps the memory mapped and registered.
    umem: xsk_rs::Umem,
}

// SAFETY: `base` points to memory that is not bound to a thread and that only this handle gives access to.
unsafe impl Send for UmemArea {}

impl UmemArea {
    /// Maps and registers frames for `sockets` sockets on ports whose largest MTU is `mtu` bytes.
    pub(super) fn new(config: &XskConfig, sockets: u32, mtu: u32) -> Result<Self, XskError> {
        let frame_size = frame_size(mtu)?;
        let frames = config.frames_per_socket.saturating_mul(sockets);
        let bytes = u64::from(frames) * u64::from(frame_size);
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| XskError::Umem {
            bytes,
            source: std::io::Error::other(source),
        };
        let size = |value| QueueSize::new(value).map_err(|e| failed(e.into()));
        let settings = UmemConfig::builder()
            .frame_size(FrameSize::new(frame_size).map_err(|e| failed(e.into()))?)
            .fill_queue_size(size(2 * config.rx_size)?)
            .comp_queue_size(size(config.tx_size)?)
            .build()
            .map_err(|e| failed(e.into()))?;
        let count = NonZeroU32::new(frames).ok_or(XskError::NoPlaces)?;
        let (umem, mut descriptors) = xsk_rs::Umem::new(settings, count, false).map_err(|e| {
            let source = std::error::Error::source(&e).and_then(|s| s.downcast_ref::<std::io::Error>());
            let code = source.and_then(std::io::Error::raw_os_error);
            XskError::Umem {
                bytes,
                source: code.map_or_else(|| std::io::Error::other(e), std::io::Error::from_raw_os_error),
            }
        })?;
        let first = descriptors.first_mut().ok_or(XskError::NoPlaces)?;
        let address = first.addr();
        // SAFETY: the descriptor is of this UMEM, and nothing else uses its frame yet.
        let data = unsafe { umem.data_mut(first) }.contents_mut().as_mut_ptr().expose_provenance();
        let base = NonNull::new(std::ptr::with_exposed_provenance_mut(data - address)).ok_or(XskError::NoPlaces)?;
        Ok(Self { base, frames, shift: frame_size.trailing_zeros(), free: (0..frames).rev().collect(), umem })
    }

    pub(super) const fn umem(&self) -> &xsk_rs::Umem {
        &self.umem
    }

    /// Number of frames.
    pub(super) const fn frames(&self) -> u32 {
        self.frames
    }

    /// Size of the memory in bytes.
    pub(super) const fn bytes_mapped(&self) -> u64 {
        (self.frames as u64) << self.shift
    }

    /// Free chunks.
    pub(super) fn available(&self) -> usize {
        self.free.len()
    }

    /// Takes a free chunk.
    #[inline]
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Takes a free chunk to fill with, leaving a reserve for the worker's own packets; its address in the UMEM.
    #[inline]
    pub(super) fn take_to_fill(&mut self) -> Option<u64> {
        if self.free.len() <= RESERVE {
            return None;
        }
        self.free.pop().map(|chunk| u64::from(chunk) << self.shift)
    }

    /// Puts a chunk back.
    #[inline]
    pub(super) fn put(&mut self, chunk: u32) {
        debug_assert!(chunk < self.frames && self.free.len() < self.frames as usize, "chunk {chunk} freed twice");
        self.free.push(chunk);
    }

    /// Puts the chunk back in which an address of the UMEM lies.
    #[inline]
    pub(super) fn put_address(&mut self, address: u64) {
        self.put((address >> self.shift) as u32);
    }

    /// The frame of a received descriptor.
    #[inline]
    pub(super) fn received(&self, descriptor: &libc::xdp_desc) -> Frame {
        let head = descriptor.addr & (self.chunk_size() as u64 - 1);
        Frame::new((descriptor.addr >> self.shift) as u32, head as u16, descriptor.len as u16)
    }

    /// The descriptor that sends a frame; `None` for an empty packet, which the kernel would refuse and never give back.
    #[inline]
    pub(super) fn descriptor(&self, frame: &Frame) -> Option<libc::xdp_desc> {
        let (chunk, length) = (frame.chunk(), self.length(frame));
        if length == 0 {
            return None;
        }
        let addr = (u64::from(chunk) << self.shift) + frame.head() as u64;
        Some(libc::xdp_desc { addr, len: length as u32, options: 0 })
    }

    /// The packet's bytes.
    #[inline]
    pub(super) fn bytes(&self, frame: &Frame) -> &[u8] {
        // SAFETY: see `start` and `length`: the bytes lie in the frame's chunk. The chunk is the token's owner's, which
        // `&Frame` borrows: neither the kernel nor another token reaches it.
        unsafe { std::slice::from_raw_parts(self.start(frame), self.length(frame)) }
    }

    /// The packet's bytes, to edit.
    #[inline]
    pub(super) fn bytes_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut Frame` makes the borrow exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start(frame), self.length(frame)) }
    }

    const fn chunk_size(&self) -> usize {
        1 << self.shift
    }

    /// Where the packet begins; the memory's begin for a frame of another pool, whose length is zero here.
    #[inline]
    fn start(&self, frame: &Frame) -> *mut u8 {
        let offset = if self.length(frame) == 0 { 0 } else { ((frame.chunk() as usize) << self.shift) + frame.head() };
        // SAFETY: a packet of more than no bytes lies in a chunk of this memory.
        unsafe { self.base.add(offset) }.as_ptr()
    }

    /// The packet's length, cut to what is left of its chunk; zero for a frame of another pool.
    #[inline]
    fn length(&self, frame: &Frame) -> usize {
        if frame.chunk() >= self.frames {
            return 0;
        }
        frame.len().min(self.chunk_size().saturating_sub(frame.head()))
    }
}

/// The smaller of the two frame sizes that hold a packet of this MTU.
fn frame_size(mtu: u32) -> Result<u32, XskError> {
    let room = |size: u32| size - u32::from(HEADROOM) - LINK_OVERHEAD;
    match mtu {
        _ if mtu <= room(2048) => Ok(2048),
        _ if mtu <= room(4096) => Ok(4096),
        _ => Err(XskError::MtuTooLarge { mtu, limit: room(4096) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_small_as_the_mtu_allows() {
        assert_eq!(frame_size(1500).unwrap(), 2048);
        assert_eq!(frame_size(1770).unwrap(), 2048);
        assert_eq!(frame_size(1771).unwrap(), 4096);
        assert_eq!(frame_size(3818).unwrap(), 4096);
        assert!(matches!(frame_size(9000), Err(XskError::MtuTooLarge { mtu: 9000, limit: 3818 })));
    }
}
