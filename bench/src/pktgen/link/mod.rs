//! The way to the wire: places, their network namespaces, and the program that takes frames from them.

mod namespace;
mod open;
mod place;
mod take;

pub(crate) use namespace::within;
pub(crate) use open::{LinkCounters, Opened, ProgramReport, Receive, SocketReport, open};
pub(crate) use place::Place;
pub(crate) use take::PortRange;
