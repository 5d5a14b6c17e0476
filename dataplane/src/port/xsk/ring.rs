//! The two ends of an AF_XDP ring: single producer, single consumer, in memory shared with the kernel.
//!
//! Indices run freely and are masked on access. Each end works on an index of its own and touches the shared ones only
//! to publish what it did and to learn what the other did: one store-release and one load-acquire a batch.

#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The kernel wants a system call before it goes on (`XDP_RING_NEED_WAKEUP`).
const NEED_WAKEUP: u32 = 1;

/// Where the parts of a ring of `T` lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingMemory<T> {
    pub(super) producer: NonNull<AtomicU32>,
    pub(super) consumer: NonNull<AtomicU32>,
    pub(super) flags: NonNull<AtomicU32>,
    pub(super) entries: NonNull<T>,
    /// Number of entries, a power of two.
    pub(super) size: u32,
}

impl<T: Copy> RingMemory<T> {
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: valid for the life of the ring, by the contract of `Producer::new` and `Consumer::new`.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: valid for the life of the ring, by the contract of `Producer::new` and `Consumer::new`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: valid for the life of the ring, by the contract of `Producer::new` and `Consumer::new`.
        unsafe { self.flags.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: `size` entries lie there and the mask keeps the index below `size`.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// The end that writes entries.
#[derive(Debug)]
pub(super) struct Producer<T> {
    memory: RingMemory<T>,
    /// The next entry to write.
    head: u32,
    /// The consumer's index as last seen.
    consumed: u32,
}

// SAFETY: the ring's memory is not bound to a thread, and this is the only handle of its end.
unsafe impl<T: Send> Send for Producer<T> {}

impl<T: Copy> Producer<T> {
    /// # Safety
    /// The memory stays valid while this lives, `size` is a power of two, and nothing else acts as this ring's producer.
    pub(super) unsafe fn new(memory: RingMemory<T>) -> Self {
        let head = memory.producer().load(Ordering::Relaxed);
        let consumed = memory.consumer().load(Ordering::Acquire);
        Self { memory, head, consumed }
    }

    /// Writes an entry; false when the ring is full. [`Producer::publish`] shows it to the consumer.
    #[inline]
    #[must_use]
    pub(super) fn push(&mut self, entry: T) -> bool {
        if self.head.wrapping_sub(self.consumed) == self.memory.size {
            self.consumed = self.memory.consumer().load(Ordering::Acquire);
            if self.head.wrapping_sub(self.consumed) == self.memory.size {
                return false;
            }
        }
        // SAFETY: the entry is free: the consumer is past it, and only this end writes entries.
        unsafe { self.memory.entry(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        true
    }

    /// Shows the consumer everything that was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.memory.producer().store(self.head, Ordering::Release);
    }

    /// Entries that the consumer has not taken, published or not.
    #[inline]
    pub(super) fn pending(&mut self) -> u32 {
        self.consumed = self.memory.consumer().load(Ordering::Acquire);
        self.head.wrapping_sub(self.consumed)
    }

    /// Whether the kernel has to be woken to take what was published.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.memory.flags().load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

/// The end that reads entries.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    memory: RingMemory<T>,
    /// The next entry to read.
    tail: u32,
    /// The producer's index as last seen.
    produced: u32,
}

// SAFETY: the ring's memory is not bound to a thread, and this is the only handle of its end.
unsafe impl<T: Send> Send for Consumer<T> {}

impl<T: Copy> Consumer<T> {
    /// # Safety
    /// The memory stays valid while this lives, `size` is a power of two, and nothing else acts as this ring's consumer.
    pub(super) unsafe fn new(memory: RingMemory<T>) -> Self {
        let tail = memory.consumer().load(Ordering::Relaxed);
        let produced = memory.producer().load(Ordering::Acquire);
        Self { memory, tail, produced }
    }

    /// Takes the next entry, if there is one. [`Consumer::release`] gives its place back.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.tail == self.produced {
            self.produced = self.memory.producer().load(Ordering::Acquire);
            if self.tail == self.produced {
                return None;
            }
        }
        // SAFETY: the entry was published by the producer, which leaves it alone until it is released.
        let entry = unsafe { self.memory.entry(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of all popped entries back to the producer.
    #[inline]
    pub(super) fn release(&mut self) {
        self.memory.consumer().store(self.tail, Ordering::Release);
    }

    /// Entries that the producer published and that were not popped yet.
    pub(super) fn waiting(&self) -> u32 {
        self.memory.producer().load(Ordering::Acquire).wrapping_sub(self.tail)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// A ring in plain memory, with both ends.
    struct Pair {
        producer: Producer<u64>,
        consumer: Consumer<u64>,
        flags: NonNull<AtomicU32>,
    }

    /// Indices start at `start`, to meet the wrap of 32 bits. The memory is leaked: it must outlive both ends.
    fn pair(size: u32, start: u32) -> Pair {
        let word = |value| NonNull::from(Box::leak(Box::new(AtomicU32::new(value))));
        let entries = NonNull::from(Box::leak(vec![0u64; size as usize].into_boxed_slice())).cast();
        let memory = RingMemory { producer: word(start), consumer: word(start), flags: word(0), entries, size };
        // SAFETY: the memory is never freed, and one producer is made.
        let producer = unsafe { Producer::new(memory) };
        // SAFETY: the memory is never freed, and one consumer is made.
        let consumer = unsafe { Consumer::new(memory) };
        Pair { producer, consumer, flags: memory.flags }
    }

    #[test]
    fn nothing_is_seen_before_it_is_published_and_no_place_reused_before_it_is_released() {
        let Pair { mut producer, mut consumer, .. } = pair(2, 0);
        assert!(producer.push(1) && producer.push(2) && !producer.push(3));
        assert_eq!(consumer.pop(), None);
        producer.publish();
        assert_eq!((consumer.waiting(), producer.pending()), (2, 2));
        assert_eq!((consumer.pop(), consumer.pop(), consumer.pop()), (Some(1), Some(2), None));
        assert!(!producer.push(3));
        consumer.release();
        assert!(producer.push(3));
    }

    #[test]
    fn the_wake_up_flag_is_the_kernels() {
        let Pair { producer, flags, .. } = pair(2, 0);
        assert!(!producer.needs_wakeup());
        // SAFETY: leaked memory.
        unsafe { flags.as_ref() }.store(NEED_WAKEUP, Ordering::Relaxed);
        assert!(producer.needs_wakeup());
    }

    #[test]
    fn two_threads_see_every_entry_once_and_in_order() {
        const COUNT: u64 = 200_000;
        let Pair { mut producer, mut consumer, .. } = pair(64, u32::MAX - 1000);
        let writer = std::thread::spawn(move || {
            for n in 0..COUNT {
                while !producer.push(n) {
                    producer.publish();
                    std::thread::yield_now();
                }
                if n % 7 == 0 {
                    producer.publish();
                }
            }
            producer.publish();
        });
        let mut expected = 0;
        while expected < COUNT {
            match consumer.pop() {
                Some(n) => {
                    assert_eq!(n, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
            if expected % 5 == 0 {
                consumer.release();
            }
        }
        writer.join().unwrap();
    }

    proptest! {
        /// Any order of operations, from any index, behaves like a bounded queue with a published and a released part.
        #[test]
        fn equals_a_bounded_queue(start: u32, power in 0u32..5, steps in prop::collection::vec(0u8..4, 0..400)) {
            let size = 1 << power;
            let Pair { mut producer, mut consumer, .. } = pair(size, start);
            let (mut written, mut visible) = (VecDeque::new(), VecDeque::new());
            let (mut next, mut unreleased) = (0u64, 0u32);
            for step in steps {
                match step {
                    0 => {
                        let room = (written.len() + visible.len()) as u32 + unreleased < size;
                        prop_assert_eq!(producer.push(next), room);
                        if room {
                            written.push_back(next);
                        }
                        next += 1;
                    }
                    1 => {
                        producer.publish();
                        visible.append(&mut written);
                    }
                    2 => {
                        let entry = consumer.pop();
                        prop_assert_eq!(entry, visible.pop_front());
                        unreleased += u32::from(entry.is_some());
                    }
                    _ => {
                        consumer.release();
                        unreleased = 0;
                    }
                }
                prop_assert_eq!(consumer.waiting() as usize, visible.len());
            }
        }
    }
}
