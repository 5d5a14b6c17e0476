//! From a configuration and a machine to what the dataplane works by: pure, no I/O, the same input gives the same
//! output.
//!
//! What did not change is shared with the compilation before: the table of services by its `Arc`, and the next hops
//! keep their generation, so that flows do not look their way up again for nothing.

mod finding;
mod hops;
pub mod kernel_port;
mod locals;
mod policy;
mod ports;
mod services;
pub mod slots;
mod sorry;
mod steer;
mod vips;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use dataplane::next_hop::{Link, NextHops, TooManyHops};
use dataplane::service::{DestinationSlot, DuplicateService, ServiceName, Services};
use dataplane::snapshot::{PortSettings, Snapshot};
use dataplane::steer::SteerPlan;
use ipnet::IpNet;

pub use finding::Finding;
pub use hops::MAX_ROUTES;
pub use locals::{LocalError, local_addresses, short_pairs};
pub use ports::{MAX_PORTS, PortPlan, PortRole, derive_ports, static_link, worker_limit};
pub use slots::SlotDirectory;

use crate::config::{Config, Place};
use crate::topology::Topology;
use hops::{HopPlan, HopPlanner};
use services::{KernelWay, Planned, ServicePlanner};
use slots::DestinationName;
use vips::Vips;

/// What came of one compilation.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// For the workers.
    pub snapshot: Snapshot,
    /// For the XDP program.
    pub steer: SteerPlan,
    /// The services of which something is here, so that their packets are taken.
    pub served: BTreeSet<ServiceName>,
    /// The ports that it is for.
    pub ports: Vec<PortPlan>,
    /// What works only in part, for `status` and the log; in a stable order.
    pub findings: Vec<Finding>,
    /// Neighbours to resolve and keep fresh: gateways and on-link real servers.
    pub wanted: BTreeSet<(Link, IpAddr)>,
    plan: HopPlan,
    leaving: Vec<(DestinationSlot, DestinationName)>,
}

