//! The table of services and their destinations, each found by what a packet or a flow says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::points::Points;
use super::{
    AddressFamily, Destination, DestinationCounts, DestinationSlot, Encapsulation, ExpireReset, Ftp, LocalPair,
    LocalPorts, Mark, MatchPoint, Method, PairKey, Service, ServiceIndex, ServiceName, ServiceSettings, ServiceState,
    Tunnel,
};
use crate::forward::tun::{Outer, TunnelEnds};
use crate::ident::{Endpoint, NetPort, Protocol, Weight};
use crate::sched::{Scheduler, SchedulerKind};

/// What a packet of an established flow needs of its destination: found by its slot in one step.
#[derive(Debug, Clone)]
pub struct Brief {
    /// How packets get there.
    pub method: Method,
    /// What its flows carried.
    pub counts: Arc<DestinationCounts>,
    /// The outer header of all packets to it, where they differ in nothing else: IP in IP from one address.
    pub outer: Option<Box<Outer>>,
    /// The service it stands behind.
    pub service: ServiceIndex,
    /// Where in the service's destinations, or behind them in its draining ones, it stands.
    at: u32,
}

/// All services and destinations of one configuration, immutable.
#[derive(Debug, Default)]
pub struct Services {
    services: Vec<Service>,
    points: Points,
    by_slot: Vec<Option<Brief>>,
    /// Whether any service may have connections of FTP's commands that are helped.
    has_ftp: bool,
    // Removed destinations that flows still refer to.
    removed: HashMap<DestinationSlot, Arc<DestinationCounts>, foldhash::quality::RandomState>,
    is_mixed: bool,
    /// Whether any service may have flows with an extension record.
    has_extended: bool,
    locals: HashMap<IpAddr, LocalPorts, foldhash::quality::RandomState>,
    pairs: HashMap<PairKey, LocalPair, foldhash::quality::RandomState>,
}

impl Services {
    /// The service that a packet to `to` may open a flow of: of its port, else of every port.
    pub fn find(&self, protocol: Protocol, to: Endpoint) -> Option<(ServiceIndex, &Service)> {
        let index = self.points.at(protocol, to)?;
        Some((index, self.service(index)?))
    }

    /// The service that a packet with a mark may open a flow of. It goes before what [`Services::find`] finds.
    pub fn marked(&self, mark: Mark, family: AddressFamily) -> Option<(ServiceIndex, &Service)> {
        let index = self.points.marked(mark, family)?;
        Some((index, self.service(index)?))
    }

    /// Whether a service stands at an address, by whatever transport and port.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.points.has_address(address)
    }

    /// All services, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    /// A service by its index.
    pub fn service(&self, index: ServiceIndex) -> Option<&Service> {
        self.services.get(index.0 as usize)
    }

    /// Whether any service may have FTP connections whose commands are read: all others pay nothing for it.
    #[inline]
    pub fn has_ftp(&self) -> bool {
        self.has_ftp
    }

    /// The destination that a flow's slot means, unless it was removed.
    #[inline]
    pub fn destination(&self, slot: DestinationSlot) -> Option<&Destination> {
        let brief = self.brief(slot)?;
        let (service, at) = (self.services.get(brief.service.0 as usize)?, brief.at as usize);
        let draining = || service.draining.get(at.checked_sub(service.destinations.len())?);
        service.destinations.get(at).or_else(draining)
    }

    /// As [`Services::destination`], no more than most packets need.
    #[inline]
    pub fn brief(&self, slot: DestinationSlot) -> Option<&Brief> {
        self.by_slot.get(slot.0 as usize)?.as_ref()
    }

    /// Whether an address and port are FULLNAT's own: nothing but replies of real servers comes there.
    pub fn is_local(&self, at: Endpoint) -> bool {
        self.locals.get(&at.address).is_some_and(|ports| ports.contains(at.port.host()))
    }

    /// What is counted of a pair of a local address and a real server: also of one that was removed.
    pub fn pair(&self, key: &PairKey) -> Option<&LocalPair> {
        self.pairs.get(key)
    }

    /// Whether any service has servers of the other family, to which packets are translated.
    #[inline]
    pub fn is_mixed(&self) -> bool {
        self.is_mixed
    }

    /// Whether any service may have flows with an extension record: all others need not look for it.
    #[inline]
    pub fn has_extended(&self) -> bool {
        self.has_extended
    }

    /// All pairs, in no order.
    pub fn pairs(&self) -> impl Iterator<Item = (&PairKey, &LocalPair)> {
        self.pairs.iter()
    }

    /// The local addresses with their ports, in no order.
    pub fn locals(&self) -> impl Iterator<Item = (IpAddr, LocalPorts)> {
        self.locals.iter().map(|(address, ports)| (*address, *ports))
    }

    /// The counts that a flow of `slot` stands in: also of a destination that was removed.
    pub fn counts(&self, slot: DestinationSlot) -> Option<&DestinationCounts> {
        match self.destination(slot) {
            Some(destination) => Some(&destination.counts),
            None => self.removed.get(&slot).map(|counts| &**counts),
        }
    }
}

/// Two services that would get the same packets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{point} of virtual service {name} is that of another service too; one of the two has to go")]
pub struct DuplicateService {
    /// The service added last.
    pub name: ServiceName,
    /// What both match.
    pub point: MatchPoint,
}

