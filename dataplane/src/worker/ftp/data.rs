//! The data connections that were expected: opened by whoever was to open them, and tied to their commands, which do not
//! time out before.

use super::expectation::Appearance;
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Extension, Find, FlowEntry, FlowKey, FlowRef, Insert, NewFlow, Rule, flag};
use crate::ident::{NetPort, Protocol};
use crate::port::Ports;
use crate::service::{Destination, DestinationSlot};
use crate::state::{TcpState, View};
use crate::wire::TcpFlags;
use crate::worker::pass::Keyed;
use crate::worker::path::{self, Path};
use crate::worker::{Context, Hands, carry, fullnat, introduce, mixed};

/// A segment that opens a connection which was announced; given back when it is none.
#[cold]
#[inline(never)]
pub(in crate::worker) fn expected<'h, F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: Keyed<'h, F>,
) -> Option<Keyed<'h, F>> {
    let flags = keyed.packet.headers.tcp;
    if keyed.key.protocol != Protocol::Tcp || !flags.contains(TcpFlags::SYN) || flags.contains(TcpFlags::ACK) {
        return Some(keyed);
    }
    let table = F::table(context.shared);
    let Find::Hit { flow: rule, direction } = table.find_rule(Rule::Expected, &unopened(keyed.key)) else {
        return Some(keyed);
    };
    let entry = table.entry(rule);
    let destination = context.snapshot.services.destination(DestinationSlot(entry.destination()));
    let Some(destination) = destination.filter(|_| !entry.deadline().reached(context.now)) else {
        return Some(keyed);
    };
    match open(context, hands, &keyed, entry, destination, direction) {
        Ok(flow) => {
            table.end(F::part(hands), rule);
            carry::follow(context, hands, keyed.packet, table.entry(flow), direction);
        }
        Err(reason) => hands.discard(context, keyed.packet.frame, reason),
    }
    None
}

/// The key under which a packet's connection is expected: without the port of whoever opens it.
fn unopened<A: Copy>(key: &FlowKey<A>) -> FlowKey<A> {
    FlowKey { source_port: NetPort::ANY, ..*key }
}

/// Opens the flow of an announced data connection, which keeps that of the commands.
fn open<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    rule: &FlowEntry<F>,
    destination: &Destination,
    direction: Direction,
) -> Result<FlowRef, Drop> {
    let table = F::table(context.shared);
    let holds = |commands: &&FlowEntry<F>| table.extension(commands).is_some_and(Extension::hold);
    let commands = table.controller(rule).filter(|commands| is_of(commands, rule)).filter(holds);
    let view = if direction == Direction::Forward { View::Input } else { View::Output };
    let state = TcpState::None.next(view, keyed.packet.headers.tcp);
    let new = NewFlow {
        forward: if direction == Direction::Forward { *keyed.key } else { rule.forward() },
        reverse: None,
        destination: destination.slot.0,
        state: state.to_u8(),
        flags: flag::EMBRYONIC | if commands.is_some() { flag::CONTROLLED } else { 0 },
        deadline: context.now.after(context.snapshot.policy.timeouts.tcp(state)),
        client_mac: rule.client_mac(),
        return_hop: 0,
        extension: None,
        controller: commands.map(|commands| table.link(commands)),
    };
    let activity = path::state_activity(Protocol::Tcp, new.state);
    destination.counts.begin(activity);
    let inserted = insert(context, hands, keyed, rule, destination, (new, direction));
    if let Ok(Insert::Created(flow)) = inserted {
        context.counters.event(Event::FlowCreated).add(1);
        if let Some(traffic) = destination.counts.traffic().get(context.worker.0 as usize) {
            traffic.connections.add(1);
        }
        fullnat::count(&context.snapshot.services, table.entry(flow), context.worker);
        return Ok(flow);
    }
    destination.counts.end(activity);
    if let Some(record) = commands.and_then(|commands| table.extension(commands)) {
        record.release();
    }
    match inserted? {
        Insert::Created(flow) => Ok(flow),
        Insert::Adopted(flow) => {
            context.counters.event(Event::FlowAdopted).add(1);
            Ok(flow)
        }
        Insert::ReverseTaken => Err(Drop::ReverseTaken),
        Insert::Contended => Err(Drop::InsertContended),
        Insert::Full => Err(Drop::TableFull),
        Insert::NoExtension => Err(Drop::NoExtension),
    }
}

/// Inserts the flow with the key back that its rule and its opener leave no choice of, or by a port of the rule's local
/// address. What its client opens has all that other connections of the service have.
fn insert<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    rule: &FlowEntry<F>,
    destination: &Destination,
    (mut new, direction): (NewFlow<F>, Direction),
) -> Result<Insert, Drop> {
    new.flags |= mixed::flag::<F>(context, new.forward.source, destination);
    let back = rule.reverse().ok_or(Drop::DestinationGone)?;
    let reverse = if direction == Direction::Reverse {
        *keyed.key
    } else {
        introduce::begin_data(context, hands, keyed, destination, &mut new);
        match Appearance::of::<F>(destination, &new.forward, &back).ok_or(Drop::NoLocalPort)? {
            Appearance::Itself => FlowKey { destination_port: keyed.key.source_port, ..back },
            Appearance::Local(local, ports) => {
                return Ok(fullnat::insert_from(context, hands, (local, ports, None), back, &new));
            }
        }
    };
    let new = NewFlow { reverse: Some(reverse), ..new };
    Ok(F::table(context.shared).insert(F::part(hands), &new))
}

/// Whether an entry still is the flow of the commands that a rule was made by: its number may be another flow's by now.
fn is_of<F: Path>(commands: &FlowEntry<F>, rule: &FlowEntry<F>) -> bool {
    let (seen, key, data) = (commands.state(), commands.forward(), rule.forward());
    seen.is_live()
        && seen.flags() & flag::FTP != 0
        && seen.flags() & flag::EXTENDED != 0
        && (key.source, key.destination) == (data.source, data.destination)
}
