//! The block `static_ipaddress`: one address a line, with the options of `ip address add`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::block::Statement;
use super::lexer::Word;
use super::lower::{Lower, shown};
use super::model::{AddressFlags, Broadcast, StaticAddress};

/// Where keepalived puts an address that names no interface.
const DEFAULT_INTERFACE: &str = "eth0";
/// Longest interface name or label, in bytes (`IFNAMSIZ` - 1).
pub(super) const LONGEST_NAME: usize = 15;

/// Lowers one block, line by line.
pub(super) fn lower(
    lower: &mut Lower<'_>,
    block: &Statement,
    default_interface: Option<&str>,
    addresses: &mut Vec<StaticAddress>,
) {
    lower.extra(block, 0);
    for line in block.inner() {
        let Some(address) = address_line(lower, line, default_interface) else { continue };
        let earlier = addresses.iter().find(|known| known.address == address.address && known.dev == address.dev);
        if let Some(earlier) = earlier {
            let label = format!("stands at {} already", earlier.place);
            lower.warning(line.head(), format!("{} is added to {} twice", address.address, address.dev), label);
        } else {
            addresses.push(address);
        }
    }
}

fn address_line(lower: &mut Lower<'_>, line: &Statement, default_interface: Option<&str>) -> Option<StaticAddress> {
    let (head, options) = line.words.split_first()?;
    let mut result = StaticAddress {
        address: network(lower, head)?,
        dev: String::new(),
        broadcast: Broadcast::Unset,
        scope: 0,
        label: None,
        peer: None,
        preferred_lifetime: None,
        flags: AddressFlags::default(),
        place: lower.place(head.span),
    };
    let mut words = options.iter();
    while let Some(word) = words.next() {
        option(lower, word, &mut words, &mut result);
    }
    if result.dev.is_empty() {
        let dev = default_interface.unwrap_or(DEFAULT_INTERFACE);
        dev.clone_into(&mut result.dev);
        if default_interface.is_none() {
            lower.warning(line.span(), "no `dev` on this line", format!("keepalived takes {dev}, and so does Sluice"));
        }
    }
    Some(result)
}

fn option<'w>(
    lower: &mut Lower<'_>,
    word: &'w Word,
    rest: &mut impl Iterator<Item = &'w Word>,
    result: &mut StaticAddress,
) {
    let mut value = |lower: &mut Lower<'_>, expected: &str| {
        let value = rest.next();
        if value.is_none() {
            let message = format!("`{}` needs {expected}", word.text);
            lower.error(word.span, message, format!("expected {expected} after this"));
        }
        value
    };
    match word.text.as_str() {
        "brd" | "broadcast" => {
            if let Some(value) = value(lower, "an address, + or -") {
                result.broadcast = broadcast(lower, value, result.address);
            }
        }
        "dev" => {
            if let Some(name) = value(lower, "an interface").and_then(|word| interface_name(lower, word)) {
                result.dev = name;
            }
        }
        "scope" => {
            if let Some(scope) = value(lower, "a scope").and_then(|word| scope(lower, word)) {
                result.scope = scope;
            }
        }
        "label" => result.label = value(lower, "a label").and_then(|word| interface_name(lower, word)),
        "peer" => result.peer = value(lower, "an address").and_then(|word| network(lower, word)),
        "preferred_lft" => {
            result.preferred_lifetime = value(lower, "seconds or forever").and_then(|word| lifetime(lower, word));
        }
        "home" => result.flags.home = true,
        "-nodad" | "nodad" => result.flags.nodad = true,
        "noprefixroute" => result.flags.noprefixroute = true,
        "mngtmpaddr" | "autojoin" | "no_track" => no_effect(lower, word),
        "track_group" => {
            value(lower, "a group");
            no_effect(lower, word);
        }
        other => {
            let label = "expected brd, dev, scope, label, peer, home, -nodad, noprefixroute or preferred_lft";
            lower.error(word.span, format!("`{}` is no option of an address", shown(other)), label);
        }
    }
}

fn no_effect(lower: &mut Lower<'_>, word: &Word) {
    let message = format!("`{}` is known to keepalived and has no effect in this version of Sluice", word.text);
    lower.warning(word.span, message, "has no effect");
}

/// `ADDRESS` or `ADDRESS/LENGTH`, which keeps its host part.
fn network(lower: &mut Lower<'_>, word: &Word) -> Option<IpNet> {
    let network = match word.text.split_once('/') {
        None => word.text.parse::<IpAddr>().ok().map(IpNet::from),
        Some(_) => word.text.parse().ok(),
    };
    if network.is_none() {
        let message = format!("`{}` is not an address", shown(&word.text));
        lower.error(word.span, message, "expected an address such as 192.0.2.1/24 or 2001:db8::1/64");
    }
    network
}

fn broadcast(lower: &mut Lower<'_>, word: &Word, network: IpNet) -> Broadcast {
    if network.addr().is_ipv6() {
        lower.error(word.span, "an IPv6 address has no broadcast address", "remove it");
        return Broadcast::Unset;
    }
    match word.text.as_str() {
        "+" => Broadcast::Last,
        "-" => Broadcast::First,
        text => text.parse().map_or_else(
            |_| {
                let message = format!("`{}` is no broadcast address", shown(text));
                lower.error(word.span, message, "expected an IPv4 address, + or -");
                Broadcast::Unset
            },
            Broadcast::Address,
        ),
    }
}

/// A name that Linux takes for an interface or label.
pub(super) fn interface_name(lower: &mut Lower<'_>, word: &Word) -> Option<String> {
    let text = &word.text;
    let fits = (1..=LONGEST_NAME).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if !fits {
        let message = format!("`{}` is no name of an interface", shown(text));
        lower.error(word.span, message, format!("expected 1 to {LONGEST_NAME} bytes without a slash"));
    }
    fits.then(|| text.clone())
}

fn scope(lower: &mut Lower<'_>, word: &Word) -> Option<u8> {
    if word.text.bytes().all(|byte| byte.is_ascii_digit()) && !word.text.is_empty() {
        return lower.number(word, 0..=255, "scope").and_then(|value| u8::try_from(value).ok());
    }
    lower.choice(
        word,
        "scope",
        &[("global", 0), ("universe", 0), ("site", 200), ("link", 253), ("host", 254), ("nowhere", 255)],
    )
}

fn lifetime(lower: &mut Lower<'_>, word: &Word) -> Option<Duration> {
    if word.text == "forever" {
        return None;
    }
    // The kernel takes 2^32 - 1 for ever.
    lower.number(word, 0..=u64::from(u32::MAX) - 1, "number of seconds").map(Duration::from_secs)
}
