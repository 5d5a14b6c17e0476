//! When the guard starts the director again, when it hands over to a peer, and when it gives up.
//!
//! A pure state machine: time comes in with every call, what to do comes out of [`Policy::next`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The limits that the guard keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long the service may be gone before a peer shall take over.
    pub back_within: Duration,
    /// Deaths within [`Limits::window`] that are still answered by a new start.
    pub deaths: usize,
    /// The span over which deaths are counted.
    pub window: Duration,
    /// The rest before the second start in a window; doubled for each one after it.
    pub rest: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            back_within: Duration::from_secs(3),
            deaths: 5,
            window: Duration::from_secs(30),
            rest: Duration::from_millis(100),
        }
    }
}

/// What the guard has to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start the director.
    Spawn,
    /// Nothing, until an event or this moment.
    Wait(Option<Instant>),
    /// End a director that is not ready, then take program and addresses off the machine: a peer shall take over.
    HandOver,
    /// The first start failed: nothing is served that a new start could save.
    Refused,
    /// As [`Step::HandOver`], and end: it dies again and again.
    GiveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle { until: Instant },
    Starting,
    Running,
    Refused,
}

/// The state machine.
#[derive(Debug)]
pub(super) struct Policy {
    limits: Limits,
    phase: Phase,
    /// Deaths within the window, oldest first.
    deaths: VecDeque<Instant>,
    /// Until when a director has to be ready; none before the first one was, and after a hand-over.
    deadline: Option<Instant>,
    was_ready: bool,
}

impl Policy {
    /// A policy that begins with a first start at `now`.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, phase: Phase::Idle { until: now }, deaths: VecDeque::new(), deadline: None, was_ready: false }
    }

    /// What to do at `now`. [`Step::Spawn`] counts as done when it is returned, and so does [`Step::HandOver`].
    pub(super) fn next(&mut self, now: Instant) -> Step {
        if self.phase == Phase::Refused {
            return Step::Refused;
        }
        if self.deaths.len() > self.limits.deaths {
            return Step::GiveUp;
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            return Step::HandOver;
        }
        match self.phase {
            Phase::Idle { until } if until <= now => {
                self.phase = Phase::Starting;
                Step::Spawn
            }
            Phase::Idle { until } => Step::Wait(Some(self.deadline.map_or(until, |deadline| deadline.min(until)))),
            Phase::Starting | Phase::Running | Phase::Refused => Step::Wait(self.deadline),
        }
    }

    /// The director said that it is ready.
    pub(super) fn ready(&mut self) {
        self.phase = Phase::Running;
        self.deadline = None;
        self.was_ready = true;
    }

    /// Whether a director has ever been ready.
    pub(super) const fn was_ready(&self) -> bool {
        self.was_ready
    }

    /// The director died, or could not be started, or was ended for a hand-over.
    pub(super) fn died(&mut self, now: Instant) {
        if !self.was_ready {
            self.phase = Phase::Refused;
            return;
        }
        if self.phase == Phase::Running {
            self.deadline = Some(now + self.limits.back_within);
        }
        while self.deaths.front().is_some_and(|first| now.duration_since(*first) > self.limits.window) {
            self.deaths.pop_front();
        }
        self.deaths.push_back(now);
        self.phase = Phase::Idle { until: now + self.rest() };
    }

    /// No rest after the first death in the window, then the rest, then twice as much each time.
    fn rest(&self) -> Duration {
        match self.deaths.len() {
            0 | 1 => Duration::ZERO,
            deaths => self.limits.rest * (1 << (deaths - 2).min(16)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn running(now: Instant) -> Policy {
        let mut policy = Policy::new(Limits::default(), now);
        assert_eq!(policy.next(now), Step::Spawn);
        policy.ready();
        policy
    }

    #[test]
    fn a_first_start_may_take_its_time_and_its_failure_is_final() {
        let now = Instant::now();
        let mut policy = Policy::new(Limits::default(), now);
        assert_eq!(policy.next(now), Step::Spawn);
        assert_eq!(policy.next(now + 60_000 * MS), Step::Wait(None));
        policy.died(now + 60_000 * MS);
        assert_eq!(policy.next(now + 60_000 * MS), Step::Refused);
    }

    #[test]
    fn a_first_death_is_answered_at_once() {
        let now = Instant::now();
        let mut policy = running(now);
        policy.died(now + 500 * MS);
        assert_eq!(policy.next(now + 500 * MS), Step::Spawn);
        assert_eq!(policy.next(now + 501 * MS), Step::Wait(Some(now + 3500 * MS)));
        policy.ready();
        assert_eq!(policy.next(now + 9000 * MS), Step::Wait(None));
    }

    #[test]
    fn a_start_that_takes_too_long_hands_over_once_and_goes_on() {
        let now = Instant::now();
        let mut policy = running(now);
        policy.died(now);
        assert_eq!(policy.next(now), Step::Spawn);
        assert_eq!(policy.next(now + 3000 * MS), Step::HandOver);
        // The guard ended it; the next one has no deadline any more.
        policy.died(now + 3000 * MS);
        assert_eq!(policy.next(now + 3000 * MS), Step::Wait(Some(now + 3100 * MS)));
        assert_eq!(policy.next(now + 3100 * MS), Step::Spawn);
        assert_eq!(policy.next(now + 20_000 * MS), Step::Wait(None));
    }

    #[test]
    fn the_deadline_counts_from_the_first_death_not_from_the_last() {
        let now = Instant::now();
        let mut policy = running(now);
        policy.died(now);
        assert_eq!(policy.next(now), Step::Spawn);
        policy.died(now + 2000 * MS);
        assert_eq!(policy.next(now + 2100 * MS), Step::Spawn);
        assert_eq!(policy.next(now + 2200 * MS), Step::Wait(Some(now + 3000 * MS)));
    }

    #[test]
    fn rests_double_and_a_sixth_death_in_the_window_ends_it() {
        let mut now = Instant::now();
        let mut policy = running(now);
        for rest in [0, 100, 200, 400, 800] {
            policy.died(now);
            if rest > 0 {
                assert_eq!(policy.next(now), Step::Wait(Some(now + rest * MS)), "rest {rest}");
            }
            now += rest * MS;
            assert_eq!(policy.next(now), Step::Spawn);
            policy.ready();
        }
        policy.died(now);
        assert_eq!(policy.next(now), Step::GiveUp);
    }

    #[test]
    fn deaths_far_apart_are_forgotten() {
        let mut now = Instant::now();
        let mut policy = running(now);
        for _ in 0..100 {
            policy.died(now);
            assert_eq!(policy.next(now), Step::Spawn);
            policy.ready();
            now += Duration::from_secs(31);
        }
    }
}
