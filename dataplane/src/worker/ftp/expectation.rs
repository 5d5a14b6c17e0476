//! Announced data connections that are expected.
//!
//! One stands in the flow table, under keys that no packet has: with port 0 for the port that its opener has not chosen
//! yet. Whoever announces a port of its own again means the new connection: what was expected there before ends.

use super::LOWEST;
use crate::clock::Ticks;
use crate::counters::Event;
use crate::flow::{Direction, Find, FlowEntry, FlowKey, FlowRef, Insert, NewFlow, Rule, flag};
use crate::forward::ftp::Announcement;
use crate::ident::{Endpoint, NetPort};
use crate::port::Ports;
use crate::service::{Destination, DestinationSlot, Local, LocalPorts};
use crate::worker::fullnat::Walk;
use crate::worker::path::Path;
use crate::worker::{Context, Hands};

/// How long a data connection is expected: LISTEN of IPVS.
const EXPECTED: Ticks = Ticks::seconds(120);
/// Ports of the VIP that are tried for a passive data connection.
const PORT_TRIES: u16 = 8;

/// Expects a data connection that was announced in a flow of commands. Gives the address and port that the other side
/// is to connect to; `None` where it would lead elsewhere.
pub(super) fn begin<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    commands: &FlowEntry<F>,
    announced: &Announcement,
    direction: Direction,
) -> Option<Endpoint> {
    if announced.port < LOWEST {
        return None;
    }
    match direction {
        Direction::Forward => active(context, hands, commands, announced),
        Direction::Reverse => passive(context, hands, commands, announced),
    }
}

/// As whom a real server sees the client.
pub(super) enum Appearance<'s> {
    /// As itself, by NAT.
    Itself,
    /// As a local address of FULLNAT, by ports of these.
    Local(&'s Local, LocalPorts),
}

impl<'s> Appearance<'s> {
    /// By the keys of a connection. `None` for a server on the director itself, and where the local address is none any
    /// more.
    pub(super) fn of<F: Path>(
        destination: &'s Destination,
        there: &FlowKey<F::Addr>,
        back: &FlowKey<F::Addr>,
    ) -> Option<Self> {
        if back.destination == there.source {
            return Some(Self::Itself);
        }
        let (locals, address) = (destination.locals.as_ref()?, F::ip(back.destination));
        let local = locals.list.iter().find(|local| local.address == address)?;
        Some(Self::Local(local, locals.ports))
    }
}

/// From the server, by any port, to what it takes for the client: comes to the client as from the VIP's port below that
/// of the commands.
fn active<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    commands: &FlowEntry<F>,
    announced: &Announcement,
) -> Option<Endpoint> {
    let (there, back) = (commands.forward(), commands.reverse()?);
    let shown = F::ip(back.destination);
    if announced.address != Some(F::ip(there.source)) || !announced.form.can_say(shown) {
        return None;
    }
    let wanted = NetPort::new(announced.port);
    let from = NetPort::new(there.destination_port.host().wrapping_sub(1));
    let forward = FlowKey { source_port: wanted, destination_port: from, ..there };
    let at = |port| FlowKey { source_port: NetPort::ANY, destination_port: port, ..back };
    if let Some((rule, older)) = find::<F>(context, &forward) {
        let leads_there =
            |older: &FlowKey<F::Addr>| (older.source, older.destination) == (back.source, back.destination);
        if let Some(same) = older.reverse().filter(leads_there) {
            older.set_deadline(context.now.after(EXPECTED));
            return Some(Endpoint { address: shown, port: same.destination_port });
        }
        F::table(context.shared).end(F::part(hands), rule);
    }
    let mut expects = |port: &NetPort| insert(context, hands, commands, forward, at(*port));
    let port = match Appearance::of::<F>(destination(context, commands)?, &there, &back)? {
        Appearance::Itself => Some(wanted).filter(&mut expects),
        Appearance::Local(local, ports) => Walk::begin(context, local, ports, None).find(expects),
    }?;
    Some(Endpoint { address: shown, port })
}

/// From the client, by any port, to the VIP. Servers that were told to announce the VIP do so already.
fn passive<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    commands: &FlowEntry<F>,
    announced: &Announcement,
) -> Option<Endpoint> {
    let (there, back) = (commands.forward(), commands.reverse()?);
    let (vip, server) = (F::ip(there.destination), F::ip(back.source));
    let is_own = announced.address.is_none_or(|said| said == server || said == vip);
    if !is_own || !announced.form.can_say(vip) {
        return None;
    }
    Appearance::of::<F>(destination(context, commands)?, &there, &back)?;
    let reverse = FlowKey { source_port: NetPort::new(announced.port), destination_port: NetPort::ANY, ..back };
    let forward = |port| FlowKey { source_port: NetPort::ANY, destination_port: port, ..there };
    if let Some((rule, older)) = find::<F>(context, &reverse) {
        let port = older.forward().destination_port;
        if older.forward() == forward(port) {
            older.set_deadline(context.now.after(EXPECTED));
            return Some(Endpoint { address: vip, port });
        }
        F::table(context.shared).end(F::part(hands), rule);
    }
    // Another server may have the same port open for this client.
    let mut ports = (0..PORT_TRIES).map(|more| NetPort::new(announced.port.checked_add(more).unwrap_or(LOWEST + more)));
    let port = ports.find(|port| insert(context, hands, commands, forward(*port), reverse))?;
    Some(Endpoint { address: vip, port })
}

fn destination<'s, F: Path>(context: Context<'s>, commands: &FlowEntry<F>) -> Option<&'s Destination> {
    context.snapshot.services.destination(DestinationSlot(commands.destination()))
}

/// What is expected already under one of its keys.
fn find<'s, F: Path>(context: Context<'s>, key: &FlowKey<F::Addr>) -> Option<(FlowRef, &'s FlowEntry<F>)> {
    let table = F::table(context.shared);
    match table.find_rule(Rule::Expected, key) {
        Find::Hit { flow, .. } => Some((flow, table.entry(flow))),
        Find::Miss | Find::Unsettled => None,
    }
}

/// Expects a connection. False where one of its keys is another's.
fn insert<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    commands: &FlowEntry<F>,
    forward: FlowKey<F::Addr>,
    reverse: FlowKey<F::Addr>,
) -> bool {
    let table = F::table(context.shared);
    let new = NewFlow {
        forward,
        reverse: Some(reverse),
        destination: commands.destination(),
        state: Rule::Expected as u8,
        flags: flag::TEMPLATE | flag::EMBRYONIC,
        deadline: context.now.after(EXPECTED),
        client_mac: commands.client_mac(),
        return_hop: 0,
        extension: None,
        controller: Some(table.link(commands)),
    };
    let is_expected = matches!(table.insert(F::part(hands), &new), Insert::Created(_));
    if is_expected {
        context.counters.event(Event::FtpExpected).add(1);
    }
    is_expected
}
