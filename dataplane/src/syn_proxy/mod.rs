//! SYN proxy: the director answers a client's SYN by itself and asks a server only when the client has shown, by
//! acknowledging the answer, that its address is its own (RFC 4987 section 3.6).
//!
//! What the answer promised is in its sequence number ([`cookie`]), so a SYN costs no memory. Functions over bytes
//! and values; the worker's `syn_proxy` moves the flows.

pub mod cookie;
pub mod offer;
pub mod segment;
mod settings;

pub use settings::{ReusableStates, SynProxy};
