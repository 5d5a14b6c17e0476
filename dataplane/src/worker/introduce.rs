//! FULLNAT flows towards the server: it sees one local address instead of many clients, so it is told who the client
//! is, and sequence numbers and time stamps never go back on a local port.
//!
//! TOA: an option in the client's segments until the server has answered data. PROXY: a header in front of the client's
//! first byte; the acknowledgement that ends the handshake carries it as its data, so a server that speaks first knows
//! its client too, and every repetition of that place carries it again until the server has acknowledged it. What the
//! client sends is behind the header then: its sequence numbers are shifted by the header's length.

#![allow(
    clippy::inline_always,
    reason = "a record that is copied whole waits for its words, which were written one by one"
)]

use arrayvec::ArrayVec;

use super::pass::Keyed;
use super::path::Path;
use super::segment::Seen;
use super::syn_proxy::bits::PROXIED;
use super::{Context, Hands};
use crate::counters::Event;
use crate::flow::{Direction, Extension, FlowEntry, FlowKey, NewExtension, NewFlow, Shift, bit, flag};
use crate::forward::proxy_protocol::{self, LONGEST};
use crate::forward::sequence::Translation;
use crate::forward::{insert, mss, timestamps, toa};
use crate::ident::{Endpoint, Protocol};
use crate::next_hop::Hop;
use crate::port::{Frame, Ports};
use crate::service::{
    ClientAddress, Destination, ExpireReset, Method, ProxyVersion, ServiceSettings, TcpTimestamps, Toa,
};
use crate::wire::plain::Transport;
use crate::wire::{Fragment, Headers, Plain, TcpFlags, checksum, ipv4, ipv6, number, tcp};

/// Either version of the PROXY header.
pub(super) const PROXY: u32 = bit::PROXY_V1 | bit::PROXY_V2;
/// Sequence numbers of a local port rise by one in this many nanoseconds, as a power of two: Linux's own clock.
const SEQUENCE_CLOCK: u32 = 6;
/// Time stamps of a local port rise by one in this many nanoseconds, as a power of two: a little faster than the
/// millisecond that most clients count, so that a new flow is always ahead of the one before.
const STAMP_CLOCK: u32 = 19;

/// What a new flow to `destination` needs besides: a record if its numbers will be moved or watched, and the flag if
/// its server is to be told of the client. The flow's first packet is a SYN, or the SYN proxy says what the client's
/// first byte is, else there is nothing to count from.
pub(super) fn begin<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &Hands<P>,
    keyed: &Keyed<'_, F>,
    destination: &Destination,
    new: &mut NewFlow<F>,
) {
    let Some(service) = context.snapshot.services.service(destination.service) else { return };
    begin_as(context, hands, keyed, (destination, &service.settings), service.settings.client_address, new);
}

/// The same for data of FTP that its client opens. There is no PROXY header: the server had it with the commands.
pub(super) fn begin_data<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &Hands<P>,
    keyed: &Keyed<'_, F>,
    destination: &Destination,
    new: &mut NewFlow<F>,
) {
    let Some(service) = context.snapshot.services.service(destination.service) else { return };
    let told = ClientAddress { proxy: None, ..service.settings.client_address };
    begin_as(context, hands, keyed, (destination, &service.settings), told, new);
}

