//! The atomics of the flow table: those of the standard library, or loom's under `--cfg loom`.

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Orders a compare-and-swap before the reads that follow it, for all threads alike (a store of one word and a read of
/// another are not, without it).
#[inline]
pub(super) fn fence_after_swap() {
    // A locked instruction of this processor orders everything already; a fence would cost as much as the swap. What
    // remains is to keep the compiler from moving reads before it. (The same as Linux's smp_mb__after_atomic.)
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(any(not(target_arch = "x86_64"), loom))]
    fence(Ordering::SeqCst);
}

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
