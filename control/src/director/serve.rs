//! The control loop: follows the machine, answers signals and the API, and keeps the workers' snapshot right.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::clock;
use dataplane::ident::WorkerIndex;
use dataplane::next_hop::Link;
use dataplane::steer::SteerPlan;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::configuration::{self, needs_restart};
use super::options::RunOptions;
use super::refusals::Watch;
use super::report::{self, Parts};
use super::start::{Started, effective};
use super::{DirectorError, Line};
use crate::api::Request;
use crate::api::view::{Configuration, Reloaded, Status};
use crate::compile::{self, Compiled};
use crate::config::Config;
use crate::error::chain;
use crate::signals::Signals;
use crate::state_dir::StateDir;
use crate::topology::{RouteTable, Topology};
use crate::watch::{Form, Order, Refusal, Viewer};

/// How often workers are looked after: what they want, whether they live.
const LOOK: Duration = Duration::from_millis(100);
/// How often neighbours are tended, in looks: once a second.
const LOOKS_TO_TEND: u32 = 10;
/// A worker that did not turn for so long is stalled: ten times its longest sleep.
const STALLED: Duration = Duration::from_secs(1);

/// A running director.
pub(super) struct Director {
    pub(super) parts: Started,
    pub(super) config: Config,
    pub(super) options: RunOptions,
    pub(super) state: StateDir,
    pub(super) line: Line,
    pub(super) started: Instant,
    pub(super) read: Instant,
    pub(super) refused: Option<String>,
    /// Why the machine as it is now could not be compiled.
    pub(super) compile_error: Option<String>,
    pub(super) stalled: BTreeSet<WorkerIndex>,
    pub(super) refusals: Watch,
}

