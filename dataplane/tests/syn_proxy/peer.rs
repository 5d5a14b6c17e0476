//! smoltcp at both ends of a director: independent TCP peers, with loss between if so wanted.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use dataplane::ident::PortIndex;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use crate::common::packet::verify;
use crate::common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, server_mac};

/// IP packets in and out, without a link.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) inbound: VecDeque<Vec<u8>>,
    pub(crate) outbound: VecDeque<Vec<u8>>,
}

pub(crate) struct Received(Vec<u8>);
pub(crate) struct Sending<'w>(&'w mut VecDeque<Vec<u8>>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sending<'_>)> {
        let packet = self.inbound.pop_front()?;
        Some((Received(packet), Sending(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Some(Sending(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = 1500;
        capabilities
    }
}

/// A host with one TCP socket.
pub(crate) struct Host {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    pub(crate) received: Vec<u8>,
    pub(crate) to_send: VecDeque<u8>,
}

impl Host {
    pub(crate) fn new(address: &str, buffer: usize, now: Duration) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(address.len() as u8);
        let mut interface = Interface::new(config, &mut wire, instant(now));
        let address: IpAddr = address.parse().unwrap();
        interface.update_ip_addrs(|addresses| addresses.push(IpCidr::new(address.into(), 24)).unwrap());
        match address {
            IpAddr::V4(_) => drop(interface.routes_mut().add_default_ipv4_route("198.51.100.1".parse().unwrap())),
            IpAddr::V6(_) => drop(interface.routes_mut().add_default_ipv6_route("fe80::1".parse().unwrap())),
        }
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer]);
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(tcp::Socket::new(buffer(), buffer()));
        Self { wire, interface, sockets, handle, received: Vec::new(), to_send: VecDeque::new() }
    }

    pub(crate) fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut::<tcp::Socket<'_>>(self.handle)
    }

    pub(crate) fn connect(&mut self, to: &str, port: u16, from: u16) {
        let to: IpAddress = to.parse::<IpAddr>().unwrap().into();
        let context = self.interface.context();
        self.sockets.get_mut::<tcp::Socket<'_>>(self.handle).connect(context, (to, port), from).unwrap();
    }

    /// Lets the host's stack do what it has to do now; sends and reads what it can.
    pub(crate) fn turn(&mut self, now: Duration) {
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.handle);
        while socket.can_recv() {
            socket.recv(|bytes| (bytes.len(), self.received.extend_from_slice(bytes))).unwrap();
        }
        while socket.can_send() && !self.to_send.is_empty() {
            let (front, _) = self.to_send.as_slices();
            let sent = socket.send_slice(front).unwrap();
            self.to_send.drain(..sent);
            if sent == 0 {
                break;
            }
        }
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(now.as_micros() as i64)
}

/// A client, a director and a server.
pub(crate) struct Net {
    pub(crate) director: Director,
    pub(crate) client: Host,
    pub(crate) server: Host,
    /// Every so many-th frame is lost; 0: none.
    pub(crate) loss: u32,
    /// The worker that gets the client's packets, and the one that gets the server's.
    pub(crate) workers: [usize; 2],
    /// A frame that is lost when this says so: by its number among all, its port and itself.
    pub(crate) lose: fn(u32, PortIndex, &[u8]) -> bool,
    /// All packets that left towards the server, lost or not.
    pub(crate) to_server: Vec<Vec<u8>>,
    dice: u32,
    number: u32,
}

impl Net {
    pub(crate) fn new(
        director: Director,
        [client, server]: [&str; 2],
        [client_buffer, server_buffer]: [usize; 2],
    ) -> Self {
        let now = director.now;
        Self {
            director,
            client: Host::new(client, client_buffer, now),
            server: Host::new(server, server_buffer, now),
            loss: 0,
            workers: [0, 0],
            lose: |_, _, _| false,
            to_server: Vec::new(),
            dice: 1,
            number: 0,
        }
    }

    fn is_lost(&mut self, port: PortIndex, packet: &[u8]) -> bool {
        self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.number += 1;
        (self.loss > 0 && (self.dice >> 8).is_multiple_of(self.loss)) || (self.lose)(self.number, port, packet)
    }

    /// A millisecond: both hosts do what they have to, packets cross the director.
    pub(crate) fn tick(&mut self) {
        self.director.now += Duration::from_millis(1);
        let now = self.director.now;
        self.client.turn(now);
        self.server.turn(now);
        let ends = [(FRONT, ROUTER_MAC, FRONT_MAC, self.workers[0]), (BACK, server_mac(11), BACK_MAC, self.workers[1])];
        for (port, from, to, worker) in ends {
            let host = if port == FRONT { &mut self.client } else { &mut self.server };
            let packets: Vec<_> = host.wire.outbound.drain(..).collect();
            for packet in packets {
                if self.is_lost(port, &packet) {
                    continue;
                }
                let kind: [u8; 2] = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
                let frame = [&to[..], &from, &kind, &packet].concat();
                let out = self.director.pass_by(worker, port, &frame);
                self.deliver(out);
            }
        }
        // What another worker holds goes out at its next turn.
        for worker in 0..self.director.workers.len() {
            self.director.turn(worker);
        }
        let out = self.director.sent();
        self.deliver(out);
    }

    fn deliver(&mut self, frames: Vec<(PortIndex, Vec<u8>)>) {
        for (port, frame) in frames {
            verify(&frame);
            if port == BACK {
                self.to_server.push(frame[14..].to_vec());
            }
            if self.is_lost(port, &frame[14..]) {
                continue;
            }
            let host = if port == FRONT { &mut self.client } else { &mut self.server };
            host.wire.inbound.push_back(frame[14..].to_vec());
        }
    }

    /// Ticks until `done`, for at most so many milliseconds; gives how many it took.
    pub(crate) fn until(&mut self, most: u32, mut done: impl FnMut(&mut Self) -> bool) -> u32 {
        for tick in 0..most {
            if done(self) {
                return tick;
            }
            self.tick();
        }
        panic!("not done: {:?}", self.director.drops());
    }
}
