//! The language of filters: `tcp and host 192.0.2.1 and port 80`, `drop no_flow or drop table_full`.
//!
//! ```text
//! filter    = [ any ]
//! any       = all { "or" all }
//! all       = one { "and" one }
//! one       = "not" one | "(" any ")" | condition
//! condition = "ip" | "ip6" | "tcp" | "udp" | "sctp" | "icmp" | "fragment" | "syn" | "ack" | "fin" | "rst"
//!           | [ "src" | "dst" ] ( "host" ADDRESS | "net" PREFIX | "port" NUMBER [ "-" NUMBER ] )
//!           | "dev" NAME | "drop" [ REASON ]
//! ```
//!
//! Addresses and ports are those of the packet as it came, or of the other side of its flow: a filter on the VIP shows
//! the servers' answers too.

use dataplane::counters::Drop;
use dataplane::ident::PortIndex;
use dataplane::watch::{Filter, Side, Test};
use dataplane::wire::{IpVersion, TcpFlags, number};
use ipnet::IpNet;

/// How deep parentheses and `not` may go.
const DEPTH: usize = 32;

/// A filter that is not understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found}: expected {expected}")]
pub struct BadFilter {
    found: String,
    expected: String,
}

/// Parses a filter; an empty one matches every packet.
pub(super) fn parse(text: &str, ports: &[String]) -> Result<Filter, BadFilter> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut words = Words { words: spaced.split_whitespace().collect(), at: 0, ports };
    if words.words.is_empty() {
        return Ok(Filter::All(Vec::new()));
    }
    let filter = words.any(0)?;
    match words.peek() {
        None => Ok(filter),
        Some(_) => Err(words.unexpected("`and`, `or` or the end")),
    }
}

struct Words<'t> {
    words: Vec<&'t str>,
    at: usize,
    ports: &'t [String],
}

