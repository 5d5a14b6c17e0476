//! `expire_rst`: an established flow that expires resets both its sides, so that neither holds a dead connection.
//!
//! A reset counts only with the very number that its reader expects (RFC 5961 section 3.2): the record of the flow
//! holds what either side will send next, by the packets that passed. A flow of which one number was never seen ends
//! in silence.

use arrayvec::ArrayVec;

use super::egress::{self, Learnt};
use super::extended::known;
use super::path::{self, Path};
use super::syn_proxy::bits::PROXIED;
use super::{Context, Hands, Packet};
use crate::counters::Event;
use crate::flow::{Direction, Ended, FlowEntry, FlowKey, bit, flag};
use crate::forward::segment::{self, Segment};
use crate::forward::sequence::Translation;
use crate::ident::{Endpoint, NetPort, PortIndex};
use crate::next_hop::Hop;
use crate::port::Ports;
use crate::service::DestinationSlot;
use crate::state::TcpState;
use crate::wire::{Fragment, Headers, IpVersion, TcpFlags, ethernet, number};

/// Resets of one sweep. More flows expire at once only long after a burst of new ones: they find out by themselves.
const MOST: usize = 64;
/// Room for a segment without options.
const LONGEST: usize = 60;

/// What is to be sent when a sweep is over.
pub(super) type Farewells = ArrayVec<Reset, MOST>;

/// A reset for one side of an ended flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reset {
    from: Endpoint,
    to: Endpoint,
    sequence: u32,
    acknowledgement: u32,
    /// The server's number, if it goes to a server.
    server: Option<DestinationSlot>,
    learnt: Option<Learnt>,
}

/// Notes an ended flow, if its sides are to be told.
pub(super) fn note<F: Path>(context: Context<'_>, entry: &FlowEntry<F>, why: Ended, farewells: &mut Farewells) {
    let state = entry.state();
    let is_established = TcpState::from_u8(state.state()) == TcpState::Established;
    let is_due = state.flags() & flag::EXTENDED != 0 && is_established && why == Ended::Expired;
    if is_due && farewells.remaining_capacity() >= 2 {
        for reset in resets(context, entry).into_iter().flatten() {
            farewells.push(reset);
        }
    }
}

fn resets<F: Path>(context: Context<'_>, entry: &FlowEntry<F>) -> Option<[Reset; 2]> {
    let record = F::table(context.shared).extension(entry)?;
    let bits = record.bits();
    let wanted = bit::RESET | known(Direction::Forward) | known(Direction::Reverse);
    if bits & wanted != wanted || bits & PROXIED != 0 {
        return None;
    }
    let [client, server] = [Direction::Forward, Direction::Reverse].map(|of| record.next(of));
    let by = Translation::of(record, Direction::Forward);
    let (there, back) = (entry.forward(), entry.reverse()?);
    let to_client = Reset {
        sequence: by.peer.apply(server),
        acknowledgement: client,
        server: None,
        learnt: entry.client_mac().map(|(mac, port)| Learnt { mac, port }),
        ..ends::<F>(&path::reversed(&there))
    };
    let to_server = Reset {
        sequence: by.sender.apply(client),
        acknowledgement: server,
        server: Some(DestinationSlot(entry.destination())),
        ..ends::<F>(&path::reversed(&back))
    };
    Some([to_client, to_server])
}

/// A reset between the ends of a key.
fn ends<F: Path>(key: &FlowKey<F::Addr>) -> Reset {
    let from = Endpoint { address: F::ip(key.source), port: key.source_port };
    let to = Endpoint { address: F::ip(key.destination), port: key.destination_port };
    Reset { from, to, sequence: 0, acknowledgement: 0, server: None, learnt: None }
}

/// Sends what was noted, within the rate of resets.
pub(super) fn send<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, farewells: &Farewells) {
    for reset in farewells {
        let hops = &context.snapshot.hops;
        let hop = match reset.server {
            Some(slot) => hops.destination(slot),
            None => hops.hop(hops.lookup(reset.to.address)),
        };
        if matches!(hop, Hop::NoRoute) || !hands.replies.take(context.now, context.snapshot.policy.replies_per_second) {
            continue;
        }
        if write(context, hands, reset, hop).is_some() {
            context.counters.event(Event::ResetSent).add(1);
        }
    }
}

fn write<P: Ports>(context: Context<'_>, hands: &mut Hands<P>, reset: &Reset, hop: &Hop) -> Option<()> {
    let mut packet = [0; LONGEST];
    let Reset { sequence, acknowledgement, .. } = *reset;
    let flags = TcpFlags::RST.with(TcpFlags::ACK);
    let segment = Segment { sequence, acknowledgement, flags, ..Segment::default() };
    let length = segment::write(&mut packet, reset.from, reset.to, &segment)?;
    let mut frame = hands.ports.allocate()?;
    frame.set_len(ethernet::LENGTH + length);
    match hands.ports.bytes_mut(&mut frame).get_mut(ethernet::LENGTH..) {
        Some(body) if body.len() == length => body.copy_from_slice(packet.get(..length).unwrap_or_default()),
        _ => {
            hands.ports.free(frame);
            return None;
        }
    }
    let version = if reset.to.address.to_canonical().is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
    let headers = Headers {
        version,
        l3: ethernet::LENGTH as u16,
        l4: (ethernet::LENGTH + version.header_length()) as u16,
        end: (ethernet::LENGTH + length) as u16,
        protocol: number::TCP,
        fragment: Fragment::Whole,
        source_port: NetPort::ANY,
        destination_port: NetPort::ANY,
        tcp: flags,
        ttl: crate::wire::ip::TTL,
    };
    // From no port of ours: it may go by any.
    let port = PortIndex(u8::MAX);
    egress::send(context, hands, Packet { frame, headers: &headers, port }, hop, || reset.to.address, reset.learnt);
    Some(())
}
