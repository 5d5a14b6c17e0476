//! The fast way: a plain packet of an established flow that moves nothing in it but its deadline.
//!
//! It is found out by few comparisons, rewritten by the words of the flow's other key and sent by a plain hop. Whatever
//! else there may be to do with a packet, it is given back untouched, and goes the way that knows all cases
//! ([`super::carry`]) with the same result.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see carry")]

use super::lot::Item;
use super::path::Path;
use super::{Context, Hands, renumber};
use crate::clock::Tick;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Likely, flag};
use crate::forward::tun::Outer;
use crate::ident::PortIndex;
use crate::next_hop::{NextHops, PlainHop};
use crate::port::{Frame, Ports};
use crate::rules::Scope;
use crate::service::{DestinationSlot, Method, Services};
use crate::state::{TcpState, UDP_STATE};
use crate::wire::checksum::Delta;
use crate::wire::plain::{L3, Transport};
use crate::wire::{Plain, TcpFlags};

/// What the packets of a burst are compared with, and what is counted of them.
pub(super) struct Fast<'a> {
    services: &'a Services,
    hops: &'a NextHops,
    now: Tick,
    tcp_deadline: Tick,
    udp_deadline: Tick,
    tally: Tally,
}

/// A packet that changes nothing: its transport, the state of the flows that it may belong to, their next deadline.
#[derive(Clone, Copy)]
struct Usual {
    transport: Transport,
    state: u8,
    deadline: Tick,
}

/// Frames that were sent by one port and not counted yet.
struct Tally {
    port: PortIndex,
    frames: u64,
    bytes: u64,
}

impl<'a> Fast<'a> {
    /// For one burst. `None` where every packet has to be looked at closely.
    #[inline(always)]
    pub(super) fn new<P>(context: Context<'a>, hands: &Hands<P>) -> Option<Self> {
        let snapshot = context.snapshot;
        if snapshot.gates.scope == Scope::Established || snapshot.watch.is_some() || hands.watcher.is_on {
            return None;
        }
        let timeouts = &snapshot.policy.timeouts;
        Some(Self {
            services: &snapshot.services,
            hops: &snapshot.hops,
            now: context.now,
            tcp_deadline: context.now.after(timeouts.tcp(TcpState::Established)),
            udp_deadline: context.now.after(timeouts.udp()),
            tally: Tally { port: PortIndex(0), frames: 0, bytes: 0 },
        })
    }

    /// Sends a packet on, or gives it back.
    #[inline(always)]
    pub(super) fn packet<F: Path, P: Ports>(
        &mut self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        frame: Frame,
        item: &Item<F>,
    ) -> Option<Frame> {
        const STEADY: TcpFlags = TcpFlags::ACK;
        const TELLING: TcpFlags = STEADY.with(TcpFlags::SYN).with(TcpFlags::FIN).with(TcpFlags::RST);
        let Some(plain) = item.plain else { return Some(frame) };
        // A body for each: what they are compared with is known then.
        if plain.is_segment(STEADY, TELLING) {
            let state = TcpState::Established.to_u8();
            let usual = Usual { transport: Transport::Tcp, state, deadline: self.tcp_deadline };
            self.usual(context, hands, frame, (item, plain), usual)
        } else if plain.transport() == Transport::Udp {
            let usual = Usual { transport: Transport::Udp, state: UDP_STATE, deadline: self.udp_deadline };
            self.usual(context, hands, frame, (item, plain), usual)
        } else {
            Some(frame)
        }
    }

    /// Sends a packet on that moves nothing but a deadline in a flow that is usual too, or gives it back.
    #[inline(always)]
    fn usual<F: Path, P: Ports>(
        &mut self,
        context: Context<'_>,
        hands: &mut Hands<P>,
        mut frame: Frame,
        (item, plain): (&Item<F>, Plain),
        usual: Usual,
    ) -> Option<Frame> {
        let Some(Likely { entry, state, direction }) = F::table(context.shared).likely(&item.key, &item.probe) else {
            return Some(frame);
        };
        if !state.is_just(usual.state, flag::CONTROLLED | flag::EXTENDED) || entry.deadline().reached(self.now) {
            return Some(frame);
        }
        let slot = DestinationSlot(entry.destination());
        let hop = match direction {
            Direction::Forward => self.hops.plain_destination(slot),
            Direction::Reverse => self.hops.plain_return(entry.return_hop()),
        };
        let (Some(destination), Some(hop)) = (self.services.brief(slot), hop) else { return Some(frame) };
        let length = plain.ip_length();
        if plain.ttl() <= 1 || length > usize::from(hop.mtu) {
            return Some(frame);
        }
        if entry.is_two_way() {
            let bytes = hands.ports.bytes_mut(&mut frame);
            let moved = if state.flags() & flag::EXTENDED == 0 {
                Some(Delta::default())
            } else {
                renumber::usual(context, bytes, plain, entry, destination, direction)
            };
            let Some(moved) = moved else { return Some(frame) };
            let to = F::turned(&entry.words(direction.opposite()));
            F::exchange_plain(bytes, usual.transport, &hop.link, (entry, direction), &to, moved);
        } else {
            match (destination.method, &destination.outer) {
                (Method::Dr, _) => F::route_plain(hands.ports.bytes_mut(&mut frame), &hop.link),
                (Method::Tun, Some(outer)) => {
                    if length + outer.length() > usize::from(hop.mtu) || frame.head() < outer.length() {
                        return Some(frame);
                    }
                    encapsulate::<F, P>(hands, &mut frame, length, hop, outer);
                }
                _ => return Some(frame),
            }
        }
        destination.counts.carried(context.worker, direction, length);
        entry.set_deadline(usual.deadline);
        self.send(context, hands, frame, hop.port);
        None
    }

    /// Sends a finished frame; what was sent is counted by [`Fast::count`].
    #[inline(always)]
    pub(super) fn send<P: Ports>(&mut self, context: Context<'_>, hands: &mut Hands<P>, frame: Frame, port: PortIndex) {
        if port != self.tally.port {
            self.count(context);
            self.tally.port = port;
        }
        let bytes = frame.len() as u64;
        match hands.ports.transmit(port, frame) {
            Ok(()) => {
                self.tally.frames += 1;
                self.tally.bytes += bytes;
            }
            Err(frame) => hands.discard(context, frame, Drop::PortFull),
        }
    }

    /// Counts what was sent.
    #[inline(always)]
    pub(super) fn count(&mut self, context: Context<'_>) {
        let Tally { port, frames, bytes } = self.tally;
        self.tally = Tally { port, frames: 0, bytes: 0 };
        context.counters.event(Event::Forwarded).add(frames);
        if let Some(traffic) = context.counters.ports().get(port.0 as usize) {
            traffic.sent.packets.add(frames);
            traffic.sent.bytes.add(bytes);
        }
    }
}

/// Sends a packet of so many bytes on in an outer one, for which there is room in front.
#[inline(always)]
fn encapsulate<F: Path, P: Ports>(
    hands: &mut Hands<P>,
    frame: &mut Frame,
    length: usize,
    hop: &PlainHop,
    outer: &Outer,
) {
    // Without what pads the Ethernet frame.
    frame.set_len(L3 + length);
    if frame.grow_front(outer.length()) {
        hands.next_id = hands.next_id.wrapping_add(1);
        let id = hands.next_id;
        F::encapsulate_plain(hands.ports.bytes_mut(frame), &hop.link, outer, id);
    }
}
