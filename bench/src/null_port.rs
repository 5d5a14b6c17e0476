//! What DPDK's in-memory port costs: `dpdk-testpmd` between two `net_null` ports, which make and forget packets as the
//! ports of these benchmarks do.

use std::io;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::BenchError;
use crate::results::{Measured, Row};

/// How long it may take to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many times as long it may run where the machine is so busy that it has told no rate by then.
const LONGER: [u32; 3] = [1, 2, 4];

/// Lets it run so long, forwarding on one core with frames of `size` bytes that it copies.
///
/// # Errors
/// When it is not installed, or says no rates.
pub(crate) fn run(size: usize, core: usize, time: Duration) -> Result<Measured, BenchError> {
    let mut said = String::new();
    for times in LONGER {
        said = output(size, core, time * times)?;
        if let Some(rate) = rate(&said).filter(|rate| *rate > 0.0) {
            let row = Row::default()
                .with("what", "dpdk-testpmd, net_null, mac mode")
                .with("size", size)
                .with("mpps", rate / 1e6)
                .with("ns_per_packet", 1e9 / rate);
            return Ok(Measured::one(row, Vec::new()));
        }
    }
    Err(BenchError::Unexpected { program: "dpdk-testpmd", said })
}

/// What it says when it runs so long.
fn output(size: usize, core: usize, time: Duration) -> Result<String, BenchError> {
    let port = |n: usize| format!("--vdev=net_null{n},size={size},copy=1");
    let (control, cores) = if core == 0 { (1, "0,1".to_owned()) } else { (0, format!("0,{core}")) };
    let mut child = Command::new("dpdk-testpmd")
        .args(["--no-huge", "-m", "512", "--no-pci", "--no-telemetry", "--no-shconf"])
        .args([port(0), port(1), "-l".into(), cores, "--main-lcore".into(), control.to_string(), "--".into()])
        .args(["--total-num-mbufs=16384", "--forward-mode=mac", "--auto-start", "--stats-period=1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => BenchError::NotInstalled { program: "dpdk-testpmd", package: "dpdk-dev" },
            _ => BenchError::Output(error),
        })?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (over, ends) = mpsc::channel();
    let timer = thread::spawn(move || stop(pid, &ends, time));
    // It would end with its standard input.
    let input = child.stdin.take();
    let output = child.wait_with_output()?;
    drop((input, over));
    let _ = timer.join();
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Interrupts a process when its time is over, and ends it when it does not listen; not one that is over already.
fn stop(pid: Pid, ends: &Receiver<()>, time: Duration) {
    for (patience, signal) in [(time, Signal::SIGINT), (PATIENCE, Signal::SIGKILL)] {
        if ends.recv_timeout(patience) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        // It may have ended this moment.
        let _ = kill(pid, signal);
    }
}

/// Packets a second of both ports, by the highest of the seconds that it told: the first holds its start.
fn rate(said: &str) -> Option<f64> {
    let rates: Vec<f64> = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Rx-pps:")?.split_whitespace().next()?.parse().ok())
        .collect();
    rates.chunks_exact(2).map(|ports| ports[0] + ports[1]).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_both_ports_are_added() {
        let said = "  Rx-pps:            0          Rx-bps:            0\n  Rx-pps:  0  Rx-bps: 0\n\
                    text\n  Rx-pps:  21000000  Rx-bps: 0\n  Rx-pps:  20000000  Rx-bps: 0\n";
        assert_eq!(rate(said), Some(41_000_000.0));
        assert_eq!(rate(""), None);
    }
}