fn begin_as<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &Hands<P>,
    keyed: &Keyed<'_, F>,
    (destination, settings): (&Destination, &ServiceSettings),
    told: ClientAddress,
    new: &mut NewFlow<F>,
) {
    let hop = context.snapshot.hops.destination(destination.slot);
    let hides_client = destination.method == Method::FullNat && *hop != Hop::Kernel;
    if keyed.key.protocol == Protocol::Udp {
        if hides_client && told.proxy == Some(ProxyVersion::V2) {
            new.flags |= flag::INFO_DUE;
        }
        return;
    }
    let frame = hands.ports.bytes(&keyed.packet.frame);
    if let Some(extension) = new.extension.as_mut().filter(|extension| extension.bits & PROXIED != 0) {
        if hides_client {
            let stamp = segment(frame, keyed.packet.headers).and_then(timestamps::value);
            if behind_proxy(keyed.key, told, stamp, extension) {
                new.flags |= flag::INFO_DUE;
            }
        }
        return;
    }
    let Some(seen) = Seen::of(frame, keyed.packet.headers) else { return };
    let is_opening = seen.flags.contains(TcpFlags::SYN) && !seen.flags.contains(TcpFlags::ACK);
    let resets = settings.expire_reset == ExpireReset::On && destination.method.is_two_way();
    if !is_opening || new.extension.is_some() || !(hides_client || resets) {
        return;
    }
    let mut extension = begun(&seen);
    if resets {
        extension.bits |= bit::RESET;
    }
    if hides_client
        && let Some(segment) = segment(frame, keyed.packet.headers)
        && hide(|| *keyed.key, segment, settings.tcp_timestamps, told, &mut extension)
    {
        new.flags |= flag::INFO_DUE;
    }
    new.extension = Some(extension);
}

/// What a flow is put into the table with, besides its keys.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Introduction {
    /// Its record, if its numbers are moved.
    pub(super) extension: Option<NewExtension>,
    /// The flag if its server is to be told of the client.
    pub(super) flags: u16,
}

impl Introduction {
    /// Whether the flow's first packet gets nothing but other addresses, ports and numbers.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        let bits = self.extension.as_ref().map_or(0, |extension| extension.bits);
        self.flags == 0 && bits & bit::NO_STAMPS == 0
    }
}

/// What a FULLNAT flow needs that a plain packet opens, with the mark of its reverse key: what [`begin`] and [`numbered`] would
/// give it. `None` where there is more to it.
#[inline(always)]
pub(super) fn plain<F: Path, P: Ports>(
    hands: &Hands<P>,
    (segment, plain): (&[u8], Plain),
    key: impl FnOnce() -> FlowKey<F::Addr>,
    mark: impl FnOnce() -> u64,
    settings: &ServiceSettings,
) -> Option<Introduction> {
    let told = settings.client_address;
    let due = |is_due: bool| if is_due { flag::INFO_DUE } else { 0 };
    if plain.transport() == Transport::Udp {
        return Some(Introduction { extension: None, flags: due(told.proxy == Some(ProxyVersion::V2)) });
    }
    let seen = Seen::in_segment(segment, plain.tcp())?;
    let mut extension = begun(&seen);
    let is_due = hide(key, segment, settings.tcp_timestamps, told, &mut extension);
    renumber(hands, mark(), &mut extension);
    Some(Introduction { extension: Some(extension), flags: due(is_due) })
}

/// The record of a flow that a client's SYN opens.
#[inline]
fn begun(seen: &Seen) -> NewExtension {
    let first = seen.sequence.wrapping_add(1);
    NewExtension { next: [first, 0], bits: bit::CLIENT_KNOWN, ..NewExtension::default() }
}

/// The same where the server does not see the client: numbers are moved, and the server may be told of the client. True if
/// it is.
#[inline]
fn hide<A: Copy + Into<std::net::IpAddr>>(
    key: impl FnOnce() -> FlowKey<A>,
    segment: &[u8],
    wanted: TcpTimestamps,
    told: ClientAddress,
    extension: &mut NewExtension,
) -> bool {
    extension.bits |= bit::RENUMBER;
    extension.shifts[0].from = extension.next[0];
    stamps(segment, wanted, extension);
    inform(key, told, extension)
}

