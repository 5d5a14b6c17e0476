//! A frame: the right to use one chunk of a worker's packet memory.
//!
//! The token is not `Copy`: a frame has one owner. It holds offsets only, so the pool checks every access.

/// One packet buffer: its chunk in the pool, and where in the chunk the packet lies.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    chunk: u32,
    head: u16,
    len: u16,
}

impl Frame {
    /// A frame for chunk number `chunk` whose packet begins `head` bytes into it and has `len` bytes.
    /// Only ports make frames.
    pub(crate) const fn new(chunk: u32, head: u16, len: u16) -> Self {
        Self { chunk, head, len }
    }

    /// The chunk's number in its pool.
    pub const fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Offset of the packet in the chunk, in bytes: the room before it.
    pub const fn head(&self) -> usize {
        self.head as usize
    }

    /// Length of the packet in bytes.
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the packet has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes `bytes` of the headroom part of the packet, for a header in front. False (and unchanged) when there is
    /// not so much room.
    #[must_use]
    pub const fn grow_front(&mut self, bytes: usize) -> bool {
        if bytes > self.head as usize {
            return false;
        }
        self.head -= bytes as u16;
        self.len += bytes as u16;
        true
    }

    /// Takes `bytes` off the packet's front, at most its length.
    pub const fn shrink_front(&mut self, bytes: usize) {
        let bytes = if bytes > self.len as usize { self.len } else { bytes as u16 };
        self.head += bytes;
        self.len -= bytes;
    }

    /// Sets the packet's length. The pool cuts it to what the chunk holds.
    pub const fn set_len(&mut self, len: usize) {
        self.len = if len > u16::MAX as usize { u16::MAX } else { len as u16 };
    }
}

/// Room in front of each packet in bytes, as AF_XDP leaves it (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: u16 = 256;

/// Chunks of `CHUNK` bytes of plain memory and the list of free ones: the pool behind the memory and pcap ports.
#[derive(Debug)]
pub struct FramePool<const CHUNK: usize> {
    chunks: Box<[[u8; CHUNK]]>,
    free: Vec<u32>,
}

impl<const CHUNK: usize> FramePool<CHUNK> {
    /// Bytes that a packet may have.
    pub const CAPACITY: usize = CHUNK - HEADROOM as usize;

    /// A pool of so many chunks.
    pub fn new(frames: u32) -> Self {
        Self { chunks: vec![[0; CHUNK]; frames as usize].into_boxed_slice(), free: (0..frames).rev().collect() }
    }

    /// Free chunks.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Takes a chunk, with an empty packet in it.
    pub fn allocate(&mut self) -> Option<Frame> {
        self.free.pop().map(|chunk| Frame::new(chunk, HEADROOM, 0))
    }

    /// Puts a chunk back.
    pub fn free(&mut self, frame: Frame) {
        let Frame { chunk, .. } = frame;
        self.free.push(chunk);
    }

    /// The packet's bytes.
    #[inline]
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        let Some(chunk) = self.chunks.get(frame.chunk as usize) else { return no_bytes() };
        let Some(rest) = chunk.get(frame.head()..) else { return no_bytes() };
        &rest[..frame.len().min(rest.len())]
    }

    /// The packet's bytes, to edit.
    #[inline]
    pub fn bytes_mut(&mut self, frame: &Frame) -> &mut [u8] {
        let Some(chunk) = self.chunks.get_mut(frame.chunk as usize) else { return no_bytes_mut() };
        let Some(rest) = chunk.get_mut(frame.head()..) else { return no_bytes_mut() };
        let length = frame.len().min(rest.len());
        &mut rest[..length]
    }
}

/// The bytes of a frame of another pool: by a call, so that for all others the comparison is a jump that is not taken.
#[cold]
#[inline(never)]
const fn no_bytes<'a>() -> &'a [u8] {
    &[]
}

/// As [`no_bytes`].
#[cold]
#[inline(never)]
const fn no_bytes_mut<'a>() -> &'a mut [u8] {
    &mut []
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headroom_is_used_and_given_back() {
        let mut pool = FramePool::<2048>::new(2);
        let mut frame = pool.allocate().unwrap();
        frame.set_len(100);
        assert!(frame.grow_front(256));
        assert!(!frame.grow_front(1));
        assert_eq!(pool.bytes(&frame).len(), 356);
        frame.shrink_front(1000);
        assert!(frame.is_empty());
        frame.set_len(9000);
        assert!(pool.bytes_mut(&frame).len() <= 2048);
        pool.free(frame);
        assert_eq!(pool.available(), 2);
    }
}
