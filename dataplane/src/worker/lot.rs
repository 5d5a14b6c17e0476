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
    /// What it says, if it is plain.
    pub(super) plain: Option<Plain>,
    pub(super) key: F::Words,
}

/// A packet that is not plain: where it stands in its lot, and its headers.
pub(super) struct Other {
    at: u8,
    headers: Headers,
}

/// Packets of one family, at most a burst of them: frames and what is known of them side by side.
pub(super) struct Lot<F: Path> {
    pub(super) frames: ArrayVec<Frame, BURST>,
    pub(super) items: ArrayVec<Item<F>, BURST>,
    /// Those of packets that are not plain.
    pub(super) others: ArrayVec<Other, BURST>,
}

impl<F: Path> Lot<F> {
    pub(super) fn new() -> Self {
        Self { frames: ArrayVec::new(), items: ArrayVec::new(), others: ArrayVec::new() }
    }

    /// Adds a plain packet. Gives the frame back when the lot is full.
    #[inline(always)]
    pub(super) fn push_plain(&mut self, frame: Frame, plain: Plain, key: F::Words, probe: Probe) -> Option<Frame> {
        self.push(frame, Item { probe, plain: Some(plain), key })
    }

    /// As [`Lot::push_plain`], of another shape.
    #[cold]
    pub(super) fn push_other(&mut self, frame: Frame, headers: &Headers, key: F::Words, probe: Probe) -> Option<Frame> {
        let at = self.items.len() as u8;
        if self.others.try_push(Other { at, headers: *headers }).is_err() {
            return Some(frame);
        }
        self.push(frame, Item { probe, plain: None, key })
    }

    #[inline(always)]
    fn push(&mut self, frame: Frame, item: Item<F>) -> Option<Frame> {
        if self.items.try_push(item).is_err() {
            return Some(frame);
        }
        self.frames.try_push(frame).err().map(CapacityError::element)
    }
}

impl<F: Path> Item<F> {
    /// The headers of the packet `at` this place of its lot, which holds `others`.
    pub(super) fn headers(&self, at: usize, others: &[Other], key: &FlowKey<F::Addr>) -> Option<Headers> {
        match self.plain {
            Some(plain) => Some(plain.headers(key.source_port, key.destination_port)),
            None => others.iter().find(|other| usize::from(other.at) == at).map(|other| other.headers),
        }
    }
}
