//! `sorry_server`: takes new connections while no real server does.

use dataplane::service::Encapsulation;

use super::block::Statement;
use super::lower::Lower;
use super::method;
use super::model::{ForwardingMethod, SorryServer};
use super::real_server::{self, Defaults};

/// What was said so far.
#[derive(Default)]
pub(super) struct SorrySaid<'s> {
    server: Option<&'s Statement>,
    method: Option<(ForwardingMethod, Encapsulation)>,
    inhibit: bool,
}

impl<'s> SorrySaid<'s> {
    /// Takes one of the three statements; the last of each counts.
    pub(super) fn lower(&mut self, lower: &mut Lower<'_>, statement: &'s Statement) {
        match statement.name() {
            "sorry_server_inhibit" => self.inhibit = lower.switch(statement),
            "sorry_server_lvs_method" => self.method = method::lower(lower, statement),
            _ => self.server = Some(statement),
        }
    }

    /// The server of a virtual server with these defaults.
    pub(super) fn finish(self, lower: &mut Lower<'_>, defaults: &Defaults) -> Option<SorryServer> {
        let statement = self.server?;
        let (method, encapsulation) = self.method.unwrap_or((defaults.method, defaults.encapsulation));
        let own = Defaults { method, encapsulation, ..*defaults };
        let server = real_server::lower_line(lower, statement, &own)?;
        Some(SorryServer { server, inhibit: self.inhibit })
    }
}
