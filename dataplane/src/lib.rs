//! The packet path of Sluice: frames come in by [`port`]s, are steered by one XDP program, belong to flows of
//! services, and leave rewritten towards a real server or a client.
//!
//! The crate knows nothing of configuration files, sockets APIs, async or VRRP.

pub mod clock;
pub mod counters;
pub mod flow;
pub mod forward;
pub mod ident;
pub mod next_hop;
pub mod port;
pub mod rss;
pub mod rules;
pub mod sched;
pub mod service;
mod siphash;
pub mod snapshot;
pub mod state;
pub mod steer;
pub mod syn_proxy;
mod sys;
pub mod watch;
pub mod wire;
pub mod worker;
