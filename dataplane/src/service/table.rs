//! The table of services: exact (protocol, address, port) first, then the address with port 0.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Destination, DestinationCounts, DestinationSlot, Service, ServiceIndex, ServiceSettings, ServiceState};
use crate::ident::{Endpoint, NetPort, Protocol, ServiceKey};
use crate::sched::{Scheduler, SchedulerKind};

/// All services and destinations of one configuration, immutable.
#[derive(Debug, Default)]
pub struct Services {
    services: Vec<Service>,
    by_key: HashMap<ServiceKey, ServiceIndex, foldhash::quality::RandomState>,
    // Where in `services` a slot's destination stands.
    by_slot: Vec<Option<(ServiceIndex, u32)>>,
    // Removed destinations that flows still refer to.
    removed: HashMap<DestinationSlot, Arc<DestinationCounts>, foldhash::quality::RandomState>,
}

impl Services {
    /// The service that a packet to `to` may open a flow of.
    pub fn find(&self, protocol: Protocol, to: Endpoint) -> Option<(ServiceIndex, &Service)> {
        let exact = ServiceKey { protocol, at: to };
        let any_port = ServiceKey { protocol, at: Endpoint { port: NetPort::ANY, ..to } };
        let index = self.by_key.get(&exact).or_else(|| self.by_key.get(&any_port))?;
        Some((*index, self.services.get(index.0 as usize)?))
    }

    /// All services, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    /// A service by its index.
    pub fn service(&self, index: ServiceIndex) -> Option<&Service> {
        self.services.get(index.0 as usize)
    }

    /// The destination that a flow's slot means, unless it was removed.
    #[inline]
    pub fn destination(&self, slot: DestinationSlot) -> Option<&Destination> {
        let (service, at) = (*self.by_slot.get(slot.0 as usize)?)?;
        self.services.get(service.0 as usize)?.destinations.get(at as usize)
    }

    /// The counts that a flow of `slot` stands in: also of a destination that was removed.
    pub fn counts(&self, slot: DestinationSlot) -> Option<&DestinationCounts> {
        match self.destination(slot) {
            Some(destination) => Some(&destination.counts),
            None => self.removed.get(&slot).map(|counts| &**counts),
        }
    }
}

/// Two services with one key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("virtual service {0} is defined twice; one of the two has to go")]
pub struct DuplicateService(pub ServiceKey);

/// A service to be added.
#[derive(Debug)]
pub struct ServiceSpec {
    /// Its name.
    pub key: ServiceKey,
    /// Which scheduler it has.
    pub scheduler: SchedulerKind,
    /// Its destinations, in the order of the configuration.
    pub destinations: Vec<Destination>,
    /// What its scheduler remembers.
    pub state: Arc<ServiceState>,
    /// What else it asks for.
    pub settings: ServiceSettings,
}

impl ServiceSpec {
    /// A service with a new cursor that asks for nothing.
    pub fn new(key: ServiceKey, scheduler: SchedulerKind, destinations: Vec<Destination>) -> Self {
        Self { key, scheduler, destinations, state: Arc::default(), settings: ServiceSettings::default() }
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
    /// [`DuplicateService`] when the key is taken.
    pub fn add(&mut self, spec: ServiceSpec) -> Result<ServiceIndex, DuplicateService> {
        let ServiceSpec { key, scheduler, destinations, state, settings } = spec;
        let index = ServiceIndex(self.services.services.len() as u32);
        if self.services.by_key.insert(key, index).is_some() {
            return Err(DuplicateService(key));
        }
        let mut list: Vec<_> = destinations.into_iter().map(|d| Destination { service: index, ..d }).collect();
        // IPVS puts a new destination at the head of the list; schedulers walk it from there.
        list.reverse();
        for (at, destination) in list.iter().enumerate() {
            let slot = destination.slot.0 as usize;
            if self.services.by_slot.len() <= slot {
                self.services.by_slot.resize(slot + 1, None);
            }
            self.services.by_slot[slot] = Some((index, at as u32));
        }
        state.prepare(scheduler);
        let scheduler = Scheduler::new(scheduler, &list);
        self.services.services.push(Service { key, scheduler, destinations: list, state, settings });
        Ok(index)
    }

    /// Keeps the counts of a removed destination, to which flows still refer.
    pub fn keep(&mut self, slot: DestinationSlot, counts: Arc<DestinationCounts>) {
        self.services.removed.insert(slot, counts);
    }

    /// The finished table.
    pub fn build(self) -> Services {
        self.services
    }
}
