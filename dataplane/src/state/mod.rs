//! Connection states as IPVS keeps them, and how long a flow may idle in each.

mod sctp;
mod tcp;
mod timeouts;

pub use sctp::SctpState;
pub use tcp::{TcpState, View};
pub use timeouts::{Timeouts, UDP_STATE};

pub use crate::service::Activity;
