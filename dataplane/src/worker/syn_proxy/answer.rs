//! A client's SYN, answered in its own frame: what the answer promises is in its numbers, so nothing is kept.

#![allow(clippy::inline_always, reason = "answers stay in registers: what goes through memory in pieces waits there")]

use super::{HELD_SEGMENTS, Way, ends, fitting, segment_of, send};
use crate::counters::{Drop, Event};
use crate::forward::icmp::ErrorKind;
use crate::forward::toa;
use crate::ident::Endpoint;
use crate::next_hop::{Hop, PlainHop};
use crate::port::{Frame, Ports};
use crate::service::{Method, Service, TcpTimestamps, Toa};
use crate::syn_proxy::SynProxy;
use crate::syn_proxy::cookie::{self, Begun, Client, Cookies};
use crate::syn_proxy::segment::{self, Options, Segment};
use crate::wire::{Plain, TcpFlags, ethernet, tcp};
use crate::worker::egress::Learnt;
use crate::worker::fast::Fast;
use crate::worker::pass::Keyed;
use crate::worker::path::Path;
use crate::worker::{Context, Hands, Packet, reply};

/// What time stamps take off each segment, in bytes with their padding.
const TIMESTAMPS: u16 = 12;

/// What the answers have in common that go to clients of one service.
#[derive(Clone, Copy)]
pub(in super::super) struct Answers {
    /// The options that clients are offered.
    offer: Options,
    /// The largest segment that servers take.
    most: u16,
    /// Whether each of a client's segments grows by an option that tells the server of it.
    toa: Toa,
    /// The service's part in their numbers.
    begun: Begun,
}

impl Answers {
    /// From `at`, where clients see the service. `None` when no server takes connections.
    pub(in super::super) fn new(
        context: Context<'_>,
        cookies: &mut Cookies,
        (service, proxy): (&Service, &SynProxy),
        at: Endpoint,
    ) -> Option<Self> {
        let server = service.destinations.iter().find(|server| server.takes_flows())?;
        let mut offer = service.state.offer.options(proxy);
        let hides_client = server.method == Method::FullNat;
        if hides_client && service.settings.tcp_timestamps == TcpTimestamps::Remove {
            offer.timestamps = None;
        }
        let toa = if hides_client { service.settings.client_address.toa } else { Toa::Off };
        // Servers tell what fits their own way; until they have, one of them stands for all.
        let to_server = fitting(context.snapshot.hops.destination(server.slot), server.at);
        cookies.turn(context.now);
        Some(Self { offer, most: offer.mss.unwrap_or(u16::MAX).min(to_server), toa, begun: cookies.begin(at) })
    }

    /// The answer to a SYN with these options, to a client whom segments of `fits` bytes reach. `None` when the SYN is cut
    /// off.
    #[inline(always)]
    fn to(&self, syn: &[u8], asked: &Options, client: Client, fits: u16) -> Option<Segment> {
        let (sequence, ..) = segment::numbers(syn)?;
        let option = match (self.toa, client) {
            (Toa::Off, _) => 0,
            (Toa::On, Client::V4(..)) => toa::LENGTH_V4,
            (Toa::On, Client::V6(..)) => toa::LENGTH_V6,
        };
        let mss = self.most.min(fits).saturating_sub(option);
        let agreement = cookie::agree(asked, &self.offer);
        let cookie = self.begun.make(client, sequence, agreement);
        Some(Segment {
            sequence: cookie.sequence,
            acknowledgement: sequence.wrapping_add(1),
            flags: TcpFlags::SYN.with(TcpFlags::ACK),
            // What the client may send before its server has answered is what can be kept of it.
            window: mss.saturating_sub(TIMESTAMPS).saturating_mul(HELD_SEGMENTS),
            options: Options {
                mss: Some(mss),
                window_scale: agreement.scales.map(|(_, told)| told),
                sack: agreement.sack,
                timestamps: asked
                    .timestamps
                    .filter(|_| agreement.timestamps)
                    .map(|(value, _)| (cookie.timestamp, value)),
            },
        })
    }
}

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
    let Some(answers) = Answers::new(context, &mut hands.cookies, (service, proxy), vip) else {
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
    let syn = segment_of(frame, packet.headers);
    let answer = syn.and_then(|syn| answers.to(syn, &Options::of(syn), client.into(), fitting(hop, client)));
    let Some(answer) = answer else {
        return hands.discard(context, packet.frame, Drop::Truncated);
    };
    context.counters.event(Event::CookieSent).add(1);
    let Packet { frame, headers, port } = packet;
    let way = Way { hop, from: vip, to: client, learnt, port };
    send(context, hands, frame, headers.l3 as usize, way, &answer);
}

/// The same in one go for a plain packet to whose sender a plain hop leads; gives any other back untouched.
#[inline(always)]
pub(in super::super) fn plain<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    fast: &mut Fast<'_>,
    frame: Frame,
    (packet, key): (Plain, &F::Words),
    answers: &Answers,
) -> Option<Frame> {
    let (client, hops) = (F::client(key), &context.snapshot.hops);
    let address = client.address();
    // An IPv4 address in an IPv6 packet is nobody's.
    let hop = hops.plain(hops.lookup(address)).filter(|_| address.to_canonical().is_ipv6() == F::IS_V6);
    let (Some(hop), Some(syn)) = (hop, hands.ports.bytes(&frame).get(F::L4..packet.end())) else {
        return Some(frame);
    };
    match Options::usual(syn) {
        Some(asked) => over::<F, P>(context, hands, fast, frame, (packet, key, &asked), (answers, hop)),
        None => unusual::<F, P>(context, hands, fast, frame, (packet, key), (answers, hop)),
    }
}

/// As [`plain`], of a SYN whose options are in another order.
#[inline(never)]
fn unusual<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    fast: &mut Fast<'_>,
    frame: Frame,
    (packet, key): (Plain, &F::Words),
    by: (&Answers, &PlainHop),
) -> Option<Frame> {
    let asked = hands.ports.bytes(&frame).get(F::L4..packet.end()).map(Options::of).unwrap_or_default();
    over::<F, P>(context, hands, fast, frame, (packet, key, &asked), by)
}

/// Writes the answer over a SYN with these options, and sends it.
#[inline(always)]
fn over<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    fast: &mut Fast<'_>,
    mut frame: Frame,
    (packet, key, asked): (Plain, &F::Words, &Options),
    (answers, hop): (&Answers, &PlainHop),
) -> Option<Frame> {
    let headers = F::L4 - ethernet::LENGTH + tcp::LENGTH;
    let fits = hop.mtu.saturating_sub(headers as u16);
    let syn = hands.ports.bytes(&frame).get(F::L4..packet.end());
    let Some(answer) = syn.and_then(|syn| answers.to(syn, asked, F::client(key), fits)) else { return Some(frame) };
    frame.set_len(ethernet::LENGTH + segment::LONGEST);
    let bytes = hands.ports.bytes_mut(&mut frame);
    match F::answer_plain(bytes, &hop.link, &F::turned(key), &answer.plain()) {
        Some(length) => {
            frame.set_len(length);
            context.counters.event(Event::CookieSent).add(1);
            fast.send(context, hands, frame, hop.port);
        }
        None => hands.discard(context, frame, Drop::NoHeadroom),
    }
    None
}
