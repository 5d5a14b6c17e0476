//! One AF_XDP socket: its four rings, and which frames it has.

#![allow(unsafe_code)]

use std::error::Error;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use xsk_rs::config::{BindFlags, LibxdpFlags, QueueSize, SocketConfig};
use xsk_rs::{CompQueue, FillQueue, RxQueue, TxQueue};

use super::config::{BindMode, CopyMode, FrameAudit, SocketPlace, XskConfig, XskError, XskStatistics};
use super::kernel::{self, Woken};
use super::mapping::{RingSizes, SocketRings};
use super::ring::{Consumer, Producer};
use super::umem::UmemArea;
use crate::port::Burst;

/// How long a queue that its last owner is just leaving is waited for.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// Wake-ups in a row that may achieve nothing before the rest is left to the next flush.
const FRUITLESS_WAKEUPS: u32 = 32;

/// A socket bound to one queue.
#[derive(Debug)]
pub(super) struct Socket {
    rx: Consumer<libc::xdp_desc>,
    tx: Producer<libc::xdp_desc>,
    fill: Producer<u64>,
    completion: Consumer<u64>,
    fd: RawFd,
    place: SocketPlace,
    mode: CopyMode,
    busy_poll: bool,
    fill_size: u32,
    /// Frames given by the fill ring and not received yet.
    filled: u32,
    /// Frames given by the TX ring and not completed yet.
    sent: u32,
    /// Whether the interface could send when it was last asked to.
    is_able: bool,
    /// Keeps the socket open and its rings mapped; never used otherwise.
    _queues: (TxQueue, RxQueue, FillQueue, CompQueue),
}

impl Socket {
    /// Opens and binds a socket. Waits up to two seconds for a queue whose last owner is just leaving.
    pub(super) fn open(place: &SocketPlace, config: &XskConfig, area: &UmemArea) -> Result<Self, XskError> {
        let (tx, rx, rings) = bind(place, config, area)?;
        let setup = |what, source| {
            let (interface, queue) = (place.interface.clone(), place.queue.0);
            XskError::Setup { interface, queue, what, source }
        };
        let Some((fill, completion)) = rings else {
            return Err(setup("bind", io::Error::other("this worker has a socket on the queue already")));
        };
        let fd = rx.fd().as_raw_fd();
        let fill_size = 2 * config.rx_size;
        let sizes = RingSizes { rx: config.rx_size, tx: config.tx_size, fill: fill_size, completion: config.tx_size };
        let rings = SocketRings::find(fd, sizes).map_err(|e| setup("find the rings", e))?;
        if let Some(busy) = config.busy_poll {
            kernel::prefer_busy_poll(fd, busy).map_err(|e| setup("prefer busy polling (kernel 5.11)", e))?;
        }
        if let Err(error) = kernel::set_tx_budget(fd, config.tx_size) {
            tracing::debug!("a wake-up sends 32 frames at most in copy mode (before kernel 6.17): {error}");
        }
        // SAFETY: the ring stays mapped while `_queues` lives, and xsk-rs's own access is never used.
        let rx_end = unsafe { Consumer::new(rings.rx) };
        // SAFETY: as above.
        let tx_end = unsafe { Producer::new(rings.tx) };
        // SAFETY: as above.
        let fill_end = unsafe { Producer::new(rings.fill) };
        // SAFETY: as above.
        let completion_end = unsafe { Consumer::new(rings.completion) };
        Ok(Self {
            rx: rx_end,
            tx: tx_end,
            fill: fill_end,
            completion: completion_end,
            fd,
            place: place.clone(),
            mode: kernel::copy_mode(fd).map_err(|e| setup("ask for the copy mode", e))?,
            busy_poll: config.busy_poll.is_some(),
            fill_size,
            filled: 0,
            sent: 0,
            is_able: true,
            _queues: (tx, rx, fill, completion),
        })
    }

    pub(super) const fn fd(&self) -> RawFd {
        self.fd
    }

    pub(super) const fn place(&self) -> &SocketPlace {
        &self.place
    }

    pub(super) const fn mode(&self) -> CopyMode {
        self.mode
    }

    pub(super) fn statistics(&self) -> io::Result<XskStatistics> {
        kernel::statistics(self.fd)
    }

    /// Gives the kernel free frames for what it received since: the fill ring is full again, if the pool allows.
    #[inline]
    pub(super) fn refill(&mut self, area: &mut UmemArea) {
        if self.filled == self.fill_size {
            return;
        }
        let before = self.filled;
        while self.filled < self.fill_size {
            let Some(address) = area.take_to_fill() else {
                break;
            };
            if !self.fill.push(address) {
                area.put_address(address);
                break;
            }
            self.filled += 1;
        }
        if self.filled != before {
            self.fill.publish();
        }
    }

    /// Takes what arrived, as far as `burst` has room; how many.
    #[inline]
    pub(super) fn receive(&mut self, area: &UmemArea, burst: &mut Burst) -> u32 {
        let mut received = 0;
        while !burst.is_full() {
            let Some(descriptor) = self.rx.pop() else {
                break;
            };
            burst.push(area.received(&descriptor));
            received += 1;
        }
        if received > 0 {
            self.rx.release();
            self.filled -= received;
        } else if self.busy_poll || self.fill.needs_wakeup() {
            kernel::wake_rx(self.fd);
        }
        received
    }

