//! The blocks `virtual_server_group`: addresses and marks that one `virtual_server group NAME` serves together.
//!
//! A range is kept as its ends, so its length costs nothing. There are no ranges of ports.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::ident::NetPort;
use dataplane::service::{AddressFamily, AddressRange, Mark};
use ipnet::IpNet;

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::lexer::Word;
use super::lower::{Lower, shown};
use super::source::Place;

/// The groups of a configuration, by name.
pub(super) type Groups = HashMap<Arc<str>, Group>;

/// One group.
pub(super) struct Group {
    pub(super) name: Arc<str>,
    pub(super) members: Vec<Member>,
    place: Place,
}

/// One line of a group.
#[derive(Clone, Copy)]
pub(super) enum Member {
    Addresses(AddressRange, NetPort),
    /// The family is that of the virtual server where the line names none.
    Mark(Mark, Option<AddressFamily>),
}

impl Group {
    /// The family of its first member that has one.
    pub(super) fn family(&self) -> Option<AddressFamily> {
        self.members.iter().find_map(|member| match member {
            Member::Addresses(range, _) => Some(AddressFamily::of(range.first)),
            Member::Mark(_, family) => *family,
        })
    }

    /// Whether it has members of both families.
    pub(super) fn is_mixed(&self) -> bool {
        let has = |family| {
            self.members.iter().any(|member| match member {
                Member::Addresses(range, _) => AddressFamily::of(range.first) == family,
                Member::Mark(_, own) => *own == Some(family),
            })
        };
        has(AddressFamily::V4) && has(AddressFamily::V6)
    }
}

/// Lowers all blocks.
pub(super) fn lower<'s>(lower: &mut Lower<'_>, blocks: impl Iterator<Item = &'s Statement>) -> Groups {
    let mut groups = Groups::new();
    for block in blocks {
        let Some(name) = lower.one(block, "a name") else { continue };
        let members: Vec<_> = block.inner().iter().filter_map(|line| member(lower, line)).collect();
        if block.inner().is_empty() {
            lower.error(
                block.span(),
                format!("the group {} is empty", shown(&name.text)),
                "expected addresses or marks",
            );
        }
        let name: Arc<str> = name.text.as_str().into();
        let group = Group { name: Arc::clone(&name), members, place: lower.place(block.head()) };
        if let Some(first) = groups.get(&name) {
            let message = format!("the group {} stands twice", shown(&name));
            let label = format!("first at {}", first.place);
            lower.report.push(Diagnostic::error(block.span(), message).label(label));
            continue;
        }
        groups.insert(name, group);
    }
    groups
}

fn member(lower: &mut Lower<'_>, line: &Statement) -> Option<Member> {
    let (head, rest) = line.words.split_first()?;
    if head.text == "fwmark" {
        return mark(lower, head, rest);
    }
    let range = range(lower, head)?;
    let port = match rest.first() {
        None => NetPort::ANY,
        Some(word) if word.text.contains('-') => {
            lower.error(
                word.span,
                format!("`{}` is no port", shown(&word.text)),
                "there are no ranges of ports in a group",
            );
            return None;
        }
        Some(word) => NetPort::new(lower.number(word, 0..=65_535, "port")? as u16),
    };
    surplus(lower, rest.get(1));
    Some(Member::Addresses(range, port))
}

fn mark(lower: &mut Lower<'_>, keyword: &Word, rest: &[Word]) -> Option<Member> {
    let Some(word) = rest.first() else {
        lower.error(keyword.span, "`fwmark` needs a mark", "expected a number after this");
        return None;
    };
    let mark = self::number(lower, word)?;
    let families = [("inet", AddressFamily::V4), ("inet6", AddressFamily::V6)];
    let family = rest.get(1).map(|word| lower.choice(word, "address family", &families));
    surplus(lower, rest.get(2));
    match family {
        Some(None) => None,
        Some(family) => Some(Member::Mark(mark, family)),
        None => Some(Member::Mark(mark, None)),
    }
}

