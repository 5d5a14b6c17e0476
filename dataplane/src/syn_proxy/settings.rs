//! What a service with `syn_proxy` asks for.

use crate::state::TcpState;

/// The settings of a proxied service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynProxy {
    /// Largest segment that clients are told, in bytes; `None`: what the servers said last, within the MTU.
    pub mss: Option<u16>,
    /// Window scale that clients are told: `Some(None)` is none, otherwise 0 to 14; `None`: what the servers have.
    pub window_scale: Option<Option<u8>>,
    /// Whether selective acknowledgements are offered; `None`: where all servers have them.
    pub sack: Option<bool>,
    /// Whether time stamps are offered; `None`: where all servers have them.
    pub timestamps: Option<bool>,
    /// Wait for the client's first data before a server is asked.
    pub defer: bool,
    /// How often an unanswered SYN is sent to a server again, 0 to 6.
    pub retries: u8,
    /// So many equal acknowledgements in a row are one too many; 0 lets all pass.
    pub ack_storm: u8,
    /// States in which a client may begin anew from the same port.
    pub reusable: ReusableStates,
}

impl Default for SynProxy {
    fn default() -> Self {
        Self {
            mss: None,
            window_scale: None,
            sack: None,
            timestamps: None,
            defer: false,
            retries: 3,
            ack_storm: 10,
            reusable: ReusableStates::default(),
        }
    }
}

/// States of a proxied connection in which the client may begin anew (`synproxy_conn_reuse_*` of the Alibaba fork).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReusableStates(u16);

impl Default for ReusableStates {
    /// `CLOSE` and `TIME_WAIT`.
    fn default() -> Self {
        Self::NONE.with(TcpState::Close).with(TcpState::TimeWait)
    }
}

impl ReusableStates {
    /// No state: a client waits until the flow has ended.
    pub const NONE: Self = Self(0);

    /// This state too.
    #[must_use]
    pub const fn with(self, state: TcpState) -> Self {
        Self(self.0 | 1 << state.to_u8())
    }

    /// Whether a client may begin anew in this state.
    #[inline]
    pub const fn contains(self, state: TcpState) -> bool {
        self.0 & 1 << state.to_u8() != 0
    }
}
