//! `toa`, `proxy_protocol`, `tcp_timestamps`, `expire_rst`: how a virtual server's connections look to its real servers.
//! All are Sluice's own keywords, but `proxy_protocol`, which DPVS has too.

use dataplane::ident::Protocol;
use dataplane::service::{ClientAddress, ExpireReset, ProxyVersion, TcpTimestamps, Toa};

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::lower::Lower;
use super::model::{ForwardingMethod, RealServer, TowardsServers};

/// What the statements of a block say, before defaults.
#[derive(Default)]
pub(super) struct Said<'s> {
    toa: Option<Toa>,
    proxy: Option<(ProxyVersion, &'s Statement)>,
    timestamps: Option<TcpTimestamps>,
    expire: Option<ExpireReset>,
    /// The first of those that only FULLNAT heeds.
    first: Option<&'s Statement>,
}

impl<'s> Said<'s> {
    /// Lowers one statement, if it is one of these.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, statement: &'s Statement) {
        match statement.name() {
            "toa" => self.toa = Some(if lower.switch(statement) { Toa::On } else { Toa::Off }),
            "proxy_protocol" => {
                let versions = [("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
                self.proxy = choice(lower, statement, "version of the PROXY protocol", "v1 or v2", &versions)
                    .map(|version| (version, statement));
            }
            "tcp_timestamps" => {
                let choices = [("keep", TcpTimestamps::Keep), ("remove", TcpTimestamps::Remove)];
                self.timestamps = choice(lower, statement, "treatment of time stamps", "keep or remove", &choices);
            }
            "expire_rst" => {
                let is_on = lower.switch(statement);
                self.expire = Some(if is_on { ExpireReset::On } else { ExpireReset::Off });
                return;
            }
            _ => return,
        }
        self.first.get_or_insert(statement);
    }

    /// With the defaults of a service filled in.
    pub(super) fn finish(
        &self,
        lower: &mut Lower<'_>,
        protocol: Protocol,
        method: ForwardingMethod,
        servers: &[RealServer],
    ) -> TowardsServers {
        let is_fullnat = |method| method == ForwardingMethod::FullNat;
        if let Some(statement) = self.first
            && !is_fullnat(method)
            && !servers.iter().any(|server| is_fullnat(server.method))
        {
            let message = format!("`{}` has no effect: no real server here is reached by FNAT", statement.name());
            lower.warning(statement.span(), message, "under the other methods servers see the client itself");
        }
        if let (Protocol::Udp, Some((ProxyVersion::V1, statement))) = (protocol, self.proxy) {
            lower.report.push(
                Diagnostic::error(statement.span(), "version 1 of the PROXY protocol knows no UDP")
                    .help("`proxy_protocol v2` stands in front of the first datagram of each flow"),
            );
        }
        let proxy = self.proxy.map(|(version, _)| version);
        let toa = self.toa.unwrap_or(if proxy.is_none() { Toa::On } else { Toa::Off });
        let usual = if is_fullnat(method) { ExpireReset::On } else { ExpireReset::Off };
        TowardsServers {
            client_address: ClientAddress { toa, proxy },
            tcp_timestamps: self.timestamps.unwrap_or_default(),
            expire_reset: self.expire.unwrap_or(usual),
        }
    }
}

fn choice<T: Copy>(
    lower: &mut Lower<'_>,
    statement: &Statement,
    what: &str,
    expected: &str,
    choices: &[(&'static str, T)],
) -> Option<T> {
    lower.extra(statement, 1);
    let Some(word) = statement.arguments().first() else {
        lower.lacking(statement, expected);
        return None;
    };
    lower.choice(word, what, choices)
}