impl Director {
    /// Serves until a signal says stop.
    pub(super) async fn serve(
        &mut self,
        signals: &mut Signals,
        questions: &mut mpsc::Receiver<Request>,
    ) -> Result<(), DirectorError> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0;
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::SIGTERM | Signal::SIGINT => return Ok(()),
                    Signal::SIGHUP => drop(self.reload().await),
                    other => tracing::info!(signal = %other, "this signal has no effect"),
                },
                topology = self.parts.machine.changed() => self.follow(&topology).await,
                Some(question) = questions.recv() => self.answer(question).await,
                () = self.line.guard_gone() => tracing::warn!("the guard is gone: nobody will start this director again"),
                _ = look.tick() => {
                    self.look().await?;
                    looks += 1;
                    if looks % LOOKS_TO_TEND == 0 {
                        self.tend().await;
                        self.let_go().await;
                        self.refusals.look(&self.parts.shared);
                    }
                }
            }
        }
    }

    /// Takes the director's own addresses off the machine and then the dataplane, in the order that resets nobody.
    pub(super) async fn stop(self) -> Result<(), DirectorError> {
        let Self { parts, .. } = self;
        let Started { workers, mut steer, mut machine, claims, .. } = parts;
        machine.remove_addresses().await?;
        if let Err(error) = steer.apply(&SteerPlan::default()) {
            tracing::warn!("cannot empty the steering maps: {}", chain(&error));
        }
        if let Err(error) = machine.neighbours.release_all().await {
            tracing::debug!("cannot let go of neighbours: {}", chain(&error));
        }
        // What was received goes out; then the sockets close.
        drop(workers);
        drop(claims);
        Ok(())
    }

    /// The machine changed.
    async fn follow(&mut self, topology: &Topology) {
        let config = effective(&self.config, &self.parts.plan);
        self.compile_error = match self.compile(&config, topology) {
            Ok(compiled) => self.apply(compiled).await,
            Err(error) => Some(error),
        };
        if let Some(error) = &self.compile_error {
            tracing::error!("the machine changed, and the dataplane goes on as before: {error}");
        }
    }

    fn compile(&mut self, config: &Config, topology: &Topology) -> Result<Compiled, String> {
        let before = &self.parts.compiled;
        compile::compile(config, topology, &before.ports, &mut self.parts.slots, Some(before)).map_err(|e| chain(&e))
    }

    /// Makes a compilation the one in use: the numbers are on disk before a worker may use them. Returns what failed.
    async fn apply(&mut self, compiled: Compiled) -> Option<String> {
        let parts = &mut self.parts;
        if let Err(error) = parts.slots.save(&self.state.destinations()) {
            return Some(chain(&error));
        }
        for finding in compiled.findings.iter().filter(|finding| !parts.compiled.findings.contains(finding)) {
            tracing::warn!("{finding}");
        }
        parts.publisher.publish(compiled.snapshot.clone());
        let steered = parts.steer.apply(&compiled.steer);
        let tend = parts.compiled.wanted != compiled.wanted;
        parts.compiled = compiled;
        if tend {
            self.tend().await;
        }
        steered.err().map(|error| chain(&error))
    }

    async fn answer(&mut self, question: Request) {
        // Who asked may have gone away meanwhile.
        match question {
            Request::Status(answer) => drop(answer.send(self.status())),
            Request::Reload(answer) => drop(answer.send(self.reload().await)),
            Request::Watch(order, form, answer) => drop(answer.send(self.watch(&order, form))),
        }
    }

    /// Lets somebody look at packets.
    fn watch(&mut self, order: &Order, form: Form) -> Result<Viewer, Refusal> {
        let ports: Vec<_> = self.parts.compiled.ports.iter().map(|port| port.name.clone()).collect();
        let viewer = Viewer::new(order, form, Arc::clone(&self.parts.shared), &ports)?;
        if self.parts.publisher.begin_watch(viewer.watch(), viewer.lease()) { Ok(viewer) } else { Err(Refusal::Busy) }
    }

    /// Reads the configuration again: applied whole, or not at all.
    async fn reload(&mut self) -> Reloaded {
        match self.try_reload().await {
            Ok(messages) => {
                tracing::info!("configuration read again and applied");
                for message in &messages {
                    tracing::warn!("{message}");
                }
                (self.refused, self.read) = (None, Instant::now());
                Reloaded { applied: true, messages }
            }
            Err(messages) => {
                let all = messages.join("; ");
                tracing::error!("reload refused, the configuration before it stays in use: {all}");
                self.refused = Some(all);
                Reloaded { applied: false, messages }
            }
        }
    }

    async fn try_reload(&mut self) -> Result<Vec<String>, Vec<String>> {
        let one = |error: &dyn std::error::Error| vec![chain(error)];
        let mut new = configuration::read(&self.options).map_err(|refused| refused.lines)?;
        let topology = self.parts.machine.topology();
        let new_ports = compile::derive_ports(&new, &topology).map_err(|error| one(&error))?;
        let waiting = needs_restart(&self.config, &new, &self.parts.compiled.ports, Some(&new_ports));
        keep_what_needs_a_restart(&self.config, &mut new);
        let config = effective(&new, &self.parts.plan);
        // A first compilation finds what is wrong before anything is changed.
        self.compile(&config, &topology).map_err(|error| vec![error])?;
        let wanted = self.parts.machine.wanted_addresses(&new).map_err(|error| one(&error))?;
        let added = match self.parts.machine.set_addresses(&wanted).await {
            Ok(added) => added,
            Err(error) => {
                let mut said = one(&error);
                let before = self.parts.machine.wanted_addresses(&self.config).unwrap_or_default();
                said.extend(self.parts.machine.set_addresses(&before).await.err().map(|error| chain(&error)));
                return Err(said);
            }
        };
        self.parts.machine.set_loopback(&new).map_err(|error| one(&error))?;
        let topology = self.parts.machine.topology();
        let compiled = self.compile(&config, &topology).map_err(|error| vec![error])?;
        self.config = new;
        self.parts.machine.announce(&added);
        let failed = self.apply(compiled).await;
        Ok(waiting.into_iter().chain(failed).collect())
    }

    /// Looks after the workers.
    async fn look(&mut self) -> Result<(), DirectorError> {
        if let Some(worker) = self.parts.workers.dead() {
            return Err(DirectorError::WorkerDied(worker.0));
        }
        self.parts.publisher.end_watch();
        self.parts.publisher.collect();
        let mut missed = BTreeSet::new();
        while let Some(address) = self.parts.shared.wanted.pop() {
            missed.insert(address);
        }
        let topology = self.parts.machine.topology();
        for (link, neighbour) in neighbours_on_the_way(&topology, &missed) {
            self.parts.machine.neighbours.probe(link, neighbour).await;
        }
        self.watch_heartbeats();
        Ok(())
    }

    async fn tend(&mut self) {
        if let Err(error) = self.parts.machine.neighbours.tend(&self.parts.compiled.wanted).await {
            tracing::warn!("cannot look after neighbours: {}", chain(&error));
        }
    }

    /// Stops steering the replies of a removed server whose last flow has ended.
    async fn let_go(&mut self) {
        if self.parts.slots.is_due() {
            let topology = self.parts.machine.topology();
            self.follow(&topology).await;
        }
    }

    fn watch_heartbeats(&mut self) {
        let now = clock::since_boot();
        for thread in self.parts.workers.threads() {
            let Some(board) = self.parts.shared.boards.get(thread.index.0 as usize) else { continue };
            let (beat, worker) = (board.heartbeat(), thread.index);
            let is_stalled = !beat.is_zero() && now.saturating_sub(beat) > STALLED;
            if is_stalled && self.stalled.insert(worker) {
                tracing::error!(worker = worker.0, "the worker is stalled: it did not turn for {STALLED:?}");
            } else if !is_stalled && self.stalled.remove(&worker) {
                tracing::info!(worker = worker.0, "the worker turns again");
            }
        }
    }

    fn status(&self) -> Status {
        let stalled = self.stalled.iter().map(|worker| format!("worker {} is stalled", worker.0));
        let scarce = compile::short_pairs(&self.parts.compiled.snapshot.services).into_values();
        report::status(Parts {
            started: self.started,
            guard_pid: self.line.guard_pid(),
            configuration: Configuration {
                files: self.options.files.iter().map(|file| file.display().to_string()).collect(),
                age_seconds: self.read.elapsed().as_secs(),
                refused: self.refused.clone(),
            },
            compiled: &self.parts.compiled,
            shared: &self.parts.shared,
            workers: &self.parts.workers,
            steer: &self.parts.steer,
            modes: &self.parts.modes,
            findings: self.compile_error.iter().cloned().chain(stalled).chain(scarce).collect(),
        })
    }
}

