//! Packets of the worker's own: resets and ICMP errors, within a rate.

use std::net::IpAddr;
use std::ops::Range;

use super::egress::{self, Learnt};
use super::path::Path;
use super::{Context, Hands, Packet, carry};
use crate::counters::Event;
use crate::flow::FlowEntry;
use crate::forward::icmp::{self, ErrorKind};
use crate::forward::reset;
use crate::ident::{NetPort, PortIndex};
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::wire::{Fragment, Headers, IpVersion, TcpFlags, ethernet, ip};

/// The longest error: what RFC 4443 section 2.4 allows.
const LONGEST: usize = 1280;
/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// It was made; whether it left, port and drop counters tell.
    Yes,
    /// Nothing may or can be answered to such a packet.
    Unanswerable,
    /// The rate is used up.
    Limited,
}

/// Tells the sender of `packet` what is wrong with it, as `speaker`.
#[cold]
#[inline(never)]
pub(super) fn icmp<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: &Packet<'_>,
    kind: ErrorKind,
    speaker: IpAddr,
) {
    match answer(context, hands, packet, |out, offending| icmp::error(out, offending, kind, speaker)) {
        Sent::Yes => context.counters.event(Event::IcmpSent).add(1),
        Sent::Limited => context.counters.event(Event::IcmpSuppressed).add(1),
        Sent::Unanswerable => {}
    }
}

/// Resets the connection that `packet` takes itself to belong to.
#[cold]
#[inline(never)]
pub(super) fn reset<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: &Packet<'_>) -> Sent {
    let sent = answer(context, hands, packet, reset::reply);
    if sent == Sent::Yes {
        context.counters.event(Event::ResetSent).add(1);
    }
    sent
}

/// Writes a packet about `packet` and sends it to its sender.
fn answer<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: &Packet<'_>,
    write: impl FnOnce(&mut [u8], &[u8]) -> Option<usize>,
) -> Sent {
    let offending = hands.ports.bytes(&packet.frame);
    let (l3, end) = (packet.headers.l3 as usize, packet.headers.end as usize);
    let sender = Learnt::sender(offending, packet.port);
    let Some(ip) = offending.get(l3..end) else { return Sent::Unanswerable };
    let mut out = [0; LONGEST];
    let Some(length) = write(&mut out, ip) else { return Sent::Unanswerable };
    let Some(reply) = out.get(..length) else { return Sent::Unanswerable };
    let to = source(packet, offending);
    let hop = context.snapshot.hops.hop(context.snapshot.hops.lookup(to));
    send(context, hands, (reply, packet.headers.version), (packet.port, to), hop, sender)
}

/// Tells the client of a flow what became of a packet of its, of which `quoted` in the frame of `packet` is the
/// beginning. The VIP speaks: the client knows nobody else.
#[cold]
#[inline(never)]
pub(super) fn relay<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: &Packet<'_>,
    quoted: Range<usize>,
    kind: ErrorKind,
    entry: &FlowEntry<F>,
) {
    let (client, vip): (IpAddr, IpAddr) = (entry.forward().source.into(), entry.forward().destination.into());
    let version = if client.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    let mut out = [0; LONGEST];
    let quoted = hands.ports.bytes(&packet.frame).get(quoted).unwrap_or_default();
    let written = icmp::error_about_quoted(&mut out, quoted, kind, vip).and_then(|length| out.get(..length));
    let Some(reply) = written else { return };
    let hop = carry::way_to_client(context, entry, client);
    let learnt = entry.client_mac().map(|(mac, port)| Learnt { mac, port });
    match send(context, hands, (reply, version), (packet.port, client), hop, learnt) {
        Sent::Yes => context.counters.event(Event::IcmpSent).add(1),
        Sent::Limited => context.counters.event(Event::IcmpSuppressed).add(1),
        Sent::Unanswerable => {}
    }
}

/// Sends an IP packet of our own within the rate: to an address by its hop, because of what came in by a port.
fn send<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    (reply, version): (&[u8], IpVersion),
    (port, to): (PortIndex, IpAddr),
    hop: &Hop,
    learnt: Option<Learnt>,
) -> Sent {
    // Whoever has an address of the director itself did not send this.
    if matches!(hop, Hop::Kernel | Hop::NoRoute) {
        return Sent::Unanswerable;
    }
    if !hands.replies.take(context.now, context.snapshot.policy.replies_per_second) {
        return Sent::Limited;
    }
    let Some(mut frame) = hands.ports.allocate() else { return Sent::Limited };
    frame.set_len(ethernet::LENGTH + reply.len());
    match hands.ports.bytes_mut(&mut frame).get_mut(ethernet::LENGTH..) {
        Some(body) if body.len() == reply.len() => body.copy_from_slice(reply),
        _ => {
            hands.ports.free(frame);
            return Sent::Unanswerable;
        }
    }
    let headers = Headers {
        version,
        l3: ethernet::LENGTH as u16,
        l4: (ethernet::LENGTH + version.header_length()) as u16,
        end: (ethernet::LENGTH + reply.len()) as u16,
        protocol: 0,
        fragment: Fragment::Whole,
        source_port: NetPort::ANY,
        destination_port: NetPort::ANY,
        tcp: TcpFlags::default(),
        ttl: ip::TTL,
    };
    egress::send(context, hands, Packet { frame, headers: &headers, port }, hop, || to, learnt);
    Sent::Yes
}

fn source(packet: &Packet<'_>, frame: &[u8]) -> IpAddr {
    match packet.headers.version {
        IpVersion::V4 => packet.headers.addresses_v4(frame).0.into(),
        IpVersion::V6 => packet.headers.addresses_v6(frame).0.into(),
    }
}
