//! `mss_clamp on|off|N`: Sluice's own keyword of a virtual server.

use dataplane::forward::mss;
use dataplane::service::MssClamp;

use super::block::Statement;
use super::lower::Lower;

/// The longest segment of a jumbo-free IP packet: 65535 bytes less the shortest headers.
const MOST: u64 = 65_495;

/// What a statement says; nothing after it is `on`.
pub(super) fn lower(lower: &mut Lower<'_>, statement: &Statement) -> MssClamp {
    lower.extra(statement, 1);
    match statement.arguments().first() {
        Some(word) if word.text.starts_with(|c: char| c.is_ascii_digit()) => lower
            .number(word, u64::from(mss::LEAST)..=MOST, "segment size in bytes")
            .map_or(MssClamp::Off, |most| MssClamp::To(most as u16)),
        Some(word) if !lower.boolean(word) => MssClamp::Off,
        _ => MssClamp::ByWay,
    }
}
