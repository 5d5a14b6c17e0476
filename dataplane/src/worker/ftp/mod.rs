//! FTP under NAT and FULLNAT, behind the SYN proxy too: the commands are read, and the data connections that they
//! announce let through.
//!
//! Whatever cannot be read or would lead elsewhere passes unchanged and is counted.

mod data;
mod expectation;

use super::introduce::PROXY;
use super::pass::Keyed;
use super::path::Path;
use super::{Context, Hands};
use crate::counters::{Drop, Event};
use crate::flow::{Direction, Extension, FlowEntry, NewFlow, Shift, flag};
use crate::forward::ftp::{self, Announcement, Found};
use crate::forward::payload;
use crate::ident::{Endpoint, NetPort, Protocol};
use crate::port::{Frame, Ports};
use crate::service::{Destination, Ftp, Service};
use crate::wire::{Fragment, Headers};

pub(super) use data::expected;

/// Data connections may not go to ports that other services have (RFC 2577 section 3).
const LOWEST: u16 = 1024;

/// What a new flow of FTP's commands has beyond others: a record, for lines that change their length.
pub(super) fn begin<F: Path>(
    context: Context<'_>,
    keyed: &Keyed<'_, F>,
    destination: &Destination,
    new: &mut NewFlow<F>,
) {
    let may_be = keyed.key.protocol == Protocol::Tcp && destination.method.is_two_way();
    if !may_be || !context.snapshot.services.has_ftp() {
        return;
    }
    let Some(service) = context.snapshot.services.service(destination.service) else { return };
    let is_ftp = match service.settings.ftp {
        Ftp::On => true,
        Ftp::Off => false,
        Ftp::ByPort => keyed.key.destination_port == NetPort::FTP,
    };
    if is_ftp {
        new.flags |= flag::FTP;
        new.extension.get_or_insert_default();
    }
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
    // Until the server has acknowledged its PROXY header, the client's numbers are moved for that.
    let is_free = direction == Direction::Reverse || record.bits() & PROXY == 0;
    let expected = if is_free { expectation::begin(context, hands, entry, &announced, direction) } else { None };
    let Some(at) = expected else {
        context.counters.event(Event::FtpRefused).add(1);
        return Ok(());
    };
    if announced.port == at.port.host() && announced.address.is_none_or(|said| said == at.address) {
        return Ok(());
    }
    rewrite(context, hands, (frame, headers), record, direction, &announced, (start, at))
}

/// Writes another address and port into a segment whose data begins at `start`, and moves the numbers behind by what
/// the text grew.
fn rewrite<P: Ports>(
    context: Context<'_>,
    hands: &mut Hands<P>,
    (frame, headers): (&mut Frame, &mut Headers),
    record: &Extension,
    direction: Direction,
    announced: &Announcement,
    (start, new): (usize, Endpoint),
) -> Result<(), Drop> {
    let at = start + announced.at.start..start + announced.at.end;
    let before = headers.end;
    let sequence = payload::sequence(hands.ports.bytes(frame), headers).unwrap_or_default();
    let length = (before as usize - start) as u32;
    let text = ftp::text(announced.form, new.address, new.port.host());
    if !payload::replace(&mut hands.ports, frame, headers, at, text.as_bytes()) {
        context.counters.event(Event::FtpUnreadable).add(1);
        return Ok(());
    }
    let shift = record.shifts()[usize::from(direction == Direction::Reverse)];
    let grown = u32::from(headers.end).wrapping_sub(u32::from(before));
    let from = sequence.wrapping_add(length);
    // Sent again: it was counted the first time. Behind the place that is known, it is new.
    let is_new = shift.before == shift.after || from.wrapping_sub(shift.from).cast_signed() > 0;
    let next = Shift { from, before: shift.after, after: shift.after.wrapping_add(grown) };
    if grown != 0 && is_new && !record.set_shift(direction, next) {
        return Err(Drop::InsertContended);
    }
    Ok(())
}

/// The persistent service whose data connections come to this port of its VIP: that of port 21 (IPVS has the same
/// rule). Under NAT and FULLNAT they are expected instead.
pub(super) fn related<'s, F: Path>(context: Context<'s>, keyed: &Keyed<'_, F>) -> Option<&'s Service> {
    let port = keyed.key.destination_port.host();
    if keyed.key.protocol != Protocol::Tcp || !(port == 20 || port >= LOWEST) {
        return None;
    }
    let at = Endpoint { address: F::ip(keyed.key.destination), port: NetPort::FTP };
    let (_, service) = context.snapshot.services.find(Protocol::Tcp, at)?;
    let is_one_way = service.destinations.iter().all(|destination| !destination.method.is_two_way());
    (service.settings.persistence.is_some() && is_one_way).then_some(service)
}
