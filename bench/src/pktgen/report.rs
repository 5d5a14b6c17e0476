//! What results have in common: JSON, rates, what the kernel counted, processor time.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::error::PktgenError;
use crate::link::{LinkCounters, ProgramReport, SocketReport};

/// Packets and bits in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) packets_per_second: f64,
    /// Of frames without FCS, preamble and gap.
    pub(crate) bits_per_second: f64,
}

impl Rate {
    /// The rate of so many packets of so many bytes in all.
    pub(crate) fn of(packets: u64, bytes: u64, seconds: f64) -> Self {
        if seconds <= 0.0 {
            return Self::default();
        }
        Self { packets_per_second: packets as f64 / seconds, bits_per_second: bytes as f64 * 8.0 / seconds }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}pps", scaled(self.packets_per_second))?;
        if self.bits_per_second > 0.0 { write!(f, ", {}bit/s", scaled(self.bits_per_second)) } else { Ok(()) }
    }
}

/// A number with the factor that suits it, before which a unit may stand.
pub(crate) fn scaled(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.3} G", v / 1e9),
        v if v >= 1e6 => format!("{:.3} M", v / 1e6),
        v if v >= 1e3 => format!("{:.2} k", v / 1e3),
        v => format!("{v:.0} "),
    }
}

/// What XDP programs and sockets counted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LinkReport {
    pub(crate) programs: Vec<ProgramReport>,
    pub(crate) sockets: Vec<SocketReport>,
}

impl LinkReport {
    /// What they have counted so far.
    pub(crate) fn of(counters: &LinkCounters) -> Result<Self, PktgenError> {
        Ok(Self { programs: counters.programs()?, sockets: counters.sockets()? })
    }

    /// One line for each.
    pub(crate) fn text(&self, out: &mut impl Write) -> io::Result<()> {
        for program in &self.programs {
            writeln!(out, "  {program}")?;
        }
        self.sockets.iter().try_for_each(|socket| writeln!(out, "  {socket}"))
    }
}

/// Says on standard error that frames can come: a script waits for this line.
pub(crate) fn ready(command: &str) -> io::Result<()> {
    writeln!(io::stderr(), "sluice-pktgen: {command}: ready")
}

/// A result as JSON on standard output.
pub(crate) fn json(result: &impl Serialize) -> Result<(), PktgenError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, result)?;
    writeln!(out)?;
    Ok(())
}

/// Processor time of this thread so far, in its own code and in the kernel; 0 when the kernel does not tell.
pub(crate) fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    spent.map_or(0.0, |time| Duration::from(time).as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_told_in_the_unit_that_suits_them() {
        assert_eq!(Rate::of(1_500_000, 90_000_000, 1.0).to_string(), "1.500 Mpps, 720.000 Mbit/s");
        assert_eq!(Rate::of(10, 0, 2.0).to_string(), "5 pps");
        assert_eq!(Rate::of(10, 10, 0.0), Rate::default());
    }

    #[test]
    fn the_kernel_tells_processor_time() {
        assert!(cpu_seconds() > 0.0);
    }
}
