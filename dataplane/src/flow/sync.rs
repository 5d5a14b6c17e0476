//! The atomics of the flow table: those of the standard library, or loom's under `--cfg loom`.

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Lets another thread get on before a bounded retry.
#[inline]
pub(super) fn pause() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

/// How often something that another worker is about to finish is looked at again.
pub(super) const RETRIES: u32 = if cfg!(loom) { 2 } else { 128 };
