//! Which of many rules match a packet, in their order, without reading them one by one.
//!
//! For source, destination, port and transport each a table gives the set of rules that the packet's value satisfies, as
//! bits; what all four sets have in common matches (Lakshman and Stiliadis, SIGCOMM 1998). A look-up costs two longest
//! prefix matches, one binary search and, for each 64 rules, three ANDs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::{Rule, Selector, Subject};
use crate::ident::Protocol;

/// A set of rules: bit `n` of word `w` is rule `64 w + n`.
type Bits = Box<[u64]>;

/// The tables of a list of rules.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    v4: Ends<Ipv4Net>,
    v6: Ends<Ipv6Net>,
    // From this port on, up to the next entry.
    ports: Vec<(u16, Bits)>,
    protocols: Vec<(Protocol, Bits)>,
}

/// The tables of addresses of one family; each has an entry for the whole address space.
#[derive(Debug)]
struct Ends<P: prefix_trie::Prefix + std::fmt::Debug> {
    from: PrefixMap<P, Bits>,
    to: PrefixMap<P, Bits>,
}

impl<P: prefix_trie::Prefix + std::fmt::Debug> Default for Ends<P> {
    fn default() -> Self {
        Self { from: PrefixMap::new(), to: PrefixMap::new() }
    }
}

impl Matcher {
    pub(super) fn new(rules: &[Rule]) -> Self {
        let bits = |holds: &dyn Fn(&Selector) -> bool| set(rules, holds);
        let starts: BTreeSet<u16> = rules
            .iter()
            .flat_map(|rule| [Some(rule.selector.ports.0), rule.selector.ports.1.checked_add(1)])
            .flatten()
            .chain([0])
            .collect();
        let ports = starts
            .into_iter()
            .map(|port| (port, bits(&|selector| selector.ports.0 <= port && port <= selector.ports.1)));
        let protocols = Protocol::ALL
            .iter()
            .map(|protocol| (*protocol, bits(&|selector| selector.protocol.is_none_or(|named| named == *protocol))));
        let mut matcher =
            Self { v4: Ends::default(), v6: Ends::default(), ports: ports.collect(), protocols: protocols.collect() };
        for prefix in prefixes(rules, |selector| selector.from) {
            let of = bits(&|selector| holds(selector.from, &prefix));
            match prefix {
                IpNet::V4(prefix) => matcher.v4.from.insert(prefix, of),
                IpNet::V6(prefix) => matcher.v6.from.insert(prefix, of),
            };
        }
        for prefix in prefixes(rules, |selector| selector.to) {
            let of = bits(&|selector| holds(selector.to, &prefix));
            match prefix {
                IpNet::V4(prefix) => matcher.v4.to.insert(prefix, of),
                IpNet::V6(prefix) => matcher.v6.to.insert(prefix, of),
            };
        }
        matcher
    }

    /// The numbers of the rules that match, in their order.
    pub(super) fn matches(&self, subject: &Subject) -> impl Iterator<Item = usize> + '_ {
        let (from, to) = match (subject.source, subject.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (
                self.v4.from.get_lpm(&Ipv4Net::from(source)).map(|(_, bits)| &**bits),
                self.v4.to.get_lpm(&Ipv4Net::from(destination)).map(|(_, bits)| &**bits),
            ),
            (IpAddr::V6(source), IpAddr::V6(destination)) => (
                self.v6.from.get_lpm(&Ipv6Net::from(source)).map(|(_, bits)| &**bits),
                self.v6.to.get_lpm(&Ipv6Net::from(destination)).map(|(_, bits)| &**bits),
            ),
            _ => (None, None),
        };
        let behind = self.ports.partition_point(|(port, _)| *port <= subject.port);
        let ports = behind.checked_sub(1).and_then(|at| self.ports.get(at)).map(|(_, bits)| &**bits);
        let protocol = self.protocols.iter().find(|(protocol, _)| *protocol == subject.protocol);
        let of_protocol = protocol.map(|(_, bits)| &**bits);
        let words = words(from).zip(words(to)).zip(words(ports)).zip(words(of_protocol));
        words.enumerate().flat_map(|(word, (((a, b), c), d))| Ones(a & b & c & d).map(move |bit| word * 64 + bit))
    }
}

fn words(bits: Option<&[u64]>) -> impl Iterator<Item = u64> + '_ {
    bits.unwrap_or_default().iter().copied()
}

/// The positions of the bits that are set, from the lowest.
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let at = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(at as usize)
    }
}

fn set(rules: &[Rule], holds: &dyn Fn(&Selector) -> bool) -> Bits {
    let mut bits = vec![0u64; rules.len().div_ceil(64)];
    for (at, _) in rules.iter().enumerate().filter(|(_, rule)| holds(&rule.selector)) {
        bits[at / 64] |= 1 << (at % 64);
    }
    bits.into()
}

/// Whether every address of `prefix` satisfies what a rule names.
fn holds(named: Option<IpNet>, prefix: &IpNet) -> bool {
    named.is_none_or(|named| named.contains(prefix))
}

/// What rules name of one end, and the whole of both address spaces.
fn prefixes(rules: &[Rule], end: impl Fn(&Selector) -> Option<IpNet>) -> BTreeSet<IpNet> {
    let all = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    rules.iter().filter_map(|rule| end(&rule.selector)).map(|prefix| prefix.trunc()).chain(all).collect()
}
