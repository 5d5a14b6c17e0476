//! Bounds on connections: `uthreshold` and `lthreshold` of a real server, and Sluice's own `connection_limit` and
//! `connection_rate` of a virtual server.

use dataplane::service::{Limit, Refusal, Thresholds};

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::lower::Lower;

/// A bound of a real server; 0 is none.
pub(super) fn threshold(lower: &mut Lower<'_>, statement: &Statement) -> u32 {
    lower
        .one(statement, "a number of connections")
        .and_then(|word| lower.number(word, 0..=u64::from(u32::MAX), "number of connections"))
        .and_then(|value| u32::try_from(value).ok())
        .unwrap_or_default()
}

/// Reports bounds that IPVS refuses ("Numerical result out of range"). `block` is the real server.
pub(super) fn check(lower: &mut Lower<'_>, block: &Statement, bounds: Thresholds) {
    if bounds.lower <= bounds.upper {
        return;
    }
    let said = block.inner().iter().find(|statement| statement.name() == "lthreshold");
    let upper = if bounds.upper == 0 { "there is no `uthreshold`".to_owned() } else { bounds.upper.to_string() };
    lower.report.push(
        Diagnostic::error(
            said.map_or(block.span(), Statement::span),
            format!("the `lthreshold` {} is above the `uthreshold`", bounds.lower),
        )
        .label(if bounds.upper == 0 { upper } else { format!("expected at most {upper}") })
        .help("a server is overloaded from `uthreshold` connections until there are fewer than `lthreshold`"),
    );
}

/// `connection_limit N [reset]`, `connection_rate N [reset]`.
pub(super) fn limit(lower: &mut Lower<'_>, statement: &Statement) -> Option<Limit> {
    lower.extra(statement, 2);
    let Some(word) = statement.arguments().first() else {
        lower.lacking(statement, "a number of connections");
        return None;
    };
    let most = lower.number(word, 1..=u64::from(u32::MAX), "number of connections");
    let refusal = statement.arguments().get(1).and_then(|word| {
        lower.choice(word, "answer to refused connections", &[("reset", Refusal::Reset), ("drop", Refusal::Silence)])
    });
    Some(Limit { most: u32::try_from(most?).ok()?, refusal: refusal.unwrap_or_default() })
}
