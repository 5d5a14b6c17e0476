//! The SYN proxy at work: a client's SYN is answered in place, its acknowledgement opens the flow and asks a server,
//! the server's answer joins the two.
//!
//! Until then the flow has the flag `SYN_PROXY` and the worker that opened it keeps the client's first data and sends
//! the SYN again; any worker may receive the server's answer. Whoever sets [`bits::ANSWERED`] first joins; the flow is
//! joined when the flag is cleared, and the holders of data see that at their next turn.

pub(super) mod answer;
pub(super) mod bits;
mod established;
mod join;
mod open;
mod wait;

use super::egress::{self, Learnt};
use super::introduce::Additions;
use super::pass::Keyed;
use super::path::Path;
use super::{Context, Hands, Packet, admit, carry, introduce};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Extension, FlowEntry, FlowKey, FlowRef, flag};
use crate::ident::{Endpoint, PortIndex};
use crate::next_hop::Hop;
use crate::port::{Frame, Ports};
use crate::service::{Brief, Destination, DestinationSlot, Service};
use crate::syn_proxy::SynProxy;
use crate::syn_proxy::cookie::{Agreement, Connection, Cookies};
use crate::syn_proxy::segment::{self, Options, Segment};
use crate::wire::{Fragment, Headers, TcpFlags, ethernet, number, tcp};

pub(super) use wait::{Handshakes, abandon, release, retry};

/// Most segments of a client that are kept while its server is asked; as many fit the window that it is told.
const HELD_SEGMENTS: u16 = 4;

/// What became of a packet of an extended flow.
pub(super) enum Outcome<'h, F: Path> {
    /// Nothing: it goes the usual way.
    Usual(Keyed<'h, F>),
    /// It was dealt with.
    Done,
    /// Its flow is over; it belongs to none.
    Flowless(Keyed<'h, F>),
}

/// A packet of no flow, to a service that is proxied. Given back when it got a flow that is over already.
#[inline(never)]
#[must_use]
pub(super) fn admit<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    service: &Service,
    proxy: &SynProxy,
) -> Option<Keyed<'h, F>> {
    let Packet { headers, .. } = &keyed.packet;
    if headers.fragment == Fragment::Whole && begins(headers.tcp) {
        answer::syn(context, hands, keyed, service, proxy);
        return None;
    }
    carry::if_opened(context, hands, keyed, |hands, keyed| {
        if let Some(agreement) = agreement(context, hands, &keyed, (service, proxy)) {
            return open::flow(context, hands, keyed, (service, proxy), agreement, None);
        }
        if acknowledges(keyed.packet.headers.tcp) {
            context.counters.event(Event::CookieRejected).add(1);
        }
        admit::stray(context, hands, keyed);
        None
    })
}

/// As [`admit`], for a client's acknowledgement whose cookie is known to be right, and for which a server was picked.
#[must_use]
pub(super) fn scheduled<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    service: &Service,
    (agreement, picked): (Agreement, &Destination),
) -> Option<Keyed<'h, F>> {
    let Some(proxy) = &service.settings.syn_proxy else { return Some(keyed) };
    carry::if_opened(context, hands, keyed, |hands, keyed| {
        open::flow(context, hands, keyed, (service, proxy), agreement, Some(picked))
    })
}

/// A packet of an extended flow, before its state moves: of a handshake that is not over, or one that a joined
/// connection does not take as it is.
#[cold]
#[inline(never)]
pub(super) fn intercept<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    flow: FlowRef,
    direction: Direction,
) -> Outcome<'h, F> {
    let table = F::table(context.shared);
    let entry = table.entry(flow);
    let Some(record) = table.extension(entry).filter(|record| record.bits() & bits::PROXIED != 0) else {
        return Outcome::Usual(keyed);
    };
    if keyed.packet.headers.fragment != Fragment::Whole {
        return Outcome::Usual(keyed);
    }
    let seen = entry.state();
    if !seen.is_live() {
        return Outcome::Flowless(keyed);
    }
    let is_joined = seen.flags() & flag::SYN_PROXY == 0;
    match (is_joined, direction) {
        (true, Direction::Forward) => established::from_client(context, hands, keyed, flow, record),
        (true, Direction::Reverse) => established::from_server(context, hands, keyed, entry, record),
        (false, Direction::Forward) => wait::from_client(context, hands, keyed, flow, record),
        (false, Direction::Reverse) => {
            join::from_server(context, hands, keyed, flow, record);
            Outcome::Done
        }
    }
}

