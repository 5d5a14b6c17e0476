//! One replay in a directory of its own: what goes in, and what came out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use control::config::LoadOptions;
use control::replay::{self, Input, ReplayError, Request, Summary};
use dataplane::port::capture::{self, CaptureWriter};
use serde_json::Value;

/// A director between a gateway (eth0) and its real servers (eth1), two for each family.
pub(crate) const MACHINE: &str = "
    link add eth0 address 02:00:00:00:00:10 mtu 1500   # clients
    link add eth1 address 02:00:00:00:00:11 mtu 1500   # servers
    addr add 203.0.113.1/24 dev eth0
    addr add 10.1.0.1/24 dev eth1
    addr add 2001:db8::1/64 dev eth0 nodad
    addr add 2001:db8:1::1/64 dev eth1 nodad
    route add default via 203.0.113.254
    -6 route add default via 2001:db8::fe dev eth0
    neigh add 203.0.113.254 lladdr 02:00:00:00:00:fe dev eth0
    neigh add 2001:db8::fe lladdr 02:00:00:00:00:fe dev eth0
    neigh add 10.1.0.10 lladdr 02:00:00:00:01:0a dev eth1
    neigh add 10.1.0.11 lladdr 02:00:00:00:01:0b dev eth1
    neigh add 2001:db8:1::a lladdr 02:00:00:00:01:0a dev eth1
    neigh add 2001:db8:1::b lladdr 02:00:00:00:01:0b dev eth1";

pub(crate) const CLIENT4: &str = "198.51.100.7:40000";
pub(crate) const CLIENT6: &str = "[2001:db8:c::7]:40000";
pub(crate) const VIP4: &str = "203.0.113.80:80";
pub(crate) const VIP6: &str = "[2001:db8:80::1]:80";

/// Both VIPs as services of one method, each with one real server on `port`.
pub(crate) fn config(method: &str, port: u16) -> String {
    let service = |vip: &str, server: &str| {
        format!(
            "virtual_server {vip} 80 {{\n lb_algo rr\n lb_kind {method}\n protocol TCP\n \
             real_server {server} {port} {{\n weight 1\n }}\n}}\n"
        )
    };
    format!(
        "static_ipaddress {{\n 203.0.113.80/32 dev eth0\n 2001:db8:80::1/128 dev eth0\n}}\n{}{}",
        service("203.0.113.80", "10.1.0.10"),
        service("2001:db8:80::1", "2001:db8:1::a")
    )
}

/// A directory with the inputs of a replay.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    inputs: Vec<Input>,
    pub(crate) workers: usize,
}

/// What came of one.
pub(crate) struct Outcome {
    pub(crate) summary: Summary,
    pub(crate) result: Value,
    dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new(config: &str, machine: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sluice.conf"), config).unwrap();
        std::fs::write(dir.path().join("machine.txt"), machine).unwrap();
        Self { dir, inputs: Vec::new(), workers: 1 }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Frames that arrive on an interface, each at its time in milliseconds.
    pub(crate) fn arrive(&mut self, interface: &str, frames: &[(u64, Vec<u8>)]) {
        let mut writer = CaptureWriter::new(Vec::new()).unwrap();
        for (time, frame) in frames {
            writer.write(EPOCH + Duration::from_millis(*time), frame).unwrap();
        }
        self.arrive_file(interface, &writer.finish().unwrap());
    }

    /// A file as the input of an interface.
    pub(crate) fn arrive_file(&mut self, interface: &str, contents: &[u8]) {
        let file = self.path(&format!("in-{interface}.pcap"));
        std::fs::write(&file, contents).unwrap();
        self.inputs.push(Input { interface: interface.into(), file });
    }

    pub(crate) fn request(&self) -> Request {
        Request {
            configs: vec![self.path("sluice.conf")],
            options: LoadOptions::default(),
            topology: self.path("machine.txt"),
            inputs: self.inputs.clone(),
            out_dir: self.path("out"),
            workers: self.workers,
        }
    }

    pub(crate) fn run(self) -> Outcome {
        let summary = replay::run(&self.request()).unwrap_or_else(|error| panic!("{error}"));
        let text = std::fs::read(self.path("out/result.json")).unwrap();
        Outcome { summary, result: serde_json::from_slice(&text).unwrap(), dir: self.dir }
    }

    pub(crate) fn error(&self) -> ReplayError {
        replay::run(&self.request()).expect_err("the replay should fail")
    }
}

/// The time of millisecond 0 in every input.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_700_000_000);

impl Outcome {
    /// The frames that left by an interface, every one of them parsed and its checksums verified.
    pub(crate) fn frames(&self, interface: &str) -> Vec<Vec<u8>> {
        let packets = capture::read(&self.path(&format!("out/{interface}.pcap"))).unwrap();
        let frames: Vec<Vec<u8>> = packets.into_iter().map(|packet| packet.bytes).collect();
        for frame in &frames {
            crate::frames::assert_sound(frame);
        }
        frames
    }

    /// The fate of the n-th packet in the order of times.
    pub(crate) fn fate(&self, n: usize) -> &Value {
        &self.result["packets"][n]
    }

    pub(crate) fn drops(&self, reason: &str) -> u64 {
        self.result["counters"]["drops"][reason].as_u64().unwrap()
    }

    pub(crate) fn event(&self, event: &str) -> u64 {
        self.result["counters"]["events"][event].as_u64().unwrap()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.dir.path()).join(name)
    }
}
