//! A rule of the host's firewall, as far as it matters to a director: what it matches, and what it does.
//!
//! Readers ([`super::nft`], [`super::iptables`]) put into words what they do not understand, so that nothing is taken for
//! simpler than it is.

use std::net::IpAddr;

use dataplane::service::AddressRange;
use ipnet::IpNet;

/// One rule, or the policy of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    /// Whose it is and where it stands, such as `nft inet filter input`.
    pub place: String,
    /// The rule as its tool shows it, on one line.
    pub text: String,
    /// Where packets meet it.
    pub hook: Hook,
    /// What it matches.
    pub condition: Condition,
    /// What it does.
    pub effect: Effect,
}

/// Where in the kernel packets meet a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// On their way in: ingress, prerouting, input, forward.
    Inward,
    /// On their way out: output, postrouting.
    Outward,
    /// Only by a jump from another chain.
    Jump,
}

/// What a rule matches. An empty list matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// Sources.
    pub from: Vec<AddressRange>,
    /// Destinations.
    pub to: Vec<AddressRange>,
    /// Protocols, in small letters.
    pub protocols: Vec<String>,
    /// Destination ports, from the lowest to the highest.
    pub ports: Vec<(u16, u16)>,
    /// Names of sets whose contents are not known (ipset).
    pub sets: Vec<String>,
    /// A rate, with its burst.
    pub rate: Option<(u32, Option<u32>)>,
    /// What else, in the tool's words.
    pub rest: Vec<String>,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Lets the packet pass.
    Accept,
    /// Drops it.
    Drop,
    /// Drops it and tells its sender.
    Reject,
    /// Gives it a mark.
    Mark(u32),
    /// Changes its source to that of the interface.
    Masquerade,
    /// Changes its source.
    Snat,
    /// Changes its destination.
    Dnat,
    /// Sends it to a port of this machine.
    Redirect,
    /// Goes on in another chain.
    Jump(String),
    /// Exempts it from connection tracking.
    NoTrack,
    /// Something else, in the tool's words; counting and logging count as nothing.
    Other(String),
    /// Nothing that becomes of a packet.
    Nothing,
}

impl Condition {
    /// Whether the rule names no address, port, set or anything else but perhaps a protocol.
    pub fn is_general(&self) -> bool {
        self.to.is_empty() && self.ports.is_empty() && self.sets.is_empty() && self.from.is_empty()
    }

    /// Whether a destination may be meant.
    pub fn may_go_to(&self, address: IpAddr) -> bool {
        self.to.is_empty() || self.to.iter().any(|range| range.contains(address))
    }

    /// Whether any address of a range may be meant.
    pub fn may_go_into(&self, range: &AddressRange) -> bool {
        self.to.is_empty() || self.to.iter().any(|own| own.first <= range.last && range.first <= own.last)
    }

    /// Whether a port may be meant; 0 stands for every port.
    pub fn may_have_port(&self, port: u16) -> bool {
        port == 0 || self.ports.is_empty() || self.ports.iter().any(|(low, high)| (*low..=*high).contains(&port))
    }

    /// Whether a protocol may be meant.
    pub fn may_be(&self, protocol: &str) -> bool {
        self.protocols.is_empty() || self.protocols.iter().any(|own| own == protocol)
    }
}

/// An address, prefix or range as text; without one, nothing.
pub(super) fn range(text: &str) -> Option<AddressRange> {
    if let Some((first, last)) = text.split_once('-') {
        let range = AddressRange { first: first.trim().parse().ok()?, last: last.trim().parse().ok()? };
        return (range.first.is_ipv4() == range.last.is_ipv4() && range.first <= range.last).then_some(range);
    }
    let net: IpNet = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    Some(AddressRange { first: net.network(), last: net.broadcast() })
}

/// The prefix that a range is, if it is one; `192.0.2.1` without its length.
fn prefix(range: &AddressRange) -> Option<String> {
    if range.first == range.last {
        return Some(range.first.to_string());
    }
    let most = if range.first.is_ipv4() { 32 } else { 128 };
    let nets = (0..most).filter_map(|length| IpNet::new(range.first, length).ok());
    let mut fitting = nets.filter(|net| net.network() == range.first && net.broadcast() == range.last);
    fitting.next().map(|net| net.to_string())
}

