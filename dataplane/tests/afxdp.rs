//! AF_XDP ports and the steering program against the real kernel, over veth in namespaces of each test's own. Every test
//! here needs root and is named so; run them with `cargo nextest run -E 'test(/^root_/)'`.

#![cfg(feature = "afxdp")]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::Duration;

use dataplane::ident::{PortIndex, QueueIndex};
use dataplane::port::xsk::{BindMode, BusyPoll, SocketPlace, WakeUp, XskConfig, XskError, XskPorts};
use dataplane::port::{Burst, Ports};
use dataplane::steer::{AttachMode, Steer, SteerLimits, SteerPlan, Verdict};
use support::director::{
    CLIENT, NEVER, PORT, SOON, VIP, allocate, at_rest, director, director_with, free_all, places, plan, receive,
    send_all, small,
};
use support::{Lab, Wire, director_mac, eventually, interface, ip, number, numbered, peer_mac};

fn sends_at_once(count: u32, tx_size: u32) {
    let lab = Lab::new(1);
    let wire = lab.peer(|| Wire::on("b0"));
    let config = XskConfig { tx_size, ..small() };
    let mut ports = lab.director(|| XskPorts::open(&places('a', 1, 1), &config, 1500)).unwrap();
    for n in 0..count {
        let frame = allocate(&mut ports, &numbered(peer_mac(0), (VIP, CLIENT), PORT, n));
        ports.transmit(PortIndex(0), frame).unwrap();
    }
    ports.flush();
    assert_eq!(ports.audit().tx, 0, "one flush drains the ring");
    for n in 0..count {
        assert_eq!(wire.receive(SOON).map(|frame| number(&frame)), Some(n));
    }
    at_rest(&mut ports);
}

#[test]
fn root_64_frames_leave_at_once() {
    sends_at_once(64, 64);
}

#[test]
fn root_512_frames_leave_at_once() {
    sends_at_once(512, 512);
}

/// A full ring is drained by the sender itself, so a larger burst than the ring loses nothing either.
#[test]
fn root_more_frames_than_the_ring_holds_leave_at_once() {
    sends_at_once(512, 64);
}

#[test]
fn root_a_service_is_caught_and_the_rest_stays_with_the_kernel() {
    let lab = Lab::new(1);
    let (steer, mut ports) = director(&lab, 1, 2);
    let kernel = lab.director(|| UdpSocket::bind((VIP, PORT + 1)).unwrap());
    let caught = lab.director(|| UdpSocket::bind((VIP, PORT)).unwrap());
    let client = lab.peer(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    for socket in [&kernel, &caught] {
        socket.set_read_timeout(Some(SOON)).unwrap();
    }

    client.send_to(b"for the kernel", (VIP, PORT + 1)).unwrap();
    let mut text = [0; 64];
    let (length, from) = kernel.recv_from(&mut text).unwrap();
    assert_eq!(&text[..length], b"for the kernel");
    kernel.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv(&mut text).unwrap(), 6);

    client.send_to(b"for the worker", (VIP, PORT)).unwrap();
    let frames = receive(&mut ports, 0, 1);
    for frame in frames {
        assert_eq!(frame.head(), 256);
        assert_eq!(&ports.bytes(&frame)[42..56], b"for the worker");
        ports.free(frame);
    }
    caught.set_read_timeout(Some(NEVER)).unwrap();
    assert_eq!(caught.recv(&mut text).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(steer.counter(Verdict::HitService).unwrap(), 1);
    assert_eq!(steer.counter(Verdict::Redirected).unwrap(), 1);
    assert!(steer.counter(Verdict::PassedMiss).unwrap() >= 1);
    assert!(steer.counter(Verdict::PassedNotOurs).unwrap() >= 1, "ARP is sent to all");
    at_rest(&mut ports);
}

#[test]
fn root_a_frame_is_forwarded_with_a_header_in_front_of_it() {
    let lab = Lab::new(2);
    let (_steer, mut ports) = director(&lab, 2, 1);
    let to = lab.peer(|| Wire::on("b1"));
    let frames: Vec<_> = (0..40).map(|n| numbered(director_mac(0), (CLIENT, VIP), PORT, n)).collect();
    let generator = lab.peer(|| XskPorts::open(&places('b', 1, 1), &small(), 1500).unwrap());
    // From queue 0 of the peer they arrive on queue 0.
    send_all(generator, &frames);
    for mut frame in receive(&mut ports, 0, frames.len()) {
        let inner = ports.bytes(&frame).to_vec();
        assert!(frame.grow_front(20), "the kernel leaves 256 bytes");
        assert_eq!(frame.head(), 236);
        let outer = ports.bytes_mut(&mut frame);
        outer[..6].copy_from_slice(&peer_mac(1).0);
        outer[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 0x08, 0x00]);
        outer[14..34].fill(0xaa);
        assert_eq!(outer.len(), inner.len() + 20);
        ports.transmit(PortIndex(1), frame).unwrap();
    }
    ports.flush();
    for frame in &frames {
        let arrived = to.receive(SOON).expect("a forwarded frame");
        assert_eq!(arrived[..6], peer_mac(1).0);
        assert_eq!(arrived[14..34], [0xaa; 20]);
        assert_eq!(arrived[34..], frame[14..]);
    }
    at_rest(&mut ports);
}

