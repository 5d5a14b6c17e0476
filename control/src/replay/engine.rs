//! The director of a replay: compiled configuration, workers over pcap ports, and a clock that the packets set.

use std::sync::Arc;
use std::time::Duration;

use dataplane::counters::{Event, WorkerCounters};
use dataplane::flow::{Capacity, Direction, Find, FlowKey, FlowTable};
use dataplane::ident::{Endpoint, MAX_WORKERS, PortIndex, Protocol, WorkerIndex};
use dataplane::port::PcapPorts;
use dataplane::service::DestinationSlot;
use dataplane::steer::{SteerPlan, Verdict, model};
use dataplane::wire::{self, IpVersion};
use dataplane::worker::{Shared, Worker};

use super::ReplayError;
use super::arrivals::Arrival;
use super::fate::{Fate, Flow};
use super::outputs::{Departure, Outputs};
use super::tally::Tally;
use crate::compile::{self, Finding, PortPlan, PortRole, SlotDirectory};
use crate::config::Config;
use crate::topology::Topology;

/// The least time between two turns while no packet arrives: a tick of the dataplane's clock.
const STEP: Duration = Duration::from_millis(10);
/// Most turns in one pause, and for so many flows one more: enough for every flow to be looked at twice.
const TURNS: u128 = 1000;
const FLOWS_PER_TURN: u128 = 8;

/// The director.
pub(super) struct Engine {
    ports: Vec<PortPlan>,
    findings: Vec<Finding>,
    steer: SteerPlan,
    verdicts: [u64; Verdict::ALL.len()],
    shared: Arc<Shared>,
    workers: Vec<Worker<PcapPorts>>,
    now: Duration,
    /// The worker that gets the next packet.
    next: usize,
}

impl Engine {
    /// A director with this configuration on this machine. Its clock begins with the first of `arrivals`.
    pub(super) fn new(
        config: &Config,
        topology: &Topology,
        workers: usize,
        arrivals: &[Arrival],
    ) -> Result<Self, ReplayError> {
        if !(1..=MAX_WORKERS).contains(&workers) {
            return Err(ReplayError::Workers(workers));
        }
        let ports = compile::derive_ports(config, topology)?;
        let mut slots = SlotDirectory::new(workers);
        let compiled = compile::compile(config, topology, &ports, &mut slots, None)?;
        // A packet opens one flow at most: no need for memory that millions of flows would take.
        let most = u32::try_from(2 * arrivals.len() + 1024).unwrap_or(u32::MAX);
        let fitting = config
            .dataplane
            .capacities()
            .map(|capacity| Capacity { flows: capacity.flows.min(most), extensions: capacity.extensions.min(most) });
        let flows4 = FlowTable::anonymous(fitting[0], workers)?;
        let flows6 = FlowTable::anonymous(fitting[1], workers)?;
        let shared = Arc::new(Shared::new(Arc::new(compiled.snapshot), flows4, flows6, workers, ports.len()));
        let now = arrivals.first().map_or(Duration::ZERO, |arrival| arrival.time);
        let worker = |n| Worker::new(WorkerIndex(n as u8), Arc::clone(&shared), PcapPorts::new(ports.len()), now);
        Ok(Self {
            findings: compiled.findings,
            steer: compiled.steer,
            verdicts: [0; Verdict::ALL.len()],
            workers: (0..workers).filter_map(worker).collect(),
            shared,
            ports,
            now,
            next: 0,
        })
    }

    /// The ports, by index.
    pub(super) fn ports(&self) -> &[PortPlan] {
        &self.ports
    }

    /// What works only in part.
    pub(super) fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What the workers share: tables, counters and the services.
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// How often each verdict was given.
    pub(super) fn verdicts(&self) -> impl Iterator<Item = (Verdict, u64)> {
        Verdict::ALL.into_iter().zip(self.verdicts)
    }

    /// Lets time pass up to the next packet, in steps, so that flows end when they would. What left meanwhile.
    pub(super) fn wait_until(&mut self, time: Duration) -> Vec<Departure> {
        let before = self.now;
        let pause = time.saturating_sub(before);
        let flows = u128::from(self.shared.flows4.len()) + u128::from(self.shared.flows6.len());
        let turns = (pause.as_millis() / STEP.as_millis()).min(TURNS + flows / FLOWS_PER_TURN) as u32;
        let mut left = Vec::new();
        for turn in 1..=turns {
            let now = before + pause.mul_f64(f64::from(turn) / f64::from(turns));
            left.extend(self.turn(now));
        }
        // Captures of several clocks may run backwards a little; the director's clock never does.
        self.now = before + pause;
        left
    }