/// The same for a flow that the SYN proxy opens, by the client's acknowledgement with its time stamp. True if the server
/// is to be told. The record's time stamps are the handshake's until it is joined, so the offset waits in the shift
/// of the server, which is not known before.
fn behind_proxy<A: Copy + Into<std::net::IpAddr>>(
    key: &FlowKey<A>,
    how: ClientAddress,
    stamp: Option<u32>,
    extension: &mut NewExtension,
) -> bool {
    extension.bits |= bit::RENUMBER;
    extension.shifts[0].from = extension.next[0];
    if let Some(stamp) = stamp {
        extension.bits |= bit::RESTAMP;
        extension.shifts[1].from = stamp.wrapping_neg();
    }
    inform(|| *key, how, extension)
}

/// A segment in its frame.
fn segment<'f>(frame: &'f [u8], headers: &Headers) -> Option<&'f [u8]> {
    frame.get(headers.l4 as usize..headers.end as usize)
}

/// What happens to time stamps.
fn stamps(segment: &[u8], wanted: TcpTimestamps, extension: &mut NewExtension) {
    match (wanted, timestamps::value(segment)) {
        (TcpTimestamps::Remove, _) => extension.bits |= bit::NO_STAMPS,
        (TcpTimestamps::Keep, Some(value)) => {
            extension.bits |= bit::RESTAMP;
            extension.timestamps[0] = value.wrapping_neg();
        }
        (TcpTimestamps::Keep, None) => {}
    }
}

/// How the server is told of the client. True if it is told at all.
pub(super) fn inform<A: Copy + Into<std::net::IpAddr>>(
    key: impl FnOnce() -> FlowKey<A>,
    how: ClientAddress,
    extension: &mut NewExtension,
) -> bool {
    let bits = match how.proxy {
        None => 0,
        Some(ProxyVersion::V1) => bit::PROXY_V1,
        Some(ProxyVersion::V2) => bit::PROXY_V2,
    };
    if bits != 0 {
        let shift = &mut extension.shifts[0];
        shift.after = shift.after.wrapping_add(header(&key(), bits).len() as u32);
    }
    extension.bits |= bits | if how.toa == Toa::On { bit::TOA } else { 0 };
    extension.bits & (PROXY | bit::TOA) != 0
}

/// The flow with this reverse key, its numbers moved so that they rise from flow to flow of the key.
pub(super) fn numbered<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &Hands<P>,
    new: &NewFlow<F>,
    reverse: FlowKey<F::Addr>,
) -> NewFlow<F> {
    let mut new = NewFlow { reverse: Some(reverse), ..*new };
    if let Some(extension) = new.extension.as_mut().filter(|extension| extension.bits & bit::RENUMBER != 0) {
        renumber(hands, F::table(context.shared).mark(&reverse), extension);
    }
    new
}

/// Moves a flow's numbers behind those that the reverse key with this mark had before.
#[inline]
fn renumber<P: Ports>(hands: &Hands<P>, mark: u64, extension: &mut NewExtension) {
    let nanoseconds = hands.clock.as_nanos() as u64;
    let rising = |mark: u32, clock: u32| mark.wrapping_add((nanoseconds >> clock) as u32);
    let shift = &mut extension.shifts[0];
    let initial = shift.from.wrapping_sub(1);
    let delta = rising(mark as u32, SEQUENCE_CLOCK).wrapping_sub(initial);
    shift.before = shift.before.wrapping_add(delta);
    shift.after = shift.after.wrapping_add(delta);
    if extension.bits & bit::RESTAMP != 0 {
        let stamp = rising((mark >> 32) as u32, STAMP_CLOCK);
        let is_proxied = extension.bits & PROXIED != 0;
        let offset = if is_proxied { &mut extension.shifts[1].from } else { &mut extension.timestamps[0] };
        *offset = offset.wrapping_add(stamp);
    }
}

/// The PROXY header of a flow, empty without one.
fn header<A: Copy + Into<std::net::IpAddr>>(key: &FlowKey<A>, bits: u32) -> ArrayVec<u8, LONGEST> {
    let version = match bits & PROXY {
        bit::PROXY_V1 => ProxyVersion::V1,
        0 => return ArrayVec::new(),
        _ => ProxyVersion::V2,
    };
    let client = Endpoint { address: key.source.into(), port: key.source_port };
    let service = Endpoint { address: key.destination.into(), port: key.destination_port };
    proxy_protocol::header(version, key.protocol, client, service)
}