/// What was said to wait for a restart must not come into use by half.
fn keep_what_needs_a_restart(old: &Config, new: &mut Config) {
    if old.dataplane.kernel_port.is_some() != new.dataplane.kernel_port.is_some() {
        new.dataplane.kernel_port = old.dataplane.kernel_port;
    }
}

/// For each address, the neighbour that packets to it are sent to: itself, or the gateway.
fn neighbours_on_the_way(topology: &Topology, addresses: &BTreeSet<IpAddr>) -> BTreeSet<(Link, IpAddr)> {
    if addresses.is_empty() {
        return BTreeSet::new();
    }
    let routes = RouteTable::new(topology);
    let legs = |address: &IpAddr| {
        let address = *address;
        let legs = routes.lookup(address).map(|route| route.via.legs()).unwrap_or_default();
        legs.into_iter().map(move |leg| (leg.link, leg.gateway.unwrap_or(address)))
    };
    addresses.iter().flat_map(legs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::batch;

    #[test]
    fn a_host_is_asked_itself_and_others_by_their_gateway() {
        let text = "link add eth0\naddr add 10.1.0.1/24 dev eth0\nroute add default via 10.1.0.254 dev eth0";
        let topology = batch::parse(text).unwrap();
        let link = topology.link_named("eth0").unwrap().0;
        let ask = |address: &str| neighbours_on_the_way(&topology, &[address.parse().unwrap()].into());
        assert_eq!(ask("10.1.0.7"), [(link, "10.1.0.7".parse().unwrap())].into());
        assert_eq!(ask("192.0.2.1"), [(link, "10.1.0.254".parse().unwrap())].into());
        assert_eq!(ask("2001:db8::1"), BTreeSet::new());
    }
}
