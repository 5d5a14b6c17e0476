//! What `nft -j list ruleset` prints (libnftables-json(5)), read without trust: whatever is not as expected becomes words.

use std::collections::HashMap;

use dataplane::service::AddressRange;
use serde_json::Value;

use super::host_rule::{Condition, Effect, Hook, HostRule, range};

/// Rules and chain policies of a ruleset.
///
/// # Errors
/// When the text is no such JSON, in words.
pub(super) fn rules(text: &str) -> Result<Vec<HostRule>, String> {
    let whole: Value = serde_json::from_str(text).map_err(|error| format!("nft printed no JSON: {error}"))?;
    let list = whole.get("nftables").and_then(Value::as_array).ok_or("nft printed no list `nftables`")?;
    let mut ruleset = Ruleset::default();
    for (kind, object) in list.iter().filter_map(Value::as_object).flatten() {
        match kind.as_str() {
            "set" | "map" => ruleset.sets(object),
            "chain" => ruleset.chain(object),
            _ => {}
        }
    }
    let rules = list.iter().filter_map(|entry| entry.get("rule")).map(|rule| ruleset.rule(rule));
    Ok(ruleset.policies.iter().cloned().chain(rules).collect())
}

#[derive(Default)]
struct Ruleset {
    /// Contents by family, table and name; `None` where they are no addresses or ports.
    sets: HashMap<[String; 3], Vec<Value>>,
    hooks: HashMap<[String; 3], Hook>,
    policies: Vec<HostRule>,
}

fn text<'v>(object: &'v Value, key: &str) -> &'v str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn name(object: &Value, key: &str) -> [String; 3] {
    [text(object, "family"), text(object, "table"), text(object, key)].map(str::to_owned)
}

impl Ruleset {
    fn sets(&mut self, object: &Value) {
        let elements = object.get("elem").and_then(Value::as_array).cloned().unwrap_or_default();
        self.sets.insert(name(object, "name"), elements);
    }

    fn chain(&mut self, object: &Value) {
        let name = name(object, "name");
        let hook = match text(object, "hook") {
            "" => Hook::Jump,
            "output" | "postrouting" | "egress" => Hook::Outward,
            _ => Hook::Inward,
        };
        if text(object, "policy") == "drop" {
            self.policies.push(HostRule {
                place: place(&name),
                text: format!("type {} hook {}; policy drop", text(object, "type"), text(object, "hook")),
                hook,
                condition: Condition::default(),
                effect: Effect::Drop,
            });
        }
        self.hooks.insert(name, hook);
    }