    /// Whether the kernel has not taken all frames that were queued, and might if it were woken again.
    #[inline]
    pub(super) fn has_unsent(&mut self) -> bool {
        self.sent > 0 && self.is_able && self.tx.pending() > 0
    }

    /// Lets the kernel look for packets where it asks for that: a driver without buffers, in zero-copy mode.
    #[inline]
    pub(super) fn wake_rx_if_asked(&self) {
        if self.fill.needs_wakeup() {
            kernel::wake_rx(self.fd);
        }
    }

    /// Whether frames wait to be received.
    #[inline]
    pub(super) fn has_arrivals(&self) -> bool {
        self.rx.waiting() > 0
    }

    /// Queues a descriptor; false when the ring is full, also after the kernel was woken.
    #[inline]
    pub(super) fn queue(&mut self, descriptor: libc::xdp_desc, area: &mut UmemArea) -> bool {
        if !self.tx.push(descriptor) {
            self.flush(area);
            if !self.tx.push(descriptor) {
                return false;
            }
        }
        self.sent += 1;
        true
    }

    /// Publishes what was queued, wakes the kernel until it took everything, and takes completed frames back. The one
    /// place where TX is woken: copy mode may send 32 frames a call only, and none while its buffers are used up.
    #[inline]
    pub(super) fn flush(&mut self, area: &mut UmemArea) {
        if self.sent == 0 {
            return;
        }
        self.tx.publish();
        let mut pending = self.tx.pending();
        let mut fruitless = 0;
        while pending > 0 && self.tx.needs_wakeup() && fruitless < FRUITLESS_WAKEUPS {
            self.is_able = kernel::wake_tx(self.fd) != Woken::Never;
            if !self.is_able {
                break;
            }
            // A full completion ring stops the kernel.
            self.reap(area);
            let left = self.tx.pending();
            fruitless = if left == pending { fruitless + 1 } else { 0 };
            pending = left;
        }
        self.reap(area);
    }

    /// Takes completed frames back.
    #[inline]
    pub(super) fn reap(&mut self, area: &mut UmemArea) {
        let before = self.sent;
        while let Some(address) = self.completion.pop() {
            area.put_address(address);
            self.sent -= 1;
        }
        if self.sent != before {
            self.completion.release();
        }
    }

    /// Adds the frames that this socket has.
    pub(super) fn audit(&mut self, audit: &mut FrameAudit) {
        let rx = self.rx.waiting();
        let tx = self.tx.pending();
        audit.rx += rx;
        audit.filled += self.filled - rx;
        audit.tx += tx;
        audit.completing += self.sent - tx;
    }
}

type Queues = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

fn bind(place: &SocketPlace, config: &XskConfig, area: &UmemArea) -> Result<Queues, XskError> {
    let failed = |source: io::Error, hint| {
        let (interface, queue) = (place.interface.clone(), place.queue.0);
        XskError::Bind { interface, queue, source, hint }
    };
    let settings = settings(config).map_err(|e| failed(e, ""))?;
    let name = place.interface.parse().map_err(|_| failed(io::ErrorKind::InvalidInput.into(), ""))?;
    let give_up = Instant::now() + BUSY_LIMIT;
    let mut pause = Duration::from_millis(10);
    loop {
        // SAFETY: xsk-rs asks that no program is loaded by libxdp for a queue that is bound already: none is ever.
        let e = match unsafe { xsk_rs::Socket::new(settings, area.umem(), &name, place.queue.0) } {
            Ok(queues) => return Ok(queues),
            Err(e) => e,
        };
        let code = e.source().and_then(|s| s.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error);
        if code != Some(libc::EBUSY) || Instant::now() > give_up {
            let source = code.map_or_else(|| io::Error::other(e), io::Error::from_raw_os_error);
            return Err(failed(source, hint(code, config.bind)));
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(320));
    }
}

fn settings(config: &XskConfig) -> io::Result<SocketConfig> {
    let size = |value| QueueSize::new(value).map_err(io::Error::other);
    let bind = match config.bind {
        BindMode::Auto => BindFlags::empty(),
        BindMode::Copy => BindFlags::XDP_COPY,
        BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
    };
    Ok(SocketConfig::builder()
        .rx_queue_size(size(config.rx_size)?)
        .tx_queue_size(size(config.tx_size)?)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(bind | BindFlags::XDP_USE_NEED_WAKEUP)
        .build())
}

/// What may help against an error of bind(2).
const fn hint(code: Option<i32>, bind: BindMode) -> &'static str {
    match (code, bind) {
        (Some(libc::EBUSY), _) => "; another program has an AF_XDP socket on this queue",
        (Some(libc::EPERM), _) => "; root or CAP_NET_RAW is needed",
        (Some(libc::ENODEV), _) => "; there is no such interface here",
        (Some(libc::EINVAL), _) => "; the interface may have fewer queues: see `ethtool -l`",
        (Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT), BindMode::ZeroCopy) => "; the driver has no zero-copy mode",
        (Some(libc::EOPNOTSUPP), _) => "; all ports of a worker must agree on copy or zero-copy: try `mode copy`",
        _ => "",
    }
}
