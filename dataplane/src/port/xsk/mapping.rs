//! Finds the rings of a socket in this process's memory, where xsk-rs has mapped them.
//!
//! xsk-rs does not tell where. Mapping them a second time works only since kernel 6.4: earlier ones answer EBUSY once the
//! socket is bound (Debian 12 has 6.1). /proc/self/maps lists every mapping of a socket by its inode and offset, on
//! any kernel.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use super::kernel;
use super::ring::RingMemory;

/// Sizes of a socket's rings, in entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingSizes {
    pub(super) rx: u32,
    pub(super) tx: u32,
    pub(super) fill: u32,
    pub(super) completion: u32,
}

/// The four rings of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct SocketRings {
    pub(super) rx: RingMemory<libc::xdp_desc>,
    pub(super) tx: RingMemory<libc::xdp_desc>,
    pub(super) fill: RingMemory<u64>,
    pub(super) completion: RingMemory<u64>,
}

impl SocketRings {
    /// The rings that xsk-rs mapped for `socket`. They stay there while it keeps the socket's queues.
    pub(super) fn find(socket: RawFd, sizes: RingSizes) -> io::Result<Self> {
        let offsets = kernel::offsets(socket)?;
        let inode = kernel::inode(socket)?;
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let mapping = |offset: u64| {
            mapping_of(&maps, inode, offset).ok_or_else(|| {
                io::Error::other(format!("no mapping of socket {inode} at {offset:#x} in /proc/self/maps"))
            })
        };
        Ok(Self {
            rx: ring(&mapping(libc::XDP_PGOFF_RX_RING as u64)?, &offsets.rx, sizes.rx)?,
            tx: ring(&mapping(libc::XDP_PGOFF_TX_RING as u64)?, &offsets.tx, sizes.tx)?,
            fill: ring(&mapping(libc::XDP_UMEM_PGOFF_FILL_RING)?, &offsets.fr, sizes.fill)?,
            completion: ring(&mapping(libc::XDP_UMEM_PGOFF_COMPLETION_RING)?, &offsets.cr, sizes.completion)?,
        })
    }
}

/// The addresses of the mapping of a socket's inode at an offset, from the text of /proc/self/maps (proc(5)):
/// `start-end perms offset dev inode path`, numbers in hexadecimal but the inode.
fn mapping_of(maps: &str, inode: u64, offset: u64) -> Option<Range<usize>> {
    maps.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let at = u64::from_str_radix(words.nth(1)?, 16).ok()?;
        let found: u64 = words.nth(1)?.parse().ok()?;
        if at != offset || found != inode || !words.next()?.starts_with("socket:") {
            return None;
        }
        Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
    })
}

fn ring<T>(mapping: &Range<usize>, offsets: &libc::xdp_ring_offset, size: u32) -> io::Result<RingMemory<T>> {
    let end = offsets.desc as usize + size as usize * size_of::<T>();
    if end > mapping.len() {
        return Err(io::Error::other(format!("a ring of {end} bytes in a mapping of {}", mapping.len())));
    }
    // The mapping was made by a C library: its provenance is exposed.
    let at = |offset: u64| {
        NonNull::new(ptr::with_exposed_provenance_mut::<u8>(mapping.start + offset as usize))
            .ok_or_else(|| io::Error::other("a mapping at address zero"))
    };
    Ok(RingMemory {
        producer: at(offsets.producer)?.cast(),
        consumer: at(offsets.consumer)?.cast(),
        flags: at(offsets.flags)?.cast(),
        entries: at(offsets.desc)?.cast(),
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
7f0000000000-7f0000005000 rw-s 100000000 00:08 777                        socket:[777]
7f0000010000-7f0000015000 rw-s 00000000 00:08 777                        socket:[777]
7f0000020000-7f0000025000 rw-s 00000000 00:08 778                        socket:[778]
7f0000030000-7f0000031000 r--p 00000000 fe:00 777                        /usr/lib/x.so
7f0000040000-7f0000041000 rw-p 00000000 00:00 0
";

    #[test]
    fn a_mapping_is_found_by_inode_and_offset() {
        assert_eq!(mapping_of(MAPS, 777, 0), Some(0x7f00_0001_0000..0x7f00_0001_5000));
        assert_eq!(mapping_of(MAPS, 778, 0), Some(0x7f00_0002_0000..0x7f00_0002_5000));
        assert_eq!(mapping_of(MAPS, 777, 0x1_0000_0000), Some(0x7f00_0000_0000..0x7f00_0000_5000));
        assert_eq!(mapping_of(MAPS, 778, 0x8000_0000), None);
        assert_eq!(mapping_of(MAPS, 0, 0), None);
    }

    #[test]
    fn a_mapping_too_small_for_its_ring_is_refused() {
        let offsets = libc::xdp_ring_offset { producer: 0, consumer: 64, desc: 128, flags: 4 };
        assert!(ring::<u64>(&(0x1000..0x2000), &offsets, 496).is_ok());
        assert!(ring::<u64>(&(0x1000..0x2000), &offsets, 512).is_err());
    }
}
