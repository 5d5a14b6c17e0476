//! What the figures were measured on, and whether it was quiet enough.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine and the code.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name and how many of its cores there are.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// The commit of the source tree; `+` where it was changed since.
    pub commit: String,
    /// Whether the kernel gives huge pages: `always`, `madvise` or `never`.
    pub huge_pages: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        // Not the thread's own count: it may be pinned to one.
        let cores = read("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
        Self {
            cpu: format!("{}, {cores} cores", cpu_name()),
            kernel: read("/proc/sys/kernel/osrelease"),
            commit: commit(),
            huge_pages: huge_pages(),
        }
    }
}

fn cpu_name() -> String {
    let info = read("/proc/cpuinfo");
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

fn huge_pages() -> String {
    let modes = read("/sys/kernel/mm/transparent_hugepage/enabled");
    let chosen = modes.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or_else(|| "unknown".to_owned(), |(mode, _)| mode.to_owned())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    if is_changed { hash + "+" } else { hash }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// How much else ran while something was measured.
#[derive(Clone, Copy, Debug)]
pub struct Quiet {
    preemptions: u64,
    stolen: u64,
}

impl Quiet {
    /// Begins to watch the calling thread.
    pub fn watch() -> Self {
        Self { preemptions: preemptions(), stolen: stolen() }
    }

    /// What disturbed the thread since, in words for a warning.
    pub fn disturbance(&self, seconds: f64) -> Option<String> {
        let preemptions = preemptions().saturating_sub(self.preemptions);
        let stolen = stolen().saturating_sub(self.stolen);
        // A timer or kernel thread now and then is ordinary; fifty a second is another program on the core.
        let limit = (seconds * 50.0).max(20.0) as u64;
        if preemptions > limit {
            return Some(format!(
                "the thread was preempted {preemptions} times in {seconds:.1} s; another program is running"
            ));
        }
        // In ticks of 10 ms, over all cores.
        if stolen as f64 > seconds * 2.0 {
            return Some(format!("the host took {} ms of processor time", stolen * 10));
        }
        None
    }
}

fn preemptions() -> u64 {
    let status = read("/proc/thread-self/status");
    let count = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    count.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Ticks that the hypervisor gave to others: the eighth number of the first line.
fn stolen() -> u64 {
    let stat = read("/proc/stat");
    stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_name_and_a_kernel() {
        let machine = Machine::here();
        assert!(!machine.cpu.is_empty() && !machine.kernel.is_empty(), "{machine:?}");
    }
}
