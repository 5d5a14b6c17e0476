//! The fast way's part for flows with an extension record: FULLNAT, the SYN proxy.
//!
//! Once a server knows its client and both sides' numbers are moved the same everywhere, nothing but these numbers
//! differs from any other flow. Whatever else there is to do is left to [`super::extended`].

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use super::path::Path;
use super::segment::Seen;
use super::syn_proxy::{self, bits::PROXIED};
use super::{Context, extended};
use crate::flow::{Direction, Extension, FlowEntry, bit};
use crate::forward::sequence::{UsualOptions, translate_usual};
use crate::service::Brief;
use crate::wire::checksum::Delta;
use crate::wire::{Plain, TcpFlags};

/// Moves the numbers of a usual segment of an established flow; gives the difference for its checksum. `None`, and
/// nothing changed, where there is more to do.
#[inline(always)]
pub(super) fn usual<F: Path>(
    context: Context<'_>,
    frame: &mut [u8],
    plain: Plain,
    entry: &FlowEntry<F>,
    destination: &Brief,
    direction: Direction,
) -> Option<Delta> {
    let record = F::table(context.shared).extension_beside(entry)?;
    let segment = frame.get_mut(F::L4..)?;
    if record.bits() & (PROXIED | bit::RESET) != 0 || record.shifts_windows() {
        let segment = segment.get_mut(..plain.end() - F::L4)?;
        return remarkable(context, segment, plain.tcp(), record, destination, direction);
    }
    translate_usual(segment, record, direction, 0)
}

/// As [`usual`], where its numbers matter to more than the checksum, or its window is scaled.
#[inline(never)]
fn remarkable(
    context: Context<'_>,
    segment: &mut [u8],
    flags: TcpFlags,
    record: &Extension,
    destination: &Brief,
    direction: Direction,
) -> Option<Delta> {
    UsualOptions::of(segment)?;
    let seen = Seen::in_segment(segment, flags)?;
    let is_proxied = record.bits() & PROXIED != 0;
    if is_proxied {
        syn_proxy::may_pass(context, segment, record, destination, direction).then_some(())?;
    }
    let moved = translate_usual(segment, record, direction, record.terms().window(direction))?;
    // A proxied flow has a use of its own for the record's numbers.
    if !is_proxied {
        extended::watch(record, &seen, direction);
    }
    Some(moved)
}
