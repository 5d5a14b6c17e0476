//! The packets of one family in a burst, each with what the passes over the burst found out of it.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use arrayvec::{ArrayVec, CapacityError};

use super::path::Path;
use crate::flow::{FlowKey, Probe};
use crate::port::{BURST, Frame};
use crate::wire::{Headers, Plain};

/// What is known of a packet in a lot.
pub(super) struct Item<F: Path> {
    pub(super) probe: Probe,
    pub(super) shape: Shape,
    pub(super) key: F::Words,
}

/// What a packet looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Plain: this says all.
    Plain(Plain),
    /// Of another shape: where in the lot its headers stand.
    Other(u8),
}

/// Packets of one family, at most a burst of them: frames and what is known of them side by side.
pub(super) struct Lot<F: Path> {
    pub(super) frames: ArrayVec<Frame, BURST>,
    pub(super) items: ArrayVec<Item<F>, BURST>,
    /// The headers of packets that are not plain.
    pub(super) others: ArrayVec<Headers, BURST>,
}

impl<F: Path> Lot<F> {
    pub(super) fn new() -> Self {
        Self { frames: ArrayVec::new(), items: ArrayVec::new(), others: ArrayVec::new() }
    }

    /// Adds a plain packet. Gives the frame back when the lot is full.
    #[inline(always)]
    pub(super) fn push_plain(&mut self, frame: Frame, plain: Plain, key: F::Words, probe: Probe) -> Option<Frame> {
        self.push(frame, Item { probe, shape: Shape::Plain(plain), key })
    }

    /// As [`Lot::push_plain`], of another shape.
    #[cold]
    pub(super) fn push_other(&mut self, frame: Frame, headers: &Headers, key: F::Words, probe: Probe) -> Option<Frame> {
        let shape = Shape::Other(self.others.len() as u8);
        if self.others.try_push(*headers).is_err() {
            return Some(frame);
        }
        self.push(frame, Item { probe, shape, key })
    }

    #[inline(always)]
    fn push(&mut self, frame: Frame, item: Item<F>) -> Option<Frame> {
        if self.items.try_push(item).is_err() {
            return Some(frame);
        }
        self.frames.try_push(frame).err().map(CapacityError::element)
    }
}

impl Shape {
    /// A packet's headers, of the other shapes of its lot.
    pub(super) fn headers<F: Path>(self, others: &[Headers], key: &FlowKey<F::Addr>) -> Option<Headers> {
        match self {
            Self::Plain(plain) => Some(plain.headers(key.source_port, key.destination_port)),
            Self::Other(at) => others.get(at as usize).copied(),
        }
    }
}
