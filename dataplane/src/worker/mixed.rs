//! FULLNAT between the families: clients of one, servers of the other.
//!
//! Such a flow lives in the IPv6 table, its IPv4 side as mapped addresses, and has the flag [`flag::MIXED`]. So have
//! all flows of an IPv4 service of which any server is reached by IPv6: a key must not be in two tables. IPv4 packets
//! come here when the IPv4 table does not know them; nobody pays for it where no service is mixed.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::Ordering;

use super::egress::{self, Learnt};
use super::pass::{ADMISSIONS, Keyed};
use super::path::{self, Path};
use super::{Context, Hands, Packet, admit, carry, extended, ftp, introduce, reply};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Family, Find, FlowEntry, FlowKey, V4, V6, flag};
use crate::forward::icmp::ErrorKind;
use crate::forward::icmp_translate::Embedded;
use crate::forward::nat::Rewrite;
use crate::forward::siit::{self, Ends, Sizes};
use crate::forward::ttl;
use crate::ident::{Endpoint, NetPort};
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::service::Destination;
use crate::wire::{Fragment, Headers, IpVersion, ethernet, number};

/// The longest ICMP error: what RFC 4443 section 2.4 allows.
const LONGEST: usize = 1280;
/// Length of the IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;
/// The smallest MTU of IPv6.
const MIN_V6: usize = 1280;

/// Whether there are, or may be, flows between the families.
#[inline]
pub(super) fn are_there(context: Context<'_>) -> bool {
    context.snapshot.services.is_mixed() || context.shared.mixed.load(Ordering::Relaxed)
}

/// The flag of a flow from `client` to `destination`, as its keys will hold them.
pub(super) fn flag<F: Path>(context: Context<'_>, client: F::Addr, destination: &Destination) -> u16 {
    let is_translated = destination.method.is_two_way() && destination.at.address.is_ipv4();
    if F::NUMBER == V4::NUMBER || !(F::ip(client).is_ipv4() || is_translated) {
        return 0;
    }
    // From now on, also when no service is mixed any more.
    context.shared.mixed.store(true, Ordering::Relaxed);
    flag::MIXED
}

/// A packet that the table of its own family has no flow for. Given back when this is none of ours.
#[cold]
#[inline(never)]
#[must_use]
pub(super) fn admit<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
) -> Option<Keyed<'h, F>> {
    let Keyed { packet, key } = keyed;
    let Some(mapped) = mapped::<F>(key) else { return Some(Keyed { packet, key }) };
    let (headers, port) = (packet.headers, packet.port);
    let at = Endpoint { address: F::ip(key.destination), port: key.destination_port };
    let service = context.snapshot.services.find(key.protocol, at);
    let is_mixed = service.is_some_and(|(_, service)| service.is_mixed);
    let mut six = Keyed::<V6> { packet, key: &mapped };
    for _ in 0..ADMISSIONS {
        let flowless = match context.shared.flows6.lookup(&mapped) {
            Find::Hit { flow, direction } => carry::packet_after_all(context, hands, six, flow, direction),
            Find::Miss if !is_mixed => {
                if context.snapshot.services.has_ftp() {
                    six = ftp::expected(context, hands, six)?;
                }
                let Packet { frame, .. } = six.packet;
                return Some(Keyed { packet: Packet { frame, headers, port }, key });
            }
            Find::Miss => admit::packet(context, hands, six),
            Find::Unsettled => {
                hands.discard(context, six.packet.frame, Drop::InsertContended);
                return None;
            }
        };
        six = flowless?;
    }
    hands.discard(context, six.packet.frame, Drop::InsertContended);
    None
}

/// An IPv4 key as the IPv6 table has it.
fn mapped<F: Path>(key: &FlowKey<F::Addr>) -> Option<FlowKey<Ipv6Addr>> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (key.source.into(), key.destination.into()) else {
        return None;
    };
    Some(FlowKey {
        source: source.to_ipv6_mapped(),
        destination: destination.to_ipv6_mapped(),
        source_port: key.source_port,
        destination_port: key.destination_port,
        protocol: key.protocol,
    })
}

/// What a packet of a flow becomes.
struct Passage<'s> {
    from: Ends,
    to: Ends,
    ports: (NetPort, NetPort),
    hop: &'s Hop,
    /// Who says what has to be said to the sender, in its own family.
    speaker: IpAddr,
    towards: IpAddr,
    learnt: Option<Learnt>,
}