    /// One packet: steered, handled by a worker, and what became of it.
    pub(super) fn handle(&mut self, arrival: &Arrival, outputs: &mut Outputs) -> Result<Fate, ReplayError> {
        let Some(port) = self.ports.iter().find(|port| port.link == arrival.link) else {
            return Ok(Fate::of_no_port());
        };
        let (index, role) = (port.index, port.role);
        // No steering program is on the kernel port: all that comes from there is meant for the workers.
        if role == PortRole::Network {
            let verdict = model::decide(&self.steer, &arrival.bytes);
            self.count(verdict);
            if !verdict.is_hit() {
                return Ok(Fate::passed(verdict));
            }
            self.count(Verdict::Redirected);
        }
        self.hand_over(arrival, index, outputs)
    }

    fn hand_over(&mut self, arrival: &Arrival, port: PortIndex, outputs: &mut Outputs) -> Result<Fate, ReplayError> {
        let at = self.next;
        self.next = (at + 1) % self.workers.len();
        let before = Tally::of(self.counters(at));
        self.workers[at].ports_mut().arrive(port, &arrival.bytes)?;
        let mut sent = Vec::new();
        for departure in self.turn(self.now) {
            sent.extend(outputs.write(Departure { time: arrival.time, ..departure })?);
        }
        let after = Tally::of(self.counters(at));
        let to_kernel = after.has_since(&before, Event::ToKernel);
        Ok(Fate::of_turn(&after.drops_since(&before), sent, to_kernel, self.flow_of(&arrival.bytes)))
    }

    /// A turn of every worker. What they sent, in order.
    fn turn(&mut self, now: Duration) -> Vec<Departure> {
        let mut left = Vec::new();
        for worker in &mut self.workers {
            worker.turn(now);
            let departure = |port, bytes: &[u8]| Departure { port, time: now, bytes: bytes.to_vec() };
            while let Some(departure) = worker.ports_mut().depart(departure) {
                left.push(departure);
            }
        }
        left
    }

    fn counters(&self, worker: usize) -> &WorkerCounters {
        &self.shared.boards[worker].counters
    }

    fn count(&mut self, verdict: Verdict) {
        self.verdicts[verdict as usize] += 1;
    }

    /// The flow that a packet belongs to now. No worker runs meanwhile, so what is found stays.
    fn flow_of(&self, frame: &[u8]) -> Option<Flow> {
        let headers = wire::parse(frame).ok()?;
        let protocol = Protocol::from_number(headers.protocol)?;
        let (source_port, destination_port) = (headers.source_port, headers.destination_port);
        match headers.version {
            IpVersion::V4 => {
                let (source, destination) = headers.addresses_v4(frame);
                self.flow(
                    &self.shared.flows4,
                    &FlowKey { source, destination, source_port, destination_port, protocol },
                )
            }
            IpVersion::V6 => {
                let (source, destination) = headers.addresses_v6(frame);
                self.flow(
                    &self.shared.flows6,
                    &FlowKey { source, destination, source_port, destination_port, protocol },
                )
            }
        }
    }

    fn flow<F: dataplane::flow::Family>(&self, table: &FlowTable<F>, key: &FlowKey<F::Addr>) -> Option<Flow> {
        let Find::Hit { flow, direction } = table.lookup(key) else { return None };
        let entry = table.entry(flow);
        let opened = entry.forward();
        let snapshot = self.shared.snapshot.load();
        let destination = snapshot.services.destination(DestinationSlot(entry.destination()))?;
        let service = snapshot.services.service(destination.service)?;
        let client = Endpoint { address: opened.source.into(), port: opened.source_port };
        Some(Flow {
            service: service.name.to_string(),
            client: client.to_string(),
            server: destination.at.to_string(),
            direction: match direction {
                Direction::Forward => "to_server",
                Direction::Reverse => "to_client",
            },
        })
    }
}
