//! What changed in a worker's counters over one turn: the only way in which a packet's fate shows.

use dataplane::counters::{Drop, Event, WorkerCounters};

/// All drops and events at one moment.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    drops: [u64; Drop::ALL.len()],
    events: [u64; Event::ALL.len()],
}

impl Tally {
    /// The counters now.
    pub(super) fn of(counters: &WorkerCounters) -> Self {
        let mut tally = Self { drops: [0; Drop::ALL.len()], events: [0; Event::ALL.len()] };
        for reason in Drop::ALL {
            tally.drops[*reason as usize] = counters.drop(*reason).read();
        }
        for event in Event::ALL {
            tally.events[*event as usize] = counters.event(*event).read();
        }
        tally
    }

    /// The reasons that were counted since, each as often as it was.
    pub(super) fn drops_since(&self, before: &Self) -> Vec<Drop> {
        let times = |reason: &Drop| (self.drops[*reason as usize] - before.drops[*reason as usize]) as usize;
        Drop::ALL.iter().flat_map(|reason| std::iter::repeat_n(*reason, times(reason))).collect()
    }

    /// Whether an event was counted since.
    pub(super) fn has_since(&self, before: &Self, event: Event) -> bool {
        self.events[event as usize] > before.events[event as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_told() {
        let counters = WorkerCounters::new(1);
        counters.drop(Drop::NoFlow).add(3);
        let before = Tally::of(&counters);
        assert!(Tally::of(&counters).drops_since(&before).is_empty());
        counters.drop(Drop::NoFlow).add(1);
        counters.drop(Drop::NoRoute).add(2);
        counters.event(Event::ToKernel).add(1);
        let after = Tally::of(&counters);
        assert_eq!(after.drops_since(&before), [Drop::NoFlow, Drop::NoRoute, Drop::NoRoute]);
        assert!(after.has_since(&before, Event::ToKernel) && !after.has_since(&before, Event::Forwarded));
    }
}
