//! ICMP errors about our own outer packets: the flow is found by the packet inside, and its client is told.

use super::path::Path;
use super::{Context, Hands, Packet, reply};
use crate::counters::Drop;
use crate::flow::{Direction, Find, FlowEntry, FlowKey, V4, V6};
use crate::forward::tunnel_error::{self, TunnelError};
use crate::ident::NetPort;
use crate::port::Ports;
use crate::service::{Destination, DestinationSlot, Encapsulation, Method};
use crate::wire::number;

/// An ICMP error about a packet of no flow: one about a tunnel's outer packet has a flow further inside.
#[cold]
#[inline(never)]
pub(super) fn relate<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>) {
    let reason = match tunnel_error::parse(hands.ports.bytes(&packet.frame), packet.headers) {
        Ok(error) if error.source.is_ipv4() => about::<V4, P>(context, hands, &packet, &error),
        Ok(error) => about::<V6, P>(context, hands, &packet, &error),
        Err(reason) => reason,
    };
    hands.discard(context, packet.frame, reason);
}

/// Tells the client; gives what the error is counted under.
fn about<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: &Packet<'_>,
    error: &TunnelError,
) -> Drop {
    let Some(key) = key::<F>(error) else { return Drop::IcmpUnrelated };
    let table = F::table(context.shared);
    match table.lookup(&key) {
        Find::Hit { flow, direction: Direction::Forward } => {
            let entry = table.entry(flow);
            if !is_of_tunnel(context, entry, error) {
                return Drop::IcmpUnrelated;
            }
            reply::relay(context, hands, packet, error.inner.clone(), error.kind, entry);
            Drop::TunnelError
        }
        Find::Hit { .. } | Find::Miss => Drop::IcmpUnrelated,
        Find::Unsettled => Drop::InsertContended,
    }
}

/// The packet inside ran from the client to us, and on.
fn key<F: Path>(error: &TunnelError) -> Option<FlowKey<F::Addr>> {
    Some(FlowKey {
        source: F::address(error.source)?,
        destination: F::address(error.destination)?,
        source_port: error.source_port,
        destination_port: error.destination_port,
        protocol: error.transport,
    })
}

/// Whether the outer packet can have been one of this flow.
fn is_of_tunnel<F: Path>(context: Context<'_>, entry: &FlowEntry<F>, error: &TunnelError) -> bool {
    let Some(destination) = context.snapshot.services.destination(DestinationSlot(entry.destination())) else {
        return false;
    };
    let Destination { method: Method::Tun, at, tunnel, .. } = destination else { return false };
    let form = match tunnel.encapsulation {
        Encapsulation::Ipip if error.source.is_ipv4() => (number::IPV4, NetPort::ANY),
        Encapsulation::Ipip => (number::IPV6, NetPort::ANY),
        Encapsulation::Gre(_) => (number::GRE, NetPort::ANY),
        Encapsulation::Gue { port, .. } => (number::UDP, port),
    };
    !entry.is_two_way() && at.address == error.end && form == (error.protocol, error.port)
}
