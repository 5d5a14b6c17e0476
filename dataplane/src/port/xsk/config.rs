//! How a worker's AF_XDP sockets are set up, and what can go wrong with it.

use std::io;

use crate::ident::{PortIndex, QueueIndex};
use crate::worker::Idle;

/// How a socket is bound to its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindMode {
    /// Zero-copy where the driver can, else copy.
    #[default]
    Auto,
    /// Copy mode: any driver.
    Copy,
    /// Zero-copy, or an error.
    ZeroCopy,
}

/// How a socket moves packets, as the kernel tells it (`XDP_OPTIONS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyMode {
    /// The kernel copies each packet.
    Copy,
    /// The NIC reads and writes the UMEM.
    ZeroCopy,
}

/// Preferred busy polling (`SO_PREFER_BUSY_POLL`, kernel 5.11): the worker's own system calls drive the NIC's queue, instead
/// of softirqs. Useful with `napi_defer_hard_irqs` and `gro_flush_timeout` set on the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusyPoll {
    /// `SO_BUSY_POLL`: how long one call may poll, in microseconds.
    pub microseconds: u32,
    /// `SO_BUSY_POLL_BUDGET`: most packets of one call.
    pub budget: u16,
}

/// How a worker that sleeps is woken by its sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WakeUp {
    /// They are asked before and after each sleep (`ppoll`), in copy mode through their TX rings. Awake, a worker
    /// costs the kernel nothing.
    #[default]
    Poll,
    /// They are watched all the time (`epoll_pwait2`, kernel 5.11): a sleep costs half as much, but each packet more, for the
    /// kernel looks for a sleeper even while the worker spins.
    Epoll,
}

impl From<Idle> for WakeUp {
    /// What suits a worker that idles so.
    fn from(idle: Idle) -> Self {
        match idle {
            Idle::Busy | Idle::Adaptive => Self::Poll,
            Idle::Sleep => Self::Epoll,
        }
    }
}

/// Sizes and modes of a worker's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XskConfig {
    /// Frames of UMEM for each socket: more than twice `rx_size` (its fill ring) and a burst.
    pub frames_per_socket: u32,
    /// Entries of each RX ring, a power of two. The fill ring has twice as many.
    pub rx_size: u32,
    /// Entries of each TX and each completion ring, a power of two.
    pub tx_size: u32,
    /// Copy or zero-copy.
    pub bind: BindMode,
    /// Busy polling, or `None`.
    pub busy_poll: Option<BusyPoll>,
    /// How sockets wake a worker that sleeps.
    pub wake_up: WakeUp,
}

impl Default for XskConfig {
    fn default() -> Self {
        Self {
            frames_per_socket: 4096,
            rx_size: 1024,
            tx_size: 1024,
            bind: BindMode::Auto,
            busy_poll: None,
            wake_up: WakeUp::Poll,
        }
    }
}

/// Where one socket goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPlace {
    /// The port that it is part of.
    pub port: PortIndex,
    /// The port's interface, in the network namespace of the opening thread.
    pub interface: String,
    /// The queue of that interface.
    pub queue: QueueIndex,
}

/// What the kernel counted on one socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct XskStatistics {
    /// Packets lost for other reasons than a full ring: no frame, or too large for one.
    pub rx_dropped: u64,
    /// Fill ring entries that the kernel refused.
    pub rx_invalid: u64,
    /// Packets lost because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times that the fill ring was empty when a packet came.
    pub fill_ring_empty: u64,
    /// TX ring entries that the kernel refused.
    pub tx_invalid: u64,
    /// Times that the TX ring was empty when the driver asked.
    pub tx_ring_empty: u64,
}

/// Where all frames of a worker are. A frame that is nowhere has leaked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct FrameAudit {
    /// In the pool.
    pub free: u32,
    /// With the kernel for packets to come.
    pub filled: u32,
    /// With a packet that was received and not yet taken.
    pub rx: u32,
    /// Queued for sending.
    pub tx: u32,
    /// Taken by the kernel for sending and not yet given back.
    pub completing: u32,
    /// In the worker's hands.
    pub held: u32,
}

impl FrameAudit {
    /// All of them: the frames of the UMEM, when none has leaked.
    pub const fn total(&self) -> u32 {
        self.free + self.filled + self.rx + self.tx + self.completing + self.held
    }
}

/// Why a worker's sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum XskError {
    /// A worker needs at least one socket.
    #[error("a worker needs at least one queue of one port")]
    NoPlaces,
    /// A size that rings cannot have.
    #[error("{what} is {value}: it must be a power of two, 32768 at most")]
    RingSize {
        /// `rx_size` or `tx_size`.
        what: &'static str,
        /// What was asked for.
        value: u32,
    },
    /// Too few frames for the rings.
    #[error("frames_per_socket is {frames}: with rx_size {rx_size} it must be {least} at least", least = 2 * rx_size + crate::port::BURST as u32)]
    FewFrames {
        /// What was asked for.
        frames: u32,
        /// The RX ring's size.
        rx_size: u32,
    },
    /// A frame of one page does not hold such a packet.
    #[error("an MTU of {mtu} is too large for AF_XDP frames of one page: the limit is {limit} bytes")]
    MtuTooLarge {
        /// The MTU in bytes.
        mtu: u32,
        /// The largest that fits, in bytes.
        limit: u32,
    },
    /// No memory for frames, or no right to register it.
    #[error("cannot make a UMEM of {bytes} bytes: {source} (root or CAP_NET_RAW is needed; check `ulimit -l`)")]
    Umem {
        /// Its size.
        bytes: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The socket could not be made or bound.
    #[error("cannot open an AF_XDP socket on {interface} queue {queue}: {source}{hint}")]
    Bind {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What the kernel said.
        source: io::Error,
        /// What may help.
        hint: &'static str,
    },
    /// The sockets cannot be waited for.
    #[error("cannot wait for AF_XDP sockets by epoll_pwait2: {0}; before kernel 5.11 set `idle adaptive`")]
    Wait(#[source] io::Error),
    /// An open socket did not answer as it should.
    #[error("AF_XDP socket on {interface} queue {queue}: {what}: {source}")]
    Setup {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The step that failed.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}
