//! Persistence: a client's new flows follow its template to the server that the first one got.
//!
//! A template stands in the flow table, under a key that no packet has. Its timer starts at the last new flow; while
//! flows hang on it, it does not end. It is not a connection of its server's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::admit::{self, Beginning, Opened};
use super::pass::Keyed;
use super::path::Path;
use super::{Context, Hands};
use crate::counters::{Drop, Event};
use crate::flow::{Find, FlowEntry, FlowKey, FlowLink, FlowRef, Insert, NewFlow, Rule, flag};
use crate::ident::{NetPort, Protocol};
use crate::port::Ports;
use crate::service::{AddressFamily, Destination, DestinationSlot, MatchPoint, Persistence, Service, ServiceName};
use crate::snapshot::QuiescentTemplates;

/// How often a template is looked for while other workers end or move it.
const TRIES: u32 = 8;

/// Opens a flow of a persistent service: to the server of the client's template. Where that server already has a flow
/// with the same reverse key there is no other way: the client would lose its server.
#[cold]
#[inline(never)]
pub(super) fn open<'s, F: Path, P: Ports>(
    context: Context<'s>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    (service, settings): (&'s Service, &Persistence),
    beginning: Option<&Beginning>,
) -> Result<Opened<'s>, Drop> {
    let (template, destination) = choose(context, hands, keyed, service, settings)?;
    let link = FlowLink { index: template.index(), generation: template.generation() };
    let own = match beginning {
        Some(given) => Beginning { ..*given },
        None => admit::usual_beginning(context, hands, keyed, destination),
    };
    let own = Beginning { flags: own.flags | flag::CONTROLLED, controller: Some(link), ..own };
    let opened = admit::insert(context, hands, keyed, destination, Some(&own));
    if !matches!(opened, Ok(Some(Opened::Created(..)))) {
        F::table(context.shared).entry(template).release();
    }
    opened?.ok_or(Drop::ReverseTaken)
}

/// The client's template, held for one flow more, and its server. A new template where there is none, another server
/// where the template's takes no flows.
pub(super) fn choose<'s, F: Path, P: Ports>(
    context: Context<'s>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    service: &'s Service,
    settings: &Persistence,
) -> Result<(FlowRef, &'s Destination), Drop> {
    let table = F::table(context.shared);
    let (rule, key) = name(keyed, service, settings).ok_or(Drop::NoDestination)?;
    for _ in 0..TRIES {
        let template = match table.find_rule(rule, &key) {
            Find::Hit { flow, .. } => flow,
            Find::Miss => match begin(context, hands, keyed, service, (rule, &key), settings)? {
                Some(template) => template,
                None => continue,
            },
            Find::Unsettled => continue,
        };
        let entry = table.entry(template);
        if entry.deadline().reached(context.now) && table.close(entry) {
            finish::<F, P>(context, hands, template);
            continue;
        }
        let Some(destination) = server(context, entry, keyed, service)? else { continue };
        if entry.hold() {
            entry.set_deadline(context.now.after(settings.timeout));
            return Ok((template, destination));
        }
    }
    Err(Drop::InsertContended)
}

/// Whether an entry that a sweep ended was no flow; it is counted here then.
pub(super) fn is_rule_ended<F: Path>(context: Context<'_>, entry: &FlowEntry<F>) -> bool {
    let is_rule = entry.rule().is_some();
    if is_rule {
        context.counters.event(Event::TemplateExpired).add(1);
    }
    is_rule
}

