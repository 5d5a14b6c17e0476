//! A service's limits on new flows: `connection_limit` and `connection_rate`.

use super::pass::Keyed;
use super::path::Path;
use super::{Context, Hands, reply};
use crate::counters::Drop;
use crate::port::Ports;
use crate::service::{Limit, Refusal, Service};

/// The limit that forbids one more flow of a service, with the reason for its drop; else the flow is counted as begun.
#[inline]
pub(super) fn exceeded(context: Context<'_>, service: &Service) -> Option<(Limit, Drop)> {
    let limits = &service.settings.limits;
    if let Some(limit) = limits.flows
        && service.flows() >= u64::from(limit.most)
    {
        return Some((limit, Drop::ConnectionLimit));
    }
    let rate = limits.rate.filter(|rate| !service.state.begun().take(context.now, rate.most));
    rate.map(|limit| (limit, Drop::ConnectionRate))
}

/// Drops a packet that would have opened a flow too many.
#[cold]
#[inline(never)]
pub(super) fn refuse<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'_, F>,
    (limit, reason): (Limit, Drop),
) {
    if limit.refusal == Refusal::Reset {
        // It does nothing to what is no TCP segment.
        reply::reset(context, hands, &keyed.packet);
    }
    hands.discard(context, keyed.packet.frame, reason);
}
