//! `persistence_timeout` and `persistence_granularity` of a virtual server.

use std::net::Ipv4Addr;

use dataplane::service::{AddressFamily, MatchPoint, Persistence};

use super::block::Statement;
use super::lexer::Word;
use super::lower::Lower;
use super::source::Span;

/// What was said so far.
#[derive(Default)]
pub(super) struct PersistenceSaid {
    timeout: Option<u32>,
    granularity: Option<(Granularity, Span)>,
}

#[derive(Clone, Copy)]
enum Granularity {
    Mask(Ipv4Addr),
    Prefix(u8),
}

impl PersistenceSaid {
    /// Takes one of the two statements. Persistence is on with either.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, statement: &Statement) {
        if statement.name() == "persistence_granularity" {
            let word = lower.one(statement, "a netmask, or the length of an IPv6 prefix");
            self.granularity = word.and_then(|word| Some((granularity(lower, word)?, word.span)));
            self.timeout = self.timeout.or(Some(Persistence::DEFAULT));
            return;
        }
        lower.extra(statement, 1);
        let seconds = match statement.arguments().first() {
            None => Some(Persistence::DEFAULT),
            Some(word) => lower
                .number(word, 1..=u64::from(Persistence::LONGEST), "number of seconds")
                .and_then(|seconds| u32::try_from(seconds).ok()),
        };
        self.timeout = seconds.or(self.timeout);
    }

    /// Whether anything was said.
    pub(super) const fn is_said(&self) -> bool {
        self.timeout.is_some()
    }

    /// The setting of a service with these match points; if one is of every port it is persistent in any case, as in
    /// keepalived.
    pub(super) fn finish(&self, lower: &mut Lower<'_>, points: &[MatchPoint]) -> Option<Persistence> {
        let has_every_port = |point: &MatchPoint| matches!(point, MatchPoint::Addresses { port, .. } if port.is_any());
        let forced = points.iter().any(has_every_port).then_some(Persistence::DEFAULT);
        let timeout = self.timeout.or(forced)?;
        let is_all = |family| points.iter().all(|point| point.is_v4() == (family == AddressFamily::V4));
        let mut persistence = Persistence::new(timeout);
        match self.granularity {
            None => {}
            Some((Granularity::Mask(_), span)) if is_all(AddressFamily::V6) => {
                lower.error(span, "a netmask for clients of IPv6", "expected the length of a prefix, 1 to 128");
            }
            Some((Granularity::Prefix(_), span)) if is_all(AddressFamily::V4) => {
                lower.error(
                    span,
                    "a prefix length for clients of IPv4",
                    "expected a netmask, 255.255.255.0 for instance",
                );
            }
            Some((Granularity::Mask(mask), _)) => persistence.mask = mask,
            Some((Granularity::Prefix(prefix), _)) => persistence.prefix = prefix,
        }
        Some(persistence)
    }
}

fn granularity(lower: &mut Lower<'_>, word: &Word) -> Option<Granularity> {
    if let Ok(mask) = word.text.parse::<Ipv4Addr>() {
        if mask.is_unspecified() {
            lower.error(word.span, "the mask 0.0.0.0 makes all clients one", "expected 255.255.255.0 for instance");
            return None;
        }
        return Some(Granularity::Mask(mask));
    }
    let prefix = lower.number(word, 1..=128, "prefix length")?;
    u8::try_from(prefix).ok().map(Granularity::Prefix)
}