/// A mark, which is never 0.
pub(super) fn number(lower: &mut Lower<'_>, word: &Word) -> Option<Mark> {
    lower.number(word, 1..=u64::from(u32::MAX), "mark").and_then(|value| Mark::new(value as u32))
}

fn surplus(lower: &mut Lower<'_>, word: Option<&Word>) {
    if let Some(word) = word {
        lower.warning(word.span, "more words than a line of a group takes", "ignored from here");
    }
}

/// `IP`, `IP-N` (up to the last octet N, in IPv6 the last four hexadecimal digits), `IP-IP` or `IP/LENGTH`.
fn range(lower: &mut Lower<'_>, word: &Word) -> Option<AddressRange> {
    let range = parse(&word.text);
    match &range {
        Some(range) if range.last < range.first => {
            let message = format!("the range `{}` ends before it begins", shown(&word.text));
            lower.error(word.span, message, "expected the lower address first");
            return None;
        }
        Some(range) if !is_usable(range) => {
            let message = format!("`{}` holds addresses that are of no host", shown(&word.text));
            lower.error(word.span, message, "expected unicast addresses");
            return None;
        }
        Some(_) => {}
        None => lower.error(
            word.span,
            format!("`{}` is neither an address nor a range", shown(&word.text)),
            "expected 192.0.2.1, 192.0.2.1-9, 192.0.2.1-192.0.2.9, 192.0.2.0/24, `fwmark N`, or the same in IPv6",
        ),
    }
    range
}

fn parse(text: &str) -> Option<AddressRange> {
    if let Some((first, last)) = text.split_once('-') {
        let first: IpAddr = first.parse().ok()?;
        let last = match last.parse::<IpAddr>() {
            Ok(last) if last.is_ipv4() == first.is_ipv4() => last,
            Ok(_) => return None,
            Err(_) => up_to(first, last)?,
        };
        return Some(AddressRange { first, last });
    }
    if text.contains('/') {
        let net: IpNet = text.parse().ok()?;
        return Some(AddressRange { first: net.network(), last: net.broadcast() });
    }
    let address = text.parse().ok()?;
    Some(AddressRange { first: address, last: address })
}

/// An address with its last part replaced.
fn up_to(first: IpAddr, last: &str) -> Option<IpAddr> {
    match first {
        IpAddr::V4(first) => {
            let [a, b, c, _] = first.octets();
            let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| last.parse().ok().map(|d| Ipv4Addr::new(a, b, c, d).into()))?
        }
        IpAddr::V6(first) => {
            let mut parts = first.segments();
            let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_hexdigit());
            parts[7] = is_number.then(|| u16::from_str_radix(last, 16).ok())??;
            Some(Ipv6Addr::from(parts).into())
        }
    }
}

fn is_usable(range: &AddressRange) -> bool {
    [range.first, range.last].iter().all(|address| !address.is_multicast()) && !range.first.is_unspecified()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_in_four_ways() {
        let ends = |text: &str| parse(text).map(|range| (range.first.to_string(), range.last.to_string()));
        let pair = |first: &str, last: &str| Some((first.to_owned(), last.to_owned()));
        assert_eq!(ends("192.0.2.1"), pair("192.0.2.1", "192.0.2.1"));
        assert_eq!(ends("192.0.2.1-9"), pair("192.0.2.1", "192.0.2.9"));
        assert_eq!(ends("192.0.2.1-192.0.3.9"), pair("192.0.2.1", "192.0.3.9"));
        assert_eq!(ends("10.1.2.3/16"), pair("10.1.0.0", "10.1.255.255"));
        assert_eq!(ends("2001:db8::1-ff"), pair("2001:db8::1", "2001:db8::ff"));
        assert_eq!(ends("2001:db8::/126"), pair("2001:db8::", "2001:db8::3"));
        for text in
            ["", "-", "192.0.2.1-", "192.0.2.1-256", "192.0.2.1-+5", "192.0.2.1-::1", "10.0.0.0/33", "::1-fffff"]
        {
            assert_eq!(ends(text), None, "{text}");
        }
    }
}
