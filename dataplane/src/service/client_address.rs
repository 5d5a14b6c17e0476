//! How the servers of a FULLNAT service learn who their client is, for they see a local address of the director.

/// The ways, which may be taken together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientAddress {
    /// By a TCP option.
    pub toa: Toa,
    /// By a PROXY header in front of the client's data (`proxy-protocol.txt` of the proxy that it comes from).
    pub proxy: Option<ProxyVersion>,
}

/// The option of Alibaba's LVS in segments before the server has answered data: kind 254 with the client's port and
/// IPv4 address, kind 253 with its IPv6 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Toa {
    /// No option.
    #[default]
    Off,
    /// The option.
    On,
}

/// How a PROXY header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text; TCP only.
    V1,
    /// Binary; also in front of the first datagram of a UDP flow.
    V2,
}
