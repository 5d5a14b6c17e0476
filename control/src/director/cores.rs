//! How many workers there are and on which core each one runs.
//!
//! Workers keep off the first core, where control runs, as long as there is another one; of the queues of a port, queue
//! `q` is served by worker `q` modulo their number, so there are never more workers than queues.

use dataplane::ident::{CoreIndex, MAX_WORKERS, QueueIndex, WorkerIndex};

use crate::compile::{PortPlan, PortRole};
use crate::config;

/// The core of each worker, by index; at least one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerPlan {
    cores: Vec<CoreIndex>,
}

/// What the configuration asks for and cannot have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CoresError {
    /// More workers than queues.
    #[error(
        "`workers {asked}`: interface {interface} has {queues} receive queue(s), and each worker needs one of its own; \
         ask for {queues}, or give it more (`ethtool -L {interface} combined {asked}`)"
    )]
    FewQueues {
        /// Workers asked for.
        asked: usize,
        /// The interface with the fewest queues.
        interface: String,
        /// Its queues.
        queues: u32,
    },
    /// A core that is not there, or not for this process.
    #[error("core {core} is not available to this process; available: {available}")]
    NoCore {
        /// The core asked for.
        core: usize,
        /// Those that there are.
        available: String,
    },
}

impl WorkerPlan {
    /// Decides for the cores that this process may run on.
    pub fn decide(
        asked: Option<&config::Workers>,
        ports: &[PortPlan],
        available: &[CoreIndex],
    ) -> Result<Self, CoresError> {
        let narrowest = ports.iter().filter(|port| port.role == PortRole::Network).min_by_key(|port| port.queues);
        let queues = narrowest.map_or(1, |port| port.queues.max(1) as usize).min(MAX_WORKERS);
        let count = asked.map_or_else(|| queues.min(own_cores(available).len().max(1)), |workers| workers.count.max(1));
        if let Some(port) = narrowest.filter(|_| count > queues) {
            let interface = port.name.clone();
            return Err(CoresError::FewQueues { asked: count, interface, queues: port.queues });
        }
        let chosen = asked.map(|workers| workers.cores.as_slice()).unwrap_or_default();
        if let Some(missing) = chosen.iter().find(|core| !available.contains(core)) {
            return Err(CoresError::NoCore { core: missing.0, available: list(available) });
        }
        Ok(Self { cores: assign(count, chosen, available) })
    }

    /// How many workers.
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// The workers with their cores.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerIndex, CoreIndex)> + '_ {
        self.cores.iter().enumerate().map(|(n, core)| (WorkerIndex(n as u8), *core))
    }

    /// The plan as the configuration would say it.
    pub fn to_config(&self) -> config::Workers {
        config::Workers { count: self.count(), cores: self.cores.clone() }
    }

    /// The queues of a port that a worker serves.
    pub fn queues(&self, worker: WorkerIndex, port: &PortPlan) -> impl Iterator<Item = QueueIndex> + use<> {
        (u32::from(worker.0)..port.queues).step_by(self.count()).map(QueueIndex)
    }
}

/// The cores that workers get before control's own: all but the first, unless that is the only one.
fn own_cores(available: &[CoreIndex]) -> &[CoreIndex] {
    match available {
        [_, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    }
}

fn assign(count: usize, chosen: &[CoreIndex], available: &[CoreIndex]) -> Vec<CoreIndex> {
    let order: Vec<CoreIndex> = if chosen.is_empty() {
        let control = available.first().filter(|_| available.len() > 1);
        own_cores(available).iter().chain(control).copied().collect()
    } else {
        chosen.to_vec()
    };
    // No core known at all: the number is then only a label, and pinning fails with a warning.
    let order = if order.is_empty() { vec![CoreIndex(0)] } else { order };
    order.into_iter().cycle().take(count).collect()
}

fn list(cores: &[CoreIndex]) -> String {
    cores.iter().map(|core| core.0.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use dataplane::ident::{MacAddr, PortIndex};
    use dataplane::next_hop::Link;
    use dataplane::port::ChecksumMode;

    use super::*;
    use crate::config::{CopyMode, Workers, XdpMode};

    fn port(queues: u32, role: PortRole) -> PortPlan {
        PortPlan {
            index: PortIndex(0),
            link: Link(2),
            name: "eth0".into(),
            role,
            queues,
            mac: MacAddr::default(),
            mtu: 1500,
            checksum: ChecksumMode::Full,
            mode: XdpMode::Auto,
            copy: CopyMode::Auto,
            busy_poll: None,
            rss: None,
            why: String::new(),
        }
    }

    fn cores(n: usize) -> Vec<CoreIndex> {
        (0..n).map(CoreIndex).collect()
    }

    fn numbers(plan: &WorkerPlan) -> Vec<usize> {
        plan.workers().map(|(_, core)| core.0).collect()
    }

    #[test]
    fn by_default_control_has_a_core_of_its_own_where_there_are_two() {
        let ports = [port(4, PortRole::Network), port(8, PortRole::Network), port(1, PortRole::Kernel)];
        let decide = |n| numbers(&WorkerPlan::decide(None, &ports, &cores(n)).unwrap());
        assert_eq!(decide(0), [0]);
        assert_eq!(decide(1), [0]);
        assert_eq!(decide(2), [1]);
        assert_eq!(decide(4), [1, 2, 3]);
        assert_eq!(decide(16), [1, 2, 3, 4], "as many as the narrowest port has queues");
    }

    #[test]
    fn what_is_asked_for_is_obeyed_up_to_the_queues() {
        let ports = [port(2, PortRole::Network)];
        let asked = |count, cores: &[usize]| Workers { count, cores: cores.iter().copied().map(CoreIndex).collect() };
        assert_eq!(numbers(&WorkerPlan::decide(Some(&asked(2, &[])), &ports, &cores(2)).unwrap()), [1, 0]);
        assert_eq!(numbers(&WorkerPlan::decide(Some(&asked(2, &[0, 1])), &ports, &cores(2)).unwrap()), [0, 1]);
        let few = WorkerPlan::decide(Some(&asked(3, &[])), &ports, &cores(8)).unwrap_err();
        assert!(few.to_string().contains("eth0 has 2 receive queue(s)"), "{few}");
        let none = WorkerPlan::decide(Some(&asked(1, &[7])), &ports, &cores(2)).unwrap_err();
        assert_eq!(none.to_string(), "core 7 is not available to this process; available: 0, 1");
    }

    #[test]
    fn every_queue_has_exactly_one_worker() {
        let ports = [port(5, PortRole::Network)];
        let plan = WorkerPlan::decide(None, &[port(2, PortRole::Network)], &cores(4)).unwrap();
        let mut served: Vec<u32> =
            plan.workers().flat_map(|(worker, _)| plan.queues(worker, &ports[0])).map(|queue| queue.0).collect();
        served.sort_unstable();
        assert_eq!(served, [0, 1, 2, 3, 4]);
    }
}
