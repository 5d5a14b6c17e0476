//! What becomes of TCP time stamps (RFC 7323) on their way to the servers of a FULLNAT service.

/// To a server, many clients with clocks of their own come from one local address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcpTimestamps {
    /// They are kept, moved so that a server sees no local address and port go back in time.
    #[default]
    Keep,
    /// They are taken out of the client's SYN, so that neither side uses them.
    Remove,
}
