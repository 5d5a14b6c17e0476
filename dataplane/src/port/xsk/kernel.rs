//! The system calls of an AF_XDP socket besides those that xsk-rs makes.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::config::{BusyPoll, CopyMode, WakeUp, XskStatistics};

/// What a wake-up achieved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// The kernel did some work, and may have more.
    Yes,
    /// It could not now: out of buffers or busy. Worth another try.
    Later,
    /// The interface is down or gone.
    Never,
}

/// `XDP_MAX_TX_SKB_BUDGET` (`linux/if_xdp.h`), which the library does not know yet.
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;

/// Makes the kernel send from the TX ring. Copy mode sends up to 32 frames a call, or what [`set_tx_budget`] allows.
pub(super) fn wake_tx(socket: RawFd) -> Woken {
    // SAFETY: no buffer and no address are given; only the descriptor's validity matters, which the call checks.
    let sent = unsafe { libc::sendto(socket, ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if sent >= 0 {
        return Woken::Yes;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => Woken::Later,
        _ => Woken::Never,
    }
}

/// Makes the kernel look for packets to receive, where it needs that: an empty fill ring was refilled, or busy polling.
pub(super) fn wake_rx(socket: RawFd) {
    // SAFETY: no buffer and no address are given. What it returns says nothing: packets come by the ring.
    unsafe { libc::recvfrom(socket, ptr::null_mut(), 0, libc::MSG_DONTWAIT, ptr::null_mut(), ptr::null_mut()) };
}

/// Sockets that a worker waits for together.
#[derive(Debug)]
pub(super) enum Waiting {
    Poll(Vec<libc::pollfd>),
    Epoll(Epoll),
}

impl Waiting {
    /// For no socket yet.
    pub(super) fn new(wake_up: WakeUp) -> io::Result<Self> {
        match wake_up {
            WakeUp::Poll => Ok(Self::Poll(Vec::new())),
            WakeUp::Epoll => Ok(Self::Epoll(Epoll::new()?)),
        }
    }

    /// For this socket, too, until it is closed.
    pub(super) fn add(&mut self, socket: RawFd) -> io::Result<()> {
        match self {
            Self::Poll(sockets) => sockets.push(libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 }),
            Self::Epoll(epoll) => epoll.add(socket)?,
        }
        Ok(())
    }

    /// Sleeps until one of the sockets has a packet, or for `timeout`, or until a signal.
    pub(super) fn wait(&mut self, timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match self {
            Self::Poll(sockets) => {
                let count = sockets.len() as libc::nfds_t;
                // SAFETY: `sockets` is valid for its length, `timeout` for reading; no signal mask is given.
                unsafe { libc::ppoll(sockets.as_mut_ptr(), count, &raw const timeout, ptr::null()) };
            }
            Self::Epoll(epoll) => {
                // Nothing but a signal ends it early: `new` tried it.
                let _ = epoll.wait(timeout);
            }
        }
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let descriptor = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        let epoll = Self(unsafe { OwnedFd::from_raw_fd(descriptor) });
        // Whoever could not sleep later would spin.
        epoll.wait(libc::timespec { tv_sec: 0, tv_nsec: 0 })?;
        Ok(epoll)
    }

    fn add(&self, socket: RawFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        // SAFETY: `event` is valid for reading.
        let result = unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, socket, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// `epoll_pwait2`, called by its number because glibc knows it since 2.35 only. `epoll_wait` would round up to milliseconds.
    fn wait(&self, timeout: libc::timespec) -> io::Result<()> {
        // Which sockets they are does not matter: all are looked at.
        const EVENTS: u8 = 4;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS as usize];
        // SAFETY: `events` has room for as many as are asked for, `timeout` is valid for reading; no signal mask is given.
        let result = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                libc::c_int::from(EVENTS),
                &raw const timeout,
                ptr::null::<libc::sigset_t>(),
                0_usize,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Turns preferred busy polling on.
pub(super) fn prefer_busy_poll(socket: RawFd, busy: BusyPoll) -> io::Result<()> {
    let set = |option, value| set_option(socket, libc::SOL_SOCKET, option, value);
    set(libc::SO_PREFER_BUSY_POLL, 1)?;
    set(libc::SO_BUSY_POLL, busy.microseconds.cast_signed())?;
    set(libc::SO_BUSY_POLL_BUDGET, i32::from(busy.budget))
}

/// Lets one wake-up of copy mode send so many frames: from 32 to the TX ring's size. Kernel 6.17.
pub(super) fn set_tx_budget(socket: RawFd, frames: u32) -> io::Result<()> {
    set_option(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, frames.cast_signed())
}

fn set_option(socket: RawFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the option's value is a C int, of which a pointer and the size are given.
    let result = unsafe {
        libc::setsockopt(socket, level, option, (&raw const value).cast(), size_of_val(&value) as libc::socklen_t)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the socket ended up in copy or zero-copy mode.
pub(super) fn copy_mode(socket: RawFd) -> io::Result<CopyMode> {
    // SAFETY: xdp_options is one integer, for which zero is valid, and it is what XDP_OPTIONS writes.
    let options: libc::xdp_options = unsafe { option_of(socket, libc::XDP_OPTIONS)? };
    Ok(if options.flags & libc::XDP_OPTIONS_ZEROCOPY == 0 { CopyMode::Copy } else { CopyMode::ZeroCopy })
}

/// Where in their mappings the parts of the rings lie.
pub(super) fn offsets(socket: RawFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: xdp_mmap_offsets is made of integers, for which zero is valid, and it is what XDP_MMAP_OFFSETS writes.
    unsafe { option_of(socket, libc::XDP_MMAP_OFFSETS) }
}

/// The kernel's counters of the AF_XDP socket with this descriptor. Fails on any other descriptor.
pub fn statistics(socket: RawFd) -> io::Result<XskStatistics> {
    // SAFETY: xdp_statistics is made of integers, for which zero is valid, and it is what XDP_STATISTICS writes.
    let s: libc::xdp_statistics = unsafe { option_of(socket, libc::XDP_STATISTICS)? };
    Ok(XskStatistics {
        rx_dropped: s.rx_dropped,
        rx_invalid: s.rx_invalid_descs,
        rx_ring_full: s.rx_ring_full,
        fill_ring_empty: s.rx_fill_ring_empty_descs,
        tx_invalid: s.tx_invalid_descs,
        tx_ring_empty: s.tx_ring_empty_descs,
    })
}

/// # Safety
/// `T` is valid when zeroed, and is the structure that this option writes.
unsafe fn option_of<T>(socket: RawFd, option: i32) -> io::Result<T> {
    // SAFETY: valid when zeroed, by this function's contract.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has `length` writable bytes.
    let result = unsafe { libc::getsockopt(socket, libc::SOL_XDP, option, (&raw mut value).cast(), &raw mut length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The inode of a socket, by which /proc/self/maps names its mappings.
pub(super) fn inode(socket: RawFd) -> io::Result<u64> {
    // SAFETY: stat is made of integers, for which zero is valid.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is a valid place for the result.
    let result = unsafe { libc::fstat(socket, &raw mut stat) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(stat.st_ino) }
}
