//! A worker's life: turn after turn until it is told to stop, and what it does while there is nothing to do.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Worker;
use crate::clock;
use crate::port::Ports;

/// What a worker does when no frames come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Idle {
    /// Spins for ever: the least delay, a whole core.
    Busy,
    /// Spins for a while, then sleeps until frames come.
    #[default]
    Adaptive,
    /// Sleeps as soon as nothing waits.
    Sleep,
}

/// Empty turns after which an adaptive worker sleeps: some hundred microseconds.
const PATIENCE: u32 = 1000;
/// A sleep for which a worker does not leave the flow tables: others keep what ended for so much longer.
const SHORT: Duration = Duration::from_millis(10);
/// The longest sleep while packets wait in hand for something that another worker does.
const DOZE: Duration = Duration::from_millis(1);

/// How many turns in a row were empty, and how many more may be before it is time to sleep.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Empty turns that are borne, or `None` to sleep after every turn.
    limit: Option<u32>,
    empty: u32,
}

impl Patience {
    /// The longest sleep: expiry and the heartbeat go on.
    pub const NAP: Duration = Duration::from_millis(100);

    /// The patience of a worker that idles so.
    pub const fn of(idle: Idle) -> Self {
        let limit = match idle {
            Idle::Busy => Some(u32::MAX),
            Idle::Adaptive => Some(PATIENCE),
            Idle::Sleep => None,
        };
        Self { limit, empty: 0 }
    }

    /// Whether to sleep now, after a turn that took so many frames.
    ///
    /// A worker that sleeps at once does not look again first: the ports do, for the price of a load, and
    /// an empty turn before each sleep would be half of all turns when frames come one at a time.
    #[inline]
    pub fn is_over(&mut self, taken: usize) -> bool {
        let Some(limit) = self.limit else { return true };
        self.empty = if taken > 0 { 0 } else { self.empty.saturating_add(1) };
        if self.empty > limit {
            return true;
        }
        if self.empty > 0 {
            std::hint::spin_loop();
        }
        false
    }
}

impl<P: Ports> Worker<P> {
    /// Turns until `stop` is set; then sends what is queued and gives the ports back.
    pub fn run(mut self, stop: &AtomicBool, idle: Idle) -> P {
        let mut patience = Patience::of(idle);
        while !stop.load(Ordering::Relaxed) {
            let taken = self.turn(clock::since_boot());
            if patience.is_over(taken) {
                self.nap(taken);
            }
        }
        self.abandon_held();
        self.hands.ports.flush();
        self.shared.flows4.offline(&mut self.hands.flows4);
        self.shared.flows6.offline(&mut self.hands.flows6);
        self.hands.ports
    }

    /// Sleeps until a frame comes, after a turn that took so many. Unless that is soon, no other worker has to wait for this
    /// one meanwhile.
    fn nap(&mut self, taken: usize) {
        if self.holds() {
            return self.hands.ports.wait(DOZE);
        }
        if taken > 0 {
            // To leave the tables and to come back costs as much as forwarding a packet.
            self.hands.ports.wait(SHORT);
        }
        if self.hands.ports.has_arrivals() {
            return;
        }
        self.shared.flows4.offline(&mut self.hands.flows4);
        self.shared.flows6.offline(&mut self.hands.flows6);
        self.hands.ports.wait(Patience::NAP);
        self.shared.flows4.online(&mut self.hands.flows4);
        self.shared.flows6.online(&mut self.hands.flows6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_empty_turns_in_a_row_only() {
        assert!(Patience::of(Idle::Sleep).is_over(0));
        assert!(Patience::of(Idle::Sleep).is_over(1), "whether more wait, the ports see");
        let mut adaptive = Patience::of(Idle::Adaptive);
        assert!((0..PATIENCE).all(|_| !adaptive.is_over(0)));
        assert!(!adaptive.is_over(1), "a frame came");
        assert!((0..PATIENCE).all(|_| !adaptive.is_over(0)));
        assert!(adaptive.is_over(0));
        assert!((0..10 * PATIENCE).all(|_| !Patience::of(Idle::Busy).is_over(0)));
    }
}
