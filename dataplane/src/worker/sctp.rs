//! SCTP: what its packets do to a flow. Off the usual way, for the chunks have to be read.

use super::carry;
use super::pass::Keyed;
use super::path::{self, Path};
use super::{Context, Hands};
use crate::flow::{Direction, FlowEntry, FlowRef, flag};
use crate::port::Ports;
use crate::service::Destination;
use crate::snapshot::StraySctp;
use crate::state::SctpState;
use crate::wire::SctpEvent;

/// How often a flow's state is moved on while other workers move it too.
const TRANSITIONS: u32 = 16;

/// What a packet means; data where it holds no chunk.
pub(super) fn event<F: Path, P: Ports>(hands: &Hands<P>, keyed: &Keyed<'_, F>) -> SctpEvent {
    let headers = keyed.packet.headers;
    let packet = hands.ports.bytes(&keyed.packet.frame).get(headers.l4 as usize..headers.end as usize);
    packet.and_then(SctpEvent::of).unwrap_or(SctpEvent::Data)
}

/// Moves a flow's state, its destination's counts and its deadline. False when the flow is over, or ends here because
/// its client begins anew.
#[inline(never)]
pub(super) fn advance<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    (flow, entry): (FlowRef, &FlowEntry<F>),
    destination: &Destination,
    direction: Direction,
    keyed: &Keyed<'_, F>,
) -> bool {
    let event = event(hands, keyed);
    let view = path::view(entry, direction);
    for _ in 0..TRANSITIONS {
        let seen = entry.state();
        if !seen.is_live() {
            return false;
        }
        let state = SctpState::from_u8(seen.state());
        if event == SctpEvent::Init && direction == Direction::Forward && state.is_reusable() {
            carry::end(context, hands, flow, entry);
            return false;
        }
        let next = state.next(view, event);
        let flags = if next.is_embryonic() { seen.flags() } else { seen.flags() & !flag::EMBRYONIC };
        entry.set_deadline(context.now.after(context.snapshot.policy.timeouts.sctp(next)));
        if (next, flags) == (state, seen.flags()) {
            return true;
        }
        // Another worker may move the same flow: the one whose transition takes effect moves the counts.
        if entry.transition(seen, next.to_u8(), flags).is_ok() {
            destination.counts.shift(state.activity(), next.activity());
            return true;
        }
    }
    true
}

/// Whether a packet of no flow may open one: an INIT; under `sloppy_sctp` any but an ABORT.
pub(super) fn opens<F: Path, P: Ports>(context: Context<'_>, hands: &Hands<P>, keyed: &Keyed<'_, F>) -> bool {
    match event(hands, keyed) {
        SctpEvent::Init => true,
        SctpEvent::Abort => false,
        _ => context.snapshot.policy.stray_sctp == StraySctp::Open,
    }
}
