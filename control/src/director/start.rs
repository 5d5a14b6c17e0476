//! The start: one step after the other, from a configuration to workers that forward.
//!
//! The order keeps a restart after a crash quiet: the new program has its maps filled before it takes the place of the
//! old one, so that no segment of a service passes to the kernel in between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::flow::TableError;
use dataplane::ident::CoreIndex;
use dataplane::port::xsk::XskError;
use dataplane::steer::{AttachMode, Interface, Steer, SteerError, SteerLimits};
use dataplane::worker::Shared;
use tokio::time::sleep;

use super::claim::{ClaimError, Claims};
use super::cores::{CoresError, WorkerPlan};
use super::flows::{self, Flows, FlowsError};
use super::journal::{Journal, JournalError};
use super::machine::{Machine, MachineError};
use super::publish::Publisher;
use super::workers::{self, OpenWorker, ThreadError, Workers};
use crate::compile::slots::SlotError;
use crate::compile::{self, CompileError, Compiled, PortPlan, PortRole, SlotDirectory};
use crate::config::{Config, XdpMode};
use crate::kernel;
use crate::state_dir::{DYING_WITHIN, StateDir};

/// Why a director could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine does not fit the configuration.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// An interface is another director's.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The machine could not be changed.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Not so many workers.
    #[error(transparent)]
    Cores(#[from] CoresError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The flow tables.
    #[error(transparent)]
    Flows(#[from] FlowsError),
    /// The numbers of real servers.
    #[error(transparent)]
    Slots(#[from] SlotError),
    /// The XDP program.
    #[error(transparent)]
    Steer(#[from] SteerError),
    /// No native XDP where nothing else was allowed.
    #[error(
        "interface {0} has no native XDP, and `mode native` allows nothing else; use `mode auto` or `mode generic`"
    )]
    NotNative(String),
    /// The sockets.
    #[error(transparent)]
    Sockets(#[from] XskError),
    /// The threads.
    #[error(transparent)]
    Threads(#[from] ThreadError),
}

/// A started dataplane with all that control keeps of it. Workers stop first when it is dropped.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) workers: Workers,
    pub(super) steer: Steer,
    /// Where the program runs on each port, by index.
    pub(super) modes: Vec<AttachMode>,
    pub(super) shared: Arc<Shared>,
    pub(super) publisher: Publisher,
    pub(super) slots: SlotDirectory,
    pub(super) compiled: Compiled,
    pub(super) plan: WorkerPlan,
    pub(super) machine: Machine,
    /// Last: what is claimed is let go when nothing is used any more.
    pub(super) claims: Claims,
}

/// Starts a dataplane.
pub(super) async fn start(config: &Config, state: &StateDir, journal: Journal) -> Result<Started, StartError> {
    let mut machine = Machine::watch(journal).await?;
    machine.journal.record(|e| e.pid = std::process::id())?;
    let networks = compile::derive_ports(config, &machine.topology())?;
    let claims = Claims::make(config, &networks).await?;
    let (plan, ports) = prepare(config, &mut machine, networks).await?;
    let wanted = machine.wanted_addresses(config)?;
    let new_addresses = machine.set_addresses(&wanted).await?;
    machine.journal.record(|e| e.flow_dir = Some(state.flow_dir()))?;
    let Flows { v4, v6, mut slots } = open_flows(state, config, &plan).await?;
    let config = effective(config, &plan);
    let compiled = compile::compile(&config, &machine.topology(), &ports, &mut slots, None)?;
    slots.save(&state.destinations())?;
    let shared = Arc::new(Shared::new(Arc::new(compiled.snapshot.clone()), v4, v6, plan.count(), ports.len()));
    shared.recount();
    let (mut steer, modes) = steer(&compiled, &mut machine.journal)?;
    let opened = workers::open(&plan, &ports, config.dataplane.idle)?;
    connect(&mut steer, &ports, &opened)?;
    let workers = Workers::start(opened, &shared)?;
    machine.announce(&new_addresses);
    let publisher = Publisher::new(Arc::clone(&shared));
    Ok(Started { workers, steer, modes, shared, publisher, slots, compiled, plan, machine, claims })
}

/// Opens the flow tables, waiting a while for a killed director that still has them.
async fn open_flows(state: &StateDir, config: &Config, plan: &WorkerPlan) -> Result<Flows, FlowsError> {
    let patience = Instant::now() + DYING_WITHIN;
    loop {
        match flows::open(state, &config.dataplane, plan.count()) {
            Err(FlowsError::Table(TableError::InUse { .. })) if Instant::now() < patience => {
                sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
}

/// The configuration with what was decided about workers.
pub(super) fn effective(config: &Config, plan: &WorkerPlan) -> Config {
    let mut config = config.clone();
    config.dataplane.workers = Some(plan.to_config());
    config
}

/// Decides on workers and ports, and makes the machine ready for them.
async fn prepare(
    config: &Config,
    machine: &mut Machine,
    networks: Vec<PortPlan>,
) -> Result<(WorkerPlan, Vec<PortPlan>), StartError> {
    let available: Vec<CoreIndex> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| CoreIndex(core.id)).collect();
    let plan = WorkerPlan::decide(config.dataplane.workers.as_ref(), &networks, &available)?;
    machine.set_queues(&networks)?;
    machine.keep_vlan_tags(&networks)?;
    if config.dataplane.kernel_port.is_none() {
        return Ok((plan, with_rss(networks)));
    }
    machine.make_kernel_port(plan.count(), &networks).await?;
    machine.set_loopback(config)?;
    Ok((plan, with_rss(compile::derive_ports(config, &machine.topology())?)))
}

/// The ports with how their hardware spreads what it receives, which a change of their queues would change.
fn with_rss(mut ports: Vec<PortPlan>) -> Vec<PortPlan> {
    for port in ports.iter_mut().filter(|port| port.role == PortRole::Network) {
        port.rss = kernel::rss(&port.name).map(Arc::new);
        tracing::debug!(interface = port.name, is_known = port.rss.is_some(), "read how RSS is set");
    }
    ports
}

/// Loads the program, tells it everything, and attaches it to every port.
fn steer(compiled: &Compiled, journal: &mut Journal) -> Result<(Steer, Vec<AttachMode>), StartError> {
    let mut steer = Steer::load(&limits(compiled))?;
    steer.apply(&compiled.steer)?;
    let mut modes = Vec::with_capacity(compiled.ports.len());
    for (port, base) in with_bases(&compiled.ports) {
        journal.record(|e| {
            e.interfaces.insert(port.name.clone());
        })?;
        let interface = Interface { name: port.name.clone(), index: port.link.0 };
        let preferred = match port.mode {
            XdpMode::Auto | XdpMode::Native => AttachMode::Native,
            XdpMode::Generic => AttachMode::Generic,
        };
        let mode = steer.attach(&interface, base, preferred)?;
        if port.mode == XdpMode::Native && mode != AttachMode::Native {
            steer.detach(&interface)?;
            return Err(StartError::NotNative(port.name.clone()));
        }
        tracing::info!(interface = port.name, ?mode, "XDP program attached");
        modes.push(mode);
    }
    Ok((steer, modes))
}

/// Room in the program's maps: for what there is twice over, and for reloads to grow into. Each entry of room costs the
/// start, and a restart after a crash, some nanoseconds and 16 bytes a map.
fn limits(compiled: &Compiled) -> SteerLimits {
    let room = |entries: usize, least: u32| u32::try_from(entries.saturating_mul(2)).unwrap_or(u32::MAX).max(least);
    let default = SteerLimits::default();
    SteerLimits {
        services: room(compiled.steer.services.len(), default.services / 2),
        replies: room(compiled.steer.replies.len(), default.replies / 8),
        own: room(compiled.steer.own.len() + compiled.steer.macs.len() + compiled.steer.locals.len(), default.own),
        sockets: compiled.ports.iter().map(|port| port.queues).sum(),
    }
}

/// Puts every socket behind the index of its port and queue.
fn connect(steer: &mut Steer, ports: &[PortPlan], opened: &[OpenWorker]) -> Result<(), SteerError> {
    let bases: Vec<u32> = with_bases(ports).map(|(_, base)| base).collect();
    for socket in opened.iter().flat_map(OpenWorker::sockets) {
        let base = bases.get(socket.place.port.0 as usize).copied().unwrap_or(0);
        steer.set_socket(base + socket.place.queue.0, socket.fd)?;
    }
    Ok(())
}

/// Each port with the index of its first queue.
fn with_bases(ports: &[PortPlan]) -> impl Iterator<Item = (&PortPlan, u32)> {
    ports.iter().scan(0, |next, port| {
        let base = *next;
        *next += port.queues;
        Some((port, base))
    })
}