    fn rule(&self, rule: &Value) -> HostRule {
        let chain = name(rule, "chain");
        let mut condition = Condition::default();
        let mut effect = Effect::Nothing;
        let statements = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for statement in statements {
            self.statement(statement, &chain, &mut condition, &mut effect);
        }
        HostRule {
            text: statements.iter().map(words).filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" "),
            hook: self.hooks.get(&chain).copied().unwrap_or(Hook::Jump),
            place: place(&chain),
            condition,
            effect,
        }
    }

    fn statement(&self, statement: &Value, chain: &[String; 3], condition: &mut Condition, effect: &mut Effect) {
        let Some((kind, value)) = statement.as_object().and_then(|object| object.iter().next()) else { return };
        match kind.as_str() {
            "match" => self.condition(value, chain, condition),
            "limit" => match (limit(value), value.get("inv").and_then(Value::as_bool)) {
                (Some(rate), None | Some(false)) => condition.rate = Some(rate),
                _ => condition.rest.push(words(statement)),
            },
            "accept" => *effect = Effect::Accept,
            "drop" => *effect = Effect::Drop,
            "reject" => *effect = Effect::Reject,
            "masquerade" => *effect = Effect::Masquerade,
            "snat" => *effect = Effect::Snat,
            "dnat" => *effect = Effect::Dnat,
            "redirect" => *effect = Effect::Redirect,
            "notrack" => *effect = Effect::NoTrack,
            "jump" | "goto" => *effect = Effect::Jump(text(value, "target").to_owned()),
            "mangle" => {
                let is_mark = value.pointer("/key/meta/key").and_then(Value::as_str) == Some("mark");
                let mark = value.get("value").and_then(Value::as_u64).and_then(|mark| u32::try_from(mark).ok());
                *effect = mark.filter(|_| is_mark).map_or_else(|| Effect::Other(words(statement)), Effect::Mark);
            }
            "counter" | "log" | "continue" | "return" | "comment" => {}
            // An extension of iptables: its parameters are not shown here.
            "xt" if text(value, "type") == "target" => *effect = Effect::Other(text(value, "name").to_owned()),
            "xt" => condition.rest.push(format!("-m {}", text(value, "name"))),
            _ => condition.rest.push(words(statement)),
        }
    }

    fn condition(&self, value: &Value, chain: &[String; 3], condition: &mut Condition) {
        let right = value.get("right").unwrap_or(&Value::Null);
        let is_plain = matches!(text(value, "op"), "==" | "in" | "");
        let left = value.get("left").unwrap_or(&Value::Null);
        let field = left.get("payload").map(|payload| (text(payload, "protocol"), text(payload, "field")));
        let meta = left.get("meta").map(|meta| text(meta, "key"));
        let understood = is_plain
            && match (field, meta) {
                (Some(("ip" | "ip6", "saddr")), _) => self.addresses(right, chain, &mut condition.from),
                (Some(("ip" | "ip6", "daddr")), _) => self.addresses(right, chain, &mut condition.to),
                (Some(("ip", "protocol") | ("ip6", "nexthdr")), _) | (None, Some("l4proto")) => {
                    protocols(right, &mut condition.protocols)
                }
                (Some((transport @ ("tcp" | "udp" | "sctp" | "th"), "dport")), _) => {
                    if transport != "th" && !condition.protocols.iter().any(|known| known == transport) {
                        condition.protocols.push(transport.to_owned());
                    }
                    self.ports(right, chain, &mut condition.ports)
                }
                _ => false,
            };
        if !understood {
            condition.rest.push(words(&serde_json::json!({ "match": value })));
        }
    }

    /// The values on the right of a match: of a set, a named set, or the one.
    fn values<'v>(&'v self, right: &'v Value, chain: &[String; 3]) -> Option<&'v [Value]> {
        if let Some(set) = right.get("set") {
            return set.as_array().map(Vec::as_slice);
        }
        match right.as_str().and_then(|text| text.strip_prefix('@')) {
            Some(set) => {
                let [family, table, _] = chain;
                self.sets.get(&[family.clone(), table.clone(), set.to_owned()]).map(Vec::as_slice)
            }
            None => Some(std::slice::from_ref(right)),
        }
    }

    fn addresses(&self, right: &Value, chain: &[String; 3], into: &mut Vec<AddressRange>) -> bool {
        let Some(values) = self.values(right, chain) else { return false };
        let found: Option<Vec<_>> = values.iter().map(address).collect();
        match found {
            // A set without elements matches nothing, which a list without elements does not say.
            Some(found) if !found.is_empty() => {
                into.extend(found);
                true
            }
            _ => false,
        }
    }

    fn ports(&self, right: &Value, chain: &[String; 3], into: &mut Vec<(u16, u16)>) -> bool {
        let Some(values) = self.values(right, chain) else { return false };
        let found: Option<Vec<_>> = values.iter().map(port).collect();
        match found {
            Some(found) if !found.is_empty() => {
                into.extend(found);
                true
            }
            _ => false,
        }
    }
}

fn place([family, table, chain]: &[String; 3]) -> String {
    format!("nft {family} {table} {chain}")
}

/// An element of a set may carry a timeout or counter around the value.
fn bare(value: &Value) -> &Value {
    value.pointer("/elem/val").unwrap_or(value)
}

fn address(value: &Value) -> Option<AddressRange> {
    let value = bare(value);
    if let Some(prefix) = value.get("prefix") {
        return range(&format!("{}/{}", text(prefix, "addr"), prefix.get("len").and_then(Value::as_u64)?));
    }
    if let Some([first, last]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return range(&format!("{}-{}", first.as_str()?, last.as_str()?));
    }
    value.as_str().and_then(range)
}

fn port(value: &Value) -> Option<(u16, u16)> {
    let value = bare(value);
    let number = |value: &Value| value.as_u64().and_then(|port| u16::try_from(port).ok());
    if let Some([low, high]) = value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        return Some((number(low)?, number(high)?));
    }
    number(value).map(|port| (port, port))
}

fn protocols(right: &Value, into: &mut Vec<String>) -> bool {
    let values = right.get("set").and_then(Value::as_array).map_or(std::slice::from_ref(right), Vec::as_slice);
    let names: Option<Vec<_>> = values.iter().map(|value| value.as_str().map(str::to_lowercase)).collect();
    names.map(|names| into.extend(names)).is_some()
}

/// Packets a second, rounded up, and the burst.
fn limit(value: &Value) -> Option<(u32, Option<u32>)> {
    let seconds = match text(value, "per") {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        _ => return None,
    };
    let is_packets = value.get("rate_unit").is_none_or(|unit| unit == "packets");
    let rate = value.get("rate").and_then(Value::as_u64).filter(|_| is_packets)?;
    let burst = value.get("burst").and_then(Value::as_u64).and_then(|burst| u32::try_from(burst).ok());
    Some((u32::try_from(rate.div_ceil(seconds)).ok()?, burst))
}

