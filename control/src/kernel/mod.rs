//! The kernel's side of the director: what it watches of the machine and what it changes on it.
//!
//! Everything works in the network namespace of the calling thread. Every change has an undoing of its own; none is
//! made twice, and what was there before is left alone.

mod addresses;
mod announce;
mod convert;
mod links;
mod neighbours;
mod rss;
mod sysctl;
mod veth;
mod watch;

use std::future::Future;
use std::io;

use futures_util::{Stream, TryStreamExt};
use rtnetlink::Handle;

pub use addresses::{AddedAddress, Addresses, Outcome};
pub use announce::announce;
pub use links::{keep_vlan_tags, set_queues, strip_vlan_tags};
pub use neighbours::Neighbours;
pub use rss::rss;
pub use sysctl::local_port_range;
pub use veth::{KernelPortError, Loopback, create_kernel_port, remove_kernel_port, set_loopback};
pub use watch::Watcher;

/// What the kernel would not do.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}{}", hint(source))]
pub struct KernelError {
    /// What was to be done, to which object.
    pub what: String,
    /// What the kernel says.
    pub source: io::Error,
}

fn hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            " (this needs root, or the capability CAP_NET_ADMIN, and CAP_NET_RAW to announce)"
        }
        _ => "",
    }
}

impl KernelError {
    fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { what: what.into(), source: source.into() }
    }

    fn is(&self, errno: i32) -> bool {
        self.source.raw_os_error() == Some(errno)
    }
}

/// A connection for requests to the kernel. Clones share it.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Connects, on the current tokio runtime.
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn connect() -> Result<Self, KernelError> {
        let opened = rtnetlink::new_connection().map_err(|source| KernelError::new("open a netlink socket", source))?;
        let (connection, handle, _) = opened;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// The index of an interface; `None` where there is none of this name.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn link_index(&self, name: &str) -> Result<Option<u32>, KernelError> {
        Ok(self.link(name).await?.map(|message| message.header.index))
    }

    async fn link(&self, name: &str) -> Result<Option<rtnetlink::packet_route::link::LinkMessage>, KernelError> {
        let found = collect(format!("look up interface {name}"), self.handle.link().get().match_name(name).execute());
        match found.await {
            Ok(links) => Ok(links.into_iter().next()),
            Err(error) if error.is(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Runs a request.
async fn request<F>(what: impl Into<String>, doing: F) -> Result<(), KernelError>
where
    F: Future<Output = Result<(), rtnetlink::Error>>,
{
    doing.await.map_err(|error| KernelError::new(what, io_error(error)))
}

/// All answers of a dump.
async fn collect<T, S>(what: impl Into<String>, stream: S) -> Result<Vec<T>, KernelError>
where
    S: Stream<Item = Result<T, rtnetlink::Error>>,
{
    stream.try_collect().await.map_err(|error| KernelError::new(what, io_error(error)))
}

fn io_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
