//! The client against the server without state, and against another TCP: smoltcp's.

use std::time::Duration;

use dataplane::ident::{MacAddr, PortIndex};
use dataplane::port::MemoryPorts;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::*;
use crate::stream::{Link, Rate};

const PORT: PortIndex = PortIndex(0);
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const SERVER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn plan(count: u64, most: usize, request: &str) -> Plan {
    Plan {
        from: "10.0.0.1:1000-1063".parse().unwrap(),
        to: "10.0.0.2:80".parse().unwrap(),
        link: Link { from: CLIENT, to: SERVER },
        rate: Rate::Max,
        most,
        count,
        request: request.as_bytes().to_vec(),
        timeout: Duration::from_secs(5),
    }
}

/// Time that goes as fast as the test does.
fn at(milliseconds: u64) -> Duration {
    Duration::from_millis(1_000_000 + milliseconds)
}

/// Runs a client against the stateless server over lines that drop every so manieth frame; at most a minute of its time.
fn converse(plan: Plan, drops_each: u32) -> (ClientCounts, Served) {
    let (mut near, mut far) = (MemoryPorts::new(1, 512), MemoryPorts::new(1, 512));
    let mut client = Client::new(plan, at(0)).unwrap();
    let mut server = Server::new(1000);
    let mut frames = 0u32;
    let mut carry = |from: &mut MemoryPorts, to: &mut MemoryPorts| {
        while let Some(frame) = from.sent(PORT) {
            frames += 1;
            assert!(frames.is_multiple_of(drops_each) || to.inject(PORT, &frame));
        }
    };
    for step in 0..60_000 {
        if client.is_done() {
            break;
        }
        client.turn(&mut near, PORT, at(step));
        carry(&mut near, &mut far);
        server.turn(&mut far, PORT);
        carry(&mut far, &mut near);
    }
    assert_eq!((near.available(), far.available()), (512, 512), "no frame is lost inside");
    (client.counts(), server.served())
}

#[test]
fn every_connection_is_opened_used_and_ended() {
    let (client, server) = converse(plan(500, 10, "GET /"), u32::MAX);
    let expected = ClientCounts { begun: 500, opened: 500, completed: 500, bytes: 500_000, ..ClientCounts::default() };
    assert_eq!(client, expected);
    assert_eq!((server.syns, server.requests, server.fins, server.resets), (500, 500, 500, 0));
}

#[test]
fn without_a_request_the_client_ends_first() {
    let (client, server) = converse(plan(500, 64, ""), u32::MAX);
    assert_eq!((client.completed, client.bytes, client.retransmitted), (500, 0, 0));
    assert_eq!((server.syns, server.requests, server.fins), (500, 0, 500));
}

#[test]
fn what_is_lost_is_sent_again() {
    for request in ["GET /", ""] {
        let (client, _) = converse(plan(500, 20, request), 13);
        assert_eq!(client.begun, 500);
        assert!(client.completed > 480 && client.retransmitted > 50, "{client:?}");
        assert_eq!(client.completed + client.refused + client.reset + client.timed_out, 500, "{client:?}");
    }
}

#[test]
fn a_server_that_is_silent_times_out() {
    let (client, _) = converse(plan(5, 5, ""), 1);
    assert_eq!((client.begun, client.opened, client.timed_out), (5, 0, 5));
    assert!(client.retransmitted >= 10, "{client:?}");
}

/// A wire for smoltcp.
#[derive(Default)]
struct Wire {
    input: Vec<Vec<u8>>,
    output: Vec<Vec<u8>>,
}

struct Arriving(Vec<u8>);
struct Leaving<'w>(&'w mut Vec<Vec<u8>>);

impl RxToken for Arriving {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, with: F) -> R {
        with(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, with: F) -> R {
        let mut frame = vec![0; length];
        let result = with(&mut frame);
        self.0.push(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'w> = Arriving;
    type TxToken<'w> = Leaving<'w>;

    fn receive(&mut self, _: Instant) -> Option<(Arriving, Leaving<'_>)> {
        let frame = (!self.input.is_empty()).then(|| self.input.remove(0))?;
        Some((Arriving(frame), Leaving(&mut self.output)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.output))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// A host of smoltcp's that listens on port 80 with so many sockets, each for one connection, and answers with 3000 bytes.
struct Host {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    handles: Vec<SocketHandle>,
}

impl Host {
    fn new(count: usize) -> Self {
        let mut wire = Wire::default();
        let config = Config::new(EthernetAddress(SERVER.0).into());
        let mut interface = Interface::new(config, &mut wire, Instant::ZERO);
        let address: IpCidr = "10.0.0.2/24".parse().unwrap();
        interface.update_ip_addrs(|addresses| addresses.push(address).unwrap());
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
        let listen = |_| {
            let mut socket = tcp::Socket::new(buffer(), buffer());
            socket.listen(80).unwrap();
            sockets.add(socket)
        };
        let handles = (0..count).map(listen).collect();
        Self { wire, interface, sockets, handles }
    }

    fn turn(&mut self, milliseconds: u64) {
        self.interface.poll(Instant::from_millis(milliseconds.cast_signed()), &mut self.wire, &mut self.sockets);
        for handle in &self.handles {
            let socket = self.sockets.get_mut::<tcp::Socket>(*handle);
            if socket.can_recv() {
                socket.recv(|data| (data.len(), ())).unwrap();
                socket.send_slice(&[b'y'; 3000]).unwrap();
                socket.close();
            } else if socket.state() == tcp::State::CloseWait {
                socket.close();
            }
        }
        self.interface.poll(Instant::from_millis(milliseconds.cast_signed()), &mut self.wire, &mut self.sockets);
    }
}

#[test]
fn another_tcp_takes_our_connections_for_real_ones() {
    for (request, bytes) in [("GET / HTTP/1.0\r\n\r\n", 30 * 3000), ("", 0)] {
        let mut host = Host::new(30);
        let mut near = MemoryPorts::new(1, 512);
        let mut client = Client::new(plan(30, 8, request), at(0)).unwrap();
        // smoltcp asks by ARP for whom it answers.
        let arp = [
            &SERVER.0[..],
            &CLIENT.0,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &CLIENT.0,
            &[10, 0, 0, 1],
            &SERVER.0,
            &[10, 0, 0, 2],
        ];
        host.wire.input.push(arp.concat());
        for step in 0..20_000 {
            if client.is_done() {
                break;
            }
            client.turn(&mut near, PORT, at(step));
            host.wire.input.extend(std::iter::from_fn(|| near.sent(PORT)));
            host.turn(step);
            for frame in host.wire.output.drain(..).filter(|frame| frame[12..14] == [8, 0]) {
                assert!(near.inject(PORT, &frame));
            }
        }
        let counts = client.counts();
        assert_eq!((counts.opened, counts.completed, counts.bytes), (30, 30, bytes), "{counts:?}");
    }
}
