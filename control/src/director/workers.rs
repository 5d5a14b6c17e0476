//! The worker threads: each with its sockets, pinned to its core, until they are told to stop.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use dataplane::clock;
use dataplane::ident::{CoreIndex, QueueIndex, WorkerIndex};
use dataplane::port::xsk::{BindMode, BusyPoll, CopyMode, SocketPlace, XskConfig, XskError, XskPorts};
use dataplane::worker::{Idle, Shared, Worker};

use super::cores::WorkerPlan;
use crate::compile::PortPlan;
use crate::config;

/// A worker could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    /// No thread.
    #[error("cannot start the thread of worker {worker}: {source}")]
    Thread {
        /// Which one.
        worker: u8,
        /// What the system said.
        source: io::Error,
    },
    /// The flow tables were made for fewer workers.
    #[error("worker {0} has no place in the flow tables, which is a bug")]
    Place(u8),
}

/// The sockets of one worker, open but not yet served.
#[derive(Debug)]
pub struct OpenWorker {
    index: WorkerIndex,
    core: CoreIndex,
    ports: XskPorts,
    sockets: Vec<SocketInfo>,
    idle: Idle,
}

/// One socket of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketInfo {
    /// Its port and queue.
    pub place: SocketPlace,
    /// Whether frames are copied.
    pub mode: CopyMode,
    /// Its descriptor, for the XSKMAP.
    pub fd: RawFd,
}

/// Opens the sockets of all workers, which idle so: one for each queue of each port.
pub fn open(plan: &WorkerPlan, ports: &[PortPlan], idle: config::Idle) -> Result<Vec<OpenWorker>, XskError> {
    plan.workers().map(|(index, core)| open_one(plan, ports, (index, core), idle_of(idle))).collect()
}

fn open_one(
    plan: &WorkerPlan,
    ports: &[PortPlan],
    (index, core): (WorkerIndex, CoreIndex),
    idle: Idle,
) -> Result<OpenWorker, XskError> {
    let place =
        |port: &PortPlan, queue: QueueIndex| SocketPlace { port: port.index, interface: port.name.clone(), queue };
    let places: Vec<SocketPlace> =
        ports.iter().flat_map(|port| plan.queues(index, port).map(|queue| place(port, queue))).collect();
    let mtu = ports.iter().map(|port| port.mtu).max().unwrap_or(0);
    let ports = XskPorts::open(&places, &socket_config(ports, idle), mtu)?;
    let sockets = ports.sockets().map(|(place, fd, mode)| SocketInfo { place: place.clone(), mode, fd }).collect();
    Ok(OpenWorker { index, core, ports, sockets, idle })
}

/// All sockets of a worker share one packet memory, and with it one copy mode: what one port demands, all get.
fn socket_config(ports: &[PortPlan], idle: Idle) -> XskConfig {
    let demanded = |mode| ports.iter().any(|port| port.copy == mode);
    let bind = if demanded(config::CopyMode::Copy) {
        BindMode::Copy
    } else if demanded(config::CopyMode::ZeroCopy) {
        BindMode::ZeroCopy
    } else {
        BindMode::Auto
    };
    let busy_poll = ports.iter().find_map(|port| port.busy_poll);
    let busy_poll = busy_poll.map(|poll| BusyPoll { microseconds: BUSY_POLL_MICROSECONDS, budget: poll.budget });
    XskConfig { bind, busy_poll, wake_up: idle.into(), ..XskConfig::default() }
}

/// How long one busy poll may last: what the kernel's documentation of AF_XDP suggests.
const BUSY_POLL_MICROSECONDS: u32 = 20;

impl OpenWorker {
    /// Its sockets.
    pub fn sockets(&self) -> &[SocketInfo] {
        &self.sockets
    }
}

/// The running workers. They stop when this is dropped.
#[derive(Debug)]
pub struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<WorkerThread>,
}

/// One running worker.
#[derive(Debug)]
pub struct WorkerThread {
    /// Which one.
    pub index: WorkerIndex,
    /// Its core, where pinning worked.
    pub core: Option<CoreIndex>,
    /// Its sockets.
    pub sockets: Vec<SocketInfo>,
    handle: Option<JoinHandle<()>>,
}

impl Workers {
    /// Starts a thread for each.
    pub fn start(opened: Vec<OpenWorker>, shared: &Arc<Shared>) -> Result<Self, ThreadError> {
        let mut workers = Self { stop: Arc::default(), threads: Vec::with_capacity(opened.len()) };
        for worker in opened {
            let thread = start_one(worker, Arc::clone(shared), Arc::clone(&workers.stop))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Each worker, by index.
    pub fn threads(&self) -> &[WorkerThread] {
        &self.threads
    }

    /// A worker whose thread ended without being told to.
    pub fn dead(&self) -> Option<WorkerIndex> {
        let ended = |thread: &&WorkerThread| thread.handle.as_ref().is_some_and(JoinHandle::is_finished);
        self.threads.iter().find(ended).map(|thread| thread.index)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in &mut self.threads {
            if thread.handle.take().is_some_and(|handle| handle.join().is_err()) {
                tracing::error!(worker = thread.index.0, "a worker ended by a panic");
            }
        }
    }
}

fn start_one(worker: OpenWorker, shared: Arc<Shared>, stop: Arc<AtomicBool>) -> Result<WorkerThread, ThreadError> {
    let OpenWorker { index, core, ports, sockets, idle } = worker;
    let worker = Worker::new(index, shared, ports, clock::since_boot()).ok_or(ThreadError::Place(index.0))?;
    let (pinned, was_pinned) = std::sync::mpsc::sync_channel(1);
    let body = move || {
        let done = core_affinity::set_for_current(core_affinity::CoreId { id: core.0 });
        // Control waits for this word and takes silence for a failure.
        let _ = pinned.send(done);
        worker.run(&stop, idle);
    };
    let handle = std::thread::Builder::new()
        .name(format!("worker {}", index.0))
        .spawn(body)
        .map_err(|source| ThreadError::Thread { worker: index.0, source })?;
    let is_pinned = was_pinned.recv().unwrap_or(false);
    if is_pinned {
        tracing::info!(worker = index.0, core = core.0, sockets = sockets.len(), "worker started");
    } else {
        tracing::warn!(worker = index.0, core = core.0, "worker started, but it cannot be pinned to its core");
    }
    Ok(WorkerThread { index, core: is_pinned.then_some(core), sockets, handle: Some(handle) })
}

const fn idle_of(idle: config::Idle) -> Idle {
    match idle {
        config::Idle::Busy => Idle::Busy,
        config::Idle::Adaptive => Idle::Adaptive,
        config::Idle::Sleep => Idle::Sleep,
    }
}