impl<'s> Passage<'s> {
    /// `None` for a flow of one direction.
    fn of<F: Path>(
        context: Context<'s>,
        entry: &FlowEntry<F>,
        destination: &Destination,
        direction: Direction,
    ) -> Option<Self> {
        let (there, back) = (entry.forward(), entry.reverse()?);
        let (from, to) = match direction {
            Direction::Forward => (there, path::reversed(&back)),
            Direction::Reverse => (back, path::reversed(&there)),
        };
        let hop = match direction {
            Direction::Forward => context.snapshot.hops.destination(destination.slot),
            Direction::Reverse => carry::way_to_client(context, entry, F::ip(there.source)),
        };
        let learnt = match (direction, hop) {
            (Direction::Reverse, Hop::OnLink(_)) => entry.client_mac().map(|(mac, port)| Learnt { mac, port }),
            _ => None,
        };
        Some(Self {
            from: ends::<F>(&from)?,
            to: ends::<F>(&to)?,
            ports: (to.source_port, to.destination_port),
            hop,
            speaker: F::ip(from.destination),
            towards: F::ip(to.destination),
            learnt,
        })
    }
}

fn ends<F: Path>(key: &FlowKey<F::Addr>) -> Option<Ends> {
    Ends::new(F::ip(key.source), F::ip(key.destination))
}

/// Translates a packet of a mixed flow and sends it.
#[cold]
#[inline(never)]
pub(super) fn packet<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    entry: &FlowEntry<F>,
    destination: &Destination,
    direction: Direction,
) {
    let Some(passage) = Passage::of(context, entry, destination, direction) else {
        let vip = || F::ip(entry.forward().destination);
        return carry::one_way::<V4, F, P>(context, hands, packet, entry, destination, vip);
    };
    let record = F::table(context.shared).extension(entry);
    let Packet { mut frame, headers, port } = packet;
    let mut headers = *headers;
    if let Some(record) = record
        && entry.state().flags() & flag::FTP != 0
        && let Err(reason) = ftp::commands(context, hands, (&mut frame, &mut headers), entry, record, direction)
    {
        return hands.discard(context, frame, reason);
    }
    let packet = Packet { frame, headers: &headers, port };
    let Some(packet) = fit(context, hands, packet, &passage) else { return };
    let mtu = mtu(packet.headers, &passage);
    let mut headers = *packet.headers;
    let Packet { mut frame, port, .. } = packet;
    if let Some(record) = record {
        let bytes = hands.ports.bytes_mut(&mut frame);
        let additions = extended::prepare(context, (entry, record), (bytes, &headers), direction, mtu);
        introduce::add(context, hands, &mut frame, &mut headers, &additions, |hands, frame, headers| {
            pass_on(context, hands, Packet { frame, headers, port }, &passage);
        });
    } else if direction == Direction::Forward && entry.state().flags() & flag::INFO_DUE != 0 {
        introduce::datagram(context, hands, &mut frame, &mut headers, entry, mtu);
    }
    pass_on(context, hands, Packet { frame, headers: &headers, port }, &passage);
}

/// Gives a packet its new ends and sends it.
fn pass_on<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, mut packet: Packet<'_>, passage: &Passage<'_>) {
    match (passage.from, passage.to) {
        (Ends::V4(..), Ends::V4(source, destination)) => {
            let (source_port, destination_port) = passage.ports;
            let to = Rewrite { source, source_port, destination, destination_port };
            let frame = hands.ports.bytes_mut(&mut packet.frame);
            V4::rewrite(frame, packet.headers, &to);
            if ttl::decrement(frame, packet.headers).is_err() {
                return hands.discard(context, packet.frame, Drop::TtlExceeded);
            }
            egress::send(context, hands, packet, passage.hop, || passage.towards, passage.learnt);
        }
        _ => cross(context, hands, packet, passage),
    }
}

/// Gives a packet a header of the other family and sends it.
fn cross<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, packet: Packet<'_>, passage: &Passage<'_>) {
    hands.next_id = hands.next_id.wrapping_add(1);
    let Packet { mut frame, headers, port } = packet;
    let id = hands.next_id;
    let bytes = hands.ports.bytes_mut(&mut frame);
    let header = siit::header(bytes, headers, passage.to, id);
    let Some(header) = header.filter(|_| siit::transport(bytes, headers, passage.from, passage.to, passage.ports))
    else {
        return hands.discard(context, frame, Drop::Untranslatable);
    };
    frame.set_len(headers.end as usize);
    frame.shrink_front(headers.l4 as usize);
    if !frame.grow_front(header.len()) {
        return hands.discard(context, frame, Drop::NoHeadroom);
    }
    match hands.ports.bytes_mut(&mut frame).get_mut(..header.len()) {
        Some(front) => front.copy_from_slice(&header),
        None => return hands.discard(context, frame, Drop::Truncated),
    }
    let (l4, end, version) = (header.len() as u16, frame.len() as u16, passage.to.version());
    let headers = Headers { version, l3: 0, l4, end, ttl: headers.ttl.saturating_sub(1), ..*headers };
    let packet = Packet { frame, headers: &headers, port };
    egress::send(context, hands, packet, passage.hop, || passage.towards, passage.learnt);
}

