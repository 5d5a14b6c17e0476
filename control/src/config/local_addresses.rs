//! `local_address_group` of the Alibaba fork, and `laddr_group_name`: the addresses that FULLNAT connections come from.
//!
//! A line is `ADDRESS`, `ADDRESS-LAST` (another last octet, or last group of an IPv6 address) or `ADDRESS-ADDRESS`; an
//! interface may stand behind it, as in DPVS.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::service::MatchPoint;

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::lexer::Word;
use super::lower::{Lower, either, shown};
use super::model::{ForwardingMethod, LocalAddress, RealServer};
use super::source::Place;
use super::static_ipaddress::interface_name;

/// Most addresses in one range.
const MOST: u128 = 1024;

/// The groups of a configuration, by name.
#[derive(Default)]
pub(super) struct LocalGroups {
    groups: HashMap<String, (Vec<LocalAddress>, Place)>,
}

impl LocalGroups {
    /// Lowers one block.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, block: &Statement) {
        let Some(name) = lower.one(block, "a name") else { return };
        let place = lower.place(block.head());
        let mut addresses = Vec::new();
        for line in block.inner() {
            address_line(lower, line, &mut addresses);
        }
        if let Some((_, first)) = self.groups.get(&name.text) {
            let message = format!("the group `{}` stands twice", shown(&name.text));
            let label = format!("first at {first}");
            lower.error(name.span, message, label);
            return;
        }
        self.groups.insert(name.text.clone(), (addresses, place));
    }

    /// The addresses of the groups that a virtual server names, each once, fit for its real servers.
    pub(super) fn of(
        &self,
        lower: &mut Lower<'_>,
        block: &Statement,
        points: &[MatchPoint],
        servers: &[RealServer],
    ) -> Vec<LocalAddress> {
        let mut addresses: Vec<LocalAddress> = Vec::new();
        let named = block.inner().iter().filter(|inner| inner.name() == "laddr_group_name");
        let mut names = 0;
        for statement in named.clone() {
            let Some(name) = lower.one(statement, "the name of a local_address_group") else { continue };
            names += 1;
            let Some((group, _)) = self.groups.get(&name.text) else {
                self.unknown(lower, name);
                continue;
            };
            for address in group {
                if !addresses.iter().any(|known| known.address == address.address) {
                    addresses.push(address.clone());
                }
            }
        }
        let is_fullnat = |server: &&RealServer| server.method == ForwardingMethod::FullNat;
        let needs: Vec<&RealServer> = servers.iter().filter(is_fullnat).collect();
        if needs.is_empty() {
            if let Some(statement) = named.clone().next() {
                lower.warning(statement.head(), "`laddr_group_name` without `lb_kind FNAT`", "has no effect");
            }
            return Vec::new();
        }
        let collides = |address: &&LocalAddress| {
            points.iter().any(|point| is_at(point, address.address))
                || servers.iter().any(|server| server.at.address == address.address)
        };
        if let Some(address) = addresses.iter().find(collides) {
            let message = format!("{} is a local address, and one of this virtual server", address.address);
            let label = format!("a local address at {}; it must be an address of its own", address.place);
            lower.error(block.span(), message, label);
        }
        let lacks = |server: &&&RealServer| {
            !addresses.iter().any(|local| local.address.is_ipv4() == server.at.address.is_ipv4())
        };
        if let Some(server) = needs.iter().find(lacks).filter(|_| names == 0 || !addresses.is_empty()) {
            let family = if server.at.address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message = format!("no local address of {family} for the real server {}", server.at);
            lower.report.push(
                Diagnostic::error(block.span(), message)
                    .label("FULLNAT needs one that its connections come from")
                    .help("`local_address_group NAME { ADDRESS }`, and `laddr_group_name NAME` in this block"),
            );
        }
        addresses
    }

    fn unknown(&self, lower: &mut Lower<'_>, name: &Word) {
        let mut names: Vec<&str> = self.groups.keys().map(String::as_str).collect();
        names.sort_unstable();
        let there = if names.is_empty() { "there is none".to_owned() } else { format!("there is {}", either(&names)) };
        lower.error(name.span, format!("no `local_address_group` is named `{}`", shown(&name.text)), there);
    }
}

/// Whether a service is found by an address.
fn is_at(point: &MatchPoint, address: IpAddr) -> bool {
    matches!(point, MatchPoint::Addresses { range, .. } if range.contains(address))
}

fn address_line(lower: &mut Lower<'_>, line: &Statement, addresses: &mut Vec<LocalAddress>) {
    let Some((head, options)) = line.words.split_first() else { return };
    let dev = options.first().and_then(|word| interface_name(lower, word));
    if let Some(word) = options.get(1) {
        lower.warning(word.span, "more words than a local address takes", "ignored from here");
    }
    let place = lower.place(head.span);
    let Some((first, last)) = range(&head.text) else {
        let message = format!("`{}` is no local address", shown(&head.text));
        lower.error(head.span, message, "expected an address, or a range such as 10.0.0.1-9 or 10.0.0.1-10.0.0.9");
        return;
    };
    let (low, high) = (bits(first), bits(last));
    let is_host = |address: IpAddr| !(address.is_unspecified() || address.is_multicast() || address.is_loopback());
    if high < low || high - low >= MOST || !is_host(first) || !is_host(last) {
        let message = format!("`{}` is no range of local addresses", shown(&head.text));
        lower.error(head.span, message, format!("expected 1 to {MOST} unicast addresses, the lowest first"));
        return;
    }
    for bits in low..=high {
        let address = match first {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        };
        addresses.push(LocalAddress { address, dev: dev.clone(), place: place.clone() });
    }
}

/// The first and the last of a range, of one family.
fn range(text: &str) -> Option<(IpAddr, IpAddr)> {
    let Some((first, last)) = text.split_once('-') else {
        let address = text.parse().ok()?;
        return Some((address, address));
    };
    let first: IpAddr = first.parse().ok()?;
    let last = match (first, last.parse::<IpAddr>()) {
        (_, Ok(last)) => last,
        (IpAddr::V4(v4), Err(_)) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, last.parse().ok()?])
        }
        (IpAddr::V6(v6), Err(_)) => {
            let [a, b, c, d, e, f, g, _] = v6.segments();
            IpAddr::from([a, b, c, d, e, f, g, u16::from_str_radix(last, 16).ok()?])
        }
    };
    (first.is_ipv4() == last.is_ipv4()).then_some((first, last))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_with_a_number_or_an_address() {
        let ends = |text| range(text).map(|(first, last)| format!("{first} {last}"));
        assert_eq!(ends("10.0.0.1").unwrap(), "10.0.0.1 10.0.0.1");
        assert_eq!(ends("10.0.0.1-9").unwrap(), "10.0.0.1 10.0.0.9");
        assert_eq!(ends("10.0.0.250-10.0.1.4").unwrap(), "10.0.0.250 10.0.1.4");
        assert_eq!(ends("fd00::9-f").unwrap(), "fd00::9 fd00::f");
        for wrong in ["10.0.0.1-300", "10.0.0.1-fd00::1", "10.0.0", "-", "fd00::1-g", "1-10.0.0.1"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
