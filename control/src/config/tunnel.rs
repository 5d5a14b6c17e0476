//! What follows `lb_kind TUN`, as keepalived has it: `[type ipip|gre|gue port N] [nocsum|csum|remcsum]`; and Sluice's own
//! `tunnel_source PREFIX…` of a virtual server.

use dataplane::ident::NetPort;
use dataplane::service::{Encapsulation, GreChecksum, GueChecksum};
use ipnet::IpNet;

use super::block::Statement;
use super::lexer::Word;
use super::lower::{Lower, shown};

#[derive(Clone, Copy)]
enum Kind {
    Ipip,
    Gre,
    Gue,
}

/// The options as they stand, each with its word.
#[derive(Default)]
struct Said<'w> {
    kind: Option<(Kind, &'w Word)>,
    port: Option<(NetPort, &'w Word)>,
    checksum: Option<(GueChecksum, &'w Word)>,
}

/// The form of the tunnel, if the options make one.
pub(super) fn lower(lower: &mut Lower<'_>, options: &[Word]) -> Option<Encapsulation> {
    let mut said = Said::default();
    let mut words = options.iter();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "type" => said.kind = Some((kind(lower, word, words.next())?, word)),
            "port" => said.port = Some((port(lower, word, words.next())?, word)),
            "nocsum" => said.checksum = Some((GueChecksum::Absent, word)),
            "csum" => said.checksum = Some((GueChecksum::Present, word)),
            "remcsum" => said.checksum = Some((GueChecksum::Remote, word)),
            other => {
                let message = format!("`{}` is no option of TUN", shown(other));
                lower.error(word.span, message, "expected `type`, `port`, `nocsum`, `csum` or `remcsum`");
                return None;
            }
        }
    }
    encapsulation(lower, &said)
}

/// Puts the options together; each form has some of them.
fn encapsulation(lower: &mut Lower<'_>, said: &Said<'_>) -> Option<Encapsulation> {
    let checksum = said.checksum.map_or(GueChecksum::Absent, |(checksum, _)| checksum);
    let refuse = |lower: &mut Lower<'_>, word: &Word, kind: &str, label: &str| {
        lower.error(word.span, format!("a tunnel of type {kind} has no `{}`", word.text), label);
    };
    match (said.kind.map_or(Kind::Ipip, |(kind, _)| kind), said.port, said.checksum) {
        (Kind::Gue, Some((port, _)), _) => Some(Encapsulation::Gue { port, checksum }),
        (Kind::Gue, None, _) => {
            let span = said.kind.map_or_else(Default::default, |(_, word)| word.span);
            lower.error(span, "a tunnel of type gue needs `port` and a number", "expected `type gue port N`");
            None
        }
        (Kind::Gre, Some((_, word)), _) => {
            refuse(lower, word, "gre", "only gue has a port");
            None
        }
        (Kind::Ipip, Some((_, word)), _) => {
            refuse(lower, word, "ipip", "only gue has a port");
            None
        }
        (Kind::Gre, None, Some((GueChecksum::Remote, word))) => {
            refuse(lower, word, "gre", "expected `nocsum` or `csum`");
            None
        }
        (Kind::Gre, None, Some((GueChecksum::Present, _))) => Some(Encapsulation::Gre(GreChecksum::Present)),
        (Kind::Gre, None, _) => Some(Encapsulation::Gre(GreChecksum::Absent)),
        (Kind::Ipip, None, Some((_, word))) => {
            refuse(lower, word, "ipip", "only gue and gre have checksums");
            None
        }
        (Kind::Ipip, None, None) => Some(Encapsulation::Ipip),
    }
}

fn kind(lower: &mut Lower<'_>, keyword: &Word, kind: Option<&Word>) -> Option<Kind> {
    let Some(kind) = kind else {
        lower.error(keyword.span, "`type` needs a tunnel", "expected ipip, gre or gue after this");
        return None;
    };
    lower.choice(kind, "type of tunnel", &[("ipip", Kind::Ipip), ("gre", Kind::Gre), ("gue", Kind::Gue)])
}

fn port(lower: &mut Lower<'_>, keyword: &Word, port: Option<&Word>) -> Option<NetPort> {
    let Some(port) = port else {
        lower.error(keyword.span, "`port` needs a number", "expected a number from 1 to 65535 after this");
        return None;
    };
    lower.number(port, 1..=65_535, "port").map(|port| NetPort::new(port as u16))
}

/// The prefixes of a `tunnel_source`, at most one of each family.
pub(super) fn sources(lower: &mut Lower<'_>, statement: &Statement) -> Vec<IpNet> {
    if statement.arguments().is_empty() {
        lower.lacking(statement, "a prefix");
    }
    lower.extra(statement, 2);
    let mut sources: Vec<IpNet> = Vec::new();
    for word in statement.arguments().iter().take(2) {
        let prefix = word.text.parse().or_else(|_| word.text.parse().map(|address: std::net::IpAddr| address.into()));
        let Ok(prefix) = prefix else {
            let message = format!("`{}` is no prefix", shown(&word.text));
            lower.error(word.span, message, "expected one such as 172.16.0.0/16 or fd00:9::/64");
            continue;
        };
        let prefix: IpNet = IpNet::trunc(&prefix);
        if prefix.addr().is_multicast() || prefix.addr().is_loopback() || prefix.prefix_len() == 0 {
            lower.error(word.span, format!("{prefix} has no addresses to send from"), "expected a unicast prefix");
        } else if sources.iter().any(|other| other.addr().is_ipv4() == prefix.addr().is_ipv4()) {
            lower.error(word.span, "a second prefix of one family", "at most one for IPv4 and one for IPv6");
        } else {
            sources.push(prefix);
        }
    }
    sources
}