/// A statement in words near to nft's own.
fn words(statement: &Value) -> String {
    match statement {
        Value::Object(object) => {
            let Some((kind, value)) = object.iter().next() else { return String::new() };
            match kind.as_str() {
                "counter" => String::new(),
                "match" => {
                    let op = match text(value, "op") {
                        "!=" => "!= ",
                        "<" => "< ",
                        ">" => "> ",
                        _ => "",
                    };
                    let side = |key| value.get(key).map(words).unwrap_or_default();
                    format!("{} {op}{}", side("left"), side("right"))
                }
                "payload" => format!("{} {}", text(value, "protocol"), text(value, "field")),
                "meta" | "ct" if value.get("key").is_some() => format!("{kind} {}", text(value, "key")),
                "prefix" => format!("{}/{}", text(value, "addr"), value.get("len").map(words).unwrap_or_default()),
                "range" => listed(value, "-"),
                "&" => listed(value, " & "),
                "reject" => kind.clone(),
                "set" => format!("{{ {} }}", listed(value, ", ")),
                "mangle" => {
                    let side = |key| value.get(key).map(words).unwrap_or_default();
                    format!("{} set {}", side("key"), side("value"))
                }
                "jump" | "goto" => format!("{kind} {}", text(value, "target")),
                "xt" => format!("[iptables {} {}]", text(value, "type"), text(value, "name")),
                "limit" => {
                    format!("limit rate {}/{}", value.get("rate").map(words).unwrap_or_default(), text(value, "per"))
                }
                _ if value.is_null() => kind.clone(),
                _ => format!("{kind} {}", words(value)),
            }
        }
        Value::Array(_) => listed(statement, ","),
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn listed(value: &Value, between: &str) -> String {
    value.as_array().map(|list| list.iter().map(words).collect::<Vec<_>>().join(between)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REAL: &str = include_str!("../../tests/fixtures/firewall/nft.json");
    const OF_IPTABLES: &str = include_str!("../../tests/fixtures/firewall/nft-of-iptables.json");

    fn found(text: &str) -> Vec<String> {
        let line = |rule: &HostRule| {
            format!("{} | {} | {:?} | {}", rule.place, rule.text, rule.effect, rule.replacement().unwrap_or_default())
        };
        rules(text).unwrap().iter().map(line).collect()
    }

    #[test]
    fn a_real_ruleset_is_read() {
        let found = found(REAL);
        for expected in [
            "nft inet filter pre | type filter hook forward; policy drop | Drop | deny",
            "nft inet filter input | ip saddr @blocked ip daddr 192.0.2.80 tcp dport 80 drop | Drop | \
             deny from 10.66.0.0/16 to 192.0.2.80 tcp port 80\ndeny from 10.77.1.2 to 192.0.2.80 tcp port 80",
            "nft inet filter input | ip daddr @vips tcp dport { 443, 8000-8010 } accept | Accept | \
             allow to 192.0.2.80 tcp port 443\nallow to 192.0.2.80 tcp port 8000-8010",
            "nft inet filter input | ip daddr 192.0.2.0/24 udp dport 53 limit rate 100/second accept | Accept | \
             rate 100 burst 20 to 192.0.2.0/24 udp port 53",
            "nft inet filter input | ip6 daddr 2001:db8::80 tcp dport != 80 drop | Drop | ",
            "nft inet filter input | ip daddr 192.0.2.80 meta l4proto { tcp, udp } reject | Reject | \
             deny to 192.0.2.80 tcp\ndeny to 192.0.2.80 udp",
            "nft inet filter pre | ip daddr 192.0.2.81 jump services | Jump(\"services\") | ",
            "nft ip mangle prerouting | ip daddr 192.0.2.80 tcp dport { 80, 443 } meta mark set 7 | Mark(7) | \
             mark 7 to 192.0.2.80 tcp port 80\nmark 7 to 192.0.2.80 tcp port 443",
            "nft ip nat post | ip saddr 10.2.0.0/24 masquerade | Masquerade | ",
        ] {
            assert!(found.iter().any(|line| line == expected), "{expected}\n\n{}", found.join("\n"));
        }
        assert_eq!(
            found.len(),
            REAL.matches("{\"rule\"").count() + 1,
            "every rule, and one policy: {}",
            found.join("\n")
        );
    }

    #[test]
    fn extensions_of_iptables_are_not_taken_for_nothing() {
        let found = found(OF_IPTABLES);
        let marked = "nft ip mangle PREROUTING | meta l4proto tcp ip daddr 192.0.2.80 [iptables match multiport] \
                      [iptables target MARK] | Other(\"MARK\") | ";
        assert!(found.iter().any(|line| line == marked), "{}", found.join("\n"));
        let set = found.iter().find(|line| line.contains("match set")).unwrap();
        assert!(set.ends_with("| Drop | "), "a set that is not known has no replacement: {set}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = rules(&text);
        }

        #[test]
        fn no_damaged_ruleset_panics(cuts in proptest::collection::vec((any::<prop::sample::Index>(), "[0-9a-z{}\\[\\]\":,@/-]{0,6}"), 1..6)) {
            let mut text = REAL.to_owned();
            for (at, with) in cuts {
                let at = at.index(text.len());
                if text.is_char_boundary(at) && text.is_char_boundary((at + 3).min(text.len())) {
                    text.replace_range(at..(at + 3).min(text.len()), &with);
                }
            }
            if let Ok(rules) = rules(&text) {
                for rule in rules {
                    rule.replacement();
                }
            }
        }
    }
}