#[test]
fn root_two_queues_of_two_interfaces_share_one_umem() {
    let lab = Lab::new(2);
    let (_steer, mut ports) = director(&lab, 2, 2);
    let wires = lab.peer(|| [Wire::on("b0"), Wire::on("b1")]);
    for round in 0..8u32 {
        // A frame that leaves the peer by queue q arrives on queue q, and the kernel gives it to no other socket.
        for (n, q) in [(0u8, 0u32), (0, 1), (1, 0), (1, 1)] {
            let place = SocketPlace { port: PortIndex(0), interface: format!("b{n}"), queue: QueueIndex(q) };
            let generator = lab.peer(|| XskPorts::open(&[place], &small(), 1500).unwrap());
            let frames: Vec<_> =
                (0..100).map(|k| numbered(director_mac(n), (CLIENT, VIP), PORT, round * 100 + k)).collect();
            send_all(generator, &frames);
            let other = 1 - n;
            for mut frame in receive(&mut ports, n, 100) {
                ports.bytes_mut(&mut frame)[..6].copy_from_slice(&peer_mac(other).0);
                ports.transmit(PortIndex(other), frame).unwrap();
            }
            ports.flush();
            for k in 0..100 {
                let arrived = wires[usize::from(other)].receive(SOON).expect("a forwarded frame");
                assert_eq!((number(&arrived), &arrived[..6]), (round * 100 + k, &peer_mac(other).0[..]));
            }
            at_rest(&mut ports);
        }
    }
}

#[test]
fn root_every_queue_is_served_while_another_is_never_empty() {
    let lab = Lab::new(1);
    let (_steer, mut ports) = director(&lab, 1, 2);
    for (q, count) in [(0, 200u32), (1, 10)] {
        let place = SocketPlace { port: PortIndex(0), interface: "b0".to_owned(), queue: QueueIndex(q) };
        let generator = lab.peer(|| XskPorts::open(&[place], &small(), 1500).unwrap());
        let frames: Vec<_> = (0..count).map(|k| numbered(director_mac(0), (CLIENT, VIP), PORT, q * 1000 + k)).collect();
        send_all(generator, &frames);
    }
    let rx = |ports: &mut XskPorts| ports.audit().rx;
    eventually("210 frames wait", || rx(&mut ports) == 210);
    // Queue 0 alone would fill three bursts; queue 1 must be heard within two.
    let mut numbers = BTreeSet::new();
    for _ in 0..2 {
        let mut burst = Burst::new();
        ports.receive(PortIndex(0), &mut burst);
        for frame in burst {
            numbers.insert(number(ports.bytes(&frame)));
            ports.free(frame);
        }
    }
    assert!((1000..1010).all(|n| numbers.contains(&n)), "{numbers:?}");
}

