//! `lb_algo` or `lvs_sched` of a virtual server, with the flags of `sh` and `mh`.

use dataplane::sched::{Fallback, HashFlags, HashPort, SchedulerKind};

use super::block::Statement;
use super::lower::{Lower, either};

const PLAIN: HashFlags = HashFlags { port: HashPort::Ignored, fallback: Fallback::Refuse };

/// All schedulers of IPVS by their names.
fn schedulers() -> [(&'static str, SchedulerKind); 14] {
    SchedulerKind::all(PLAIN).map(|kind| (kind.name(), kind))
}

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
        self.kind = lower.one(statement, "a scheduler").and_then(|word| lower.choice(word, "scheduler", &schedulers()));
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
    either(&schedulers().map(|(name, _)| name))
}
