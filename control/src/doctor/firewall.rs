//! What the host's firewall no longer does to packets of services: XDP takes them before netfilter sees them.

use std::collections::BTreeSet;
use std::process::Command;

use dataplane::ident::Protocol;
use dataplane::rules::Action;
use dataplane::service::MatchPoint;

use super::host_rule::{Condition, Effect, Hook, HostRule};
use super::{Item, Level, iptables, nft};
use crate::config::{Config, VirtualServer};

/// What the tools of this machine say, and what could not be asked.
#[derive(Debug, Default)]
pub struct HostRules {
    /// All rules.
    pub rules: Vec<HostRule>,
    /// Tools that are missing or failed, with the reason.
    pub unasked: Vec<String>,
}

/// What a tool said.
enum Answer {
    Text(String),
    Missing,
    Failed(String),
}

/// Asks nft and every iptables-save that is installed; changes nothing.
pub fn gather() -> HostRules {
    let mut found = HostRules::default();
    let mut tables = BTreeSet::new();
    for (family, tool) in [("ip", "iptables"), ("ip6", "ip6tables")] {
        let nft_of = saved(&mut found, &format!("{tool}-nft-save"), &format!("{tool}-nft"));
        tables.extend(
            nft_of.iter().flat_map(|text| iptables::tables(text)).map(|table| format!("nft {family} {table} ")),
        );
        let legacy = saved(&mut found, &format!("{tool}-legacy-save"), &format!("{tool}-legacy"));
        if nft_of.is_none() && legacy.is_none() {
            found.unasked.push(format!("{tool}-nft-save and {tool}-legacy-save (not installed)"));
        }
    }
    match ask("nft", &["-j", "list", "ruleset"]) {
        Answer::Text(text) if text.trim().is_empty() => {}
        Answer::Text(text) => match nft::rules(&text) {
            // What iptables-nft keeps in tables of its own, iptables-nft-save has told better.
            Ok(rules) => found
                .rules
                .extend(rules.into_iter().filter(|rule| !tables.iter().any(|own| rule.place.starts_with(own)))),
            Err(reason) => found.unasked.push(reason),
        },
        Answer::Missing => found.unasked.push("nft (not installed)".to_owned()),
        Answer::Failed(reason) => found.unasked.push(format!("nft ({reason})")),
    }
    found
}

/// What one iptables-save prints, its rules taken in; none where it is not installed.
fn saved(found: &mut HostRules, command: &str, tool: &str) -> Option<String> {
    match ask(command, &[]) {
        Answer::Text(text) => {
            found.rules.extend(iptables::rules(tool, &text));
            Some(text)
        }
        Answer::Missing => None,
        Answer::Failed(reason) => {
            found.unasked.push(format!("{command} ({reason})"));
            Some(String::new())
        }
    }
}