#[test]
fn root_a_hit_without_a_socket_is_dropped_and_counted() {
    let lab = Lab::new(1);
    let (mut steer, ports) = director(&lab, 1, 2);
    let server = lab.director(|| UdpSocket::bind((VIP, PORT)).unwrap());
    let client = lab.peer(|| UdpSocket::bind((CLIENT, 0)).unwrap());
    server.set_read_timeout(Some(NEVER)).unwrap();
    let silent = |text: &str| {
        client.send_to(text.as_bytes(), (VIP, PORT)).unwrap();
        assert_eq!(server.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    };
    steer.clear_socket(0).unwrap();
    steer.clear_socket(1).unwrap();
    steer.clear_socket(1).unwrap();
    silent("sockets taken out");
    assert_eq!(steer.counter(Verdict::NoSocket).unwrap(), 1);
    for (place, socket, _) in ports.sockets() {
        steer.set_socket(place.queue.0, socket).unwrap();
    }
    drop(ports);
    silent("sockets closed");
    assert_eq!(steer.counter(Verdict::NoSocket).unwrap(), 2);
    assert_eq!(steer.counter(Verdict::Redirected).unwrap(), 0);

    let away = SteerPlan { services: BTreeSet::new(), ..plan() };
    steer.apply(&away).unwrap();
    server.set_read_timeout(Some(SOON)).unwrap();
    client.send_to(b"no service any more", (VIP, PORT)).unwrap();
    assert_eq!(server.recv(&mut [0; 64]).unwrap(), 19);
}

/// Frames of 4 KiB carry what an MTU near the limit allows, and a header in front of it.
#[test]
fn root_large_packets_pass_whole() {
    let lab = Lab::new(1);
    ip(&format!("-n {} link set a0 mtu 3506", lab.director));
    ip(&format!("-n {} link set b0 mtu 3506", lab.peer));
    let (_steer, mut ports) = lab.director(|| {
        let mut steer = Steer::load(&SteerLimits::default()).unwrap();
        steer.apply(&plan()).unwrap();
        steer.attach(&interface("a0"), 0, AttachMode::Native).unwrap();
        let ports = XskPorts::open(&places('a', 1, 2), &small(), 3506).unwrap();
        for (place, socket, _) in ports.sockets() {
            steer.set_socket(place.queue.0, socket).unwrap();
        }
        (steer, ports)
    });
    let mut packet = numbered(director_mac(0), (CLIENT, VIP), PORT, 1);
    packet.extend((0..3460u32).map(|n| n as u8));
    let wire = lab.peer(|| Wire::on("b0"));
    wire.send(&packet);
    for mut frame in receive(&mut ports, 0, 1) {
        assert_eq!(ports.bytes(&frame), packet);
        ports.bytes_mut(&mut frame)[..6].copy_from_slice(&peer_mac(0).0);
        ports.transmit(PortIndex(0), frame).unwrap();
    }
    ports.flush();
    assert_eq!(wire.receive(SOON).expect("it comes back")[6..], packet[6..]);
    at_rest(&mut ports);
}

#[test]
fn root_no_frame_leaks_whatever_becomes_of_it() {
    let lab = Lab::new(2);
    let (_steer, mut ports) = director(&lab, 2, 1);
    for round in 0..50u32 {
        let generator = lab.peer(|| XskPorts::open(&places('b', 1, 1), &small(), 1500).unwrap());
        let frames: Vec<_> = (0..64).map(|k| numbered(director_mac(0), (CLIENT, VIP), PORT, k)).collect();
        send_all(generator, &frames);
        for (k, mut frame) in receive(&mut ports, 0, frames.len()).into_iter().enumerate() {
            match k % 4 {
                0 => ports.free(frame),
                1 => ports.transmit(PortIndex(1), frame).unwrap(),
                2 => {
                    frame.set_len(60_000);
                    assert_eq!(ports.bytes(&frame).len(), 2048 - 256, "cut to its chunk");
                    frame.set_len(60);
                    ports.transmit(PortIndex(0), frame).unwrap();
                }
                _ => {
                    frame.set_len(0);
                    let back = ports.transmit(PortIndex(1), frame).unwrap_err();
                    let back = ports.transmit(PortIndex(9), back).unwrap_err();
                    ports.free(back);
                }
            }
        }
        let audit = ports.audit();
        assert_eq!((audit.total(), audit.held), (ports.frames(), 0), "round {round}: {audit:?}");
    }
    at_rest(&mut ports);
    // The pool runs dry without harm, and every frame of it comes back.
    let mut held = Vec::new();
    while let Some(frame) = ports.allocate() {
        held.push(frame);
    }
    let audit = ports.audit();
    assert_eq!((audit.held as usize, audit.free, audit.total()), (held.len(), 0, ports.frames()));
    free_all(&mut ports, held);
    at_rest(&mut ports);
    for (place, statistics) in ports.statistics() {
        let statistics = statistics.unwrap();
        assert_eq!((statistics.rx_invalid, statistics.tx_invalid), (0, 0), "{place:?}");
    }
}

/// The kernel and three threads work the rings at once, at whatever rate this machine reaches.
#[test]
fn root_full_speed_in_both_directions_leaks_nothing() {
    const FRAMES: u32 = 200_000;
    let lab = Lab::new(2);
    let (_steer, mut ports) = director(&lab, 2, 1);
    let config = XskConfig { frames_per_socket: 2048, ..small() };
    let open = |n: u8| {
        let place = SocketPlace { port: PortIndex(0), interface: format!("b{n}"), queue: QueueIndex(0) };
        lab.peer(|| XskPorts::open(&[place], &config, 1500).unwrap())
    };
    let generator = |n: u8| {
        let mut out = open(n);
        move || {
            let frame = numbered(director_mac(n), (CLIENT, VIP), PORT, 0);
            for _ in 0..FRAMES / 64 {
                for _ in 0..64 {
                    let next = allocate(&mut out, &frame);
                    if let Err(back) = out.transmit(PortIndex(0), next) {
                        out.free(back);
                    }
                }
                out.flush();
            }
            at_rest(&mut out);
        }
    };
    let (left, right) = (generator(0), generator(1));
    let mut forwarded = [0u32; 2];
    std::thread::scope(|scope| {
        let running = [scope.spawn(left), scope.spawn(right)];
        while running.iter().any(|thread| !thread.is_finished()) {
            for n in 0..2u8 {
                let mut burst = Burst::new();
                ports.receive(PortIndex(n), &mut burst);
                for mut frame in burst {
                    ports.bytes_mut(&mut frame)[..6].copy_from_slice(&peer_mac(1 - n).0);
                    match ports.transmit(PortIndex(1 - n), frame) {
                        Ok(()) => forwarded[usize::from(n)] += 1,
                        Err(back) => ports.free(back),
                    }
                }
            }
            ports.flush();
        }
    });
    for n in 0..2 {
        let mut burst = Burst::new();
        loop {
            ports.receive(PortIndex(n), &mut burst);
            if burst.is_empty() {
                break;
            }
            free_all(&mut ports, burst.drain(..));
        }
    }
    at_rest(&mut ports);
    println!("forwarded {forwarded:?} of {FRAMES} each");
    assert!(forwarded.iter().all(|n| *n > 64), "{forwarded:?}");
}

#[test]
fn root_an_interface_that_is_down_loses_no_frame() {
    let lab = Lab::new(1);
    let config = XskConfig { wake_up: WakeUp::Epoll, ..small() };
    let mut ports = lab.director(|| XskPorts::open(&places('a', 1, 1), &config, 1500)).unwrap();
    ip(&format!("-n {} link set a0 down", lab.director));
    let mut refused = 0;
    for n in 0..300 {
        let frame = allocate(&mut ports, &numbered(peer_mac(0), (VIP, CLIENT), PORT, n));
        if let Err(frame) = ports.transmit(PortIndex(0), frame) {
            ports.free(frame);
            refused += 1;
        }
    }
    ports.flush();
    assert_eq!(refused, 300 - 256, "the ring's size was taken");
    assert_eq!(ports.audit().total(), ports.frames());
    let start = std::time::Instant::now();
    ports.wait(Duration::from_millis(30));
    assert!(start.elapsed() >= Duration::from_millis(30), "what cannot be sent keeps nobody awake");
    ip(&format!("-n {} link set a0 up", lab.director));
    at_rest(&mut ports);
}

#[test]
fn root_waiting_ends_with_a_packet_or_the_timeout() {
    for wake_up in [WakeUp::Poll, WakeUp::Epoll] {
        waits(wake_up);
    }
}

fn waits(wake_up: WakeUp) {
    let lab = Lab::new(1);
    let (_steer, mut ports) = director_with(&lab, 1, 2, &XskConfig { wake_up, ..small() });
    let start = std::time::Instant::now();
    ports.wait(Duration::from_millis(30));
    assert!(start.elapsed() >= Duration::from_millis(30));
    lab.peer(|| Wire::on("b0")).send(&numbered(director_mac(0), (CLIENT, VIP), PORT, 1));
    let start = std::time::Instant::now();
    ports.wait(Duration::from_secs(20));
    assert!(start.elapsed() < Duration::from_secs(10));
    let frames = receive(&mut ports, 0, 1);
    free_all(&mut ports, frames);
}

#[test]
fn root_a_queue_that_is_just_left_is_waited_for() {
    let lab = Lab::new(1);
    let open = || lab.director(|| XskPorts::open(&places('a', 1, 1), &small(), 1500));
    let first = open().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(400));
            drop(first);
        });
        let mut second = open().expect("the queue becomes free in time");
        at_rest(&mut second);
        let error = open().unwrap_err();
        assert!(matches!(&error, XskError::Bind { interface, queue: 0, .. } if interface == "a0"), "{error}");
        assert!(error.to_string().contains("another program"), "{error}");
    });
}

