//! `syn_proxy` of the Alibaba fork, a bare word or a block of settings, and what it cannot be combined with.

use dataplane::ident::{Endpoint, Protocol};
use dataplane::service::MatchPoint;
use dataplane::state::TcpState;
use dataplane::syn_proxy::{ReusableStates, SynProxy};

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::lower::Lower;
use super::model::{ForwardingMethod, RealServer};

/// The least and the most that `mss` takes, in bytes: what every host must take, and an IPv4 packet of 65535.
const SIZES: std::ops::RangeInclusive<u64> = 536..=65_495;

/// States that `conn_reuse` takes, by the names of the fork's settings.
const STATES: &[(&str, TcpState)] = &[
    ("close", TcpState::Close),
    ("time_wait", TcpState::TimeWait),
    ("fin_wait", TcpState::FinWait),
    ("close_wait", TcpState::CloseWait),
    ("last_ack", TcpState::LastAck),
];

/// What a statement with or without a block says.
pub(super) fn lower(lower: &mut Lower<'_>, statement: &Statement) -> SynProxy {
    lower.extra(statement, 0);
    let mut proxy = SynProxy::default();
    for inner in statement.inner() {
        match inner.keyword.map_or("", |keyword| keyword.name) {
            "mss" => {
                let word = lower.one(inner, "a segment size");
                let size = word.and_then(|word| lower.number(word, SIZES, "segment size in bytes"));
                proxy.mss = size.map(|size| size as u16);
            }
            "wscale" => window_scale(lower, inner, &mut proxy),
            "sack" => proxy.sack = Some(lower.switch(inner)),
            "timestamps" => proxy.timestamps = Some(lower.switch(inner)),
            "defer" => proxy.defer = lower.switch(inner),
            "syn_retry" => proxy.retries = small(lower, inner, 6, "number of retries").unwrap_or(proxy.retries),
            "ack_storm" => {
                let most = small(lower, inner, 250, "number of acknowledgements");
                proxy.ack_storm = most.unwrap_or(proxy.ack_storm);
            }
            "conn_reuse" => proxy.reusable = reusable(lower, inner),
            _ => {}
        }
    }
    proxy
}

/// `wscale off` or a number.
fn window_scale(lower: &mut Lower<'_>, statement: &Statement, proxy: &mut SynProxy) {
    let Some(word) = lower.one(statement, "a window scale or `off`") else { return };
    if word.text == "off" {
        proxy.window_scale = Some(None);
    } else if let Some(scale) = lower.number(word, 0..=14, "window scale") {
        proxy.window_scale = Some(Some(scale as u8));
    }
}

fn small(lower: &mut Lower<'_>, statement: &Statement, most: u8, what: &str) -> Option<u8> {
    let word = lower.one(statement, "a number")?;
    lower.number(word, 0..=u64::from(most), what).map(|number| number as u8)
}

/// `conn_reuse off` or states.
fn reusable(lower: &mut Lower<'_>, statement: &Statement) -> ReusableStates {
    let words = statement.arguments();
    if words.is_empty() {
        lower.lacking(statement, "states of a connection, or `off`");
    }
    if let [word] = words
        && word.text == "off"
    {
        return ReusableStates::NONE;
    }
    let named = words.iter().filter_map(|word| lower.choice(word, "state of a connection", STATES));
    named.fold(ReusableStates::NONE, ReusableStates::with)
}

/// Refuses what the SYN proxy cannot do: another transport, and servers whose answers it does not see.
pub(super) fn check(lower: &mut Lower<'_>, statement: &Statement, protocol: Option<Protocol>, servers: &[RealServer]) {
    if let Some(protocol) = protocol.filter(|protocol| *protocol != Protocol::Tcp) {
        let message = format!("`syn_proxy` is for TCP, and this is a {protocol} service");
        lower.error(statement.head(), message, "expected `protocol TCP` in this block");
        return;
    }
    if let Some((at, method)) = servers.iter().find_map(one_way) {
        lower.report.push(
            Diagnostic::error(statement.head(), format!("`syn_proxy` cannot serve {at} by {method}"))
                .label("needs NAT or FULLNAT")
                .help(format!(
                    "the director answers for the server, so it has to translate sequence numbers both ways; in {method} \
                     the server's packets go past it"
                )),
        );
    }
}

/// Reports a real server of another family than the VIP, whose handshake would have to be translated, too.
pub(super) fn check_families(
    lower: &mut Lower<'_>,
    statement: &Statement,
    points: &[MatchPoint],
    servers: &[RealServer],
) {
    let is_v4 = points.iter().any(MatchPoint::is_v4);
    let is_other =
        |server: &&RealServer| server.method == ForwardingMethod::FullNat && server.at.address.is_ipv4() != is_v4;
    if let Some(server) = servers.iter().find(is_other) {
        let message = format!("`syn_proxy` cannot serve {}, which is of another address family", server.at);
        lower.error(statement.head(), message, "needs real servers of the VIP's family");
    }
}

fn one_way(server: &RealServer) -> Option<(Endpoint, &'static str)> {
    match server.method {
        ForwardingMethod::Dr => Some((server.at, "DR")),
        ForwardingMethod::Tun => Some((server.at, "TUN")),
        ForwardingMethod::Nat | ForwardingMethod::FullNat => None,
    }
}
