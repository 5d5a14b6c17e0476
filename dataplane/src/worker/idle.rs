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
    /// Sleeps at once.
    Sleep,
}

/// Empty turns after which an adaptive worker sleeps: some hundred microseconds.
const PATIENCE: u32 = 1000;
/// The longest sleep: expiry and the heartbeat go on.
const NAP: Duration = Duration::from_millis(100);
/// The longest sleep while packets wait in hand for something that another worker does.
const DOZE: Duration = Duration::from_millis(1);

impl<P: Ports> Worker<P> {
    /// Turns until `stop` is set; then sends what is queued and gives the ports back.
    pub fn run(mut self, stop: &AtomicBool, idle: Idle) -> P {
        let patience = match idle {
            Idle::Busy => u32::MAX,
            Idle::Adaptive => PATIENCE,
            Idle::Sleep => 0,
        };
        let mut empty = 0;
        while !stop.load(Ordering::Relaxed) {
            empty = if self.turn(clock::since_boot()) > 0 { 0 } else { u32::saturating_add(empty, 1) };
            if empty > patience {
                self.nap();
            } else if empty > 0 {
                std::hint::spin_loop();
            }
        }
        self.abandon_held();
        self.hands.ports.flush();
        self.shared.flows4.offline(&mut self.hands.flows4);
        self.shared.flows6.offline(&mut self.hands.flows6);
        self.hands.ports
    }

    /// Sleeps until a frame comes. Meanwhile no other worker has to wait for this one.
    fn nap(&mut self) {
        self.shared.flows4.offline(&mut self.hands.flows4);
        self.shared.flows6.offline(&mut self.hands.flows6);
        self.hands.ports.wait(if self.holds() { DOZE } else { NAP });
        self.shared.flows4.online(&mut self.hands.flows4);
        self.shared.flows6.online(&mut self.hands.flows6);
    }
}
