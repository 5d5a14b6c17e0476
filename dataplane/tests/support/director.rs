//! A director with its program and sockets in the [`Lab`], and what tests do with its ports.

use std::time::Duration;

use dataplane::ident::{PortIndex, Protocol, QueueIndex};
use dataplane::port::xsk::{CopyMode, SocketPlace, XskConfig, XskPorts};
use dataplane::port::{Burst, Frame, Ports};
use dataplane::steer::{AttachMode, Steer, SteerLimits, SteerPlan};

use super::{Lab, director_mac, eventually, interface, service};

pub(crate) const VIP: &str = "10.9.0.1";
pub(crate) const CLIENT: &str = "10.9.0.2";
pub(crate) const PORT: u16 = 4000;
pub(crate) const SOON: Duration = Duration::from_secs(3);
pub(crate) const NEVER: Duration = Duration::from_millis(150);

pub(crate) fn places(device: char, pairs: u8, queues: u32) -> Vec<SocketPlace> {
    let queue = |n, q| SocketPlace { port: PortIndex(n), interface: format!("{device}{n}"), queue: QueueIndex(q) };
    (0..pairs).flat_map(|n| (0..queues).map(move |q| queue(n, q))).collect()
}

pub(crate) fn small() -> XskConfig {
    XskConfig { frames_per_socket: 1024, rx_size: 256, tx_size: 256, ..XskConfig::default() }
}

/// Steering for the one service of these tests, on every MAC of the director.
pub(crate) fn plan() -> SteerPlan {
    SteerPlan {
        macs: (0..4).map(director_mac).collect(),
        services: [service(Protocol::Udp, VIP, PORT)].into(),
        ..SteerPlan::default()
    }
}

/// A director with `pairs` ports of `queues` queues, its sockets behind its program.
pub(crate) fn director(lab: &Lab, pairs: u8, queues: u32) -> (Steer, XskPorts) {
    director_with(lab, pairs, queues, &small())
}

/// The same with other sockets.
pub(crate) fn director_with(lab: &Lab, pairs: u8, queues: u32, config: &XskConfig) -> (Steer, XskPorts) {
    lab.director(|| {
        let mut steer = Steer::load(&SteerLimits::default()).unwrap();
        steer.apply(&plan()).unwrap();
        for n in 0..pairs {
            let mode = steer.attach(&interface(&format!("a{n}")), u32::from(n) * 2, AttachMode::Native).unwrap();
            assert_eq!(mode, AttachMode::Native);
        }
        let ports = XskPorts::open(&places('a', pairs, queues), config, 1500).unwrap();
        for (place, socket, mode) in ports.sockets() {
            assert_eq!(mode, CopyMode::Copy);
            steer.set_socket(u32::from(place.port.0) * 2 + place.queue.0, socket).unwrap();
        }
        (steer, ports)
    })
}

/// Receives on a port until there are `count` frames.
pub(crate) fn receive(ports: &mut XskPorts, port: u8, count: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    eventually(&format!("{count} frames on port {port}"), || {
        let mut burst = Burst::new();
        ports.receive(PortIndex(port), &mut burst);
        frames.extend(burst);
        frames.len() >= count
    });
    frames
}

pub(crate) fn free_all(ports: &mut XskPorts, frames: impl IntoIterator<Item = Frame>) {
    for frame in frames {
        ports.free(frame);
    }
}

pub(crate) fn allocate(ports: &mut XskPorts, bytes: &[u8]) -> Frame {
    let mut frame = ports.allocate().expect("a free frame");
    frame.set_len(bytes.len());
    ports.bytes_mut(&mut frame).copy_from_slice(bytes);
    frame
}

/// Nothing is on its way, nothing held, and every frame is somewhere.
pub(crate) fn at_rest(ports: &mut XskPorts) {
    eventually("all frames at rest", || {
        ports.flush();
        let audit = ports.audit();
        assert_eq!(audit.total(), ports.frames(), "{audit:?}");
        (audit.rx, audit.tx, audit.completing, audit.held) == (0, 0, 0, 0)
    });
}

/// Sends frames by AF_XDP on queue 0 of `ports`' first port.
pub(crate) fn send_all(mut ports: XskPorts, frames: &[Vec<u8>]) {
    for bytes in frames {
        let frame = allocate(&mut ports, bytes);
        ports.transmit(PortIndex(0), frame).unwrap();
    }
    at_rest(&mut ports);
}
