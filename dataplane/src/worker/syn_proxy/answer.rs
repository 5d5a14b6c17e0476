//! A client's SYN, answered in its own frame: what the answer promises is in its numbers, so nothing is kept.

use super::{HELD_SEGMENTS, Way, connection, ends, fitting, segment_of, send};
use crate::counters::{Drop, Event};
use crate::forward::icmp::ErrorKind;
use crate::forward::toa;
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::service::{Method, Service, TcpTimestamps, Toa};
use crate::syn_proxy::SynProxy;
use crate::syn_proxy::cookie::{self, Connection};
use crate::syn_proxy::segment::{self, Options, Segment};
use crate::wire::TcpFlags;
use crate::worker::egress::Learnt;
use crate::worker::pass::Keyed;
use crate::worker::path::Path;
use crate::worker::{Context, Hands, Packet, reply};

/// What time stamps take off each segment, in bytes with their padding.
const TIMESTAMPS: u16 = 12;

/// Answers a SYN with SYN and ACK. Data that came with it is left to be sent again.
pub(super) fn syn<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'_, F>,
    service: &Service,
    proxy: &SynProxy,
) {
    let Keyed { packet, key } = keyed;
    let (client, vip) = ends(key);
    let Some(server) = service.destinations.iter().find(|server| server.takes_flows()) else {
        reply::icmp(context, hands, &packet, ErrorKind::PortUnreachable, vip.address);
        return hands.discard(context, packet.frame, Drop::NoDestination);
    };
    let hops = &context.snapshot.hops;
    let hop = hops.hop(hops.lookup(client.address));
    // Whoever has an address of the director itself did not send this.
    if matches!(hop, Hop::Kernel | Hop::NoRoute) {
        return hands.discard(context, packet.frame, Drop::NoRoute);
    }
    let frame = hands.ports.bytes(&packet.frame);
    let learnt = if matches!(hop, Hop::OnLink(_)) { Learnt::sender(frame, packet.port) } else { None };
    let Some(segment) = segment_of(frame, packet.headers) else {
        return hands.discard(context, packet.frame, Drop::Truncated);
    };
    let Some((sequence, ..)) = segment::numbers(segment) else {
        return hands.discard(context, packet.frame, Drop::Truncated);
    };
    let asked = Options::of(segment);
    let mut offer = service.state.offer.options(proxy);
    let hides_client = server.method == Method::FullNat;
    if hides_client && service.settings.tcp_timestamps == TcpTimestamps::Remove {
        offer.timestamps = None;
    }
    // Each of the client's segments grows by it.
    let is_told = hides_client && service.settings.client_address.toa == Toa::On;
    let option = if is_told { toa::length(client.address) } else { 0 };
    // Servers tell what fits their own way; until they have, one of them stands for all.
    let to_server = fitting(hops.destination(server.slot), server.at);
    let mss = offer.mss.unwrap_or(u16::MAX).min(fitting(hop, client)).min(to_server).saturating_sub(option);
    let agreement = cookie::agree(&asked, &offer);
    hands.cookies.turn(context.now);
    let cookie = hands.cookies.make(&Connection { sequence, ..connection(key) }, agreement);
    let answer = Segment {
        sequence: cookie.sequence,
        acknowledgement: sequence.wrapping_add(1),
        flags: TcpFlags::SYN.with(TcpFlags::ACK),
        // What the client may send before its server has answered is what can be kept of it.
        window: mss.saturating_sub(TIMESTAMPS).saturating_mul(HELD_SEGMENTS),
        options: Options {
            mss: Some(mss),
            window_scale: agreement.scales.map(|(_, told)| told),
            sack: agreement.sack,
            timestamps: asked.timestamps.filter(|_| agreement.timestamps).map(|(value, _)| (cookie.timestamp, value)),
        },
    };
    context.counters.event(Event::CookieSent).add(1);
    let Packet { frame, headers, port } = packet;
    let way = Way { hop, from: vip, to: client, learnt, port };
    send(context, hands, frame, headers.l3 as usize, way, &answer);
}
