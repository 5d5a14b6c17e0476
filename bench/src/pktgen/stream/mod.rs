//! Streams: which packets are sent, to whom, how large, how often.

mod endpoints;
mod file;
mod order;
mod pacer;
mod packet;
mod probe;
mod rate;
mod sizes;
mod spec;

pub(crate) use endpoints::Endpoints;
pub(crate) use file::{FileError, read};
pub(crate) use order::{Order, mix};
pub(crate) use pacer::Pacer;
pub(crate) use packet::{Kind, Link, Packet};
pub(crate) use probe::Probe;
pub(crate) use rate::Rate;
pub(crate) use sizes::Sizes;
pub(crate) use spec::{BadStream, Spec};