/// A service to be added.
#[derive(Debug)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// What packets find it by.
    pub points: Vec<MatchPoint>,
    /// Which scheduler it has.
    pub scheduler: SchedulerKind,
    /// Its destinations, in the order of the configuration.
    pub destinations: Vec<Destination>,
    /// Removed ones that still serve their flows.
    pub draining: Vec<Destination>,
    /// What its scheduler remembers.
    pub state: Arc<ServiceState>,
    /// What else it asks for.
    pub settings: ServiceSettings,
}

impl ServiceSpec {
    /// A service with a new cursor that asks for nothing. It is found by its name; a group's points are to be added.
    pub fn new(name: impl Into<ServiceName>, scheduler: SchedulerKind, destinations: Vec<Destination>) -> Self {
        let name = name.into();
        let points = match &name {
            ServiceName::Address(key) => vec![MatchPoint::from(*key)],
            ServiceName::Mark { mark, family } => vec![MatchPoint::Mark(*mark, *family)],
            ServiceName::Group { .. } => Vec::new(),
        };
        let (draining, state, settings) = (Vec::new(), Arc::default(), ServiceSettings::default());
        Self { name, points, scheduler, destinations, draining, state, settings }
    }
}

/// The outer header that all packets to a destination have in common, if it is reached by IP in IP from one address.
fn outer(destination: &Destination) -> Option<Outer> {
    let Tunnel { encapsulation: Encapsulation::Ipip, sources: None } = destination.tunnel else { return None };
    (destination.method == Method::Tun).then_some(())?;
    Some(Outer::new(TunnelEnds::new(destination.local_source?, destination.at.address)?))
}

/// Whether connections of a service may be of FTP.
fn is_ftp(settings: &ServiceSettings, points: &[MatchPoint]) -> bool {
    let may_be = |point: &MatchPoint| match point {
        MatchPoint::Addresses { protocol, port, .. } => {
            *protocol == Protocol::Tcp && (port.is_any() || *port == NetPort::FTP)
        }
        MatchPoint::Mark(..) => true,
    };
    match settings.ftp {
        Ftp::On => true,
        Ftp::Off => false,
        Ftp::ByPort => points.iter().any(may_be),
    }
}

/// Builds a [`Services`].
#[derive(Debug, Default)]
pub struct ServicesBuilder {
    services: Services,
}

impl ServicesBuilder {
    /// Adds a service; the `service` field of its destinations is set here.
    ///
    /// # Errors
    /// [`DuplicateService`] when one of its match points is taken. The table is then of no use.
    pub fn add(&mut self, spec: ServiceSpec) -> Result<ServiceIndex, DuplicateService> {
        let ServiceSpec { name, points, scheduler, destinations, draining, state, settings } = spec;
        let index = ServiceIndex(self.services.services.len() as u32);
        if let Some(point) = points.iter().find(|point| !self.services.points.add(**point, index)) {
            return Err(DuplicateService { name, point: *point });
        }
        let mut list: Vec<_> = destinations.into_iter().map(|d| Destination { service: index, ..d }).collect();
        // IPVS puts a new destination at the head of the list; schedulers walk it from there.
        list.reverse();
        let weightless = |d| Destination { service: index, weight: Weight::ZERO, ..d };
        let draining: Vec<_> = draining.into_iter().map(weightless).collect();
        for (at, destination) in list.iter().chain(&draining).enumerate() {
            destination.counts.limit(destination.thresholds);
            let slot = destination.slot.0 as usize;
            if self.services.by_slot.len() <= slot {
                self.services.by_slot.resize(slot + 1, None);
            }
            self.services.by_slot[slot] = Some(Brief {
                method: destination.method,
                counts: Arc::clone(&destination.counts),
                outer: outer(destination).map(Box::new),
                service: index,
                at: at as u32,
            });
        }
        state.prepare(scheduler);
        let is_v4 = points.iter().any(MatchPoint::is_v4);
        let is_mixed = list.iter().any(|to| to.method.is_two_way() && to.at.address.is_ipv4() != is_v4);
        self.services.is_mixed |= is_mixed;
        let is_two_way = list.iter().any(|server| server.method.is_two_way());
        self.services.has_ftp |= is_two_way && is_ftp(&settings, &points);
        self.services.has_extended |= self.services.has_ftp
            || settings.syn_proxy.is_some()
            || settings.expire_reset == ExpireReset::On
            || list.iter().chain(&draining).any(|to| to.method == Method::FullNat);
        let scheduler = Scheduler::new(scheduler, &list);
        self.services.services.push(Service {
            name,
            points,
            scheduler,
            destinations: list,
            draining,
            is_mixed,
            is_plain: settings.is_plain(),
            state,
            settings,
        });
        Ok(index)
    }

    /// Keeps the counts of a removed destination, to which flows still refer.
    pub fn keep(&mut self, slot: DestinationSlot, counts: Arc<DestinationCounts>) {
        self.services.removed.insert(slot, counts);
    }

    /// Makes an address and its ports FULLNAT's.
    pub fn local(&mut self, address: IpAddr, ports: LocalPorts) {
        self.services.locals.insert(address, ports);
    }

    /// Makes known what is counted of a pair, which flows may refer to.
    pub fn pair(&mut self, key: PairKey, pair: LocalPair) {
        self.services.pairs.insert(key, pair);
    }

    /// The finished table.
    pub fn build(self) -> Services {
        self.services
    }
}
