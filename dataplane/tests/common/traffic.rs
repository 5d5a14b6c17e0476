//! Frames of every kind that a worker tells apart, in an order as good as random.

use dataplane::ident::PortIndex;

use super::packet::{self, tcp, udp};
use super::{BACK, BACK_MAC, FRONT, FRONT_MAC, KERNEL, KERNEL_MAC, ROUTER_MAC, server_mac};

/// Numbers as good as random, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    pub fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.roll(of.len())]
    }
}

/// Frames of every kind that a worker tells apart, between few ends, so that many belong together.
pub fn frame(dice: &mut Dice) -> (PortIndex, Vec<u8>) {
    let is_v4 = dice.roll(3) > 0;
    let pick = |v4: &'static str, v6: &'static str| if is_v4 { v4 } else { v6 };
    let client = pick(dice.choose(&["198.51.100.7", "10.1.0.9", "127.0.0.1"]), "2001:db8:c::7");
    let vip = pick(dice.choose(&["192.0.2.80", "192.0.2.80", "192.0.2.99"]), "2001:db8::80");
    let server = pick(dice.choose(&["10.2.0.11", "10.2.0.12"]), dice.choose(&["fd02::11", "fd02::12"]));
    let router = pick("10.2.0.250", "fd02::250");
    let port = 40_000 + dice.roll(8) as u16;
    let flags = dice.choose(&["S", "S", "A", "PA", "FA", "R", "SA"]);
    let payload = vec![7; dice.choose(&[0, 1, 100, 1460])];
    let ttl = dice.choose(&[64, 64, 64, 2, 1]);
    let request = tcp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), flags, &payload).ttl(ttl).bytes();
    let reply = tcp(server_mac(11), BACK_MAC, (server, 8080), (client, port), flags, &payload).ttl(ttl).bytes();
    let datagram = udp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), &payload).ttl(ttl).bytes();
    match dice.roll(10) {
        0..=2 => (FRONT, request),
        3 => (BACK, reply),
        4 => (FRONT, datagram),
        5 => (BACK, udp(server_mac(12), BACK_MAC, (server, 8080), (client, port), &payload).ttl(ttl).bytes()),
        6 => (BACK, packet::too_big(ROUTER_MAC, BACK_MAC, router, client, 1300, &reversed(&reply)[14..])),
        7 => (KERNEL, [&[2, 0, 0, 0, 0, 3][..], &KERNEL_MAC, &reply[12..]].concat()),
        8 => {
            let whole = udp(ROUTER_MAC, FRONT_MAC, (client, port), (vip, 80), &[9; 2000]).bytes();
            let range = dice.choose(&[0..1208, 1208..2008, 0..8, 800..1600, 1600..2008].each_ref());
            (FRONT, packet::piece(&whole, range.clone()))
        }
        _ => (FRONT, request[..dice.roll(request.len())].to_vec()),
    }
}

/// A packet to a server, made of the reply to it: addresses and ports the other way.
fn reversed(reply: &[u8]) -> Vec<u8> {
    let mut frame = reply.to_vec();
    let (l3, length) = if reply[12] == 8 { (26, 4) } else { (22, 16) };
    frame[l3..l3 + 2 * length].rotate_left(length);
    let l4 = if reply[12] == 8 { 34 } else { 54 };
    frame[l4..l4 + 4].rotate_left(2);
    frame
}
