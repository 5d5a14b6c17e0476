//! Refused flows, said in the log: a full table shows in a counter, but nobody watches counters at night.
//!
//! At most one line in ten seconds, so that a flood does not become one of the log.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dataplane::counters::Drop;
use dataplane::service::Services;
use dataplane::worker::Shared;

use crate::compile::short_pairs;

/// The shortest time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// What was said of one reason's refusals so far.
#[derive(Debug, Default)]
struct Refusals {
    told: u64,
    last: Option<Instant>,
}

/// What was said of refusals for each reason.
#[derive(Debug, Default)]
pub(super) struct Watch {
    full: Refusals,
    extensions: Refusals,
    portless: Refusals,
    /// Pairs of a local address and a server that are known to be short of ports.
    short: BTreeSet<String>,
}

impl Watch {
    /// Warns of flows refused since the last warning.
    pub(super) fn look(&mut self, shared: &Shared) {
        let refused = |reason| shared.boards.iter().map(|board| board.counters.drop(reason).read()).sum();
        if let Some(new) = self.full.news(refused(Drop::TableFull), Instant::now()) {
            let (ipv4, ipv6) = (shared.flows4.capacity(), shared.flows6.capacity());
            tracing::warn!(
                "the flow table is full: {new} packets that would have opened a flow were dropped (there is room for \
                 {ipv4} IPv4 and {ipv6} IPv6 flows); raise `connections` or `connections6` in the dataplane block"
            );
        }
        if let Some(new) = self.extensions.news(refused(Drop::NoExtension), Instant::now()) {
            let (ipv4, ipv6) = (shared.flows4.extension_capacity(), shared.flows6.extension_capacity());
            tracing::warn!(
                "no flow more can shift sequences: {new} packets that would have opened one were dropped (there is \
                 room for {ipv4} such IPv4 and {ipv6} IPv6 flows); raise `extensions` in the dataplane block"
            );
        }
        if let Some(new) = self.portless.news(refused(Drop::NoLocalPort), Instant::now()) {
            tracing::warn!(
                "FULLNAT has no local port left: {new} packets that would have opened a flow were dropped; add addresses \
                 to the `local_address_group`"
            );
        }
        self.tell_of_shortage(&shared.snapshot.load().services);
    }

    /// Says where few local ports are left, once each time that it comes to that.
    fn tell_of_shortage(&mut self, services: &Services) {
        let short = short_pairs(services);
        for said in short.iter().filter(|(name, _)| !self.short.contains(*name)).map(|(_, said)| said) {
            tracing::warn!("{said}");
        }
        self.short = short.into_keys().collect();
    }
}

impl Refusals {
    /// How many are new, if it is time to say so.
    fn news(&mut self, refused: u64, now: Instant) -> Option<u64> {
        let is_early = self.last.is_some_and(|last| now.duration_since(last) < PAUSE);
        if refused <= self.told || is_early {
            return None;
        }
        let new = refused - self.told;
        (self.told, self.last) = (refused, Some(now));
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_told_once_and_not_too_often() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.news(0, start), None);
        assert_eq!(refusals.news(5, start), Some(5));
        assert_eq!(refusals.news(9, start + Duration::from_secs(9)), None);
        assert_eq!(refusals.news(12, start + Duration::from_secs(11)), Some(7));
        assert_eq!(refusals.news(12, start + Duration::from_secs(30)), None);
    }
}
