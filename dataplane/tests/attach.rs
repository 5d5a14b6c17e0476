//! Attaching the steering program to real interfaces, over veth in namespaces of each test's own: takeover after a kill,
//! strangers, modes, limits. Needs root, hence the names; run with `cargo nextest run -E 'test(/^root_/)'`.

#![cfg(feature = "afxdp")]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dataplane::port::Ports;
use dataplane::port::xsk::XskPorts;
use dataplane::steer::{AttachMode, Cleaned, Steer, SteerError, SteerLimits, Verdict, cleanup};
use support::director::{
    CLIENT, NEVER, PORT, SOON, VIP, at_rest, director, free_all, places, plan, receive, send_all, small,
};
use support::{Lab, director_mac, inside, interface, ip, number, numbered, other_program};

/// A process that is killed at the end, if it still runs.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: the process that [`root_the_program_outlives_its_killed_loader`] kills.
#[test]
#[ignore = "run by another test, in a process of its own"]
fn loads_attaches_and_waits() {
    let namespace = std::env::var("SLUICE_TEST_NAMESPACE").expect("run by another test only");
    let mut steer = Steer::load(&SteerLimits::default()).unwrap();
    steer.apply(&plan()).unwrap();
    inside(&namespace, || steer.attach(&interface("a0"), 0, AttachMode::Native).unwrap());
    println!("\nattached");
    std::thread::sleep(Duration::from_mins(1));
}

fn start_loader(lab: &Lab) -> Killed {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "loads_attaches_and_waits"])
        .env("SLUICE_TEST_NAMESPACE", &lab.director)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "attached"), "the loader attached its program");
    child
}

