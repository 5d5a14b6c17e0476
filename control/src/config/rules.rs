//! The block `rules`: one rule a line, or several with `;` between.
//!
//! `allow | deny | rate N [burst M] | mark N`, then in any order `from PREFIX`, `to PREFIX`, `tcp | udp | sctp`, `port N[-M]`.

use dataplane::ident::Protocol;
use dataplane::rules::{Action, MAX_RULES, Rate, Rule, Selector};
use ipnet::IpNet;

use super::block::Statement;
use super::lexer::Word;
use super::lower::{Lower, shown};
use super::virtual_server_group;

/// What stands for no prefix.
const ANY: &str = "any";

/// Lowers one block.
pub(super) fn lower(lower: &mut Lower<'_>, block: &Statement, rules: &mut Vec<Rule>) {
    lower.extra(block, 0);
    for line in block.inner() {
        for words in parts(&line.words) {
            rules.extend(rule(lower, &words));
        }
    }
    if rules.len() > MAX_RULES {
        let message = format!("{} rules are too many", rules.len());
        lower.error(
            block.span(),
            message,
            format!("at most {MAX_RULES}; lists of sources can be a service's `blocklist`"),
        );
    }
}

/// The words of each rule of a line; `;` ends a rule, with or without a space before it.
fn parts(words: &[Word]) -> Vec<Vec<Word>> {
    let mut parts = vec![Vec::new()];
    for word in words {
        let ends = word.text.ends_with(';');
        let text = word.text.trim_end_matches(';');
        if let (false, Some(part)) = (text.is_empty(), parts.last_mut()) {
            part.push(Word { text: text.to_owned(), ..word.clone() });
        }
        if ends {
            parts.push(Vec::new());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn rule(lower: &mut Lower<'_>, words: &[Word]) -> Option<Rule> {
    let (head, rest) = words.split_first()?;
    let mut words = rest.iter();
    let action = match head.text.as_str() {
        "allow" => Action::Allow,
        "deny" => Action::Deny,
        "rate" => Action::Limit(rate(lower, head, &mut words)?),
        "mark" => {
            let mark = value(lower, head, words.next(), "a mark")?;
            Action::Mark(virtual_server_group::number(lower, mark)?)
        }
        other => {
            let message = format!("`{}` is no rule", shown(other));
            lower.error(head.span, message, "expected allow, deny, rate or mark");
            return None;
        }
    };
    let mut selector = Selector::ALL;
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "from" => {
                let value = value(lower, word, words.next(), "a prefix")?;
                selector.from = if value.text == ANY { None } else { Some(prefix(lower, value)?) };
            }
            "to" => {
                let value = value(lower, word, words.next(), "a prefix")?;
                selector.to = if value.text == ANY { None } else { Some(prefix(lower, value)?) };
            }
            "tcp" | "TCP" => selector.protocol = Some(Protocol::Tcp),
            "udp" | "UDP" => selector.protocol = Some(Protocol::Udp),
            "sctp" | "SCTP" => selector.protocol = Some(Protocol::Sctp),
            "port" => {
                let value = value(lower, word, words.next(), "a port")?;
                selector.ports = ports(lower, value)?;
            }
            other => {
                let message = format!("`{}` is no part of a rule", shown(other));
                lower.error(word.span, message, "expected from, to, tcp, udp, sctp or port");
                return None;
            }
        }
    }
    check(lower, head, action, &selector)
}

fn check(lower: &mut Lower<'_>, head: &Word, action: Action, selector: &Selector) -> Option<Rule> {
    if let (Some(from), Some(to)) = (selector.from, selector.to)
        && from.addr().is_ipv4() != to.addr().is_ipv4()
    {
        lower.error(head.span, format!("no packet goes from {from} to {to}"), "expected prefixes of one family");
        return None;
    }
    if matches!(action, Action::Mark(_)) && selector.to.is_none() {
        let help = "expected `to PREFIX`: it says which packets are taken from the kernel";
        lower.error(head.span, "a mark needs a destination", help);
        return None;
    }
    Some(Rule { action, selector: *selector })
}

fn value<'w>(lower: &mut Lower<'_>, after: &Word, value: Option<&'w Word>, expected: &str) -> Option<&'w Word> {
    if value.is_none() {
        let message = format!("`{}` needs {expected}", after.text);
        lower.error(after.span, message, format!("expected {expected} after this"));
    }
    value
}

/// `N [burst M]`; without a burst that of a second.
pub(super) fn rate(lower: &mut Lower<'_>, head: &Word, words: &mut std::slice::Iter<'_, Word>) -> Option<Rate> {
    let word = value(lower, head, words.next(), "a number of flows a second")?;
    let range = || 1..=u64::from(Rate::MAX);
    let per_second = lower.number(word, range(), "number of flows a second")? as u32;
    let mut burst = per_second;
    if words.as_slice().first().is_some_and(|word| word.text == "burst") {
        let keyword = words.next()?;
        let word = value(lower, keyword, words.next(), "a number of flows")?;
        burst = lower.number(word, range(), "number of flows")? as u32;
    }
    Rate::new(per_second, burst)
}

/// A prefix or an address.
fn prefix(lower: &mut Lower<'_>, word: &Word) -> Option<IpNet> {
    let prefix = parse_prefix(&word.text);
    if prefix.is_none() {
        let message = format!("`{}` is neither an address nor a prefix", shown(&word.text));
        lower.error(word.span, message, "expected 192.0.2.0/24, 2001:db8::/32, one address or any");
    }
    prefix
}

/// A prefix, or an address as the prefix of itself; host bits are cut off.
pub(super) fn parse_prefix(text: &str) -> Option<IpNet> {
    let prefix: IpNet = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from)).ok()?;
    Some(prefix.trunc())
}

fn ports(lower: &mut Lower<'_>, word: &Word) -> Option<(u16, u16)> {
    let (low, high) = match word.text.split_once(['-', '–']) {
        Some((low, high)) => (low, high),
        None => (word.text.as_str(), word.text.as_str()),
    };
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let ports = number(low).zip(number(high)).filter(|(low, high)| low <= high);
    if ports.is_none() {
        let message = format!("`{}` is neither a port nor a range of ports", shown(&word.text));
        lower.error(word.span, message, "expected 80 or 8000-8010");
    }
    ports
}
