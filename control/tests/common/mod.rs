//! A client, a director and a server in network namespaces of their own, and a running `sluice` among them. Needs root.
//!
//! Everything goes away when the values are dropped, also when a test fails.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says by a panic what went wrong")]
#![allow(unreachable_pub, reason = "a module of test binaries")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take here before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

static LABS: AtomicU32 = AtomicU32::new(0);

/// Three namespaces: client 10.1.0.2, director 10.1.0.1 and 10.2.0.1, server 10.2.0.2.
pub struct Lab {
    name: String,
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let name = format!("sr-{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        let lab = Self { name, dir: tempfile::tempdir().unwrap() };
        let [client, director, server] = [lab.client(), lab.director(), lab.server()];
        for namespace in [&client, &director, &server] {
            ip(&format!("netns add {namespace}"));
            ip(&format!("-n {namespace} link set lo up"));
        }
        for (device, peer, network) in [("eth0", &client, 1), ("eth1", &server, 2)] {
            ip(&format!("-n {director} link add {device} type veth peer name eth0 netns {peer}"));
            ip(&format!("-n {director} addr add 10.{network}.0.1/24 dev {device}"));
            ip(&format!("-n {director} link set {device} up"));
            ip(&format!("-n {peer} addr add 10.{network}.0.2/24 dev eth0"));
            ip(&format!("-n {peer} link set eth0 up"));
            ip(&format!("-n {peer} route add default via 10.{network}.0.1"));
        }
        lab
    }

    pub fn client(&self) -> String {
        format!("{}c", self.name)
    }

    pub fn director(&self) -> String {
        format!("{}d", self.name)
    }

    pub fn server(&self) -> String {
        format!("{}s", self.name)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the configuration: a VIP 10.1.0.100 with a NAT service on port 80 for these servers' ports.
    pub fn configure(&self, server_ports: &[u16]) -> PathBuf {
        let server = |port: &u16| format!("    real_server 10.2.0.2 {port} {{\n        weight 1\n    }}\n");
        let servers = server_ports.iter().map(server).collect::<Vec<_>>().concat();
        let text = format!(
            "static_ipaddress {{\n    10.1.0.100/24 dev eth0\n}}\nvirtual_server 10.1.0.100 80 {{\n    lb_algo rr\n    \
             lb_kind NAT\n    protocol TCP\n{servers}}}\ndataplane {{\n    idle sleep\n    connections 10000\n}}\n"
        );
        let file = self.path("sluice.conf");
        fs::write(&file, text).unwrap();
        file
    }

    /// `sluice` in the director's namespace.
    pub fn sluice(&self, command: &str) -> Command {
        self.sluice_on(command, "state")
    }

    /// The same on another state directory.
    pub fn sluice_on(&self, command: &str, state: &str) -> Command {
        let mut run = Command::new("ip");
        run.args(["netns", "exec", &self.director(), env!("CARGO_BIN_EXE_sluice"), command]);
        run.arg("--state-dir").arg(self.path(state)).env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
        run
    }

    pub fn ask(&self, command: &str) -> Output {
        self.sluice(command).output().unwrap()
    }

    /// Starts `sluice run` and waits until it serves.
    pub fn run(&self, config: &Path) -> Run<'_> {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let before = self.log().matches("the director serves").count();
        let mut command = self.sluice("run");
        command.arg("-f").arg(config).stdout(Stdio::null()).stderr(log);
        let run = Run { lab: self, child: command.spawn().unwrap() };
        self.wait("the director serves", || self.log().matches("the director serves").count() > before);
        run
    }

    /// The status, when a director answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        let answer = self.sluice("status").arg("--json").output().unwrap();
        answer.status.success().then(|| serde_json::from_slice(&answer.stdout).unwrap())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < end, "waited in vain until {what}; log:\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a director leaves in its namespace: XDP programs, its veth pair, the VIP.
    pub fn traces(&self) -> Vec<String> {
        let links = ip(&format!("-n {} -d link", self.director()));
        let addresses = ip(&format!("-n {} addr", self.director()));
        let traces = ["sluice_steer", "sluice0", "sluice1", "10.1.0.100"];
        traces.iter().filter(|t| links.contains(*t) || addresses.contains(*t)).map(ToString::to_string).collect()
    }

    /// Runs something in a thread that is in a namespace.
    pub fn within<T: Send + 'static>(namespace: &str, body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let file = File::open(format!("/run/netns/{namespace}")).unwrap();
        thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            body()
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A director that a failed test left: it is in its namespace, and nobody else is.
        let inside = Command::new("ip").args(["netns", "pids", &self.director()]).output();
        let pids = inside.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = self.sluice("cleanup").output();
        for namespace in [self.client(), self.director(), self.server()] {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        }
    }
}

/// A running `sluice run`.
pub struct Run<'l> {
    lab: &'l Lab,
    pub child: Child,
}

impl Run<'_> {
    /// The guard: `ip netns exec` becomes the program.
    pub fn guard(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn director(&self) -> Pid {
        let status = self.lab.status().unwrap_or_else(|| panic!("no status; log:\n{}", self.lab.log()));
        Pid::from_raw(i32::try_from(status["pid"].as_i64().unwrap()).unwrap())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn stop(mut self) -> std::process::ExitStatus {
        kill(self.guard(), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap()
    }

    /// Kills guard and director.
    pub fn kill_both(mut self) {
        let director = self.director();
        kill(self.guard(), Signal::SIGKILL).unwrap();
        kill(director, Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }
}

/// Runs `ip` and gives its output.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Reads to the end, or fails.
pub fn read_all(mut stream: impl io::Read) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all)
}
