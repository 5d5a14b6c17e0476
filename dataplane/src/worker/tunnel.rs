//! TUN: a packet of a flow goes into an outer packet to its server.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use std::net::IpAddr;

use super::path::Path;
use super::{Context, Hands, Packet, carry, egress};
use crate::counters::Drop;
use crate::flow::FlowKey;
use crate::forward::gue::{self, Gue, OuterChecksum};
use crate::forward::tun::{self, Shim, TunnelEnds};
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::service::{Destination, Encapsulation, GueChecksum};
use crate::wire::Headers;

/// Sends a packet of `flow` (client to VIP) to the real server by its tunnel; `vip` speaks to its sender when it does not fit.
#[inline(always)]
pub(super) fn to_server<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    flow: impl Fn() -> FlowKey<F::Addr>,
    destination: &Destination,
    vip: impl Fn() -> IpAddr,
) {
    let hop = context.snapshot.hops.destination(destination.slot);
    if *hop == Hop::Kernel {
        return egress::to_kernel(context, hands, packet);
    }
    let Some(ends) = ends::<F>(&flow, destination) else {
        return hands.discard(context, packet.frame, Drop::NoRoute);
    };
    let Some(packet) = carry::fit(context, hands, packet, hop, destination.overhead(), vip) else { return };
    let Packet { mut frame, headers, port } = packet;
    let (l3, length) = (headers.l3 as usize, headers.ip_length());
    frame.set_len(l3 + length);
    frame.shrink_front(l3);
    let shim = match destination.tunnel.encapsulation {
        Encapsulation::Ipip => Shim::None,
        Encapsulation::Gre(checksum) => Shim::Gre(checksum),
        Encapsulation::Gue { port, checksum } => {
            let source = gue::source_port(entropy::<F>(&flow()));
            let remote = match checksum {
                GueChecksum::Absent | GueChecksum::Present => None,
                GueChecksum::Remote => leave_checksum(hands.ports.bytes_mut(&mut frame), headers),
            };
            let checksum = match checksum {
                GueChecksum::Absent => OuterChecksum::Zero,
                GueChecksum::Present | GueChecksum::Remote => OuterChecksum::Whole,
            };
            Shim::Gue(Gue { source, destination: port, checksum, remote })
        }
    };
    let overhead = ends.overhead() + shim.length();
    if !frame.grow_front(overhead) {
        return hands.discard(context, frame, Drop::NoHeadroom);
    }
    hands.next_id = hands.next_id.wrapping_add(1);
    let bytes = hands.ports.bytes_mut(&mut frame);
    let Some((outer, inner)) = bytes.split_at_mut_checked(overhead) else {
        return hands.discard(context, frame, Drop::Truncated);
    };
    tun::write_outer(outer, inner, ends, shim, hands.next_id);
    let headers = Headers { l3: 0, version: ends.version(), ..*headers };
    egress::send(context, hands, Packet { frame, headers: &headers, port }, hop, || destination.at.address, None);
}

/// Where a flow's outer packets come from and go to.
#[inline(always)]
fn ends<F: Path>(flow: impl Fn() -> FlowKey<F::Addr>, destination: &Destination) -> Option<TunnelEnds> {
    let spread = destination.tunnel.sources.and_then(|_| destination.tunnel.source(entropy::<F>(&flow())));
    TunnelEnds::new(spread.or(destination.local_source)?, destination.at.address)
}

/// Leaves the checksum of the packet that a frame now begins with to the receiver.
fn leave_checksum(packet: &mut [u8], headers: &Headers) -> Option<gue::Remote> {
    let (l4, end) = (headers.l4.checked_sub(headers.l3)?, headers.end.checked_sub(headers.l3)?);
    gue::leave_checksum(packet, &Headers { l3: 0, l4, end, ..*headers })
}

/// What tells a flow from others in an outer header: the same for all its packets. It need not be secret, so it is not
/// taken from the table's keyed hash, of which nothing may be seen outside.
fn entropy<F: Path>(flow: &FlowKey<F::Addr>) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let words = F::pack(flow);
    let mix = |sum: u64, word: &u64| (sum ^ word).wrapping_mul(ODD).rotate_left(29);
    (words.as_ref().iter().fold(ODD, mix).wrapping_mul(ODD) >> 32) as u32
}
