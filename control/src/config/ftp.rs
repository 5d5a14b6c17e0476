//! `ftp on|off`: Sluice's own keyword of a virtual server.

use dataplane::service::Ftp;

use super::block::Statement;
use super::lower::Lower;

/// What a statement says; nothing after it is `on`.
pub(super) fn lower(lower: &mut Lower<'_>, statement: &Statement) -> Ftp {
    if lower.switch(statement) { Ftp::On } else { Ftp::Off }
}
