//! What `iptables-save` and `ip6tables-save` print, of iptables-legacy or iptables-nft.
//!
//! Options that are not known are kept in words, so that a rule is never taken for simpler than it is.

use super::host_rule::{Condition, Effect, Hook, HostRule, range};

/// Rules and chain policies; `tool` is what names them, such as `iptables-legacy`.
pub(super) fn rules(tool: &str, text: &str) -> Vec<HostRule> {
    let mut table = String::new();
    let mut rules = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(chain) = line.strip_prefix(':') {
            rules.extend(policy(tool, &table, chain));
        } else if let Some(rest) = line.strip_prefix("-A ") {
            rules.push(rule(tool, &table, rest));
        }
    }
    rules
}

/// The chains of a table that iptables-nft keeps: nft shows them too, with less in them.
pub(super) fn tables(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix('*'))
}

fn hook(chain: &str) -> Hook {
    match chain {
        "PREROUTING" | "INPUT" | "FORWARD" => Hook::Inward,
        "OUTPUT" | "POSTROUTING" => Hook::Outward,
        _ => Hook::Jump,
    }
}

fn policy(tool: &str, table: &str, line: &str) -> Option<HostRule> {
    let mut words = line.split_whitespace();
    let chain = words.next()?;
    (words.next()? == "DROP").then(|| HostRule {
        place: format!("{tool} {table} {chain}"),
        text: "policy DROP".to_owned(),
        hook: hook(chain),
        condition: Condition::default(),
        effect: Effect::Drop,
    })
}

fn rule(tool: &str, table: &str, text: &str) -> HostRule {
    let words = split(text);
    let mut words = words.iter().map(String::as_str).peekable();
    let chain = words.next().unwrap_or_default().to_owned();
    let mut condition = Condition::default();
    let mut effect = Effect::Nothing;
    let mut is_negated = false;
    while let Some(word) = words.next() {
        if word == "!" {
            is_negated = true;
            continue;
        }
        let mut values = Vec::new();
        while let Some(value) = words.next_if(|next| !next.starts_with('-') && *next != "!") {
            values.push(value);
        }
        let value = values.first().copied().unwrap_or_default();
        let understood = !is_negated && option(word, value, &mut condition, &mut effect);
        if !understood {
            let not = if is_negated { "! " } else { "" };
            condition.rest.push(format!("{not}{word} {}", values.join(" ")).trim().to_owned());
        }
        is_negated = false;
    }
    HostRule { place: format!("{tool} {table} {chain}"), text: text.to_owned(), hook: hook(&chain), condition, effect }
}

/// Whether an option was understood.
fn option(name: &str, value: &str, condition: &mut Condition, effect: &mut Effect) -> bool {
    match name {
        "-s" => range(value).map(|range| condition.from.push(range)).is_some(),
        "-d" => range(value).map(|range| condition.to.push(range)).is_some(),
        "-p" => {
            condition.protocols.push(value.to_ascii_lowercase());
            true
        }
        "--dport" | "--dports" => {
            let ports: Option<Vec<_>> = value.split(',').map(ports).collect();
            ports.map(|ports| condition.ports.extend(ports)).is_some()
        }
        "--match-set" => {
            condition.sets.push(value.to_owned());
            true
        }
        "--limit" => limit(value).map(|rate| condition.rate = Some((rate, None))).is_some(),
        "--limit-burst" => match (&mut condition.rate, value.parse()) {
            (Some((_, burst)), Ok(number)) => {
                *burst = Some(number);
                true
            }
            _ => false,
        },
        "-j" | "-g" => {
            *effect = target(value);
            true
        }
        "--set-xmark" | "--set-mark" => match mark(value) {
            Some(mark) => {
                *effect = Effect::Mark(mark);
                true
            }
            None => false,
        },
        // They name a match whose options follow, or say what is told to the sender or to a reader.
        "-m" | "--comment" | "--reject-with" | "--to-ports" | "--to-destination" | "--to-source" | "--log-prefix"
        | "--log-level" => true,
        _ => false,
    }
}

fn target(name: &str) -> Effect {
    match name {
        "ACCEPT" => Effect::Accept,
        "DROP" => Effect::Drop,
        "REJECT" => Effect::Reject,
        "MASQUERADE" => Effect::Masquerade,
        "SNAT" => Effect::Snat,
        "DNAT" => Effect::Dnat,
        "REDIRECT" => Effect::Redirect,
        "NOTRACK" | "CT" => Effect::NoTrack,
        "LOG" | "NFLOG" | "RETURN" => Effect::Nothing,
        // Which mark, an option behind it tells.
        "MARK" => Effect::Other("MARK".to_owned()),
        other if other.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()) && KNOWN.contains(&other) => {
            Effect::Other(other.to_owned())
        }
        chain => Effect::Jump(chain.to_owned()),
    }
}

