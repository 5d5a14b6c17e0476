//! FTP under NAT: the data connections that the commands announce are expected, and let through when they come.
//!
//! An expected connection stands in the flow table, under a key that no packet has: with port 0 for the port that its
//! opener has not chosen yet. Whatever cannot be read or would lead elsewhere passes unchanged and is counted.

use std::net::IpAddr;

use super::pass::Keyed;
use super::path::{self, Path};
use super::{Context, Hands, carry};
use crate::clock::Ticks;
use crate::counters::{Drop, Event};
use crate::flow::{
    Direction, Extension, Find, FlowEntry, FlowKey, FlowRef, Insert, NewExtension, NewFlow, Rule, Shift, flag,
};
use crate::forward::ftp::{self, Announcement, Found};
use crate::forward::payload;
use crate::ident::{NetPort, Protocol};
use crate::port::{Frame, Ports};
use crate::service::{Destination, DestinationSlot, Ftp, Method, Service};
use crate::state::{TcpState, View};
use crate::wire::{Fragment, Headers, TcpFlags};

/// How long a data connection is expected: LISTEN of IPVS.
const EXPECTED: Ticks = Ticks::seconds(120);
/// Ports of the VIP that are tried for a passive data connection.
const PORT_TRIES: u16 = 8;
/// Data connections may not go to ports that other services have (RFC 2577 section 3).
const LOWEST: u16 = 1024;

/// What a connection of FTP's commands has beyond others: a record, for lines that change their length.
pub(super) fn extras<F: Path>(
    context: Context<'_>,
    keyed: &Keyed<'_, F>,
    destination: &Destination,
) -> Option<(u16, NewExtension)> {
    if keyed.key.protocol != Protocol::Tcp || !context.snapshot.services.has_ftp() || destination.method != Method::Nat
    {
        return None;
    }
    let service = context.snapshot.services.service(destination.service)?;
    let is_ftp = match service.settings.ftp {
        Ftp::On => true,
        Ftp::Off => false,
        Ftp::ByPort => keyed.key.destination_port == NetPort::FTP,
    };
    is_ftp.then(|| (flag::FTP, NewExtension::default()))
}

/// Reads a segment of the commands, before anything else is done to it: expects what it announces, and writes the
/// address that the other side has to use. An error when another worker is at the same connection.
#[cold]
#[inline(never)]
pub(super) fn commands<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    (frame, headers): (&mut Frame, &mut Headers),
    entry: &FlowEntry<F>,
    record: &Extension,
    direction: Direction,
) -> Result<(), Drop> {
    if headers.fragment != Fragment::Whole {
        return Ok(());
    }
    let bytes = hands.ports.bytes(frame);
    let Some(start) = payload::start(bytes, headers) else { return Ok(()) };
    let Some(text) = bytes.get(start..headers.end as usize).filter(|text| !text.is_empty()) else { return Ok(()) };
    let found = match direction {
        Direction::Forward => ftp::commands(text),
        Direction::Reverse => ftp::replies(text),
    };
    let announced = match found {
        Found::Nothing => return Ok(()),
        Found::Unreadable => {
            context.counters.event(Event::FtpUnreadable).add(1);
            return Ok(());
        }
        Found::One(announced) => announced,
    };
    let Some((address, port)) = expect(context, hands, entry, &announced, direction) else {
        context.counters.event(Event::FtpRefused).add(1);
        return Ok(());
    };
    if announced.address.is_none_or(|said| said == address) && announced.port == port {
        return Ok(());
    }
    let at = start + announced.at.start..start + announced.at.end;
    let before = headers.end;
    let sequence = payload::sequence(hands.ports.bytes(frame), headers).unwrap_or_default();
    let length = (headers.end as usize - start) as u32;
    let shift = record.shifts()[usize::from(direction == Direction::Reverse)];
    let new = ftp::text(announced.form, address, port);
    if !payload::replace(&mut hands.ports, frame, headers, at, new.as_bytes()) {
        context.counters.event(Event::FtpUnreadable).add(1);
        return Ok(());
    }
    let grown = u32::from(headers.end).wrapping_sub(u32::from(before));
    let from = sequence.wrapping_add(length);
    // Sent again: it was counted the first time. Behind the place that is known, it is new.
    let is_new = shift == Shift::default() || from.wrapping_sub(shift.from).cast_signed() > 0;
    let next = Shift { from, before: shift.after, after: shift.after.wrapping_add(grown) };
    if grown != 0 && is_new && !record.set_shift(direction, next) {
        return Err(Drop::InsertContended);
    }
    Ok(())
}

/// Expects an announced data connection. Gives the address and port that the other side is to connect to.
fn expect<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    entry: &FlowEntry<F>,
    announced: &Announcement,
    direction: Direction,
) -> Option<(IpAddr, u16)> {
    let (there, back) = (entry.forward(), entry.reverse()?);
    let wanted = NetPort::new(announced.port);
    let (client, vip, server): (IpAddr, IpAddr, IpAddr) =
        (F::ip(there.source), F::ip(there.destination), F::ip(back.source));
    if direction == Direction::Forward {
        // From the server, by any port, to the client: as from the VIP's port below that of the commands.
        if announced.address != Some(client) || announced.port < LOWEST || back.destination != there.source {
            return None;
        }
        let data = NetPort::new(there.destination_port.host().wrapping_sub(1));
        let forward = FlowKey { source_port: wanted, destination_port: data, ..there };
        let reverse = FlowKey { source_port: NetPort::ANY, destination_port: wanted, ..back };
        return rule(context, hands, entry, forward, reverse).then_some((client, announced.port));
    }
    // From the client, by any port, to the VIP. Servers that were told to announce the VIP do so already.
    let is_own = announced.address.is_none_or(|said| said == server || said == vip);
    if !is_own || announced.port < LOWEST || back.destination != there.source {
        return None;
    }
    for attempt in 0..PORT_TRIES {
        // Another server may have the same port open for this client.
        let port = announced.port.checked_add(attempt).unwrap_or(LOWEST + attempt);
        let forward = FlowKey { source_port: NetPort::ANY, destination_port: NetPort::new(port), ..there };
        let reverse = FlowKey { source_port: wanted, destination_port: NetPort::ANY, ..back };
        if rule(context, hands, entry, forward, reverse) {
            return Some((vip, port));
        }
    }
    None
}

