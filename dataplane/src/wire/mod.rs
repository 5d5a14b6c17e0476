//! Wire formats: where the fields of a frame are, parsed once and then edited in place.
//!
//! Nothing here allocates or panics, whatever the bytes are.

pub mod checksum;
pub mod crc32c;
mod fields;
mod headers;
mod piece;
pub mod plain;
pub mod sctp;
mod tcp_flags;
mod tcp_options;

pub use checksum::Settled;
pub use fields::{EtherType, ethernet, ip, ipv4, ipv6, number, tcp, udp};
pub(crate) use headers::skip_extensions;
pub use headers::{Fragment, Headers, IpVersion, parse, parse_any, parse_ip};
pub use piece::{Piece, piece};
pub use plain::Plain;
pub use sctp::SctpEvent;
pub use tcp_flags::TcpFlags;
pub use tcp_options::{PlacedOption, TcpOption, TcpOptions};