#[test]
fn root_what_cannot_be_bound_says_why() {
    let lab = Lab::new(1);
    let open = |interface: &str, queue, bind| {
        let place = SocketPlace { port: PortIndex(0), interface: interface.to_owned(), queue: QueueIndex(queue) };
        lab.director(|| XskPorts::open(&[place], &XskConfig { bind, ..small() }, 1500)).unwrap_err().to_string()
    };
    assert!(open("absent", 0, BindMode::Auto).contains("no such interface"), "{}", open("absent", 0, BindMode::Auto));
    assert!(open("a0", 7, BindMode::Auto).contains("queue 7"));
    assert!(open("a0", 0, BindMode::ZeroCopy).contains("no zero-copy"), "{}", open("a0", 0, BindMode::ZeroCopy));
}

#[test]
fn root_busy_polling_receives_and_sends() {
    let lab = Lab::new(1);
    let (mut steer, ports) = director(&lab, 1, 1);
    drop(ports);
    let config = XskConfig { busy_poll: Some(BusyPoll { microseconds: 20, budget: 64 }), ..small() };
    let mut ports = lab.director(|| XskPorts::open(&places('a', 1, 1), &config, 1500)).unwrap();
    for (place, socket, _) in ports.sockets() {
        steer.set_socket(place.queue.0, socket).unwrap();
    }
    let generator = lab.peer(|| XskPorts::open(&places('b', 1, 1), &small(), 1500).unwrap());
    let frames: Vec<_> = (0..64).map(|k| numbered(director_mac(0), (CLIENT, VIP), PORT, k)).collect();
    send_all(generator, &frames);
    for frame in receive(&mut ports, 0, 64) {
        ports.transmit(PortIndex(0), frame).unwrap();
    }
    at_rest(&mut ports);
}
