//! The fast way's part for flows with an extension record: FULLNAT, the SYN proxy.
//!
//! Once a server knows its client and both sides' numbers are moved the same everywhere, nothing but these numbers
//! differs from any other flow. Whatever else there is to do is left to [`super::extended`].

use super::path::Path;
use super::segment::Seen;
use super::syn_proxy::{self, bits::PROXIED};
use super::{Context, extended};
use crate::flow::{Direction, FlowEntry, bit};
use crate::forward::sequence::{Translation, UsualOptions};
use crate::service::Brief;
use crate::wire::Plain;
use crate::wire::checksum::Delta;

/// Moves the numbers of a usual segment of an established flow; gives the difference for its checksum. `None`, and
/// nothing changed, where there is more to do.
#[inline]
pub(super) fn usual<F: Path>(
    context: Context<'_>,
    frame: &mut [u8],
    plain: Plain,
    entry: &FlowEntry<F>,
    destination: &Brief,
    direction: Direction,
) -> Option<Delta> {
    let record = F::table(context.shared).extension(entry)?;
    let bits = record.bits();
    let segment = frame.get_mut(F::L4..plain.end as usize)?;
    if bits & PROXIED != 0 {
        UsualOptions::of(segment)?;
        syn_proxy::may_pass(context, segment, record, destination, direction).then_some(())?;
    }
    let watched =
        if bits & (PROXIED | bit::RESET) == bit::RESET { Some(Seen::in_segment(segment, plain.tcp)?) } else { None };
    let moved = Translation::of(record, direction).apply_usual(segment)?;
    if let Some(seen) = watched {
        extended::watch(record, &seen, direction);
    }
    Some(moved)
}
