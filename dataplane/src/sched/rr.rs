//! `rr`: each eligible destination in turn (`ip_vs_rr`).
//!
//! The cursor holds the number of the slot picked last, so that a change of the list keeps the place in it.

use std::sync::atomic::Ordering;

use crate::service::{Destination, ServiceState};

pub(super) fn pick<'d>(destinations: &'d [Destination], state: &ServiceState) -> Option<&'d Destination> {
    let mut seen = state.cursor.load(Ordering::Relaxed);
    loop {
        let next = after(destinations, seen)?;
        // Slot numbers are stored plus one: zero is a cursor that has not been used.
        let picked = u64::from(next.slot.0) + 1;
        match state.cursor.compare_exchange_weak(seen, picked, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Some(next),
            Err(now) => seen = now,
        }
    }
}

/// The first eligible destination behind the one that `cursor` names, around the list once.
fn after(destinations: &[Destination], cursor: u64) -> Option<&Destination> {
    let last = destinations.iter().position(|d| u64::from(d.slot.0) + 1 == cursor);
    let start = last.map_or(0, |at| at + 1);
    let (head, tail) = destinations.split_at(start);
    tail.iter().chain(head).find(|d| d.takes_flows())
}
