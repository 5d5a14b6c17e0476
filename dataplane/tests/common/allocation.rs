//! Counts what a thread asks of the allocator, so that every packet test shows that workers ask nothing.

// Exception to the rule on unsafe code: a global allocator can be written in no other way. Each call is handed on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Calls of this thread, while it counts. Made without the allocator, and nothing is left to drop.
    static CALLS: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn note() {
    // A thread that is ending has no counter any more, and no worker.
    let _ = CALLS.try_with(|calls| calls.set(calls.get().map(|count| count + 1)));
}

// SAFETY: every call goes to the system's allocator as it came, so its contract is kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        note();
        // SAFETY: as above; `memory` is from `System`, for nothing else is.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above; `memory` is from `System`, for nothing else is.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// What `act` gives, and how often it called the allocator on this thread: to allocate, grow or free.
pub fn count<T>(act: impl FnOnce() -> T) -> (T, u64) {
    CALLS.set(Some(0));
    let result = act();
    (result, CALLS.take().unwrap())
}

/// What a worker's `turn` gives; it must not call the allocator.
pub fn none<T>(turn: impl FnOnce() -> T) -> T {
    let (result, calls) = count(turn);
    assert_eq!(calls, 0, "a worker called the allocator");
    result
}
