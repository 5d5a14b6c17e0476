//! Rules about packets that would open a flow: allow, deny, limit, mark.
//!
//! Rules are read in the order of the configuration. The first that matches and allows, denies or limits decides; marks are
//! put on by the way, the last one counts. What no rule decides is allowed. Packets of flows are not looked at, unless
//! [`Scope::Established`] asks for it.

mod matcher;
mod meter;
mod prefix_set;
mod source_limit;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;

pub use meter::{Pace, Rate};
pub use prefix_set::PrefixSet;
pub use source_limit::SourceLimit;

use crate::clock::Tick;
use crate::ident::Protocol;
use crate::service::Mark;
use matcher::Matcher;

/// Most rules of a director.
pub const MAX_RULES: usize = 4096;

/// What of a packet rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The transport.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes.
    pub destination: IpAddr,
    /// The destination port, in host order.
    pub port: u16,
}

/// Which packets a rule is about; what it does not name may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selector {
    /// The source.
    pub from: Option<IpNet>,
    /// The destination.
    pub to: Option<IpNet>,
    /// The transport.
    pub protocol: Option<Protocol>,
    /// The lowest and the highest destination port, in host order.
    pub ports: (u16, u16),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Allow => f.write_str("allow")?,
            Action::Deny => f.write_str("deny")?,
            Action::Limit(rate) => write!(f, "rate {} burst {}", rate.per_second(), rate.burst())?,
            Action::Mark(mark) => write!(f, "mark {mark}")?,
        }
        let Selector { from, to, protocol, ports: (low, high) } = self.selector;
        from.map_or(Ok(()), |from| write!(f, " from {from}"))?;
        to.map_or(Ok(()), |to| write!(f, " to {to}"))?;
        protocol.map_or(Ok(()), |protocol| write!(f, " {}", protocol.name().to_ascii_lowercase()))?;
        match (low, high) {
            (0, u16::MAX) => Ok(()),
            (low, high) if low == high => write!(f, " port {low}"),
            (low, high) => write!(f, " port {low}-{high}"),
        }
    }
}

impl Selector {
    /// Everything.
    pub const ALL: Self = Self { from: None, to: None, protocol: None, ports: (0, u16::MAX) };

    /// Whether a packet is meant.
    pub fn matches(&self, subject: &Subject) -> bool {
        let within = |prefix: &Option<IpNet>, address| prefix.is_none_or(|prefix| prefix.contains(&address));
        within(&self.from, subject.source)
            && within(&self.to, subject.destination)
            && self.protocol.is_none_or(|protocol| protocol == subject.protocol)
            && (self.ports.0..=self.ports.1).contains(&subject.port)
    }
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The flow may be opened; no later rule is read.
    Allow,
    /// It may not, and nobody is told.
    Deny,
    /// It may as long as the rule's rate holds out; no later rule is read.
    Limit(Rate),
    /// The packet is marked, and later rules are read.
    Mark(Mark),
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// To which packets.
    pub selector: Selector,
}

/// Which packets rules are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scope {
    /// Those that would open a flow.
    #[default]
    NewFlows,
    /// Also those from clients of flows, for which only what denies is heeded.
    Established,
}

/// What stands between a packet of no flow and its service.
#[derive(Clone, Debug, Default)]
pub struct Gates {
    /// Rules about new flows.
    pub rules: Arc<Rules>,
    /// Which packets they are read for.
    pub scope: Scope,
    /// The limit of each source, where there is one.
    pub sources: Option<Arc<SourceLimit>>,
}

/// What rules say of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may open a flow, by a mark if it got one.
    Pass(Option<Mark>),
    /// A rule denies it.
    Denied,
    /// A rule's rate is used up.
    Limited,
}

/// What a rule remembers. It outlives reloads as long as the rule stays the same.
#[derive(Debug, Default)]
pub struct RuleState {
    matched: AtomicU64,
    spent: AtomicU64,
}

impl RuleState {
    /// Packets that the rule matched.
    pub fn matched(&self) -> u64 {
        self.matched.load(Ordering::Relaxed)
    }
}

