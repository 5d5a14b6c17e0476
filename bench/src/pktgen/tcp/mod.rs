//! TCP as far as a load of short connections needs it: a client that keeps state, a server that keeps none.

mod client;
mod segment;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, ClientCounts, Plan};
pub(crate) use segment::{Arrived, Segment};
pub(crate) use server::{Served, Server};
