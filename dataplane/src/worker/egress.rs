//! The way out: the link header of the next hop in front, and onto a port.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use std::net::IpAddr;

use super::{Context, Hands, Packet, watch};
use crate::counters::{Drop, Event};
use crate::ident::{MacAddr, PortIndex};
use crate::next_hop::Hop;
use crate::port::{Frame, Ports};
use crate::wire::{Headers, IpVersion};

/// An Ethernet address seen in front of a packet, and the port where it was seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Learnt {
    pub(super) mac: MacAddr,
    pub(super) port: PortIndex,
}

impl Learnt {
    /// The sender's, from a frame as it was received.
    pub(super) fn sender(frame: &[u8], port: PortIndex) -> Option<Self> {
        let mac = MacAddr(*frame.get(6..)?.first_chunk()?);
        (!mac.is_group() && mac != MacAddr::default()).then_some(Self { mac, port })
    }
}

/// Sends a packet by a hop. `to` is where it goes, in case that has to be resolved; `learnt` the Ethernet address
/// that a flow remembers of it.
#[inline(always)]
pub(super) fn send<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    hop: &Hop,
    to: impl FnOnce() -> IpAddr,
    learnt: Option<Learnt>,
) {
    let (l3, version) = (packet.headers.l3 as usize, packet.headers.version);
    match hop {
        Hop::Neighbour { port, header, .. } => {
            emit(context, hands, packet.frame, l3, version, (*port, header));
        }
        Hop::Spread { ports, header, .. } => {
            let port = member(ports, hands.ports.bytes(&packet.frame), packet.headers);
            emit(context, hands, packet.frame, l3, version, (port, header));
        }
        Hop::OnLink(egress) => match learnt.filter(|learnt| egress.exit.contains(learnt.port)) {
            Some(learnt) => {
                emit(context, hands, packet.frame, l3, version, (learnt.port, &egress.link_header(learnt.mac)));
            }
            None => want(context, hands, packet.frame, to()),
        },
        Hop::Unresolved(_) => want(context, hands, packet.frame, to()),
        Hop::Kernel => to_kernel(context, hands, packet),
        Hop::NoRoute => hands.discard(context, packet.frame, Drop::NoRoute),
    }
}

/// The member of a bond that a packet leaves by: by its addresses and ports, so that a flow keeps to one and its
/// packets keep their order (the kernel's `xmit_hash_policy layer3+4`).
#[inline(never)]
pub(super) fn member(ports: &[PortIndex], frame: &[u8], headers: &Headers) -> PortIndex {
    let word = |at: usize| frame.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_ne_bytes(*bytes));
    let (l3, length) = (headers.l3 as usize, headers.version.header_length());
    // The last words of both addresses end the header without options.
    let addresses = match headers.version {
        IpVersion::V4 => word(l3 + length - 8) ^ word(l3 + length - 4),
        IpVersion::V6 => word(l3 + length - 20) ^ word(l3 + length - 4),
    };
    let ends = u32::from(headers.source_port.raw()) ^ u32::from(headers.destination_port.raw());
    let hash = (addresses ^ ends.rotate_left(16)).wrapping_mul(0x9e37_79b1) >> 16;
    // Never empty; a member of nothing would be counted where it is sent.
    ports.get(hash as usize % ports.len().max(1)).copied().unwrap_or(PortIndex(u8::MAX))
}

/// Gives a packet to the director's own kernel, within the rate.
#[inline(never)]
pub(super) fn to_kernel<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>) {
    let Some(kernel) = &context.snapshot.kernel else {
        return hands.discard(context, packet.frame, Drop::KernelAbsent);
    };
    if packet.port == kernel.port {
        // Back and forth between the kernel and us until its TTL is used up, otherwise.
        return hands.discard(context, packet.frame, Drop::NotForUs);
    }
    if !hands.kernel.take(context.now, kernel.rate) {
        return hands.discard(context, packet.frame, Drop::KernelLimited);
    }
    let (l3, version) = (packet.headers.l3 as usize, packet.headers.version);
    if emit(context, hands, packet.frame, l3, version, (kernel.port, &kernel.header)) {
        context.counters.event(Event::ToKernel).add(1);
    }
}

/// Puts the link header in front of the IP packet that begins at `l3`, and the frame onto the port. True when it is
/// there; else it is dropped and counted.
#[inline(always)]
pub(super) fn emit<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut frame: Frame,
    l3: usize,
    version: IpVersion,
    (port, header): (PortIndex, &[u8]),
) -> bool {
    let length = header.len() + 2;
    if length < l3 {
        frame.shrink_front(l3 - length);
    } else if length > l3 && !frame.grow_front(length - l3) {
        hands.discard(context, frame, Drop::NoHeadroom);
        return false;
    }
    let Some((link, _)) = hands.ports.bytes_mut(&mut frame).split_at_mut_checked(length) else {
        hands.discard(context, frame, Drop::Truncated);
        return false;
    };
    let (addresses, ether_type) = link.split_at_mut(header.len());
    addresses.copy_from_slice(header);
    ether_type.copy_from_slice(&version.ether_type());
    transmit(context, hands, frame, port)
}

/// Puts a finished frame onto a port. True when it is there; else it is dropped and counted.
#[inline(always)]
pub(super) fn transmit<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, frame: Frame, port: PortIndex) -> bool {
    let bytes = frame.len();
    if hands.watcher.is_on {
        watch::left(context, hands, &frame, port);
    }
    match hands.ports.transmit(port, frame) {
        Ok(()) => {
            context.counters.event(Event::Forwarded).add(1);
            if let Some(traffic) = context.counters.ports().get(port.0 as usize) {
                traffic.sent.count(bytes);
            }
            true
        }
        Err(frame) => {
            hands.discard(context, frame, Drop::PortFull);
            false
        }
    }
}

/// Drops a frame whose next Ethernet address is unknown, and asks control for it.
#[cold]
#[inline(never)]
fn want<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, frame: Frame, address: IpAddr) {
    // A full queue means that control has plenty to resolve already.
    let _ = context.shared.wanted.push(address);
    hands.discard(context, frame, Drop::NoNeighbour);
}
