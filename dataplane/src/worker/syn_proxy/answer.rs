//! A client's SYN, answered in its own frame: what the answer promises is in its numbers, so nothing is kept.

use super::{HELD_SEGMENTS, Way, ends, fitting, segment_of, send};
use crate::counters::{Drop, Event};
use crate::flow::FlowKey;
use crate::forward::icmp::ErrorKind;
use crate::forward::toa;
use crate::ident::Endpoint;
use crate::next_hop::Hop;
use crate::port::{Frame, Ports};
use crate::service::{Method, Service, TcpTimestamps, Toa};
use crate::syn_proxy::SynProxy;
use crate::syn_proxy::cookie::{self, Connection, Cookies};
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
}

impl Answers {
    /// `None` when no server takes connections.
    pub(in super::super) fn new(context: Context<'_>, service: &Service, proxy: &SynProxy) -> Option<Self> {
        let server = service.destinations.iter().find(|server| server.takes_flows())?;
        let mut offer = service.state.offer.options(proxy);
        let hides_client = server.method == Method::FullNat;
        if hides_client && service.settings.tcp_timestamps == TcpTimestamps::Remove {
            offer.timestamps = None;
        }
        let toa = if hides_client { service.settings.client_address.toa } else { Toa::Off };
        // Servers tell what fits their own way; until they have, one of them stands for all.
        let to_server = fitting(context.snapshot.hops.destination(server.slot), server.at);
        Some(Self { offer, most: offer.mss.unwrap_or(u16::MAX).min(to_server), toa })
    }

    /// The answer to a SYN, to a client whom segments of `fits` bytes reach. `None` when the SYN is cut off.
    #[inline]
    fn to(&self, cookies: &Cookies, syn: &[u8], (client, vip): (Endpoint, Endpoint), fits: u16) -> Option<Segment> {
        let (sequence, ..) = segment::numbers(syn)?;
        let asked = Options::of(syn);
        let option = if self.toa == Toa::On { toa::length(client.address) } else { 0 };
        let mss = self.most.min(fits).saturating_sub(option);
        let agreement = cookie::agree(&asked, &self.offer);
        let cookie = cookies.make(&Connection { client, service: vip, sequence }, agreement);
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
    let Some(answers) = Answers::new(context, service, proxy) else {
        reply::icmp(context, hands, &packet, ErrorKind::PortUnreachable, vip.address);
        return hands.discard(context, packet.frame, Drop::NoDestination);
    };
    let hops = &context.snapshot.hops;
    let hop = hops.hop(hops.lookup(client.address));
    // Whoever has an address of the director itself did not send this.
    if matches!(hop, Hop::Kernel | Hop::NoRoute) {
        return hands.discard(context, packet.frame, Drop::NoRoute);
    }
    hands.cookies.turn(context.now);
    let frame = hands.ports.bytes(&packet.frame);
    let learnt = if matches!(hop, Hop::OnLink(_)) { Learnt::sender(frame, packet.port) } else { None };
    let syn = segment_of(frame, packet.headers);
    let answer = syn.and_then(|syn| answers.to(&hands.cookies, syn, (client, vip), fitting(hop, client)));
    let Some(answer) = answer else {
        return hands.discard(context, packet.frame, Drop::Truncated);
    };
    context.counters.event(Event::CookieSent).add(1);
    let Packet { frame, headers, port } = packet;
    let way = Way { hop, from: vip, to: client, learnt, port };
    send(context, hands, frame, headers.l3 as usize, way, &answer);
}

/// The same in one go for a plain packet to whose sender a plain hop leads; gives any other back untouched.
pub(in super::super) fn plain<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    fast: &mut Fast<'_>,
    mut frame: Frame,
    (packet, key): (Plain, &FlowKey<F::Addr>),
    answers: &Answers,
) -> Option<Frame> {
    let (client, vip) = ends(key);
    let hops = &context.snapshot.hops;
    let Some(hop) = hops.plain(hops.lookup(client.address)) else { return Some(frame) };
    hands.cookies.turn(context.now);
    let headers = packet.version().header_length() + tcp::LENGTH;
    let fits = hop.mtu.saturating_sub(headers as u16);
    let l4 = ethernet::LENGTH + packet.version().header_length();
    let syn = hands.ports.bytes(&frame).get(l4..packet.end());
    let Some(answer) = syn.and_then(|syn| answers.to(&hands.cookies, syn, (client, vip), fits)) else {
        return Some(frame);
    };
    frame.set_len(ethernet::LENGTH + segment::LONGEST);
    let bytes = hands.ports.bytes_mut(&mut frame);
    let written = bytes.get_mut(ethernet::LENGTH..).and_then(|body| segment::write(body, vip, client, &answer));
    if let (Some(length), Some(link)) = (written, bytes.first_chunk_mut()) {
        *link = hop.link;
        frame.set_len(ethernet::LENGTH + length);
        context.counters.event(Event::CookieSent).add(1);
        fast.send(context, hands, frame, hop.port);
    } else {
        hands.discard(context, frame, Drop::NoHeadroom);
    }
    None
}
