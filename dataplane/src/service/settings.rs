//! How the flows of a service are treated, beyond where they go.
//!
//! Each field is of a feature with a file of its own; the default is what a service has that asks for nothing.

use super::{
    AccessLists, ClientAddress, ConnectionLimits, Datagrams, ExpireReset, Ftp, MssClamp, Persistence, TcpTimestamps,
};
use crate::syn_proxy::SynProxy;

/// What a service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSettings {
    /// What happens to the MSS that clients and servers announce.
    pub mss_clamp: MssClamp,
    /// Clients are answered by cookies first; only for TCP, and for servers by NAT or FULLNAT.
    pub syn_proxy: Option<SynProxy>,
    /// How many flows it takes.
    pub limits: ConnectionLimits,
    /// Whether datagrams form flows.
    pub datagrams: Datagrams,
    /// How FULLNAT servers learn their clients' addresses.
    pub client_address: ClientAddress,
    /// What becomes of time stamps on their way to FULLNAT servers.
    pub tcp_timestamps: TcpTimestamps,
    /// What is said when an established flow expires.
    pub expire_reset: ExpireReset,
    /// Whether clients stay with their servers.
    pub persistence: Option<Persistence>,
    /// Whether its connections are of FTP.
    pub ftp: Ftp,
    /// From which sources it takes flows.
    pub access: AccessLists,
}

impl ServiceSettings {
    /// Whether new flows need nothing but a server. (What only FULLNAT and FTP look at does not count.)
    pub(super) fn is_plain(&self) -> bool {
        let AccessLists { blocked, allowed } = &self.access;
        let is_open = blocked.is_none() && allowed.is_none() && self.limits == ConnectionLimits::default();
        let are_flows = self.datagrams == Datagrams::default() && self.expire_reset == ExpireReset::default();
        let is_direct = self.syn_proxy.is_none() && self.persistence.is_none() && self.mss_clamp == MssClamp::Off;
        is_open && are_flows && is_direct
    }
}