#[test]
fn root_the_program_outlives_its_killed_loader() {
    let lab = Lab::new(1);
    let loader = start_loader(&lab);
    let server = lab.director(|| UdpSocket::bind((VIP, PORT)).unwrap());
    let client = lab.peer(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    server.set_read_timeout(Some(NEVER)).unwrap();
    drop(loader);

    client.send_to(b"nobody is there", (VIP, PORT)).unwrap();
    assert_eq!(server.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock, "dropped, not passed");

    // A second director takes over, with its own maps.
    let (steer, mut ports) = director(&lab, 1, 2);
    client.send_to(b"somebody is", (VIP, PORT)).unwrap();
    let frames = receive(&mut ports, 0, 1);
    free_all(&mut ports, frames);
    assert_eq!(steer.counter(Verdict::Redirected).unwrap(), 1);

    drop((steer, ports));
    lab.director(|| {
        assert_eq!(cleanup(&interface("a0")).unwrap(), Cleaned::Removed);
        assert_eq!(cleanup(&interface("a0")).unwrap(), Cleaned::Nothing);
    });
    client.send_to(b"back to the kernel", (VIP, PORT)).unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(server.recv(&mut [0; 64]).unwrap(), 18);
}

#[test]
fn root_a_foreign_program_is_left_alone() {
    let lab = Lab::new(1);
    let stranger = other_program("stranger");
    lab.director(|| {
        let a0 = interface("a0");
        let xdp = libbpf_rs::Xdp::new(stranger.as_fd());
        xdp.attach(a0.index.cast_signed(), libbpf_rs::XdpFlags::DRV_MODE).unwrap();
        let id = xdp.query_id(a0.index.cast_signed(), libbpf_rs::XdpFlags::NONE).unwrap();

        let mut steer = Steer::load(&SteerLimits::default()).unwrap();
        for mode in [AttachMode::Native, AttachMode::Generic] {
            let error = steer.attach(&a0, 0, mode).unwrap_err();
            let SteerError::Foreign { interface, id: found, name } = &error else { panic!("{error}") };
            assert_eq!((interface.as_str(), *found, name.as_str()), ("a0", id, "stranger"));
        }
        steer.detach(&a0).unwrap();
        assert_eq!(cleanup(&a0).unwrap(), Cleaned::Foreign { id, name: "stranger".to_owned() });
        assert_eq!(xdp.query_id(a0.index.cast_signed(), libbpf_rs::XdpFlags::NONE).unwrap(), id);
    });
}

/// Else an upgraded Sluice could not take over from the one before.
#[test]
fn root_our_program_of_another_build_is_replaced() {
    let lab = Lab::new(1);
    let older = other_program("sluice_steer");
    lab.director(|| {
        let a0 = interface("a0");
        let xdp = libbpf_rs::Xdp::new(older.as_fd());
        let id = || xdp.query_id(a0.index.cast_signed(), libbpf_rs::XdpFlags::NONE).unwrap();
        xdp.attach(a0.index.cast_signed(), libbpf_rs::XdpFlags::DRV_MODE).unwrap();
        let before = id();
        let mut steer = Steer::load(&SteerLimits::default()).unwrap();
        assert_eq!(steer.attach(&a0, 0, AttachMode::Native).unwrap(), AttachMode::Native);
        assert_ne!(id(), before);
        // Attaching again changes nothing.
        let attached = id();
        steer.attach(&a0, 0, AttachMode::Native).unwrap();
        assert_eq!(id(), attached);
    });
}

#[test]
fn root_detaching_takes_only_this_program_off() {
    let lab = Lab::new(1);
    lab.director(|| {
        let a0 = interface("a0");
        let mut first = Steer::load(&SteerLimits::default()).unwrap();
        let mut second = Steer::load(&SteerLimits::default()).unwrap();
        first.attach(&a0, 0, AttachMode::Native).unwrap();
        second.attach(&a0, 0, AttachMode::Native).unwrap();
        first.detach(&a0).unwrap();
        assert_eq!(cleanup(&a0).unwrap(), Cleaned::Removed, "the second one's was still there");
        second.detach(&a0).unwrap();
    });
}

#[test]
fn root_generic_mode_steers_too_and_is_replaced_in_its_mode() {
    let lab = Lab::new(1);
    lab.director(|| {
        let a0 = interface("a0");
        let mut first = Steer::load(&SteerLimits::default()).unwrap();
        first.apply(&plan()).unwrap();
        assert_eq!(first.attach(&a0, 0, AttachMode::Generic).unwrap(), AttachMode::Generic);
        let mut second = Steer::load(&SteerLimits::default()).unwrap();
        second.apply(&plan()).unwrap();
        assert_eq!(second.attach(&a0, 0, AttachMode::Native).unwrap(), AttachMode::Generic);
        let mut ports = XskPorts::open(&places('a', 1, 1), &small(), 1500).unwrap();
        for (place, socket, _) in ports.sockets() {
            second.set_socket(place.queue.0, socket).unwrap();
        }
        let generator = lab.peer(|| XskPorts::open(&places('b', 1, 1), &small(), 1500).unwrap());
        send_all(generator, &[numbered(director_mac(0), (CLIENT, VIP), PORT, 7)]);
        for frame in receive(&mut ports, 0, 1) {
            assert_eq!(number(ports.bytes(&frame)), 7);
            ports.free(frame);
        }
        at_rest(&mut ports);
        second.detach(&a0).unwrap();
        assert_eq!(cleanup(&a0).unwrap(), Cleaned::Nothing);
    });
}

#[test]
fn root_an_mtu_too_large_for_the_program_is_named_with_the_limit() {
    let lab = Lab::new(1);
    ip(&format!("-n {} link set a0 mtu 9000", lab.director));
    ip(&format!("-n {} link set b0 mtu 9000", lab.peer));
    lab.director(|| {
        let mut steer = Steer::load(&SteerLimits::default()).unwrap();
        let error = steer.attach(&interface("a0"), 0, AttachMode::Native).unwrap_err();
        assert!(matches!(error, SteerError::MtuTooLarge { mtu: 9000, .. }), "{error}");
        assert!(error.to_string().contains("3506"), "{error}");
    });
    // The limit that the message names is right to the byte.
    for (mtu, fits) in [(3507, false), (3506, true)] {
        ip(&format!("-n {} link set a0 mtu {mtu}", lab.director));
        ip(&format!("-n {} link set b0 mtu {mtu}", lab.peer));
        lab.director(|| {
            let mut steer = Steer::load(&SteerLimits::default()).unwrap();
            assert_eq!(steer.attach(&interface("a0"), 0, AttachMode::Native).is_ok(), fits, "MTU {mtu}");
        });
    }
}
