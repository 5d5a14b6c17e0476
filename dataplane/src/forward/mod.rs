//! Forwarding: what each method does to a packet, and the answers that the director gives itself.
//!
//! Functions over bytes, without state: the worker knows flows, these know formats.

pub mod ftp;
pub mod gre;
pub mod gue;
pub mod icmp;
pub mod icmp_translate;
pub mod insert;
pub mod mss;
pub mod mtu;
pub mod nat;
pub mod payload;
pub mod plain;
pub mod proxy_protocol;
pub mod reset;
pub mod segment;
pub mod sequence;
pub mod siit;
pub mod timestamps;
pub mod toa;
pub mod ttl;
pub mod tun;
pub mod tunnel_error;
