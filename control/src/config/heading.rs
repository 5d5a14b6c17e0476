//! What stands behind `virtual_server`: an address and port, `fwmark N` or `group NAME`.

use std::sync::Arc;

use dataplane::ident::{Endpoint, NetPort, Protocol, ServiceKey};
use dataplane::service::{AddressFamily, Mark, MatchPoint, ServiceName};

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::lower::{Lower, shown};
use super::virtual_server::endpoint;
use super::virtual_server_group::{self, Groups, Member};

/// A heading that was understood.
pub(super) enum Heading {
    Address(Endpoint),
    Mark(Mark),
    Group {
        name: Arc<str>,
        members: Vec<Member>,
        family: Option<AddressFamily>,
        /// Whether real servers have to take both families.
        is_mixed: bool,
    },
}

/// The heading of a block.
pub(super) fn lower(lower: &mut Lower<'_>, block: &Statement, groups: &Groups) -> Option<Heading> {
    let words = block.arguments();
    let second = words.get(1);
    lower.extra(block, 2);
    match (words.first().map(|word| word.text.as_str()), second) {
        (None, _) => {
            lower.lacking(block, "an address and a port");
            None
        }
        (Some("fwmark"), None) => {
            lower.error(block.span(), "`virtual_server fwmark` needs a mark", "expected a number after this");
            None
        }
        (Some("fwmark"), Some(word)) => virtual_server_group::number(lower, word).map(Heading::Mark),
        (Some("group"), None) => {
            lower.error(block.span(), "`virtual_server group` needs a name", "expected the name of a group after this");
            None
        }
        (Some("group"), Some(word)) => {
            let Some(group) = groups.get(word.text.as_str()) else {
                lower.report.push(
                    Diagnostic::error(word.span, format!("there is no group `{}`", shown(&word.text)))
                        .help(format!("define it by `virtual_server_group {} {{ … }}`", shown(&word.text))),
                );
                return None;
            };
            let (family, is_mixed) = (group.family(), group.is_mixed());
            let members = group.members.clone();
            Some(Heading::Group { name: Arc::clone(&group.name), members, family, is_mixed })
        }
        (Some(_), _) => endpoint(lower, words).map(Heading::Address),
    }
}

impl Heading {
    /// Of which family the service is; `said` is its `ip_family`, which matters only where nothing else tells.
    pub(super) fn family(&self, said: Option<AddressFamily>) -> AddressFamily {
        match self {
            Self::Address(at) => AddressFamily::of(at.address),
            Self::Group { family: Some(family), .. } => *family,
            Self::Mark(_) | Self::Group { .. } => said.unwrap_or(AddressFamily::V4),
        }
    }

    /// What a real server measures itself by: the VIP and port or, of many, an address of the family and every port.
    pub(super) fn facing(&self, said: Option<AddressFamily>) -> Endpoint {
        match self {
            Self::Address(at) => *at,
            Self::Mark(_) | Self::Group { .. } => {
                let address = match self.family(said) {
                    AddressFamily::V4 => std::net::Ipv4Addr::UNSPECIFIED.into(),
                    AddressFamily::V6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
                };
                Endpoint { address, port: NetPort::ANY }
            }
        }
    }

    /// The service's name.
    pub(super) fn name(&self, protocol: Protocol, said: Option<AddressFamily>) -> ServiceName {
        match self {
            Self::Address(at) => ServiceName::Address(ServiceKey { protocol, at: *at }),
            Self::Mark(mark) => ServiceName::Mark { mark: *mark, family: self.family(said) },
            Self::Group { name, .. } => ServiceName::Group { name: Arc::clone(name), protocol },
        }
    }

    /// What packets find the service by.
    pub(super) fn points(&self, protocol: Protocol, said: Option<AddressFamily>) -> Vec<MatchPoint> {
        match self {
            Self::Address(at) => vec![ServiceKey { protocol, at: *at }.into()],
            Self::Mark(mark) => vec![MatchPoint::Mark(*mark, self.family(said))],
            Self::Group { members, .. } => {
                let point = |member: &Member| match member {
                    Member::Addresses(range, port) => MatchPoint::Addresses { protocol, range: *range, port: *port },
                    Member::Mark(mark, family) => MatchPoint::Mark(*mark, family.unwrap_or(self.family(said))),
                };
                members.iter().map(point).collect()
            }
        }
    }
}