/// Checks TTL and length against the way out, the latter with what the other family's header takes or leaves; what does
/// not pass is answered by ICMP and dropped.
fn fit<'h, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'h>,
    passage: &Passage<'_>,
) -> Option<Packet<'h>> {
    let headers = packet.headers;
    if headers.ttl <= 1 {
        reply::icmp(context, hands, &packet, ErrorKind::TimeExceeded, passage.speaker);
        hands.discard(context, packet.frame, Drop::TtlExceeded);
        return None;
    }
    let room = usize::from(mtu(headers, passage).unwrap_or(u16::MAX));
    if headers.ip_length() <= room {
        return Some(packet);
    }
    let mtu = if headers.version == IpVersion::V6 { room.max(MIN_V6) } else { room } as u32;
    reply::icmp(context, hands, &packet, ErrorKind::TooBig { mtu }, passage.speaker);
    hands.discard(context, packet.frame, Drop::TooBig);
    None
}

/// How long a packet may be, before it gets the other family's header, to fit the way out.
fn mtu(headers: &Headers, passage: &Passage<'_>) -> Option<u16> {
    let limit = passage.hop.mtu()?;
    let now = headers.l4 - headers.l3;
    let then = match passage.to.version() {
        _ if passage.from.version() == passage.to.version() => now,
        IpVersion::V4 => IpVersion::V4.header_length() as u16,
        IpVersion::V6 if headers.fragment == Fragment::Whole => IpVersion::V6.header_length() as u16,
        IpVersion::V6 => (IpVersion::V6.header_length() + FRAGMENT_HEADER) as u16,
    };
    Some(limit.saturating_add(now).saturating_sub(then))
}

/// Translates an ICMP error about a packet of a mixed flow, and sends it to whom the packet came from. Routers have no
/// address in the other family, so the error comes from the end that its receiver knows.
#[cold]
#[inline(never)]
pub(super) fn error<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    mut packet: Packet<'_>,
    embedded: &Embedded,
    entry: &FlowEntry<F>,
    (destination, direction): (&Destination, Direction),
) {
    let passages = [direction, direction.opposite()].map(|way| Passage::of(context, entry, destination, way));
    let known = match direction {
        Direction::Forward => entry.reverse(),
        Direction::Reverse => Some(entry.forward()),
    };
    let ([Some(passage), Some(opposite)], Some(known)) = (passages, known) else {
        return carry::follow(context, hands, packet, entry, direction);
    };
    let Some(inner) = ends::<F>(&known) else {
        return hands.discard(context, packet.frame, Drop::Untranslatable);
    };
    if let (Ends::V4(..), Ends::V4(source, to)) = (passage.from, passage.to) {
        let rewrite = Rewrite {
            source: to,
            source_port: known.source_port,
            destination: source,
            destination_port: known.destination_port,
        };
        let frame = hands.ports.bytes_mut(&mut packet.frame);
        V4::translate(frame, packet.headers, embedded, (source, to), &rewrite);
        if ttl::decrement(frame, packet.headers).is_err() {
            return hands.discard(context, packet.frame, Drop::TtlExceeded);
        }
    } else {
        let mut out = [0; LONGEST];
        let sizes = Sizes { there: opposite.hop.mtu(), here: passage.hop.mtu() };
        let ports = (known.source_port, known.destination_port);
        let frame = hands.ports.bytes(&packet.frame);
        let written = siit::error(&mut out, frame, packet.headers, embedded, (passage.to, inner, ports), sizes);
        let Some(message) = written.and_then(|length| out.get(..length)) else {
            return hands.discard(context, packet.frame, Drop::Untranslatable);
        };
        return send_error(context, hands, packet, message, &passage);
    }
    context.counters.event(Event::IcmpTranslated).add(1);
    egress::send(context, hands, packet, passage.hop, || passage.towards, passage.learnt);
}

/// Puts an IP packet into the frame of the one that it was made of, and sends it.
fn send_error<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    packet: Packet<'_>,
    message: &[u8],
    passage: &Passage<'_>,
) {
    let Packet { mut frame, headers, port } = packet;
    frame.set_len(ethernet::LENGTH + message.len());
    match hands.ports.bytes_mut(&mut frame).get_mut(ethernet::LENGTH..) {
        Some(body) if body.len() == message.len() => body.copy_from_slice(message),
        _ => return hands.discard(context, frame, Drop::NoHeadroom),
    }
    let version = passage.to.version();
    let headers = Headers {
        version,
        l3: ethernet::LENGTH as u16,
        l4: (ethernet::LENGTH + version.header_length()) as u16,
        end: (ethernet::LENGTH + message.len()) as u16,
        protocol: if version == IpVersion::V4 { number::ICMP } else { number::ICMPV6 },
        ..*headers
    };
    context.counters.event(Event::IcmpTranslated).add(1);
    let packet = Packet { frame, headers: &headers, port };
    egress::send(context, hands, packet, passage.hop, || passage.towards, passage.learnt);
}