impl HostRule {
    /// The rules of ours that do the same, one a line; none where we have nothing like it.
    pub fn replacement(&self) -> Option<String> {
        let action = match (&self.effect, self.condition.rate) {
            (Effect::Drop | Effect::Reject, None) => "deny".to_owned(),
            (Effect::Accept, Some((rate, burst))) => {
                let burst = burst.map(|burst| format!(" burst {burst}")).unwrap_or_default();
                format!("rate {rate}{burst}")
            }
            (Effect::Accept, None) => "allow".to_owned(),
            (Effect::Mark(mark), None) if *mark > 0 && !self.condition.to.is_empty() => format!("mark {mark}"),
            _ => return None,
        };
        if !self.condition.sets.is_empty() || !self.condition.rest.is_empty() {
            return None;
        }
        let ends = |ranges: &[AddressRange], word: &str| -> Option<Vec<String>> {
            if ranges.is_empty() {
                return Some(vec![String::new()]);
            }
            ranges.iter().map(|range| Some(format!(" {word} {}", prefix(range)?))).collect()
        };
        let or_any = |list: Vec<String>| if list.is_empty() { vec![String::new()] } else { list };
        let protocols = self.condition.protocols.iter();
        if self.condition.protocols.iter().any(|protocol| !["tcp", "udp", "sctp"].contains(&protocol.as_str())) {
            return None;
        }
        let protocols = or_any(protocols.map(|protocol| format!(" {protocol}")).collect());
        let ports = self
            .condition
            .ports
            .iter()
            .map(|(low, high)| if low == high { format!(" port {low}") } else { format!(" port {low}-{high}") });
        let ports = or_any(ports.collect());
        let (from, to) = (ends(&self.condition.from, "from")?, ends(&self.condition.to, "to")?);
        let mut lines = Vec::new();
        for from in &from {
            for to in &to {
                for protocol in &protocols {
                    for port in &ports {
                        lines.push(format!("{action}{from}{to}{protocol}{port}"));
                    }
                }
            }
        }
        Some(if lines.len() > MOST_LINES {
            format!("{} … ({} rules like it)", lines[0], lines.len())
        } else {
            lines.join("\n")
        })
    }
}

/// More lines than these are told by their number.
const MOST_LINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(effect: Effect, condition: Condition) -> HostRule {
        HostRule { place: String::new(), text: String::new(), hook: Hook::Inward, condition, effect }
    }

    #[test]
    fn a_replacement_says_the_same_in_our_words() {
        let all = Condition {
            from: vec![range("10.66.0.0/16").unwrap()],
            to: vec![range("192.0.2.80").unwrap()],
            protocols: vec!["tcp".into()],
            ports: vec![(80, 80), (8000, 8010)],
            ..Condition::default()
        };
        assert_eq!(
            rule(Effect::Drop, all.clone()).replacement().unwrap(),
            "deny from 10.66.0.0/16 to 192.0.2.80 tcp port 80\ndeny from 10.66.0.0/16 to 192.0.2.80 tcp port 8000-8010"
        );
        let limited = Condition { rate: Some((100, Some(20))), ports: Vec::new(), ..all.clone() };
        assert_eq!(
            rule(Effect::Accept, limited).replacement().unwrap(),
            "rate 100 burst 20 from 10.66.0.0/16 to 192.0.2.80 tcp"
        );
        let odd = Condition { rest: vec!["tcp flags syn".into()], ..all.clone() };
        assert_eq!(rule(Effect::Drop, odd).replacement(), None);
        let uneven = Condition { to: vec![range("192.0.2.1-192.0.2.9").unwrap()], ..all };
        assert_eq!(rule(Effect::Drop, uneven).replacement(), None);
        assert_eq!(
            rule(Effect::Mark(7), Condition::default()).replacement(),
            None,
            "a mark of ours needs a destination"
        );
    }
}
