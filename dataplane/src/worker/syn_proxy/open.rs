//! A client's acknowledgement with a cookie of ours: it opens the flow, and its server is asked.

use super::bits::Agreed;
use super::{Way, fitting, segment_of, send_own, send_with, wait};
use crate::clock::{Tick, Ticks};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Extension, FlowEntry, FlowRef, NewExtension, flag};
use crate::forward::icmp::ErrorKind;
use crate::port::Ports;
use crate::service::{Destination, Service};
use crate::state::TcpState;
use crate::syn_proxy::SynProxy;
use crate::syn_proxy::cookie::Agreement;
use crate::syn_proxy::segment::{self, Options, Segment};
use crate::wire::TcpFlags;
use crate::worker::admit::{self, Beginning, Opened};
use crate::worker::introduce::{self, Additions};
use crate::worker::pass::Keyed;
use crate::worker::path::Path;
use crate::worker::{Context, Hands, Packet, carry, limits, reply};

/// How long a server's first answer is waited for; each time after that twice as long as before.
pub(super) const FIRST_WAIT: Ticks = Ticks::seconds(1);

/// Opens the flow of a client that showed its address to be its own, to the server that was picked for it, if one was.
#[must_use]
pub(super) fn flow<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
    (service, proxy): (&Service, &SynProxy),
    agreement: Agreement,
    picked: Option<&Destination>,
) -> Option<Keyed<'h, F>> {
    let frame = hands.ports.bytes(&keyed.packet.frame);
    let headers = keyed.packet.headers;
    let has_data = wait::must_be_kept(frame, headers);
    let read = segment_of(frame, headers).and_then(|segment| Some((segment::numbers(segment)?, Options::of(segment))));
    let Some(((sequence, acknowledged, window), options)) = read else {
        hands.discard(context, keyed.packet.frame, Drop::Truncated);
        return None;
    };
    if proxy.defer && !has_data {
        hands.discard(context, keyed.packet.frame, Drop::Deferred);
        return None;
    }
    if let Some(exceeded) = limits::exceeded(context, service) {
        limits::refuse(context, hands, keyed, exceeded);
        return None;
    }
    let (value, echo) = options.timestamps.unwrap_or((0, 0));
    let beginning = Beginning {
        state: TcpState::SynSent.to_u8(),
        flags: flag::EMBRYONIC | flag::SYN_PROXY,
        idle: longest_wait(proxy.retries),
        extension: Some(NewExtension {
            timestamps: [value, echo],
            next: [sequence, acknowledged],
            terms: crate::flow::Terms { mss: agreement.mss, ..Default::default() },
            bits: Agreed::new(agreement, window).pack(),
            ..NewExtension::default()
        }),
        controller: None,
    };
    let opened = match picked {
        Some(picked) => admit::open_to(context, hands, &keyed, service, picked, Some(&beginning)),
        None => admit::open(context, hands, &keyed, service, Some(&beginning)),
    };
    match opened {
        Ok(Opened::Created(flow, _)) => {
            context.counters.event(Event::CookieAccepted).add(1);
            begin(context, hands, keyed, flow, proxy);
            None
        }
        Ok(Opened::Adopted(flow)) => carry::packet_after_all(context, hands, keyed, flow, Direction::Forward),
        Err(reason) => {
            if reason == Drop::NoDestination {
                reply::icmp(context, hands, &keyed.packet, ErrorKind::PortUnreachable, keyed.key.destination.into());
            }
            hands.discard(context, keyed.packet.frame, reason);
            None
        }
    }
}

/// Asks the server of a new flow. The acknowledgement's frame serves for it, unless its data has to be kept.
fn begin<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'_, F>,
    flow: FlowRef,
    proxy: &SynProxy,
) {
    let table = F::table(context.shared);
    let entry = table.entry(flow);
    hands.handshakes.begin::<F>(flow, context.now.after(FIRST_WAIT), proxy.retries);
    let asked = table.extension(entry).and_then(|record| ask(context, entry, record));
    let Packet { frame, headers, port } = keyed.packet;
    let Some((way, syn, additions)) = asked else {
        return hands.discard(context, frame, Drop::DestinationGone);
    };
    if wait::must_be_kept(hands.ports.bytes(&frame), headers) {
        send_own(context, hands, way, (&syn, &additions), Event::HandshakeSent);
        wait::keep::<F, P>(context, hands, Packet { frame, headers, port }, flow);
    } else {
        send_with(context, hands, (frame, headers.l3 as usize), Way { port, ..way }, &syn, &additions);
    }
}

/// The SYN to the server of a flow, made anew from the flow's record each time, its way, and what goes into it.
pub(super) fn ask<'s, F: Path>(
    context: Context<'s>,
    entry: &FlowEntry<F>,
    record: &Extension,
) -> Option<(Way<'s>, Segment, Additions)> {
    let way = Way::to_server(context, entry)?;
    let agreed = Agreed::unpack(record.bits());
    let [value, _] = record.timestamps();
    let to_client = fitting(Way::to_client(context, entry).hop, way.from);
    let mss = record.terms().mss.min(fitting(way.hop, way.to)).min(to_client);
    let syn = Segment {
        sequence: initial(record),
        acknowledgement: 0,
        flags: TcpFlags::SYN,
        window: agreed.unscaled_window(),
        options: Options {
            mss: Some(mss),
            window_scale: agreed.scales.map(|(client, _)| client),
            sack: agreed.sack,
            timestamps: agreed.timestamps.then_some((value.wrapping_add(stamp_offset(record)), 0)),
        },
    };
    Some((way, syn, introduce::with_syn(entry, record)))
}

/// The sequence number of the SYN to the server: one before the client's first byte, moved as the client's numbers are.
pub(super) fn initial(record: &Extension) -> u32 {
    let [client, _] = record.shifts();
    client.apply(record.next(Direction::Forward).wrapping_sub(1))
}

/// What is added to the client's time stamps, as long as the flow is not joined.
pub(super) fn stamp_offset(record: &Extension) -> u32 {
    let [_, server] = record.shifts();
    server.from
}

/// How long a flow lives whose server never answers: a second longer than the worker's last try.
fn longest_wait(retries: u8) -> Ticks {
    let tries = (2u32 << retries.min(6)) - 1;
    Ticks(FIRST_WAIT.0 * tries + Tick::PER_SECOND)
}
