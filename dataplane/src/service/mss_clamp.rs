//! Whether a service lowers the MSS that both ends of its TCP connections announce.

/// What happens to the MSS option of a service's SYNs and SYN-ACKs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// It stays.
    #[default]
    Off,
    /// It is lowered to what fits the ways to server and client whole, an outer header included.
    ByWay,
    /// It is lowered to so many bytes.
    To(u16),
}