/// Inserts the rule of an expected connection; true also where it is there already.
fn rule<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    commands: &FlowEntry<F>,
    forward: FlowKey<F::Addr>,
    reverse: FlowKey<F::Addr>,
) -> bool {
    let table = F::table(context.shared);
    let deadline = context.now.after(EXPECTED);
    let new = NewFlow {
        forward,
        reverse: Some(reverse),
        destination: commands.destination(),
        state: Rule::Expected as u8,
        flags: flag::TEMPLATE | flag::EMBRYONIC,
        deadline,
        client_mac: commands.client_mac(),
        return_hop: 0,
        extension: None,
        controller: Some(table.link(commands)),
    };
    match table.insert(F::part(hands), &new) {
        Insert::Created(_) => {
            context.counters.event(Event::FtpExpected).add(1);
            true
        }
        Insert::Adopted(other) => {
            let there = table.entry(other);
            let is_same = there.rule() == Some(Rule::Expected) && there.reverse() == Some(reverse);
            if is_same {
                there.set_deadline(deadline);
            }
            is_same
        }
        Insert::ReverseTaken | Insert::Contended | Insert::Full | Insert::NoExtension => false,
    }
}

/// A segment that opens a connection which was announced; given back when it is none.
#[cold]
#[inline(never)]
pub(super) fn expected<'h, F: Path, P: Ports>(
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
    let (Some(destination), Some(back)) = (destination, entry.reverse()) else { return Some(keyed) };
    if entry.deadline().reached(context.now) {
        return Some(keyed);
    }
    let (forward, reverse, view) = match direction {
        Direction::Forward => (*keyed.key, FlowKey { destination_port: keyed.key.source_port, ..back }, View::Input),
        Direction::Reverse => (entry.forward(), *keyed.key, View::Output),
    };
    match open(context, hands, entry, (forward, reverse), destination, TcpState::None.next(view, flags)) {
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
    rule: &FlowEntry<F>,
    (forward, reverse): (FlowKey<F::Addr>, FlowKey<F::Addr>),
    destination: &Destination,
    state: TcpState,
) -> Result<FlowRef, Drop> {
    let table = F::table(context.shared);
    let holds = |commands: &&FlowEntry<F>| table.extension(commands).is_some_and(Extension::hold);
    let commands = table.controller(rule).filter(|commands| is_of(commands, &forward)).filter(holds);
    let new = NewFlow {
        forward,
        reverse: Some(reverse),
        destination: destination.slot.0,
        state: state.to_u8(),
        flags: flag::FTP | flag::EMBRYONIC | if commands.is_some() { flag::CONTROLLED } else { 0 },
        deadline: context.now.after(context.snapshot.policy.timeouts.tcp(state)),
        client_mac: rule.client_mac(),
        return_hop: 0,
        extension: None,
        controller: commands.map(|commands| table.link(commands)),
    };
    let activity = path::state_activity(Protocol::Tcp, new.state);
    destination.counts.begin(activity);
    let inserted = table.insert(F::part(hands), &new);
    if let Insert::Created(flow) = inserted {
        context.counters.event(Event::FlowCreated).add(1);
        if let Some(traffic) = destination.counts.traffic().get(context.worker.0 as usize) {
            traffic.connections.add(1);
        }
        return Ok(flow);
    }
    destination.counts.end(activity);
    if let Some(record) = commands.and_then(|commands| table.extension(commands)) {
        record.release();
    }
    match inserted {
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

/// Whether an entry still is the flow of the commands for a data connection: its number may be another flow's by now.
fn is_of<F: Path>(commands: &FlowEntry<F>, data: &FlowKey<F::Addr>) -> bool {
    let (seen, key) = (commands.state(), commands.forward());
    seen.is_live()
        && seen.flags() & flag::FTP != 0
        && seen.flags() & flag::EXTENDED != 0
        && (key.source, key.destination) == (data.source, data.destination)
}

/// The persistent service whose data connections come to this port of its VIP: that of port 21 (IPVS has the same
/// rule). Under NAT they are expected instead.
pub(super) fn related<'s, F: Path>(context: Context<'s>, keyed: &Keyed<'_, F>) -> Option<&'s Service> {
    let port = keyed.key.destination_port.host();
    if keyed.key.protocol != Protocol::Tcp || !(port == 20 || port >= LOWEST) {
        return None;
    }
    let at = crate::ident::Endpoint { address: F::ip(keyed.key.destination), port: NetPort::FTP };
    let (_, service) = context.snapshot.services.find(Protocol::Tcp, at)?;
    let is_one_way = service.destinations.iter().all(|destination| !destination.method.is_two_way());
    (service.settings.persistence.is_some() && is_one_way).then_some(service)
}
