//! Which servers stand behind a service: its real servers and, while none of them takes connections, its sorry server.
//!
//! There are no checkers yet, so the quorum is lost exactly when no real server has a weight. keepalived would then take
//! the rest away; here drained servers keep the connections that they have.

use std::borrow::Cow;

use dataplane::ident::Weight;

use crate::config::{RealServer, VirtualServer};

/// The servers of a service, with their weights.
pub(super) fn servers(of: &VirtualServer) -> Cow<'_, [RealServer]> {
    let Some(sorry) = &of.sorry_server else { return Cow::Borrowed(&of.real_servers) };
    let is_down = is_down(of);
    if !is_down && !sorry.inhibit {
        return Cow::Borrowed(&of.real_servers);
    }
    let weight = if is_down { Weight::ONE } else { Weight::ZERO };
    let mut servers = of.real_servers.clone();
    match servers.iter_mut().find(|real| real.at == sorry.server.at) {
        // A real server that is the sorry server too.
        Some(same) if is_down => same.weight = weight,
        Some(_) => {}
        None => servers.push(RealServer { weight, ..sorry.server.clone() }),
    }
    Cow::Owned(servers)
}

/// Whether the sorry server takes the new connections of a service that has one.
pub(super) fn is_down(of: &VirtualServer) -> bool {
    of.sorry_server.is_some() && of.real_servers.iter().all(|real| real.weight == Weight::ZERO)
}