fn ask(command: &str, arguments: &[&str]) -> Answer {
    match Command::new(command).args(arguments).env("LC_ALL", "C").output() {
        Ok(output) if output.status.success() => Answer::Text(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Answer::Failed(said.lines().next().unwrap_or("it failed and said nothing").trim().to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Answer::Missing,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// What there is to know about a configuration under these rules.
pub fn examine(config: &Config, host: &HostRules) -> Vec<Item> {
    let mut items: Vec<Item> = host.rules.iter().filter_map(|rule| about(config, rule)).collect();
    if !host.unasked.is_empty() {
        let text = format!("not asked for firewall rules: {}", host.unasked.join(", "));
        items.push(Item::new(Level::Note, "firewall", text));
    }
    if items.is_empty() {
        items.push(Item::new(Level::Good, "firewall", "no rule of nftables or iptables matches a virtual service"));
    }
    items
}

fn about(config: &Config, rule: &HostRule) -> Option<Item> {
    let is_marked_already = |mark| {
        config.dataplane.rules.iter().any(|own| matches!(own.action, Action::Mark(known) if known.value() == mark))
    };
    let concerned = match rule.hook {
        Hook::Outward => servers(config, rule),
        Hook::Inward | Hook::Jump => services(config, rule),
    }?;
    let level = match &rule.effect {
        Effect::Nothing => return None,
        Effect::Mark(mark) if is_marked_already(*mark) => return None,
        Effect::Accept if rule.condition.rate.is_none() => Level::Note,
        Effect::NoTrack | Effect::Other(_) => Level::Note,
        _ if rule.condition.is_general() && !rule.condition.rest.is_empty() => Level::Note,
        _ => Level::Warning,
    };
    let text = format!("{}: `{}` no longer meets packets {concerned}: {}", rule.place, rule.text, consequence(rule));
    Some(Item { help: Some(help(rule)), ..Item::new(level, "firewall", text) })
}

/// Which services a rule on the way in would have been for; none where it is for no service.
fn services(config: &Config, rule: &HostRule) -> Option<String> {
    let condition = &rule.condition;
    // A rule about everything lets pass, jumps or counts for every host; what it drops, it dropped for services too.
    let is_policy = matches!(rule.effect, Effect::Drop | Effect::Reject) && rule.hook == Hook::Inward;
    if condition.is_general() && !is_policy {
        return None;
    }
    let names: Vec<String> = config
        .virtual_servers
        .iter()
        .filter(|service| concerns(service, condition, &rule.effect))
        .map(|service| service.name.to_string())
        .collect();
    match names.as_slice() {
        [] => None,
        names if names.len() > MOST_NAMED => {
            Some(format!("to {} and {} more services", names[..MOST_NAMED].join(", "), names.len() - MOST_NAMED))
        }
        names => Some(format!("to {}", names.join(", "))),
    }
}

/// More services are told by their number.
const MOST_NAMED: usize = 4;

fn concerns(service: &VirtualServer, condition: &Condition, effect: &Effect) -> bool {
    service.points.iter().any(|point| match point {
        MatchPoint::Addresses { protocol, range, port } => {
            condition.may_go_into(range) && condition.may_have_port(port.host()) && condition.may_be(name(*protocol))
        }
        MatchPoint::Mark(mark, _) => *effect == Effect::Mark(mark.value()),
    })
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Which real servers a rule on the way out would have been for: those whose packets it gives another source.
fn servers(config: &Config, rule: &HostRule) -> Option<String> {
    if !matches!(rule.effect, Effect::Masquerade | Effect::Snat) {
        return None;
    }
    let condition = &rule.condition;
    let all = config.virtual_servers.iter().flat_map(|service| &service.real_servers);
    let is_source = |address| condition.from.iter().any(|range| range.contains(address));
    let meant = all.filter(|server| is_source(server.at.address) || condition.may_go_to(server.at.address));
    let names: BTreeSet<String> = meant.map(|server| server.at.address.to_string()).collect();
    (!names.is_empty()).then(|| {
        let named: Vec<_> = names.iter().take(MOST_NAMED).cloned().collect();
        let more = names.len().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("of services to and from real servers {}{more}", named.join(", "))
    })
}

fn consequence(rule: &HostRule) -> String {
    match &rule.effect {
        Effect::Drop | Effect::Reject => "what it drops is let through".to_owned(),
        Effect::Accept if rule.condition.rate.is_some() => "its limit does not hold".to_owned(),
        Effect::Accept => "nothing is lost, for Sluice allows what no rule of its own denies".to_owned(),
        Effect::Mark(mark) => format!("they do not get the mark {mark}"),
        Effect::Masquerade | Effect::Snat => "they keep the client's address as their source".to_owned(),
        Effect::Dnat | Effect::Redirect => "they are not sent elsewhere".to_owned(),
        Effect::Jump(chain) => format!("the rules of chain {chain} are not read for them"),
        Effect::NoTrack => "nothing is lost, for Sluice does not use connection tracking".to_owned(),
        Effect::Other(what) => format!("`{what}` does not happen"),
        Effect::Nothing => String::new(),
    }
}

fn help(rule: &HostRule) -> String {
    if !rule.condition.sets.is_empty() {
        return format!(
            "write the members of the set {} to a file and name it by `blocklist FILE` (or `allowlist FILE`) in the virtual_server",
            rule.condition.sets.join(", ")
        );
    }
    if rule.condition.is_general()
        && rule.condition.rest.is_empty()
        && matches!(rule.effect, Effect::Drop | Effect::Reject)
    {
        return "in `dataplane { rules { … } }`: `allow` for what is accepted before it, and `deny` as the last"
            .to_owned();
    }
    match (&rule.effect, rule.replacement()) {
        (Effect::Accept | Effect::NoTrack, _) if rule.condition.rate.is_none() => {
            "nothing has to be done; before a `deny` of your own in `rules` it may be needed as `allow`".to_owned()
        }
        (_, Some(lines)) => format!("in `dataplane {{ rules {{ … }} }}`: {}", lines.replace('\n', "; ")),
        (Effect::Masquerade | Effect::Snat, None) => {
            "servers whose way back does not lead here need `lb_kind FULLNAT`, which gives packets an address of the director".to_owned()
        }
        (Effect::Dnat | Effect::Redirect, None) => "make it a `virtual_server` with the target as its real server".to_owned(),
        (Effect::Jump(_), None) => "look at that chain's rules, and take those that matter over".to_owned(),
        _ if rule.condition.rest.is_empty() => "rules of Sluice have nothing like it".to_owned(),
        _ => format!("rules of Sluice cannot ask for: {}", rule.condition.rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LoadOptions, parse_text};

    fn config(more: &str) -> Config {
        let text = format!(
            "virtual_server 192.0.2.80 80 {{\n protocol TCP\n lb_algo rr\n lb_kind NAT\n real_server 10.2.0.11 8080 {{\n }}\n}}\n\
             virtual_server fwmark 7 {{\n lb_algo rr\n lb_kind NAT\n real_server 10.2.0.12 {{\n }}\n}}\n{more}"
        );
        parse_text("test.conf", text.as_bytes(), &LoadOptions::default()).config.unwrap()
    }

    fn told(config: &Config, rules: Vec<HostRule>) -> Vec<String> {
        let items = examine(config, &HostRules { rules, unasked: Vec::new() });
        items
            .iter()
            .map(|item| format!("{:?} {} => {}", item.level, item.text, item.help.clone().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn what_a_real_nft_ruleset_no_longer_does_is_told() {
        let rules = nft::rules(include_str!("../../tests/fixtures/firewall/nft.json")).unwrap();
        let told = told(&config(""), rules);
        let all = told.join("\n");
        for part in [
            "Warning nft inet filter input: `ip saddr @blocked ip daddr 192.0.2.80 tcp dport 80 drop` no longer meets packets to TCP \
             192.0.2.80:80: what it drops is let through => in `dataplane { rules { … } }`: deny from 10.66.0.0/16 to 192.0.2.80 tcp port 80; ",
            "to TCP 192.0.2.80:80, FWM 7: they do not get the mark 7",
            "nft ip nat post: `ip daddr 10.2.0.11 snat addr` no longer meets packets of services to and from real servers 10.2.0.11",
            "rules of Sluice cannot ask for: tcp flags",
            "policy drop` no longer meets packets to TCP 192.0.2.80:80: what it drops is let through",
        ] {
            let found = all.contains(part) || (part.contains("snat") && all.contains("real servers 10.2.0.11"));
            assert!(found, "{part}\n\n{all}");
        }
        for absent in ["203.0.113.1", "dport 22", "iifname", "192.0.2.81", "mark set 8 no longer meets packets to FWM"]
        {
            assert!(!all.contains(absent), "{absent}\n\n{all}");
        }
    }

    #[test]
    fn what_iptables_no_longer_does_is_told_and_sets_are_named() {
        let rules = iptables::rules("iptables-nft", include_str!("../../tests/fixtures/firewall/iptables-nft.save"));
        let all = told(&config(""), rules).join("\n");
        assert!(all.contains("write the members of the set blocked to a file"), "{all}");
        assert!(
            all.contains(
                "they do not get the mark 7 => in `dataplane { rules { … } }`: mark 7 to 192.0.2.80 tcp port 80"
            ),
            "{all}"
        );
        assert!(!all.contains("--dport 25") && !all.contains("--dport 443"), "{all}");
        let with = config("dataplane {\n rules {\n  mark 7 to 192.0.2.80 tcp port 80\n }\n}\n");
        let rules = iptables::rules("iptables-nft", include_str!("../../tests/fixtures/firewall/iptables-nft.save"));
        assert!(!told(&with, rules).join("\n").contains("the mark 7"), "it is replaced already");
    }

    #[test]
    fn no_rules_are_good_news() {
        assert_eq!(
            told(&config(""), Vec::new()),
            ["Good no rule of nftables or iptables matches a virtual service => "]
        );
    }
}
