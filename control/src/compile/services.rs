//! Virtual servers with their real servers, as workers see them, and the hop of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use dataplane::ident::{Endpoint, Weight};
use dataplane::rules::Action;
use dataplane::service::Tunnel;
use dataplane::service::{
    Destination, DestinationSlot, Local as ServerLocal, MatchPoint, Method, PairKey, ServerLocals, ServiceName,
    ServiceSettings, ServiceSpec, Services, ServicesBuilder,
};

use super::CompileError;
use super::finding::Finding;
use super::hops::{HopPlanner, Place};
use super::kernel_port;
use super::slots::{DestinationName, SlotDirectory};
use super::sorry;
use super::vips::Local;
use crate::config::{Config, ForwardingMethod, RealServer, TowardsServers, VirtualServer};
use crate::topology::{Leg, Topology};

/// Whether local real servers can be reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KernelWay {
    Open,
    Closed,
}

/// Places all real servers of a configuration.
pub(super) struct ServicePlanner<'a, 't> {
    topology: &'t Topology,
    hops: &'a mut HopPlanner<'t>,
    slots: &'a mut SlotDirectory,
    kernel: KernelWay,
    /// The real servers of the configuration.
    pub(super) wanted: BTreeSet<DestinationName>,
    /// Their pairs with local addresses.
    pub(super) pairs: BTreeSet<PairKey>,
    /// Removed ones that serve their flows to the end.
    draining: BTreeSet<DestinationSlot>,
}

impl<'a, 't> ServicePlanner<'a, 't> {
    pub(super) fn new(
        topology: &'t Topology,
        hops: &'a mut HopPlanner<'t>,
        slots: &'a mut SlotDirectory,
        kernel: KernelWay,
    ) -> Self {
        Self {
            topology,
            hops,
            slots,
            kernel,
            wanted: BTreeSet::new(),
            pairs: BTreeSet::new(),
            draining: BTreeSet::new(),
        }
    }

    /// The services of a configuration, in its order.
    pub(super) fn services(&mut self, config: &Config) -> Result<Planned, CompileError> {
        let mut builder = ServicesBuilder::default();
        let local = Local::of(self.topology);
        self.marks(config);
        for server in &config.virtual_servers {
            self.absent(server, &local);
            let destinations = self.destinations(config, server);
            let spec = ServiceSpec::new(server.name.clone(), server.scheduler, destinations);
            let TowardsServers { client_address, tcp_timestamps, expire_reset } = server.towards;
            let settings = ServiceSettings {
                access: server.access.clone(),
                mss_clamp: server.mss_clamp,
                syn_proxy: server.syn_proxy,
                persistence: server.persistence,
                limits: server.limits,
                datagrams: server.datagrams,
                client_address,
                tcp_timestamps,
                expire_reset,
                ftp: server.ftp,
            };
            let draining = self.draining(server);
            builder.add(ServiceSpec {
                state: self.slots.service(&server.name),
                draining,
                settings,
                points: server.points.clone(),
                ..spec
            })?;
        }
        let mut leaving = Vec::new();
        for (name, entry) in self.slots.iter().filter(|(name, _)| !self.wanted.contains(name)) {
            if !self.draining.contains(&entry.slot) {
                builder.keep(entry.slot, Arc::clone(&entry.counts));
            }
            leaving.push((entry.slot, name.clone()));
        }
        for (key, pair) in self.slots.pairs() {
            builder.local(key.local, config.dataplane.local_ports);
            builder.pair(*key, pair.clone());
        }
        Ok(Planned { services: builder.build(), leaving })
    }

    /// Tells of marks without a service, and of services without their mark.
    fn marks(&mut self, config: &Config) {
        let marks = |mark| config.dataplane.rules.iter().any(|rule| rule.action == Action::Mark(mark));
        let is_mark = |point: &MatchPoint| matches!(point, MatchPoint::Mark(mark, _) if !marks(*mark));
        for server in config.virtual_servers.iter().filter(|server| server.points.iter().any(is_mark)) {
            self.find(Finding::NoRuleMarks { service: server.name.clone() });
        }
        let points: Vec<_> = config.virtual_servers.iter().flat_map(|server| &server.points).collect();
        for rule in &config.dataplane.rules {
            let Action::Mark(mark) = rule.action else { continue };
            if !points.iter().any(|point| matches!(point, MatchPoint::Mark(own, _) if *own == mark)) {
                self.find(Finding::NoServiceOfMark { rule: rule.to_string() });
            }
        }
    }