/// Whether a usual segment (with ACK and without SYN, options none or time stamps) of a joined, established flow goes on
/// as any other: what [`intercept`] would say.
#[inline(never)]
pub(super) fn may_pass(
    context: Context<'_>,
    segment: &[u8],
    record: &Extension,
    destination: &Brief,
    direction: Direction,
) -> bool {
    if direction == Direction::Reverse {
        return true;
    }
    let service = context.snapshot.services.service(destination.service);
    match service.map(|service| &service.settings.syn_proxy) {
        Some(Some(proxy)) => established::may_pass(context, segment, record, proxy),
        _ => true,
    }
}

/// Whether a segment wants to open a connection, and nothing else.
const fn begins(flags: TcpFlags) -> bool {
    flags.contains(TcpFlags::SYN)
        && !flags.contains(TcpFlags::ACK)
        && !flags.contains(TcpFlags::FIN)
        && !flags.contains(TcpFlags::RST)
}

/// Whether a segment may be the one that ends a handshake: with or without data.
pub(super) const fn acknowledges(flags: TcpFlags) -> bool {
    flags.contains(TcpFlags::ACK) && !flags.contains(TcpFlags::SYN) && !flags.contains(TcpFlags::RST)
}

/// What was agreed on with the client whose acknowledgement this is, if it holds a cookie of ours.
fn agreement<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    (service, proxy): (&Service, &SynProxy),
) -> Option<Agreement> {
    let headers = keyed.packet.headers;
    if headers.fragment != Fragment::Whole || !acknowledges(headers.tcp) {
        return None;
    }
    let segment = segment_of(hands.ports.bytes(&keyed.packet.frame), headers)?;
    hands.cookies.turn(context.now);
    agreed(&hands.cookies, segment, keyed.key, (service, proxy))
}

/// The same of a segment that may be such an acknowledgement.
pub(super) fn agreed<A: Copy + Into<std::net::IpAddr>>(
    cookies: &Cookies,
    segment: &[u8],
    key: &FlowKey<A>,
    (service, proxy): (&Service, &SynProxy),
) -> Option<Agreement> {
    let (sequence, acknowledged, _) = segment::numbers(segment)?;
    let connection = Connection { sequence: sequence.wrapping_sub(1), ..connection(key) };
    let echo = Options::of(segment).timestamps.map(|(_, echo)| echo);
    let offered = service.state.offer.scales(proxy);
    cookies.check(&connection, acknowledged.wrapping_sub(1), echo, offered)
}

fn connection<A: Copy + Into<std::net::IpAddr>>(key: &FlowKey<A>) -> Connection {
    let (client, service) = ends(key);
    Connection { client, service, sequence: 0 }
}

/// Source and destination of packets with a key. A flow with ends of both families holds IPv4 addresses in IPv6 ones.
fn ends<A: Copy + Into<std::net::IpAddr>>(key: &FlowKey<A>) -> (Endpoint, Endpoint) {
    let end = |address: A, port| Endpoint { address: address.into().to_canonical(), port };
    (end(key.source, key.source_port), end(key.destination, key.destination_port))
}

/// The TCP segment of a packet.
fn segment_of<'f>(frame: &'f [u8], headers: &Headers) -> Option<&'f [u8]> {
    frame.get(headers.l4 as usize..headers.end as usize)
}

/// The proxied service of a flow, unless control removed either.
fn service_of<'s, F: Path>(context: Context<'s>, entry: &FlowEntry<F>) -> Option<(&'s Service, &'s SynProxy)> {
    let destination = context.snapshot.services.destination(DestinationSlot(entry.destination()))?;
    let service = context.snapshot.services.service(destination.service)?;
    Some((service, service.settings.syn_proxy.as_ref()?))
}

