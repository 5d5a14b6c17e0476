//! `mss_clamp`: segments with SYN of services that ask for it announce what fits the way.

use super::path::Path;
use super::{Context, Hands, Packet, carry};
use crate::flow::FlowEntry;
use crate::forward::mss;
use crate::ident::Protocol;
use crate::port::Ports;
use crate::service::{Destination, MssClamp};
use crate::wire::{ipv4, ipv6, tcp};

/// Lowers the MSS option of a flow's SYN or SYN-ACK as its service wants it.
#[cold]
#[inline(never)]
pub(super) fn clamp<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: &mut Packet<'_>,
    entry: &FlowEntry<F>,
    destination: &Destination,
) {
    let Some(service) = context.snapshot.services.service(destination.service) else { return };
    let most = match service.settings.mss_clamp {
        MssClamp::Off => return,
        MssClamp::To(most) => most,
        MssClamp::ByWay => by_way(context, entry, destination),
    };
    mss::clamp(hands.ports.bytes_mut(&mut packet.frame), packet.headers, most);
}

/// What TCP can fill of the narrower of the two ways.
fn by_way<F: Path>(context: Context<'_>, entry: &FlowEntry<F>, destination: &Destination) -> u16 {
    let there = entry.forward();
    debug_assert_eq!(there.protocol, Protocol::Tcp, "only TCP has a SYN");
    let (client, server) = (F::ip(there.source), destination.at.address);
    let to_server = context.snapshot.hops.destination(destination.slot).mtu();
    let to_client = carry::way_to_client(context, entry, client).mtu();
    let to_server = to_server.map(|mtu| mtu.saturating_sub(destination.overhead() as u16));
    let narrower = [to_server, to_client].into_iter().flatten().min().unwrap_or(u16::MAX);
    let is_v6 = client.is_ipv6() || (server.is_ipv6() && destination.method.is_two_way());
    let header = if is_v6 { ipv6::LENGTH } else { ipv4::LENGTH };
    narrower.saturating_sub((header + tcp::LENGTH) as u16)
}