    /// Tells of a service of which no address is here.
    fn absent(&mut self, server: &VirtualServer, local: &Local) {
        let ranges = server.points.iter().filter_map(|point| match point {
            MatchPoint::Addresses { range, .. } => Some(range),
            MatchPoint::Mark(..) => None,
        });
        let mut ranges = ranges.peekable();
        let Some(first) = ranges.peek().copied() else { return };
        if !ranges.any(|range| local.has_any(range)) {
            self.find(Finding::VipNotLocal { service: server.name.clone(), address: *first });
        }
    }

    fn destinations(&mut self, config: &Config, server: &VirtualServer) -> Vec<Destination> {
        if sorry::is_down(server) {
            self.find(Finding::SorryServer { service: server.name.clone() });
        }
        let destination = |real| {
            let locals = self.locals(config, server, real);
            Destination { locals, ..self.destination(server, real) }
        };
        sorry::servers(server).iter().map(destination).collect()
    }

    /// The local addresses of a FULLNAT real server: those of its family.
    fn locals(&mut self, config: &Config, service: &VirtualServer, real: &RealServer) -> Option<Arc<ServerLocals>> {
        if real.method != ForwardingMethod::FullNat {
            return None;
        }
        let addresses = service.locals.iter().map(|local| local.address);
        let of_family = addresses.filter(|address| address.is_ipv4() == real.at.address.is_ipv4());
        let local = |address| {
            let key = PairKey { protocol: service.name.protocol(), server: real.at, local: address };
            self.pairs.insert(key);
            ServerLocal { address, pair: self.slots.pair(key) }
        };
        let list = of_family.map(local).collect();
        Some(Arc::new(ServerLocals::new(config.dataplane.local_ports, list, self.slots.workers())))
    }

    fn destination(&mut self, server: &VirtualServer, real: &RealServer) -> Destination {
        let (name, method) = (&server.name, method(real.method));
        self.wanted.insert((name.clone(), real.at));
        let (slot, counts) = self.slots.destination((name.clone(), real.at), method);
        let tunnel = tunnel(server, real);
        self.slots.remember(&(name.clone(), real.at), tunnel);
        let local_source = self.place(name, real.at, method, slot);
        Destination {
            thresholds: real.thresholds,
            local_source,
            tunnel,
            ..Destination::new(slot, real.at, method, real.weight, counts)
        }
    }

    /// The servers that were removed from a service with `drain`, as long as the directory has them.
    fn draining(&mut self, server: &VirtualServer) -> Vec<Destination> {
        if !server.drain {
            return Vec::new();
        }
        let removed = self.slots.of(&server.name).filter(|(name, _)| !self.wanted.contains(name));
        let left: Vec<_> = removed
            .filter(|(_, entry)| !entry.is_over())
            .filter_map(|((_, at), entry)| {
                Some((*at, entry.method?, entry.tunnel, entry.slot, Arc::clone(&entry.counts)))
            })
            .collect();
        let placed = left.into_iter().map(|(at, method, tunnel, slot, counts)| {
            self.draining.insert(slot);
            let local_source = self.place(&server.name, at, method, slot);
            Destination { local_source, tunnel, ..Destination::new(slot, at, method, Weight::ZERO, counts) }
        });
        placed.collect()
    }

    /// Gives a real server its hop, and says which source its packets get, if one of ours.
    ///
    /// NAT to a server on this machine comes from the kernel port, so that the reply does too; a tunnel has a source
    /// unless its end is here. To a worker the kernel as hop means a server on this machine, so one behind an interface
    /// that is no port has no hop: the kernel would take its packets for its own.
    fn place(&mut self, name: &ServiceName, at: Endpoint, method: Method, slot: DestinationSlot) -> Option<IpAddr> {
        match self.hops.place(at.address) {
            Place::Nowhere => {
                self.hops.nowhere(slot);
                self.find(Finding::NoRoute { service: name.clone(), server: at });
                None
            }
            Place::Here if at.address == IpAddr::V6(Ipv6Addr::LOCALHOST) => {
                self.hops.nowhere(slot);
                self.find(Finding::LoopbackV6 { service: name.clone(), server: at });
                None
            }
            Place::Here => {
                self.hops.by_kernel(slot);
                if self.kernel == KernelWay::Closed {
                    self.find(Finding::NoKernelPort { service: name.clone(), server: at });
                }
                method.is_two_way().then(|| kernel_port::local_source(at.address))
            }
            Place::NotByPort(link) => {
                let interface = self.topology.name(link);
                self.hops.nowhere(slot);
                self.find(Finding::NotByPort { service: name.clone(), server: at, interface });
                None
            }
            Place::ByPort(leg) => self.by_port(name, at, method, slot, leg),
        }
    }

