//! Which packets a watch shows: an expression over addresses, ports, protocols and what became of a packet.
//!
//! Control parses it; workers evaluate it in three values, because the fate of a packet is not known when it comes.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::counters::Drop;
use crate::ident::PortIndex;
use crate::wire::{Fragment, Headers, IpVersion, TcpFlags, number};

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Holds where all of these hold: also where there are none.
    All(Vec<Self>),
    /// Holds where one of these holds.
    Any(Vec<Self>),
    /// Holds where this does not.
    Not(Box<Self>),
    /// A single condition.
    Test(Test),
}

/// Which end of a packet is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its source.
    Source,
    /// Its destination.
    Destination,
    /// One of them.
    Either,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// An IPv4 or IPv6 packet.
    Version(IpVersion),
    /// A transport, by its IANA number.
    Protocol(u8),
    /// ICMP or ICMPv6.
    Icmp,
    /// A fragment of any kind.
    Fragment,
    /// A TCP segment with all of these flags.
    Flags(TcpFlags),
    /// An address in this prefix.
    Net(Side, IpNet),
    /// A port from the first to the last.
    Port(Side, u16, u16),
    /// Received from this port of the director.
    Device(PortIndex),
    /// Dropped: for this reason, or for any.
    Dropped(Option<Drop>),
}

/// Source and destination of a packet.
pub type Address = (IpAddr, u16);

/// What can be told of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What the parser found; nothing for a frame that it refused.
    pub headers: Option<&'a Headers>,
    /// Source and destination as they came and, when a flow is known, on its other side.
    pub ends: [Option<(Address, Address)>; 2],
    /// Where it came from.
    pub port: PortIndex,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It just came.
    Open,
    /// It went on.
    Kept,
    /// It was dropped.
    Dropped(Drop),
}

impl Filter {
    /// Whether it holds; `None` while that depends on the fate.
    pub fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Self::All(parts) => together(parts, subject, false),
            Self::Any(parts) => together(parts, subject, true),
            Self::Not(part) => part.holds(subject).map(|holds| !holds),
            Self::Test(test) => test.holds(subject),
        }
    }
}

/// `decisive` if a part is that; else the other if all parts are; else it depends.
fn together(parts: &[Filter], subject: &Subject<'_>, decisive: bool) -> Option<bool> {
    let mut result = Some(!decisive);
    for part in parts {
        match part.holds(subject) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

impl Test {
    fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        let of_headers = |what: &dyn Fn(&Headers) -> bool| subject.headers.is_some_and(what);
        Some(match self {
            Self::Version(version) => of_headers(&|headers| headers.version == *version),
            Self::Protocol(protocol) => of_headers(&|headers| headers.protocol == *protocol),
            Self::Icmp => of_headers(&|headers| matches!(headers.protocol, number::ICMP | number::ICMPV6)),
            Self::Fragment => of_headers(&|headers| headers.fragment != Fragment::Whole),
            Self::Flags(flags) => {
                of_headers(&|headers| headers.protocol == number::TCP && headers.tcp.contains(*flags))
            }
            Self::Net(side, net) => ends(subject, *side, |(address, _)| net.contains(&address)),
            Self::Port(side, first, last) => ends(subject, *side, |(_, port)| (*first..=*last).contains(&port)),
            Self::Device(port) => subject.port == *port,
            Self::Dropped(reason) => match subject.fate {
                Fate::Open => return None,
                Fate::Kept => false,
                Fate::Dropped(why) => reason.is_none_or(|reason| reason == why),
            },
        })
    }
}

fn ends(subject: &Subject<'_>, side: Side, is: impl Fn(Address) -> bool) -> bool {
    subject.ends.iter().flatten().any(|(source, destination)| match side {
        Side::Source => is(*source),
        Side::Destination => is(*destination),
        Side::Either => is(*source) || is(*destination),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_the_fate_is_open_until_then() {
        let ends = [Some((("192.0.2.1".parse().unwrap(), 1000), ("192.0.2.80".parse().unwrap(), 80))), None];
        let subject = |fate| Subject { headers: None, ends, port: PortIndex(0), fate };
        let host = |net: &str| Filter::Test(Test::Net(Side::Either, net.parse().unwrap()));
        let dropped = || Filter::Test(Test::Dropped(None));
        let here_and_dropped = Filter::All(vec![host("192.0.2.80/32"), dropped()]);
        assert_eq!(here_and_dropped.holds(&subject(Fate::Open)), None);
        assert_eq!(here_and_dropped.holds(&subject(Fate::Kept)), Some(false));
        assert_eq!(here_and_dropped.holds(&subject(Fate::Dropped(Drop::NoFlow))), Some(true));
        let elsewhere_and_dropped = Filter::All(vec![host("192.0.2.81/32"), dropped()]);
        assert_eq!(elsewhere_and_dropped.holds(&subject(Fate::Open)), Some(false));
        let either = Filter::Any(vec![dropped(), host("192.0.2.80/32")]);
        assert_eq!(either.holds(&subject(Fate::Open)), Some(true));
        let other = Filter::Not(Box::new(Filter::Test(Test::Dropped(Some(Drop::NoRoute)))));
        assert_eq!(other.holds(&subject(Fate::Dropped(Drop::NoFlow))), Some(true));
        assert_eq!(Filter::Test(Test::Port(Side::Source, 80, 90)).holds(&subject(Fate::Kept)), Some(false));
        assert_eq!(Filter::All(vec![]).holds(&subject(Fate::Open)), Some(true));
    }
}