/// All rules of one configuration, immutable.
#[derive(Debug, Default)]
pub struct Rules {
    list: Vec<(Rule, Arc<RuleState>)>,
    matcher: Matcher,
}

impl Rules {
    /// Rules in their order; at most [`MAX_RULES`] count. Those that `previous` has too keep what they remember.
    pub fn new(rules: &[Rule], previous: Option<&Self>) -> Self {
        let rules = rules.get(..MAX_RULES).unwrap_or(rules);
        let mut known: Vec<_> = previous.map(|previous| previous.list.iter().collect()).unwrap_or_default();
        let mut state = |rule: &Rule| {
            let at = known.iter().position(|(other, _)| other == rule);
            at.map(|at| Arc::clone(&known.remove(at).1)).unwrap_or_default()
        };
        Self { list: rules.iter().map(|rule| (*rule, state(rule))).collect(), matcher: Matcher::new(rules) }
    }

    /// Whether there is no rule.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The rules in their order, with what they remember.
    pub fn iter(&self) -> impl Iterator<Item = (&Rule, &RuleState)> {
        self.list.iter().map(|(rule, state)| (rule, &**state))
    }

    /// What is to become of a packet that would open a flow; counts it for the rules that it met.
    pub fn judge(&self, subject: &Subject, now: Tick) -> Judgement {
        let mut mark = None;
        for at in self.matcher.matches(subject) {
            let Some((rule, state)) = self.list.get(at) else { continue };
            state.matched.fetch_add(1, Ordering::Relaxed);
            match rule.action {
                Action::Allow => return Judgement::Pass(mark),
                Action::Deny => return Judgement::Denied,
                Action::Limit(rate) if rate.pace().spend(&state.spent, now) => return Judgement::Pass(mark),
                Action::Limit(_) => return Judgement::Limited,
                Action::Mark(new) => mark = Some(new),
            }
        }
        Judgement::Pass(mark)
    }

    /// The same before it is known whether the packet opens one: nothing is spent of any rate, and nothing counted.
    pub fn peek(&self, subject: &Subject) -> Judgement {
        let mut mark = None;
        for at in self.matcher.matches(subject) {
            match self.list.get(at).map(|(rule, _)| rule.action) {
                Some(Action::Deny) => return Judgement::Denied,
                Some(Action::Allow | Action::Limit(_)) => return Judgement::Pass(mark),
                Some(Action::Mark(new)) => mark = Some(new),
                None => {}
            }
        }
        Judgement::Pass(mark)
    }