    fn by_port(
        &mut self,
        name: &ServiceName,
        at: Endpoint,
        method: Method,
        slot: DestinationSlot,
        leg: Leg,
    ) -> Option<IpAddr> {
        if let (Method::Dr, Some(gateway)) = (method, leg.gateway) {
            self.find(Finding::DrByGateway { service: name.clone(), server: at, gateway });
        }
        if let Err(neighbour) = self.hops.reach(slot, at.address, leg) {
            let interface = self.topology.name(leg.link);
            self.find(Finding::Unresolved { service: name.clone(), server: at, neighbour, interface });
        }
        self.tunnel_source(name, at, method)
    }

    fn tunnel_source(&mut self, name: &ServiceName, at: Endpoint, method: Method) -> Option<IpAddr> {
        if method != Method::Tun {
            return None;
        }
        let source = self.hops.source(at.address);
        if source.is_none() {
            self.find(Finding::NoTunnelSource { service: name.clone(), server: at });
        }
        source
    }

    fn find(&mut self, finding: Finding) {
        self.hops.findings.insert(finding);
    }
}

/// The services, with the real servers that are no longer of them.
pub(super) struct Planned {
    pub(super) services: Services,
    /// Removed, and flows of theirs may be left.
    pub(super) leaving: Vec<(DestinationSlot, DestinationName)>,
}

/// Whether two tables say the same of the servers that are in the configuration, and count in the same cells.
pub(super) fn is_same(a: &Services, b: &Services) -> bool {
    let same_destination = |a: &Destination, b: &Destination| {
        (a.slot, a.service, a.at, a.method, a.weight, a.thresholds, a.local_source, a.tunnel, &a.locals)
            == (b.slot, b.service, b.at, b.method, b.weight, b.thresholds, b.local_source, b.tunnel, &b.locals)
            && Arc::ptr_eq(&a.counts, &b.counts)
    };
    let locals =
        |of: &Services| of.locals().map(|(address, ports)| (address, ports.range())).collect::<BTreeMap<_, _>>();
    let pairs = |of: &Services| of.pairs().map(|(key, _)| *key).collect::<BTreeSet<_>>();
    (locals(a), pairs(a)) == (locals(b), pairs(b))
        && a.iter().count() == b.iter().count()
        && a.iter().zip(b.iter()).all(|(a, b)| {
            (&a.name, &a.points, a.scheduler.kind(), &a.settings, a.destinations.len(), a.draining.len())
                == (&b.name, &b.points, b.scheduler.kind(), &b.settings, b.destinations.len(), b.draining.len())
                && Arc::ptr_eq(&a.state, &b.state)
                && a.draining.iter().zip(&b.draining).all(|(a, b)| same_destination(a, b))
                && a.destinations.iter().zip(&b.destinations).all(|(a, b)| same_destination(a, b))
        })
}

/// The tunnel to a real server, where its method has one.
fn tunnel(server: &VirtualServer, real: &RealServer) -> Tunnel {
    let is_of_family = |prefix: &&ipnet::IpNet| prefix.addr().is_ipv4() == real.at.address.is_ipv4();
    let sources = server.tunnel_sources.iter().find(is_of_family).copied();
    Tunnel { encapsulation: real.encapsulation, sources }
}

fn method(said: ForwardingMethod) -> Method {
    match said {
        ForwardingMethod::Nat => Method::Nat,
        ForwardingMethod::Dr => Method::Dr,
        ForwardingMethod::Tun => Method::Tun,
        ForwardingMethod::FullNat => Method::FullNat,
    }
}
