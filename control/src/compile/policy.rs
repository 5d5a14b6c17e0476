//! How flows are treated: what the dataplane block and IPVS's defaults say.

use std::sync::Arc;
use std::time::Duration;

use dataplane::rules::{Gates, Rules, SourceLimit};
use dataplane::snapshot::{Defended, Policy, RemovedServers, StraySctp, StraySegments};
use dataplane::state::Timeouts;

use crate::config::{DataplaneConfig, TimeoutOverrides};

/// Resets, and ICMP errors, that one worker sends in a second: the kernel's own limit on ICMP (`icmp_msgs_per_sec`).
const REPLIES_PER_SECOND: u32 = 1000;

/// The policy of a configuration.
pub(super) fn policy(config: &DataplaneConfig) -> Policy {
    Policy {
        stray_sctp: if config.sloppy_sctp { StraySctp::Open } else { StraySctp::Drop },
        stray: stray(config),
        defence: config.defence,
        removed: if config.expire_nodest_conn { RemovedServers::EndFlows } else { RemovedServers::Silent },
        port_reuse: config.conn_reuse_mode,
        quiescent_templates: config.quiescent_templates,
        timeouts: timeouts(&config.timeouts),
        replies_per_second: REPLIES_PER_SECOND,
    }
}

fn stray(config: &DataplaneConfig) -> StraySegments {
    match config.defence.tcp {
        _ if config.sloppy_tcp => StraySegments::Open,
        Defended::On => StraySegments::Silence,
        Defended::Off => StraySegments::Reset,
    }
}

/// What new flows have to pass. What did not change is taken over, with what it remembers.
pub(super) fn gates(config: &DataplaneConfig, previous: Option<&Gates>) -> Gates {
    let before = previous.map(|gates| &gates.rules);
    let is_same = |rules: &&Arc<Rules>| rules.iter().map(|(rule, _)| rule).eq(&config.rules);
    let rules = match before.filter(is_same) {
        Some(rules) => Arc::clone(rules),
        None => Arc::new(Rules::new(&config.rules, before.map(|rules| &**rules))),
    };
    let limit = |rate| {
        let before = previous.and_then(|gates| gates.sources.as_ref()).filter(|limit| limit.rate() == rate);
        before.map_or_else(|| Arc::new(SourceLimit::new(rate)), Arc::clone)
    };
    Gates { rules, scope: config.rule_scope, sources: config.source_rate.map(limit) }
}

/// Zero stands for the default, as in `ipvsadm --set`.
fn timeouts(said: &TimeoutOverrides) -> Timeouts {
    let seconds = |time: Option<Duration>| time.map_or(0, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    Timeouts::with(seconds(said.tcp), seconds(said.tcpfin), seconds(said.udp))
}

#[cfg(test)]
mod tests {
    use dataplane::clock::Ticks;
    use dataplane::state::TcpState;

    use super::*;

    #[test]
    fn what_is_not_said_is_as_ipvs_has_it() {
        let said = TimeoutOverrides { tcpfin: Some(Duration::from_secs(7)), ..TimeoutOverrides::default() };
        let timeouts = policy(&DataplaneConfig { timeouts: said, ..DataplaneConfig::default() }).timeouts;
        assert_eq!(timeouts.tcp(TcpState::FinWait), Ticks::seconds(7));
        assert_eq!((timeouts.tcp(TcpState::Established), timeouts.udp()), (Ticks::seconds(900), Ticks::seconds(300)));
        let sloppy = policy(&DataplaneConfig { sloppy_tcp: true, ..DataplaneConfig::default() });
        assert_eq!((sloppy.stray, StraySegments::default()), (StraySegments::Open, StraySegments::Reset));
    }
}
