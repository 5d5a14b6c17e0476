//! The flow table: every connection of the director, found by the key that a packet carries, in either direction.
//!
//! One table for each address family, shared by all workers without locks. Buckets of one cache line hold tags and
//! entry numbers; each key has two candidate buckets and never moves. Entries are reclaimed after a grace period.

mod end;
mod entry;
mod extension;
mod hash;
#[cfg(any(test, loom))]
mod heap;
mod insert;
mod key;
mod lookup;
#[cfg(all(test, loom))]
mod loom_tests;
mod memory;
mod open;
mod pool;
mod reclaim;
mod repair;
mod rule;
mod slot;
mod storage;
mod sync;
mod table;

pub use end::Ended;
pub(crate) use entry::{ClientMac, PackedFlow};
pub use entry::{FlowEntry, FlowRef, NewFlow, StateWord, flag};
pub use extension::{Extension, FlowLink, NewExtension, Shift, Terms, bit};
pub use hash::KeyHash;
pub use insert::Insert;
pub(crate) use key::transport;
pub use key::{Family, FlowKey, V4, V6};
pub use lookup::{Find, Likely, Probe};
pub use memory::Mapping;
pub use open::{Capacity, FlowTable, Opened, TableError, Unfit};
pub use reclaim::FlowWorker;
pub use rule::Rule;
pub use slot::Direction;
pub use storage::Storage;
pub use table::Table;