/// What names the template of a packet's client. A service of one port has templates for that port, but that of FTP,
/// whose data connections come to others.
fn name<F: Path>(keyed: &Keyed<'_, F>, service: &Service, settings: &Persistence) -> Option<(Rule, FlowKey<F::Addr>)> {
    let source = F::address(settings.network(F::ip(keyed.key.source)))?;
    let any = FlowKey { source, source_port: NetPort::ANY, destination_port: NetPort::ANY, ..*keyed.key };
    if let ServiceName::Mark { mark, family } = service.name {
        let mark = match family {
            AddressFamily::V4 => IpAddr::from(Ipv4Addr::from(mark.value())),
            AddressFamily::V6 => IpAddr::from(Ipv6Addr::from(u128::from(mark.value()))),
        };
        let key = FlowKey { destination: F::address(mark)?, protocol: Protocol::Tcp, ..any };
        return Some((Rule::MarkPersistence, key));
    }
    let has_port = keyed.key.destination_port != NetPort::FTP && service.points.iter().any(|point| is_of(point, keyed));
    let destination_port = if has_port { keyed.key.destination_port } else { NetPort::ANY };
    Some((Rule::Persistence, FlowKey { destination_port, ..any }))
}

/// Whether a packet comes to exactly the port of a match point.
fn is_of<F: Path>(point: &MatchPoint, keyed: &Keyed<'_, F>) -> bool {
    let MatchPoint::Addresses { range, port, .. } = point else { return false };
    *port == keyed.key.destination_port && range.contains(F::ip(keyed.key.destination))
}

/// Makes a template; `None` when another worker is making it.
fn begin<F: Path, P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    keyed: &Keyed<'_, F>,
    service: &Service,
    (rule, key): (Rule, &FlowKey<F::Addr>),
    settings: &Persistence,
) -> Result<Option<FlowRef>, Drop> {
    let picked = admit::pick::<F>(context, service, || *keyed.key).ok_or(Drop::NoDestination)?;
    let new = NewFlow {
        forward: *key,
        reverse: None,
        destination: picked.slot.0,
        state: rule as u8,
        // Without a flow that hangs on it, it makes room when the table is nearly full.
        flags: flag::TEMPLATE | flag::EMBRYONIC,
        deadline: context.now.after(settings.timeout),
        client_mac: None,
        return_hop: 0,
        extension: None,
        controller: None,
    };
    match F::table(context.shared).insert(F::part(hands), &new) {
        Insert::Created(template) => {
            context.counters.event(Event::TemplateCreated).add(1);
            Ok(Some(template))
        }
        Insert::Adopted(template) => Ok(Some(template)),
        Insert::Full => Err(Drop::TableFull),
        Insert::Contended | Insert::ReverseTaken | Insert::NoExtension => Ok(None),
    }
}

/// The server of a template; another one, if that was removed (or, where so asked, drained). `None` when another worker
/// is at it.
fn server<'s, F: Path>(
    context: Context<'s>,
    entry: &FlowEntry<F>,
    keyed: &Keyed<'_, F>,
    service: &'s Service,
) -> Result<Option<&'s Destination>, Drop> {
    let slot = entry.destination();
    let known = context.snapshot.services.destination(DestinationSlot(slot));
    if let Some(destination) = known.filter(|known| is_usable(context, known, service)) {
        return Ok(Some(destination));
    }
    let picked = admit::pick::<F>(context, service, || *keyed.key).ok_or(Drop::NoDestination)?;
    if !entry.move_destination(slot, picked.slot.0) {
        return Ok(None);
    }
    context.counters.event(Event::TemplateMoved).add(1);
    Ok(Some(picked))
}

/// Whether a template may lead to a server: one of this service (numbers of removed servers are given out again).
fn is_usable(context: Context<'_>, destination: &Destination, service: &Service) -> bool {
    let owner = context.snapshot.services.service(destination.service);
    owner.is_some_and(|owner| std::ptr::eq(owner, service))
        && (destination.takes_flows() || context.snapshot.policy.quiescent_templates == QuiescentTemplates::Keep)
}

/// Ends a template whose time is up before the sweep comes to it.
fn finish<F: Path, P: Ports>(context: Context<'_>, hands: &mut Hands<P>, template: FlowRef) {
    if F::table(context.shared).end(F::part(hands), template) {
        context.counters.event(Event::TemplateExpired).add(1);
    }
}
