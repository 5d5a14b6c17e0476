//! Watching the machine: a [`Topology`] that follows the kernel.
//!
//! The multicast groups are joined first and the tables read after, so nothing is missed between. Links, addresses and
//! neighbours follow from the kernel's messages; routes are read anew after any change, because the kernel takes
//! routes away without a word when a link goes down or an address goes. When messages were lost (`ENOBUFS`),
//! everything is read again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Handle, MulticastGroup};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::convert::{self, Usable};
use super::{KernelError, collect, links};
use crate::topology::Topology;

/// Changes that come within this time are one.
const COALESCE: Duration = Duration::from_millis(20);
/// Reading the tables takes at most one part in this many of the time, however fast routes change.
const DUMP_SHARE: u32 = 10;
/// How long to wait before the tables are read again after the connection was lost.
const RETRY: Duration = Duration::from_millis(200);
/// The kernel's buffer of messages not read yet, in bytes.
const BUFFER: usize = 4 << 20;

const GROUPS: &[MulticastGroup] = &[
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Follows the machine until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    topology: watch::Receiver<Arc<Topology>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Reads the machine and follows it from then on, on the current tokio runtime.
    ///
    /// # Errors
    /// When the kernel's tables cannot be read now. Later losses are logged and mended.
    pub async fn start() -> Result<Self, KernelError> {
        let session = Session::open().await?;
        let (publish, topology) = watch::channel(Arc::new(session.topology.clone()));
        Ok(Self { topology, task: tokio::spawn(follow(session, publish)) })
    }

    /// The machine as it is now.
    pub fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.topology.borrow())
    }

    /// Waits for the next change, about 20 ms longer than it takes, and returns the machine as it is then. Safe to
    /// cancel.
    pub async fn changed(&mut self) -> Arc<Topology> {
        if self.topology.changed().await.is_err() {
            // The task ends with the watcher only; without it nothing will change any more.
            std::future::pending::<()>().await;
        }
        Arc::clone(&self.topology.borrow_and_update())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, from its dump to its loss.
struct Session {
    handle: Handle,
    messages: BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>,
    connection: JoinHandle<()>,
    topology: Topology,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// What a message asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Nothing,
    Publish,
    ReadRoutes,
    ReadAll,
}

async fn follow(mut session: Session, publish: watch::Sender<Arc<Topology>>) {
    loop {
        session.run(&publish).await;
        tracing::warn!("lost messages of the kernel about interfaces and routes; reading them again");
        session = reopen().await;
        publish.send_if_modified(|standing| replace(standing, &session.topology));
    }
}

async fn reopen() -> Session {
    loop {
        match Session::open().await {
            Ok(session) => return session,
            Err(error) => {
                tracing::error!(%error, source = %error.source, "cannot read the kernel's tables; trying again");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn replace(standing: &mut Arc<Topology>, now: &Topology) -> bool {
    let is_new = **standing != *now;
    if is_new {
        *standing = Arc::new(now.clone());
    }
    is_new
}

impl Session {
    async fn open() -> Result<Self, KernelError> {
        let opened = rtnetlink::new_multicast_connection(GROUPS);
        let (mut connection, handle, messages) =
            opened.map_err(|source| KernelError::new("watch the kernel", source))?;
        // A small buffer only means more losses, which are mended.
        let _ = connection.socket_mut().socket_mut().set_rx_buf_sz(BUFFER);
        let connection = tokio::spawn(connection);
        let messages = messages.map(|(message, _)| message).boxed();
        let mut session = Self { handle, messages, connection, topology: Topology::default() };
        session.read().await?;
        Ok(session)
    }

    /// Follows until messages are lost.
    async fn run(&mut self, publish: &watch::Sender<Arc<Topology>>) {
        let (mut due, mut pending): (Option<Instant>, Effect) = (None, Effect::Nothing);
        let mut pause = COALESCE;
        loop {
            let wake = due.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
            tokio::select! {
                message = self.messages.next() => {
                    let Some(message) = message else { return };
                    pending = pending.max(self.apply(message));
                    if pending == Effect::ReadAll {
                        return;
                    }
                    if pending > Effect::Nothing && due.is_none() {
                        due = Some(Instant::now() + pause);
                    }
                }
                () = tokio::time::sleep_until(wake), if due.is_some() => {
                    let began = Instant::now();
                    if pending == Effect::ReadRoutes && self.read_routes().await.is_err() {
                        return;
                    }
                    pause = COALESCE.max(began.elapsed() * DUMP_SHARE);
                    publish.send_if_modified(|standing| replace(standing, &self.topology));
                    (due, pending) = (None, Effect::Nothing);
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), KernelError> {
        for message in collect("list interfaces", self.handle.link().get().execute()).await? {
            self.apply_inner(RouteNetlinkMessage::NewLink(message));
        }
        for message in collect("list addresses", self.handle.address().get().execute()).await? {
            self.apply_inner(RouteNetlinkMessage::NewAddress(message));
        }
        for message in collect("list neighbours", self.handle.neighbours().get().execute()).await? {
            self.apply_inner(RouteNetlinkMessage::NewNeighbour(message));
        }
        self.read_routes().await
    }

    async fn read_routes(&mut self) -> Result<(), KernelError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let dump = collect("list routes", self.handle.route().get(message).execute()).await?;
            routes.extend(dump.iter().filter_map(convert::route));
        }
        self.topology.routes = routes;
        Ok(())
    }

    fn apply(&mut self, message: NetlinkMessage<RouteNetlinkMessage>) -> Effect {
        match message.payload {
            NetlinkPayload::InnerMessage(message) => self.apply_inner(message),
            NetlinkPayload::Overrun(_) => Effect::ReadAll,
            _ => Effect::Nothing,
        }
    }

    fn apply_inner(&mut self, message: RouteNetlinkMessage) -> Effect {
        use RouteNetlinkMessage::{
            DelAddress, DelLink, DelNeighbour, DelRoute, NewAddress, NewLink, NewNeighbour, NewRoute,
        };
        let topology = &mut self.topology;
        match message {
            NewLink(message) => convert::link(&message).map_or(Effect::Nothing, |(link, mut state)| {
                state.queues = links::queues(&state.name, state.queues);
                state.driver = links::driver(&state.name);
                let changed = topology.links.insert(link, state.clone()) != Some(state);
                if changed { Effect::ReadRoutes } else { Effect::Nothing }
            }),
            DelLink(message) => convert::link(&message).map_or(Effect::Nothing, |(link, _)| {
                topology.links.remove(&link);
                topology.addresses.retain(|(on, _)| *on != link);
                topology.neighbours.retain(|(on, _), _| *on != link);
                Effect::ReadRoutes
            }),
            NewAddress(message) => convert::address(&message).map_or(Effect::Nothing, |(address, usable)| {
                match usable {
                    Usable::Yes => topology.addresses.insert(address),
                    Usable::No => topology.addresses.remove(&address),
                };
                Effect::ReadRoutes
            }),
            DelAddress(message) => convert::address(&message).map_or(Effect::Nothing, |(address, _)| {
                topology.addresses.remove(&address);
                Effect::ReadRoutes
            }),
            NewNeighbour(message) => convert::neighbour(&message).map_or(Effect::Nothing, |seen| match seen.mac {
                Some(mac) if topology.neighbours.insert(seen.at, mac) == Some(mac) => Effect::Nothing,
                None if topology.neighbours.remove(&seen.at).is_none() => Effect::Nothing,
                _ => Effect::Publish,
            }),
            DelNeighbour(message) => convert::neighbour(&message).map_or(Effect::Nothing, |seen| {
                topology.neighbours.remove(&seen.at).map_or(Effect::Nothing, |_| Effect::Publish)
            }),
            NewRoute(_) | DelRoute(_) => Effect::ReadRoutes,
            _ => Effect::Nothing,
        }
    }
}
