//! `lb_algo` or `lvs_sched` of a virtual server, with the flags of `sh` and `mh`.

use dataplane::sched::{Fallback, HashFlags, HashPort, SchedulerKind};

use super::block::Statement;
use super::lower::{Lower, either};

/// All schedulers of IPVS.
const SCHEDULERS: &[(&str, SchedulerKind)] = &[
    ("rr", SchedulerKind::Rr),
    ("wrr", SchedulerKind::Wrr),
    ("lc", SchedulerKind::Lc),
    ("wlc", SchedulerKind::Wlc),
    ("fo", SchedulerKind::Fo),
    ("ovf", SchedulerKind::Ovf),
    ("lblc", SchedulerKind::Lblc),
    ("lblcr", SchedulerKind::Lblcr),
    ("dh", SchedulerKind::Dh),
    ("sh", SchedulerKind::Sh(PLAIN)),
    ("sed", SchedulerKind::Sed),
    ("nq", SchedulerKind::Nq),
    ("twos", SchedulerKind::Twos),
    ("mh", SchedulerKind::Mh(PLAIN)),
];
const PLAIN: HashFlags = HashFlags { port: HashPort::Ignored, fallback: Fallback::Refuse };

/// What a block says of its scheduler.
#[derive(Default)]
pub(super) struct Scheduling {
    said: bool,
    kind: Option<SchedulerKind>,
    /// `flag-1` and `flag-2`, which may stand before `lb_algo`: what they mean, the scheduler decides.
    first: bool,
    second: bool,
}

impl Scheduling {
    /// Lowers `lb_algo`.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, statement: &Statement) {
        self.said = true;
        self.kind = lower.one(statement, "a scheduler").and_then(|word| lower.choice(word, "scheduler", SCHEDULERS));
    }

    /// Lowers a flag. Those with the name of a scheduler have to follow its line, as in keepalived.
    pub(super) fn flag(&mut self, lower: &mut Lower<'_>, statement: &Statement) {
        lower.extra(statement, 0);
        match (statement.name(), &mut self.kind) {
            ("mh-port", Some(SchedulerKind::Mh(flags))) | ("sh-port", Some(SchedulerKind::Sh(flags))) => {
                flags.port = HashPort::Included;
            }
            ("mh-fallback", Some(SchedulerKind::Mh(flags))) | ("sh-fallback", Some(SchedulerKind::Sh(flags))) => {
                flags.fallback = Fallback::Walk;
            }
            ("flag-1", _) => self.first = true,
            ("flag-2", _) => self.second = true,
            ("flag-3", _) => {
                lower.warning(statement.head(), "`flag-3` means nothing to any scheduler", "ignored, as IPVS does");
            }
            (name, _) => {
                let kind = name.split('-').next().unwrap_or_default();
                let message = format!("`{name}` only applies to the scheduler `{kind}`");
                lower.warning(statement.head(), message, format!("ignored: no `lb_algo {kind}` before it"));
            }
        }
    }

    /// Whether a scheduler was named, known or not.
    pub(super) const fn is_said(&self) -> bool {
        self.said
    }

    /// The scheduler; wlc where none is named.
    pub(super) fn kind(&self) -> SchedulerKind {
        let raw = |flags: HashFlags| HashFlags {
            port: if self.second { HashPort::Included } else { flags.port },
            fallback: if self.first { Fallback::Walk } else { flags.fallback },
        };
        match self.kind.unwrap_or(SchedulerKind::Wlc) {
            SchedulerKind::Sh(flags) => SchedulerKind::Sh(raw(flags)),
            SchedulerKind::Mh(flags) => SchedulerKind::Mh(raw(flags)),
            kind => kind,
        }
    }
}

/// The names, for a message.
pub(super) fn names() -> String {
    either(&SCHEDULERS.iter().map(|(name, _)| *name).collect::<Vec<_>>())
}