impl<'t> Words<'t> {
    fn peek(&self) -> Option<&'t str> {
        self.words.get(self.at).copied()
    }

    fn take(&mut self, word: &str) -> bool {
        let is_there = self.peek() == Some(word);
        self.at += usize::from(is_there);
        is_there
    }

    fn unexpected(&self, expected: &str) -> BadFilter {
        let found = match self.peek() {
            Some(word) => format!("word {}, `{word}`", self.at + 1),
            None => "at the end".to_owned(),
        };
        BadFilter { found, expected: expected.to_owned() }
    }

    fn any(&mut self, depth: usize) -> Result<Filter, BadFilter> {
        let mut parts = vec![self.all(depth)?];
        while self.take("or") {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Filter::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Filter, BadFilter> {
        let mut parts = vec![self.one(depth)?];
        while self.take("and") {
            parts.push(self.one(depth)?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Filter::All(parts) })
    }

    fn one(&mut self, depth: usize) -> Result<Filter, BadFilter> {
        if depth == DEPTH {
            return Err(self.unexpected("fewer parentheses"));
        }
        if self.take("not") {
            return Ok(Filter::Not(Box::new(self.one(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.any(depth + 1)?;
            return if self.take(")") { Ok(inner) } else { Err(self.unexpected("`)`")) };
        }
        self.condition().map(Filter::Test)
    }

    fn condition(&mut self) -> Result<Test, BadFilter> {
        const EXPECTED: &str = "`ip`, `ip6`, `tcp`, `udp`, `sctp`, `icmp`, `fragment`, `syn`, `ack`, `fin`, `rst`, `host`, \
                                `net`, `port`, `src`, `dst`, `dev`, `drop`, `not` or `(`";
        let test = match self.peek().unwrap_or_default() {
            "ip" => Test::Version(IpVersion::V4),
            "ip6" => Test::Version(IpVersion::V6),
            "tcp" => Test::Protocol(number::TCP),
            "udp" => Test::Protocol(number::UDP),
            "sctp" => Test::Protocol(132),
            "icmp" => Test::Icmp,
            "fragment" => Test::Fragment,
            "syn" => Test::Flags(TcpFlags::SYN),
            "ack" => Test::Flags(TcpFlags::ACK),
            "fin" => Test::Flags(TcpFlags::FIN),
            "rst" => Test::Flags(TcpFlags::RST),
            "src" => return self.behind(Side::Source),
            "dst" => return self.behind(Side::Destination),
            "host" | "net" | "port" => return self.end(Side::Either),
            "dev" => return self.device(),
            "drop" => return self.drop(),
            _ => return Err(self.unexpected(EXPECTED)),
        };
        self.at += 1;
        Ok(test)
    }

    fn behind(&mut self, side: Side) -> Result<Test, BadFilter> {
        self.at += 1;
        self.end(side)
    }

    fn end(&mut self, side: Side) -> Result<Test, BadFilter> {
        if self.take("host") {
            let address = self.value("an address", |word| word.parse::<std::net::IpAddr>().ok())?;
            return Ok(Test::Net(side, IpNet::from(address)));
        }
        if self.take("net") {
            let net = self.value("a prefix, as 192.0.2.0/24", |word| word.parse::<IpNet>().ok())?;
            return Ok(Test::Net(side, net.trunc()));
        }
        if self.take("port") {
            let (first, last) = self.value("a port, or a range as 1000-2000", ports)?;
            return Ok(Test::Port(side, first, last));
        }
        Err(self.unexpected("`host`, `net` or `port`"))
    }

    fn device(&mut self) -> Result<Test, BadFilter> {
        self.at += 1;
        let names = self.ports;
        let expected = format!("the name of a port: {}", names.join(", "));
        let port = self.value(&expected, |word| names.iter().position(|name| name == word))?;
        Ok(Test::Device(PortIndex(u8::try_from(port).unwrap_or(u8::MAX))))
    }

    fn drop(&mut self) -> Result<Test, BadFilter> {
        self.at += 1;
        let reason = match self.peek() {
            None | Some("and" | "or" | ")") => None,
            Some(_) => {
                Some(self.value("a drop reason, as `sluice status` names them (no_flow, table_full, ...)", |word| {
                    Drop::ALL.iter().find(|reason| reason.name() == word).copied()
                })?)
            }
        };
        Ok(Test::Dropped(reason))
    }

    fn value<T>(&mut self, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, BadFilter> {
        match self.peek().and_then(read) {
            Some(value) => {
                self.at += 1;
                Ok(value)
            }
            None => Err(self.unexpected(expected)),
        }
    }
}

fn ports(word: &str) -> Option<(u16, u16)> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Filter, String> {
        parse(text, &["eth0".to_owned(), "eth1".to_owned()]).map_err(|error| error.to_string())
    }

    #[test]
    fn conditions_join_as_they_are_read() {
        let test = Filter::Test;
        assert_eq!(read(""), Ok(Filter::All(vec![])));
        let host = || test(Test::Net(Side::Either, "192.0.2.1/32".parse().unwrap()));
        let port = || test(Test::Port(Side::Source, 80, 90));
        assert_eq!(
            read("tcp and host 192.0.2.1 and src port 80-90"),
            Ok(Filter::All(vec![test(Test::Protocol(6)), host(), port()]))
        );
        assert_eq!(
            read("not (udp or drop no_flow) and dev eth1"),
            Ok(Filter::All(vec![
                Filter::Not(Box::new(Filter::Any(vec![
                    test(Test::Protocol(17)),
                    test(Test::Dropped(Some(Drop::NoFlow)))
                ]))),
                test(Test::Device(PortIndex(1)))
            ]))
        );
        assert_eq!(read("(drop)"), Ok(test(Test::Dropped(None))));
        let net = Test::Net(Side::Destination, "2001:db8::/32".parse().unwrap());
        assert_eq!(read("dst net 2001:db8::1/32"), Ok(test(net)));
    }

    #[test]
    fn what_is_wrong_is_named_with_what_was_expected() {
        for (text, said) in [
            ("tcp host", "word 2, `host`: expected `and`, `or` or the end"),
            ("tcp and", "at the end: expected `ip`"),
            ("host nginx", "word 2, `nginx`: expected an address"),
            ("port 90-80", "word 2, `90-80`: expected a port, or a range"),
            ("drop nothing", "word 2, `nothing`: expected a drop reason"),
            ("dev eth9", "word 2, `eth9`: expected the name of a port: eth0, eth1"),
            ("(tcp", "at the end: expected `)`"),
            ("src tcp", "word 2, `tcp`: expected `host`, `net` or `port`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with(said), "{text}: {error}");
        }
        assert!(read(&format!("{}tcp", "not ".repeat(1000))).is_err());
    }
}