/// What a client's segment gets on its way.
#[derive(Debug, Default)]
pub(super) struct Additions {
    /// The option, empty without one.
    option: ArrayVec<u8, 20>,
    /// The header, empty without one.
    header: ArrayVec<u8, LONGEST>,
    /// The header goes in a segment of its own in front.
    is_apart: bool,
}

/// Decides what a client's segment gets, and how its numbers are moved.
pub(super) fn from_client<F: Path>(
    context: Context<'_>,
    (entry, record): (&FlowEntry<F>, &Extension),
    (frame, headers): (&mut [u8], &Headers),
    seen: &Seen,
    mtu: Option<u16>,
    translation: &mut Translation,
) -> Additions {
    let mut additions = Additions::default();
    let bits = record.bits();
    let key = entry.forward();
    let is_opening = seen.flags.contains(TcpFlags::SYN);
    if is_opening && bits & PROXIED == 0 {
        if bits & bit::NO_STAMPS != 0 {
            timestamps::remove(frame, headers);
        }
        if bits & PROXY != 0 {
            aim(record, seen, translation);
        }
    }
    let is_due = entry.state().flags() & flag::INFO_DUE != 0;
    if !is_due || headers.fragment != Fragment::Whole {
        return additions;
    }
    let room = mtu.map_or(usize::from(u16::MAX), usize::from).saturating_sub(headers.ip_length());
    if bits & PROXY != 0 && !is_opening && seen.sequence == translation.sender.from {
        carry_header(record, seen, header(&key, bits), room, translation, &mut additions);
    }
    let in_front = if additions.is_apart { 0 } else { additions.header.len() };
    let is_end = seen.flags.contains(TcpFlags::RST) || seen.flags.contains(TcpFlags::FIN);
    if bits & bit::TOA != 0 && !is_end {
        let client = Endpoint { address: key.source.into(), port: key.source_port };
        let option = toa::option(client);
        if option.len() + in_front <= room && insert::has_room_for_options(frame, headers, option.len()) {
            additions.option = option;
        } else {
            context.counters.event(Event::ClientUntold).add(1);
        }
    }
    additions
}

/// The place of the PROXY header by the client's SYN: another one than before, if the client began anew.
fn aim(record: &Extension, seen: &Seen, translation: &mut Translation) {
    let from = seen.sequence.wrapping_add(1);
    if translation.sender.before != translation.sender.after && translation.sender.from != from {
        translation.sender.from = from;
        record.set_shift(Direction::Forward, translation.sender);
    }
}

/// Whether and how a segment at the header's place carries it. Data that comes for the first time needs none where
/// the acknowledgement before had it.
fn carry_header(
    record: &Extension,
    seen: &Seen,
    header: ArrayVec<u8, LONGEST>,
    room: usize,
    translation: &mut Translation,
    additions: &mut Additions,
) {
    let was_sent = record.bits() & bit::PROXY_SENT != 0;
    if seen.flags.contains(TcpFlags::RST) {
        if !was_sent {
            translation.sender = Shift::by(translation.sender.before);
        }
        return;
    }
    if was_sent && is_new(record, seen) {
        return;
    }
    record.change_bits(bit::PROXY_SENT, 0);
    additions.is_apart = header.len() > room;
    if !additions.is_apart {
        // The packet begins with the header then.
        translation.sender = Shift::by(translation.sender.before);
    }
    additions.header = header;
}

/// Whether a segment at the header's place is the first there with data.
fn is_new(record: &Extension, seen: &Seen) -> bool {
    if seen.length() == 0 {
        return false;
    }
    // A proxied flow's next number stays where the client began.
    if record.bits() & PROXIED != 0 {
        return record.change_bits(bit::DATA_SENT, 0) & bit::DATA_SENT == 0;
    }
    record.next(Direction::Forward) == seen.sequence
}

