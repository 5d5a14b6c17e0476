//! The block `real_server`, with what it inherits from its virtual server.

use std::collections::HashMap;

use dataplane::ident::{Endpoint, NetPort, Weight};
use dataplane::service::{Encapsulation, Thresholds};

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::limits;
use super::lower::Lower;
use super::method;
use super::model::{ForwardingMethod, RealServer};
use super::source::Place;
use super::virtual_server::{endpoint, weight};

/// What a real server has that says nothing else.
pub(super) struct Defaults {
    /// VIP and port; `None` if they were wrong.
    pub(super) service: Option<Endpoint>,
    pub(super) method: ForwardingMethod,
    pub(super) encapsulation: Encapsulation,
    pub(super) weight: Weight,
    pub(super) inhibit_on_failure: bool,
}

/// The real servers of one virtual server so far.
#[derive(Default)]
pub(super) struct RealServers {
    servers: Vec<RealServer>,
    seen: HashMap<Endpoint, Place>,
}

impl RealServers {
    /// Lowers one block.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, block: &Statement, defaults: &Defaults) {
        if block.arguments().is_empty() {
            lower.lacking(block, "an address and a port");
        }
        lower.extra(block, 2);
        let at = endpoint(lower, block.arguments());
        let mut server = RealServer {
            at: match (at, defaults.service) {
                (Some(at), _) => at,
                // An error was reported; the rest of the block is still to be looked at.
                (None, Some(service)) => service,
                (None, None) => return settings(lower, block, None),
            },
            weight: defaults.weight,
            method: defaults.method,
            encapsulation: defaults.encapsulation,
            thresholds: Thresholds::default(),
            inhibit_on_failure: defaults.inhibit_on_failure,
            place: lower.place(block.head()),
        };
        settings(lower, block, Some(&mut server));
        let (Some(_), Some(service)) = (at, defaults.service) else { return };
        check_family(lower, block, &server, service);
        server.at.port = port(lower, block, &server, service);
        if let Some(first) = self.seen.get(&server.at) {
            lower.report.push(
                Diagnostic::error(block.span(), format!("the real server {} stands twice", server.at))
                    .label(format!("first at {first}"))
                    .help("keepalived drops the second"),
            );
            return;
        }
        self.seen.insert(server.at, server.place.clone());
        self.servers.push(server);
    }

    /// All of them, in the order of the file.
    pub(super) fn finish(self) -> Vec<RealServer> {
        self.servers
    }
}

/// A server on one line, without a block: a sorry server.
pub(super) fn lower_line(lower: &mut Lower<'_>, statement: &Statement, defaults: &Defaults) -> Option<RealServer> {
    if statement.arguments().is_empty() {
        lower.lacking(statement, "an address and a port");
        return None;
    }
    lower.extra(statement, 2);
    let (at, service) = (endpoint(lower, statement.arguments())?, defaults.service?);
    let mut server = RealServer {
        at,
        weight: Weight::ONE,
        method: defaults.method,
        encapsulation: defaults.encapsulation,
        thresholds: Thresholds::default(),
        inhibit_on_failure: false,
        place: lower.place(statement.head()),
    };
    check_family(lower, statement, &server, service);
    server.at.port = port(lower, statement, &server, service);
    Some(server)
}

fn settings(lower: &mut Lower<'_>, block: &Statement, server: Option<&mut RealServer>) {
    let (mut own_weight, mut own_method, mut own_inhibit) = (None, None, None);
    let mut thresholds = Thresholds::default();
    for statement in block.inner() {
        lower.no_effect(statement);
        match statement.keyword.map_or("", |keyword| keyword.name) {
            "weight" => own_weight = Some(weight(lower, statement)),
            "lvs_method" => own_method = method::lower(lower, statement),
            "uthreshold" => thresholds.upper = limits::threshold(lower, statement),
            "lthreshold" => thresholds.lower = limits::threshold(lower, statement),
            "inhibit_on_failure" => own_inhibit = Some(lower.switch(statement)),
            _ => {}
        }
    }
    limits::check(lower, block, thresholds);
    if let Some(server) = server {
        server.thresholds = thresholds;
        server.weight = own_weight.unwrap_or(server.weight);
        (server.method, server.encapsulation) = own_method.unwrap_or((server.method, server.encapsulation));
        server.inhibit_on_failure = own_inhibit.unwrap_or(server.inhibit_on_failure);
    }
}

fn check_family(lower: &mut Lower<'_>, block: &Statement, server: &RealServer, service: Endpoint) {
    let same = server.at.address.is_ipv4() == service.address.is_ipv4();
    if !same && !matches!(server.method, ForwardingMethod::Tun | ForwardingMethod::FullNat) {
        let span = block.arguments().first().map_or(block.head(), |word| word.span);
        lower.report.push(
            Diagnostic::error(span, format!("{} is of another address family than its VIP", server.at.address))
                .label(format!("the VIP is {}", service.address))
                .help("only TUN and FNAT carry one family to a real server of the other"),
        );
    }
}

/// The port that packets go to.
fn port(lower: &mut Lower<'_>, block: &Statement, server: &RealServer, service: Endpoint) -> NetPort {
    let Some(word) = block.arguments().get(1) else { return service.port };
    let own = server.at.port;
    match server.method {
        ForwardingMethod::Nat | ForwardingMethod::FullNat if own.is_any() => service.port,
        ForwardingMethod::Nat | ForwardingMethod::FullNat => own,
        ForwardingMethod::Dr | ForwardingMethod::Tun => {
            if own != service.port {
                lower.report.push(
                    Diagnostic::warning(word.span, "DR and TUN cannot change the port")
                        .label(format!("taken as {}, the port of the service", service.port))
                        .help("keepalived does the same; `lb_kind NAT` can map ports"),
                );
            }
            service.port
        }
    }
}