/// Why a configuration cannot run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// A name that no interface has.
    #[error("there is no interface '{name}'; there are {there}")]
    NoInterface {
        /// The name.
        name: String,
        /// The names that there are.
        there: String,
    },
    /// An interface that the director cannot work on.
    #[error("interface {name} cannot be a port: {reason}")]
    NoPort {
        /// The interface.
        name: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A static address on an interface that is not there.
    #[error("{place}: {address} is to be on '{name}', and there is no such interface; there are {there}")]
    NoDev {
        /// The address.
        address: IpNet,
        /// The interface's name.
        name: String,
        /// The names that there are.
        there: String,
        /// Where it stands.
        place: Place,
    },
    /// An interface that went away meanwhile.
    #[error("the interface of index {0} is gone")]
    LinkGone(u32),
    /// Nothing to work on.
    #[error(
        "no interface carries a virtual server's address or leads to a real server; \
         name one by `dataplane {{ interface NAME {{ }} }}`"
    )]
    NoPorts,
    /// More ports than the dataplane numbers.
    #[error("{0} interfaces would be ports; at most {MAX_PORTS} can be")]
    TooManyPorts(usize),
    /// A routing table of the Internet, and more.
    #[error("the machine has {0} routes; at most {MAX_ROUTES} are taken over")]
    TooManyRoutes(usize),
    /// More neighbours than the dataplane numbers.
    #[error(transparent)]
    TooManyHops(#[from] TooManyHops),
    /// A local address.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A service twice.
    #[error(transparent)]
    Duplicate(#[from] DuplicateService),
}

/// Compiles a configuration for a machine. `ports` are those of [`derive_ports`], numbered by their place; `previous` is
/// the last compilation with the same ports.
///
/// # Errors
/// [`CompileError`]; `slots` may then have numbers for servers that are not used, which the next success lets go.
pub fn compile(
    config: &Config,
    topology: &Topology,
    ports: &[PortPlan],
    slots: &mut SlotDirectory,
    previous: Option<&Compiled>,
) -> Result<Compiled, CompileError> {
    let kernel = kernel_port::settings(config, topology, ports);
    let kernel_way = if kernel.is_some() { KernelWay::Open } else { KernelWay::Closed };
    let vips = Vips::of(config);
    let mut hops = HopPlanner::new(topology, ports, &vips)?;
    let mut planner = ServicePlanner::new(topology, &mut hops, slots, kernel_way);
    let Planned { services, leaving } = planner.services(config)?;
    let (destinations, pairs) = (planner.wanted, planner.pairs);
    let macs = hops.own_macs().collect();
    let (plan, wanted, mut findings) = hops.finish();
    let hops = shared_hops(&plan, previous)?;
    // From here on nothing fails: what a refused configuration left out is not let go of.
    slots.retire_pairs(&pairs);
    slots.retire(&destinations, &config.virtual_servers.iter().map(|service| service.name.clone()).collect());
    let (steer, served) = steer::plan(config, topology, macs, slots);
    findings.extend(ports_down(topology, ports));
    findings.extend(new_members(topology, ports));
    let snapshot = Snapshot {
        services: shared_services(services, &leaving, previous),
        hops,
        ports: ports.iter().map(settings).collect(),
        kernel,
        policy: policy::policy(&config.dataplane),
        watch: None,
        gates: policy::gates(&config.dataplane, previous.map(|before| &before.snapshot.gates)),
    };
    let findings = findings.into_iter().collect();
    Ok(Compiled { snapshot, steer, served, ports: ports.to_vec(), findings, wanted, plan, leaving })
}

fn shared_services(
    services: Services,
    leaving: &[(DestinationSlot, DestinationName)],
    previous: Option<&Compiled>,
) -> Arc<Services> {
    let before = previous.filter(|before| before.leaving == leaving).map(|before| &before.snapshot.services);
    match before {
        Some(before) if services::is_same(before, &services) => Arc::clone(before),
        _ => Arc::new(services),
    }
}

fn shared_hops(plan: &HopPlan, previous: Option<&Compiled>) -> Result<Arc<NextHops>, TooManyHops> {
    let Some(before) = previous else { return plan.build(0).map(Arc::new) };
    if before.plan == *plan {
        return Ok(Arc::clone(&before.snapshot.hops));
    }
    plan.build(before.snapshot.hops.generation().wrapping_add(1)).map(Arc::new)
}

fn settings(port: &PortPlan) -> PortSettings {
    PortSettings { name: port.name.clone(), mac: port.mac, checksum: port.checksum, rss: port.rss.clone() }
}

/// Members of the ports' bonds that are no ports themselves.
fn new_members(topology: &Topology, ports: &[PortPlan]) -> BTreeSet<Finding> {
    let state = |port: &PortPlan| topology.links.get(&port.link);
    let masters: BTreeSet<Link> = ports.iter().filter_map(state).filter_map(|state| state.master).collect();
    let members = masters.iter().flat_map(|bond| topology.members(*bond).map(move |member| (*bond, member)));
    let others = members.filter(|(_, (link, _))| ports.iter().all(|port| port.link != *link));
    let finding = |(bond, (_, state)): (Link, (Link, &crate::topology::LinkState))| Finding::MemberWithoutPort {
        bond: topology.name(bond),
        interface: state.name.clone(),
    };
    others.map(finding).collect()
}

fn ports_down<'a>(topology: &'a Topology, ports: &'a [PortPlan]) -> impl Iterator<Item = Finding> + 'a {
    ports.iter().filter_map(|port| {
        let interface = port.name.clone();
        match topology.links.get(&port.link) {
            None => Some(Finding::PortGone { interface }),
            Some(link) if !link.up => Some(Finding::PortDown { interface }),
            Some(_) => None,
        }
    })
}