/// What the SYN proxy's own SYN to the server gets.
pub(super) fn with_syn<F: Path>(entry: &FlowEntry<F>, record: &Extension) -> Additions {
    let mut additions = Additions::default();
    if entry.state().flags() & flag::INFO_DUE != 0 && record.bits() & bit::TOA != 0 {
        let key = entry.forward();
        additions.option = toa::option(Endpoint { address: key.source.into(), port: key.source_port });
    }
    additions
}

/// What its acknowledgement of the server's SYN gets: the header too, so that a server that speaks first knows its
/// client.
pub(super) fn with_acknowledgement<F: Path>(entry: &FlowEntry<F>, record: &Extension) -> Additions {
    let mut additions = with_syn(entry, record);
    if entry.state().flags() & flag::INFO_DUE != 0 && record.bits() & PROXY != 0 {
        record.change_bits(bit::PROXY_SENT, 0);
        additions.header = header(&entry.forward(), record.bits());
    }
    additions
}

/// Puts into a packet that was rewritten already what it gets. Where the header goes apart, sends that segment first.
pub(super) fn add<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: &mut Frame,
    headers: &mut Headers,
    additions: &Additions,
    send: impl FnOnce(&mut Hands<P>, Frame, &Headers),
) {
    if additions.is_apart {
        match apart(hands, frame, headers, &additions.header) {
            Some((frame, headers)) => {
                context.counters.event(Event::SegmentSent).add(1);
                send(hands, frame, &headers);
            }
            // The client repeats what is not acknowledged, and with it the header.
            None => context.counters.event(Event::ClientUntold).add(1),
        }
    } else if !additions.header.is_empty() && put(hands, frame, headers, &additions.header, insert::data) {
        context.counters.event(Event::ClientTold).add(1);
    }
    if !additions.option.is_empty() && put(hands, frame, headers, &additions.option, insert::options) {
        context.counters.event(Event::ClientTold).add(1);
    }
}

/// Grows a frame and puts bytes into it.
fn put<P: Ports>(
    hands: &mut Hands<P>,
    frame: &mut Frame,
    headers: &mut Headers,
    bytes: &[u8],
    insert: impl FnOnce(&mut [u8], &mut Headers, &[u8]) -> Option<()>,
) -> bool {
    if !frame.grow_front(bytes.len()) {
        return false;
    }
    let done = insert(hands.ports.bytes_mut(frame), headers, bytes).is_some();
    if !done {
        frame.shrink_front(bytes.len());
    }
    done
}

/// A segment with the PROXY header alone, made of the headers of the one that it goes in front of.
fn apart<P: Ports>(hands: &mut Hands<P>, model: &Frame, headers: &Headers, header: &[u8]) -> Option<(Frame, Headers)> {
    const MOST: usize = 256;
    let bytes = hands.ports.bytes(model);
    let start = insert::data_start(bytes, headers)?;
    let mut packet = [0; MOST];
    packet.get_mut(..start)?.copy_from_slice(bytes.get(..start)?);
    let end = start + header.len();
    packet.get_mut(start..end)?.copy_from_slice(header);
    let packet = packet.get_mut(..end)?;
    let headers = Headers { end: end as u16, tcp: TcpFlags::ACK, ..*headers };
    finish_apart(packet, &headers, header.len() as u32)?;
    let mut frame = hands.ports.allocate()?;
    frame.set_len(end);
    let place = hands.ports.bytes_mut(&mut frame);
    if place.len() != end {
        hands.ports.free(frame);
        return None;
    }
    place.copy_from_slice(packet);
    Some((frame, headers))
}

