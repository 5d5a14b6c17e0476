//! What `sh` and `mh` can be told: `sh-port`, `sh-fallback`, `mh-port` and `mh-fallback` of keepalived.conf.

use crate::ident::{Endpoint, NetPort};

/// How a scheduler hashes clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct HashFlags {
    /// Whether the client's port is hashed too.
    pub port: HashPort,
    /// What happens when the destination found takes no flows.
    pub fallback: Fallback,
}

impl HashFlags {
    /// What is hashed of a client.
    pub(super) const fn hashed(self, client: Endpoint) -> Endpoint {
        match self.port {
            HashPort::Included => client,
            HashPort::Ignored => Endpoint { port: NetPort::ANY, ..client },
        }
    }
}

/// Whether the client's port is part of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum HashPort {
    /// Only the address: a client stays with one destination.
    #[default]
    Ignored,
    /// Address and port.
    Included,
}

/// What becomes of a flow whose destination takes none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Fallback {
    /// It is refused.
    #[default]
    Refuse,
    /// The hash is walked on until a destination takes it.
    Walk,
}
