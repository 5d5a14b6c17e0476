//! When a flow is given up for what its client sends now: a new connection from the port of an old one, and packets to
//! a server that was removed (`conn_reuse_mode` and `expire_nodest_conn` of IPVS).

use super::pass::Keyed;
use super::path::Path;
use super::{Context, Hands, carry};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, FlowEntry, FlowRef};
use crate::ident::Weight;
use crate::port::Ports;
use crate::service::DestinationSlot;
use crate::snapshot::{PortReuse, RemovedServers};
use crate::state::TcpState;
use crate::wire::TcpFlags;

/// Whether a packet begins a connection that is to be scheduled, although its port has a flow.
#[inline]
pub(super) fn begins<F: Path>(
    context: Context<'_>,
    entry: &FlowEntry<F>,
    keyed: &Keyed<'_, F>,
    direction: Direction,
) -> bool {
    let tcp = keyed.packet.headers.tcp;
    tcp.contains(TcpFlags::SYN)
        && !tcp.contains(TcpFlags::ACK)
        && direction == Direction::Forward
        && is_to_be_rescheduled(context, entry)
}

/// Whether a new SYN ends a flow. A server that takes no connections any more gets none by this way either, unless the
/// flow is established: who sends a SYN then may not be its client.
#[cold]
#[inline(never)]
fn is_to_be_rescheduled<F: Path>(context: Context<'_>, entry: &FlowEntry<F>) -> bool {
    let policy = &context.snapshot.policy;
    let Some(destination) = context.snapshot.services.destination(DestinationSlot(entry.destination())) else {
        return true;
    };
    let is_drained = destination.weight == Weight::ZERO;
    if is_drained && policy.removed == RemovedServers::EndFlows {
        return true;
    }
    let state = TcpState::from_u8(entry.state().state());
    match policy.port_reuse {
        PortReuse::Keep => false,
        _ if state.is_reusable() || (is_drained && state != TcpState::Established) => true,
        PortReuse::Closed => false,
        PortReuse::ClosedOrFinished => state == TcpState::FinWait && !entry.is_two_way(),
    }
}

/// A packet of a flow whose server was removed: dropped, and the flow with it where the policy says so.
#[cold]
#[inline(never)]
pub(super) fn without_server<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'_, F>,
    flow: FlowRef,
    entry: &FlowEntry<F>,
) {
    if context.snapshot.policy.removed == RemovedServers::EndFlows {
        carry::end_as(context, hands, flow, entry, Event::FlowOrphaned);
    }
    hands.discard(context, keyed.packet.frame, Drop::DestinationGone);
}
