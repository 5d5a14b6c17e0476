//! `tcp N tcpfin N udp N`: the timeouts of `lvs_timeouts` and of the block `timeouts`, as `ipvsadm --set` takes them.

use std::time::Duration;

use super::block::Statement;
use super::lexer::Word;
use super::lower::Lower;
use super::model::TimeoutOverrides;

/// Longest timeout, in seconds: 31 days.
const LONGEST: u64 = 2_678_400;

/// Reads pairs of name and seconds; 0 leaves a timeout as it is.
pub(super) fn lower(lower: &mut Lower<'_>, statement: &Statement, words: &[Word], timeouts: &mut TimeoutOverrides) {
    if words.is_empty() {
        lower.lacking(statement, "`tcp`, `tcpfin` or `udp` and seconds");
    }
    let mut words = words.iter();
    while let Some(name) = words.next() {
        let names = [("tcp", 0), ("tcpfin", 1), ("udp", 2)];
        let Some(which) = lower.choice(name, "timeout", &names) else { return };
        let Some(value) = words.next() else {
            lower.error(name.span, format!("`{}` needs a number of seconds", name.text), "expected seconds after this");
            return;
        };
        let Some(seconds) = lower.number(value, 0..=LONGEST, "number of seconds") else { continue };
        let timeout = (seconds > 0).then(|| Duration::from_secs(seconds));
        match which {
            0 => timeouts.tcp = timeout,
            1 => timeouts.tcpfin = timeout,
            _ => timeouts.udp = timeout,
        }
    }
}
