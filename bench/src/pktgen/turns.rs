//! Turn after turn, as the director's worker has them: what a generator's end costs is what a worker's ports cost.

use dataplane::clock;
use dataplane::port::Ports;
use dataplane::worker::{Idle, Patience};

use crate::cli::Run;
use crate::stop::Stop;

/// Takes turns until it is time or as many frames came as were asked for, sleeps between them as asked, and sends
/// what is queued at the end. `turn` tells how many frames it took.
pub(crate) fn take<P: Ports>(ports: &mut P, run: &Run, stop: &Stop, turn: impl FnMut(&mut P) -> usize) {
    let most = run.bounds.count.unwrap_or(u64::MAX);
    take_at_most(most, ports, run.idle.into(), stop, turn);
}

fn take_at_most<P: Ports>(most: u64, ports: &mut P, idle: Idle, stop: &Stop, mut turn: impl FnMut(&mut P) -> usize) {
    let mut patience = Patience::of(idle);
    let mut left = most;
    while left > 0 && !stop.is_reached(clock::since_boot()) {
        let taken = turn(ports);
        left = left.saturating_sub(taken as u64);
        if patience.is_over(taken) {
            ports.wait(Patience::NAP);
        }
    }
    ports.flush();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::ident::PortIndex;
    use dataplane::port::{Burst, MemoryPorts};

    use super::*;

    #[test]
    fn turns_end_after_their_count_or_their_time() {
        let stop = Stop::after(Duration::from_millis(20)).unwrap();
        let mut ports = MemoryPorts::new(1, 256);
        assert!((0..200).all(|_| ports.inject(PortIndex(0), &[7; 60])));
        let mut all = 0;
        let mut turn = |ports: &mut MemoryPorts| {
            let mut burst = Burst::new();
            ports.receive(PortIndex(0), &mut burst);
            let taken = burst.len();
            burst.drain(..).for_each(|frame| ports.free(frame));
            all += taken;
            taken
        };
        take_at_most(100, &mut ports, Idle::Busy, &stop, &mut turn);
        assert!(!stop.is_reached(clock::since_boot()));
        take_at_most(u64::MAX, &mut ports, Idle::Busy, &stop, &mut turn);
        assert_eq!(all, 200);
        assert!(stop.is_reached(clock::since_boot()));
    }

    #[test]
    fn whole_bursts_are_taken() {
        let stop = Stop::after(Duration::from_secs(10)).unwrap();
        let mut turns = 0;
        take_at_most(100, &mut MemoryPorts::new(1, 1), Idle::Busy, &stop, |_| {
            turns += 1;
            64
        });
        assert_eq!(turns, 2);
    }
}