/// Sequence number, flags, lengths and checksums of such a segment.
fn finish_apart(packet: &mut [u8], headers: &Headers, header: u32) -> Option<()> {
    let (l3, l4) = (headers.l3 as usize, headers.l4 as usize);
    let sequence: &mut [u8; 4] = packet.get_mut(l4 + tcp::SEQUENCE..)?.first_chunk_mut()?;
    *sequence = u32::from_be_bytes(*sequence).wrapping_sub(header).to_be_bytes();
    *packet.get_mut(l4 + tcp::FLAGS)? = TcpFlags::ACK.with(TcpFlags::PSH).byte();
    let length = headers.end - headers.l3;
    match headers.version {
        crate::wire::IpVersion::V4 => {
            let ip = packet.get_mut(l3..l4)?;
            *ip.get_mut(ipv4::TOTAL_LENGTH..)?.first_chunk_mut()? = length.to_be_bytes();
            *ip.get_mut(ipv4::CHECKSUM..)?.first_chunk_mut()? = [0, 0];
            let sum = checksum::of(ip);
            *ip.get_mut(ipv4::CHECKSUM..)?.first_chunk_mut()? = sum;
        }
        crate::wire::IpVersion::V6 => {
            let payload = length - ipv6::LENGTH as u16;
            *packet.get_mut(l3 + ipv6::PAYLOAD_LENGTH..)?.first_chunk_mut()? = payload.to_be_bytes();
        }
    }
    *packet.get_mut(l4 + tcp::CHECKSUM..)?.first_chunk_mut()? = [0, 0];
    let below = checksum::pseudo_of(packet, headers, headers.end as usize - l4);
    let sum = checksum::transport(below, number::TCP, packet.get(l4..)?);
    *packet.get_mut(l4 + tcp::CHECKSUM..)?.first_chunk_mut()? = sum;
    Some(())
}

/// What a server's segment says about what it was told, before its numbers are moved.
pub(super) fn from_server<F: Path>(
    (entry, record): (&FlowEntry<F>, &Extension),
    (frame, headers): (&mut [u8], &Headers),
    seen: &Seen,
    translation: &Translation,
) {
    let bits = record.bits();
    if seen.flags.contains(TcpFlags::SYN) {
        if bits & bit::TOA != 0 {
            mss::reduce(frame, headers, toa::length(entry.forward().source.into()));
        }
        return;
    }
    let client = translation.peer;
    let is_beyond = |place: u32| {
        let ahead = seen.acknowledgement.wrapping_sub(place);
        seen.flags.contains(TcpFlags::ACK) && ahead < 1 << 31
    };
    let mut done = 0;
    if bits & bit::TOA != 0 && (seen.length() > 0 || is_beyond(client.from.wrapping_add(client.before).wrapping_add(1)))
    {
        done |= bit::TOA;
    }
    if bits & PROXY != 0 && is_beyond(client.from.wrapping_add(client.after)) {
        done |= PROXY;
        record.set_shift(Direction::Forward, Shift::by(client.after));
    }
    if done != 0 && record.change_bits(0, done) & !done & (PROXY | bit::TOA) == 0 {
        told(entry);
    }
}

/// The server knows its client.
fn told<F: Path>(entry: &FlowEntry<F>) {
    let mut seen = entry.state();
    while seen.flags() & flag::INFO_DUE != 0 {
        match entry.transition(seen, seen.state(), seen.flags() & !flag::INFO_DUE) {
            Err(other) if other.is_live() && other.generation() == seen.generation() => seen = other,
            _ => return,
        }
    }
}

/// The first datagram of a UDP flow: in front of it goes a header of version 2. The others go without.
pub(super) fn datagram<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    frame: &mut Frame,
    headers: &mut Headers,
    entry: &FlowEntry<F>,
    mtu: Option<u16>,
) {
    let header = header(&entry.forward(), bit::PROXY_V2);
    let room = mtu.map_or(usize::from(u16::MAX), usize::from).saturating_sub(headers.ip_length());
    let is_told = header.len() <= room && put(hands, frame, headers, &header, insert::data);
    context.counters.event(if is_told { Event::ClientTold } else { Event::ClientUntold }).add(1);
    told(entry);
}