/// Targets of iptables that are no chains.
const KNOWN: &[&str] = &[
    "CONNMARK",
    "TPROXY",
    "TCPMSS",
    "TOS",
    "DSCP",
    "TTL",
    "NETMAP",
    "CLASSIFY",
    "CHECKSUM",
    "SET",
    "SYNPROXY",
    "HL",
    "AUDIT",
    "QUEUE",
    "NFQUEUE",
    "TEE",
    "CONNSECMARK",
    "SECMARK",
    "TRACE",
    "CLUSTERIP",
    "RATEEST",
    "IDLETIMER",
    "LED",
    "HMARK",
    "ECN",
];

fn ports(text: &str) -> Option<(u16, u16)> {
    match text.split_once(':') {
        Some((low, high)) => Some((low.parse().ok()?, high.parse().ok()?)),
        None => text.parse().ok().map(|port| (port, port)),
    }
}

/// Packets a second, rounded up.
fn limit(text: &str) -> Option<u32> {
    let (number, unit) = text.split_once('/')?;
    let number: u32 = number.parse().ok()?;
    Some(match unit {
        "sec" | "second" | "s" => number,
        "min" | "minute" => number.div_ceil(60),
        "hour" => number.div_ceil(3600),
        "day" => number.div_ceil(86_400),
        _ => return None,
    })
}

/// A mark that sets all bits.
fn mark(text: &str) -> Option<u32> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    match text.split_once('/') {
        Some((value, mask)) => number(value).filter(|_| number(mask) == Some(u32::MAX)),
        None => number(text),
    }
}

/// Words as iptables-save quotes them.
fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut in_quotes, mut has_word) = (false, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if in_quotes => word.extend(letters.next()),
            '"' => (in_quotes, has_word) = (!in_quotes, true),
            ' ' | '\t' if !in_quotes => {
                if has_word {
                    words.push(std::mem::take(&mut word));
                }
                has_word = false;
            }
            letter => {
                word.push(letter);
                has_word = true;
            }
        }
    }
    if has_word {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REAL: &str = include_str!("../../tests/fixtures/firewall/iptables-nft.save");
    const LEGACY: &str = include_str!("../../tests/fixtures/firewall/legacy.save");
    const SIX: &str = include_str!("../../tests/fixtures/firewall/ip6tables-nft.save");

    fn found(text: &str) -> Vec<String> {
        let line = |rule: &HostRule| {
            format!(
                "{} | {:?} | {:?} | {}",
                rule.place,
                rule.effect,
                rule.condition.rest,
                rule.replacement().unwrap_or_default()
            )
        };
        rules("ipt", text).iter().map(line).collect()
    }

    #[test]
    fn real_rules_are_read() {
        assert_eq!(
            found(REAL),
            [
                "ipt mangle PREROUTING | Mark(7) | [] | mark 7 to 192.0.2.80 tcp port 80\nmark 7 to 192.0.2.80 tcp port 443",
                "ipt filter INPUT | Drop | [] | deny from 10.66.0.0/16 to 192.0.2.80 tcp port 80",
                "ipt filter INPUT | Accept | [] | rate 100 burst 20 to 192.0.2.80 udp port 53-54",
                "ipt filter INPUT | Reject | [] | deny to 192.0.2.80 udp",
                "ipt filter INPUT | Drop | [\"! -d 192.0.2.80/32\"] | ",
                "ipt filter INPUT | Accept | [] | allow tcp port 443",
                "ipt filter INPUT | Drop | [] | ",
                "ipt filter FORWARD | Drop | [] | deny to 192.0.2.0/24",
                "ipt nat PREROUTING | Redirect | [] | ",
                "ipt nat POSTROUTING | Masquerade | [] | ",
            ]
        );
        assert_eq!(rules("ipt", REAL)[6].condition.sets, ["blocked"]);
        assert_eq!(found(SIX), ["ipt filter INPUT | Drop | [] | deny to 2001:db8::80 tcp port 80"]);
        assert_eq!(found(LEGACY).len(), 2);
        assert_eq!(tables(REAL).collect::<Vec<_>>(), ["mangle", "filter", "nat"]);
    }

    #[test]
    fn a_policy_and_a_jump_are_rules_too() {
        let text = "*filter\n:INPUT DROP [0:0]\n:web - [0:0]\n-A INPUT -d 192.0.2.80/32 -j web\n-A web -m state --state NEW -j DROP\nCOMMIT\n";
        assert_eq!(
            found(text),
            [
                "ipt filter INPUT | Drop | [] | deny",
                "ipt filter INPUT | Jump(\"web\") | [] | ",
                "ipt filter web | Drop | [\"--state NEW\"] | ",
            ]
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\*[a-z]{0,4}\n)?(-A [A-Z]{0,6} [-!a-z0-9 \"\\\\:/.,]{0,80}\n){0,5}.{0,40}") {
            for rule in rules("ipt", &text) {
                rule.replacement();
            }
        }
    }
}
