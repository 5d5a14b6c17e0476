//! `wrr`: in turn, by weight (`ip_vs_wrr`): heavier destinations first, the pattern interleaved by the weights' gcd.
//!
//! The cursor packs the slot picked last (upper half, plus one) and the current weight (lower half) into one word.

use std::sync::atomic::Ordering;

use super::gcd;
use crate::service::{Destination, ServiceState};

/// What the weights of a list come to.
#[derive(Debug)]
pub struct Weights {
    /// Where a round begins: the largest weight, less the step, plus one.
    top: u32,
    /// The greatest common divisor: what the current weight goes down by.
    step: u32,
}

impl Weights {
    pub(super) fn new(destinations: &[Destination]) -> Self {
        let weights = || destinations.iter().map(|d| d.weight.value());
        let step = weights().filter(|w| *w > 0).fold(0, gcd).max(1);
        let heaviest = weights().max().unwrap_or(0);
        Self { top: heaviest.saturating_sub(step - 1), step }
    }

    pub(super) fn pick<'d>(&self, destinations: &'d [Destination], state: &ServiceState) -> Option<&'d Destination> {
        let mut seen = state.cursor.load(Ordering::Relaxed);
        loop {
            let (next, current) = self.after(destinations, seen)?;
            let picked = (u64::from(next.slot.0) + 1) << 32 | u64::from(current);
            match state.cursor.compare_exchange_weak(seen, picked, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(next),
                Err(now) => seen = now,
            }
        }
    }

    /// A current weight from before a change of weights, brought to one that occurs now.
    fn align(&self, current: u32) -> u32 {
        if self.step > 1 { (current.min(self.top) / self.step) * self.step + 1 } else { current.min(self.top).max(1) }
    }

    /// The next destination and the current weight that it was taken at. The list is scanned from behind the last
    /// one; each time its end is passed the current weight goes down one step, from the bottom back to the top.
    fn after<'d>(&self, destinations: &'d [Destination], cursor: u64) -> Option<(&'d Destination, u32)> {
        destinations.iter().find(|d| d.takes_flows())?;
        let last = destinations.iter().position(|d| u64::from(d.slot.0) + 1 == cursor >> 32);
        // IPVS learns its servers one by one, and behind the first of them the current weight is 1: so it begins.
        let mut current = if cursor == 0 { 1 } else { self.align(cursor as u32) };
        let mut at = last.map_or(0, |at| at + 1);
        loop {
            let mut rest = destinations.iter().skip(at);
            if current > 0
                && let Some(found) = rest.find(|d| d.takes_flows() && d.weight.value() >= current)
            {
                return Some((found, current));
            }
            at = 0;
            current = if current <= self.step { self.top } else { current - self.step };
        }
    }
}