/// Where a segment of the director's own goes.
#[derive(Clone, Copy)]
struct Way<'s> {
    hop: &'s Hop,
    from: Endpoint,
    to: Endpoint,
    /// Whose Ethernet address was seen, for an on-link client.
    learnt: Option<Learnt>,
    /// The port that the packet came by which is answered.
    port: PortIndex,
}

impl<'s> Way<'s> {
    /// To the real server of a flow, as the flow's client appears to it.
    fn to_server<F: Path>(context: Context<'s>, entry: &FlowEntry<F>) -> Option<Self> {
        let (server, client) = ends(&entry.reverse()?);
        let hop = context.snapshot.hops.destination(DestinationSlot(entry.destination()));
        Some(Self { hop, from: client, to: server, learnt: None, port: PortIndex(u8::MAX) })
    }

    /// To the client of a flow, from the VIP.
    fn to_client<F: Path>(context: Context<'s>, entry: &FlowEntry<F>) -> Self {
        let (client, vip) = ends(&entry.forward());
        let hop = carry::way_to_client(context, entry, client.address);
        let learnt = entry.client_mac().map(|(mac, port)| Learnt { mac, port });
        Self { hop, from: vip, to: client, learnt, port: PortIndex(u8::MAX) }
    }
}

/// Makes a segment of a frame, whatever was in it from `l3` on, and sends it.
fn send<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: Frame,
    l3: usize,
    way: Way<'_>,
    segment: &Segment,
) {
    send_with(context, hands, (frame, l3), way, segment, &Additions::default());
}

/// As [`send`], with what tells the server of its client.
fn send_with<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    (mut frame, l3): (Frame, usize),
    way: Way<'_>,
    segment: &Segment,
    additions: &Additions,
) {
    let mut packet = [0; segment::LONGEST];
    let written = segment::write(&mut packet, way.from, way.to, segment).and_then(|length| packet.get(..length));
    let Some(packet) = written else { return hands.discard(context, frame, Drop::NoRoute) };
    frame.set_len(l3 + packet.len());
    match hands.ports.bytes_mut(&mut frame).get_mut(l3..) {
        Some(body) if body.len() == packet.len() => body.copy_from_slice(packet),
        _ => return hands.discard(context, frame, Drop::NoHeadroom),
    }
    let version = segment::version(way.from);
    let mut headers = Headers {
        version,
        l3: l3 as u16,
        l4: (l3 + version.header_length()) as u16,
        end: (l3 + packet.len()) as u16,
        protocol: number::TCP,
        fragment: Fragment::Whole,
        source_port: way.from.port,
        destination_port: way.to.port,
        tcp: segment.flags,
        ttl: crate::wire::ip::TTL,
    };
    // Nothing goes apart: the header fits behind an acknowledgement.
    introduce::add(context, hands, &mut frame, &mut headers, additions, |hands, frame, _| hands.ports.free(frame));
    let packet = Packet { frame, headers: &headers, port: way.port };
    egress::send(context, hands, packet, way.hop, || way.to.address, way.learnt);
}

/// Sends a segment in a frame of the worker's own, counted as `event`.
fn send_own<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    way: Way<'_>,
    (segment, additions): (&Segment, &Additions),
    event: Event,
) {
    // Without a frame to spare it is as if the segment was lost on its way.
    let Some(frame) = hands.ports.allocate() else { return };
    context.counters.event(event).add(1);
    send_with(context, hands, (frame, ethernet::LENGTH), way, segment, additions);
}

/// What fits a way in one segment, less than which a peer's MSS may say.
fn fitting(hop: &Hop, of: Endpoint) -> u16 {
    let header = segment::version(of).header_length() + tcp::LENGTH;
    hop.mtu().unwrap_or(u16::MAX).saturating_sub(header as u16)
}

/// Ends a flow whose handshake failed.
fn fail<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, flow: FlowRef) {
    let entry = F::table(context.shared).entry(flow);
    // Whatever meets it from now on takes it for over, and it counts as expired.
    entry.set_deadline(context.now);
    carry::end(context, hands, flow, entry);
}