    /// Whether a packet of a flow is denied: rates were for its first packet.
    pub fn denies(&self, subject: &Subject) -> bool {
        for at in self.matcher.matches(subject) {
            let Some((rule, state)) = self.list.get(at) else { continue };
            match rule.action {
                Action::Mark(_) => {}
                Action::Allow | Action::Limit(_) => return false,
                Action::Deny => {
                    state.matched.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subject(from: &str, to: &str, port: u16) -> Subject {
        Subject { protocol: Protocol::Tcp, source: from.parse().unwrap(), destination: to.parse().unwrap(), port }
    }

    fn rule(action: Action, from: &str, to: &str) -> Rule {
        let prefix = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Rule { action, selector: Selector { from: prefix(from), to: prefix(to), ..Selector::ALL } }
    }

    #[test]
    fn the_first_that_decides_decides_and_marks_go_along() {
        let mark = |n| Action::Mark(Mark::new(n).unwrap());
        let rules = Rules::new(
            &[
                rule(mark(1), "", "192.0.2.0/24"),
                rule(Action::Allow, "10.1.0.0/16", ""),
                rule(mark(2), "", "192.0.2.7/32"),
                rule(Action::Deny, "10.0.0.0/8", ""),
            ],
            None,
        );
        let judge = |from: &str, to: &str| rules.judge(&subject(from, to, 80), Tick::new(0));
        assert_eq!(judge("10.1.0.1", "192.0.2.7"), Judgement::Pass(Mark::new(1)));
        assert_eq!(judge("10.2.0.1", "192.0.2.7"), Judgement::Denied);
        assert_eq!(judge("172.16.0.1", "192.0.2.7"), Judgement::Pass(Mark::new(2)));
        assert_eq!(judge("172.16.0.1", "198.51.100.1"), Judgement::Pass(None));
        assert_eq!(judge("2001:db8::1", "2001:db8::2"), Judgement::Pass(None));
        let matched: Vec<_> = rules.iter().map(|(_, state)| state.matched()).collect();
        assert_eq!(matched, [3, 1, 2, 1]);
        assert!(rules.denies(&subject("10.2.0.1", "1.1.1.1", 1)) && !rules.denies(&subject("10.1.0.1", "1.1.1.1", 1)));
    }

    #[test]
    fn a_rate_is_kept_over_reloads_while_the_rule_stays() {
        let limit = rule(Action::Limit(Rate::new(10, 3).unwrap()), "", "");
        let packet = subject("10.0.0.1", "192.0.2.1", 80);
        let first = Rules::new(&[limit], None);
        let now = Tick::new(1000);
        let passed = |rules: &Rules, now| (0..9).filter(|_| rules.judge(&packet, now) != Judgement::Limited).count();
        assert_eq!(passed(&first, now), 3);
        let second = Rules::new(&[rule(Action::Deny, "10.9.0.0/16", ""), limit], Some(&first));
        assert_eq!(passed(&second, now), 0);
        assert_eq!(passed(&second, Tick::new(1020)), 2, "two tenths of a second give two");
    }

    fn prefixes() -> impl Strategy<Value = Option<IpNet>> {
        let v4 = (0..4u32, 0..4u32, 0..=32u8).prop_map(|(a, b, len)| {
            IpNet::new(IpAddr::V4((a << 24 | b << 8 | b).into()), len).ok().map(|net| net.trunc())
        });
        let v6 = (0..3u128, 0..=128u8)
            .prop_map(|(a, len)| IpNet::new(IpAddr::V6((a << 120 | a).into()), len).ok().map(|net| net.trunc()));
        prop_oneof![1 => Just(None), 3 => v4, 1 => v6]
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let action = prop_oneof![
            Just(Action::Allow),
            Just(Action::Deny),
            (1..9u32).prop_filter_map("not zero", |n| Mark::new(n).map(Action::Mark))
        ];
        let protocol = proptest::option::of(prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)]);
        let rule = (action, prefixes(), prefixes(), protocol, 0..6u16, 0..6u16).prop_map(
            |(action, from, to, protocol, low, more)| Rule {
                action,
                selector: Selector { from, to, protocol, ports: (low, low + more) },
            },
        );
        proptest::collection::vec(rule, 0..150)
    }

    /// As [`Rules::judge`] is documented, one rule after the other.
    fn plainly(rules: &[Rule], subject: &Subject) -> Judgement {
        let mut mark = None;
        for rule in rules.iter().filter(|rule| rule.selector.matches(subject)) {
            match rule.action {
                Action::Allow | Action::Limit(_) => return Judgement::Pass(mark),
                Action::Deny => return Judgement::Denied,
                Action::Mark(new) => mark = Some(new),
            }
        }
        Judgement::Pass(mark)
    }

    proptest! {
        #[test]
        fn the_matcher_finds_what_reading_one_by_one_finds(
            rules in rules(),
            packets in proptest::collection::vec((0..4u32, 0..4u32, 0..12u16, any::<bool>(), any::<bool>()), 20),
        ) {
            let compiled = Rules::new(&rules, None);
            for (a, b, port, is_tcp, is_v4) in packets {
                let address = |n: u32| -> IpAddr {
                    if is_v4 { IpAddr::V4((n << 24 | n << 8 | n).into()) } else { IpAddr::V6((u128::from(n) << 120 | u128::from(n)).into()) }
                };
                let protocol = if is_tcp { Protocol::Tcp } else { Protocol::Udp };
                let packet = Subject { protocol, source: address(a), destination: address(b), port };
                prop_assert_eq!(compiled.judge(&packet, Tick::new(0)), plainly(&rules, &packet));
            }
        }
    }
}
