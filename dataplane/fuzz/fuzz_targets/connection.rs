//! Segments of connections that are really open, through FULLNAT, the SYN proxy and the reader of FTP's commands: what is
//! behind a handshake is not reached by frames that are made blindly. Nothing panics, every frame that leaves has right
//! checksums, and every frame is sent, held, or dropped for a counted reason.
//!
//! An input is a byte for the setup, then segments: who sends what by which worker and when, flags, how far the numbers
//! are from those that the other side expects, options, data. See `Step`.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::packet::{Segment, tcp};
use common::{BACK, BACK_MAC, Director, FRONT, FRONT_MAC, ROUTER_MAC, Setup, server_mac};
use dataplane::counters::{Drop, Event};
use dataplane::ident::PortIndex;
use dataplane::service::{ClientAddress, ExpireReset, Ftp, Method, ProxyVersion, Toa};
use dataplane::syn_proxy::SynProxy;
use dataplane::wire::{self, Settled, TcpFlags, checksum, number, tcp as fields};
use libfuzzer_sys::fuzz_target;

/// Segments of one input, at most.
const MOST: usize = 48;
/// The client's and the server's ports of the connections: commands, passive data, active data.
const PORTS: [(u16, u16, u16); 3] = [(40_000, 80, 8080), (50_000, 51_207, 51_207), (50_000, 79, 20)];

fuzz_target!(|data: &[u8]| {
    let Some((setting, mut rest)) = data.split_first() else { return };
    let mut scene = Scene::new(*setting);
    for _ in 0..MOST {
        let Some(step) = Step::take(&mut rest) else { break };
        scene.play(&step);
    }
    scene.account();
});

/// One segment of an input.
struct Step<'d> {
    /// Bit 0: of the server; 1: by the second worker; 2 and 3: the time before; 4 and 5: of which connection.
    how: u8,
    flags: u8,
    /// What is added to the right numbers.
    sequence: i16,
    acknowledged: i16,
    options: &'d [u8],
    data: &'d [u8],
}

impl<'d> Step<'d> {
    fn take(rest: &mut &'d [u8]) -> Option<Self> {
        let ([how, flags, s1, s2, a1, a2, options, data], after) = rest.split_first_chunk()?;
        let (options, after) = after.split_at(usize::from(options % 11 * 4).min(after.len() & !3));
        let (data, after) = after.split_at(usize::from(*data).min(after.len()));
        *rest = after;
        let (sequence, acknowledged) = (i16::from_be_bytes([*s1, *s2]), i16::from_be_bytes([*a1, *a2]));
        Some(Self { how: *how, flags: *flags, sequence, acknowledged, options, data })
    }
}

/// One side of a connection, as far as segments went.
#[derive(Clone, Copy, Default)]
struct Side {
    next: u32,
    /// The next of the other side, as it calls it.
    expects: u32,
}

/// A director and the two sides of each connection.
struct Scene {
    director: Director,
    ends: Ends,
    sides: [[Side; 2]; 3],
    /// Where the server answers to.
    shown: [u16; 3],
}

struct Ends {
    client: &'static str,
    vip: &'static str,
    server: &'static str,
    shown: &'static str,
    mac: [u8; 6],
}

impl Scene {
    fn new(choice: u8) -> Self {
        let has = |bit: u8| choice & bit != 0;
        let mut setup = Setup::new(if has(1) { Method::FullNat } else { Method::Nat });
        setup.capacity = 64;
        setup.mtu = 1400;
        let servers = [("10.2.0.12", "fd02::12"), ("fd02::12", "10.2.0.12")];
        // The SYN proxy knows no other family.
        let (four, six) = servers[usize::from(has(1) && has(2) && !has(4))];
        (setup.servers4, setup.servers6) = (vec![(four, 1)], vec![(six, 1)]);
        setup.settings.syn_proxy = has(4).then(SynProxy::default);
        setup.settings.ftp = if has(8) { Ftp::On } else { Ftp::Off };
        setup.settings.expire_reset = if has(128) { ExpireReset::On } else { ExpireReset::Off };
        let toa = if has(16) { Toa::On } else { Toa::Off };
        setup.settings.client_address = ClientAddress { toa, proxy: has(32).then_some(ProxyVersion::V2) };
        let (client, vip, server) =
            if has(64) { ("2001:db8:c::7", "2001:db8::80", six) } else { ("198.51.100.7", "192.0.2.80", four) };
        let is_v6 = server.contains(':');
        let local = if is_v6 { "fd02::201" } else { "10.2.0.201" };
        let shown = if has(1) { local } else { client };
        let mac = server_mac(if is_v6 { 0x12 } else { 12 });
        let sides = [[Side { next: 1000, expects: 0 }, Side { next: 5000, expects: 0 }]; 3];
        let ports = if has(1) { [5000, 5001, 5002] } else { PORTS.map(|(client, ..)| client) };
        let ends = Ends { client, vip, server, shown, mac };
        Self { director: Director::with_workers(&setup, 2), ends, sides, shown: ports }
    }

    fn play(&mut self, step: &Step<'_>) {
        let (of, worker) = (usize::from(step.how >> 4 & 3) % 3, usize::from(step.how >> 1 & 1));
        let (port, frame) = self.segment(step, of);
        self.director.now += Duration::from_millis([0, 10, 1100, 70_000][usize::from(step.how >> 2 & 3)]);
        for (port, frame) in self.director.pass_by(worker, port, &frame) {
            self.receive(port, &frame);
        }
        // Resets, and what was kept for another worker.
        for worker in 0..2 {
            self.director.turn(worker);
        }
        for (port, frame) in self.director.sent() {
            self.receive(port, &frame);
        }
    }

    /// The segment of a step. What it takes of its side's numbers is taken, if they were the right ones.
    fn segment(&mut self, step: &Step<'_>, of: usize) -> (PortIndex, Vec<u8>) {
        let is_server = step.how & 1 == 1;
        let flags: String = [('F', 1), ('S', 2), ('R', 4), ('P', 8), ('A', 16)]
            .into_iter()
            .filter(|(_, bit)| step.flags & bit != 0)
            .map(|(letter, _)| letter)
            .collect();
        let (client, service, server) = PORTS[of];
        let ends = &self.ends;
        let (port, segment) = if is_server {
            (BACK, tcp(ends.mac, BACK_MAC, (ends.server, server), (ends.shown, self.shown[of]), &flags, step.data))
        } else {
            (FRONT, tcp(ROUTER_MAC, FRONT_MAC, (ends.client, client), (ends.vip, service), &flags, step.data))
        };
        let side = &mut self.sides[of][usize::from(is_server)];
        let sequence = side.next.wrapping_add_signed(step.sequence.into());
        let segment: Segment = segment.numbers(sequence, side.expects.wrapping_add_signed(step.acknowledged.into()));
        if step.sequence == 0 {
            side.next = side.next.wrapping_add(step.data.len() as u32 + u32::from(step.flags & 3 != 0));
        }
        (port, segment.options(step.options).bytes())
    }

    /// Looks at what left; the side that gets it knows more then.
    fn receive(&mut self, port: PortIndex, frame: &[u8]) {
        let headers = wire::parse(frame).expect("a frame that leaves parses");
        let mut copy = frame.to_vec();
        let settled = checksum::settle(&mut copy, &headers);
        assert!(matches!(settled, Ok(Settled::Valid)), "{settled:?}");
        if headers.protocol != number::TCP || headers.tcp.contains(TcpFlags::RST) || ![FRONT, BACK].contains(&port) {
            return;
        }
        let ports = (headers.source_port.host(), headers.destination_port.host());
        let (at, is_server) = (headers.l4 as usize, port == BACK);
        let of = PORTS.iter().position(|known| if is_server { ports.1 == known.2 } else { ports.0 == known.1 });
        let Some(of) = of else { return };
        let start = at + usize::from(frame[at + fields::DATA_OFFSET] >> 4) * 4;
        let opens = headers.tcp.contains(TcpFlags::SYN) || headers.tcp.contains(TcpFlags::FIN);
        let length = (headers.end as usize - start) as u32 + u32::from(opens);
        let sequence = frame[at + fields::SEQUENCE..][..4].try_into().map_or(0, u32::from_be_bytes);
        self.sides[of][usize::from(is_server)].expects = sequence.wrapping_add(length);
        if is_server {
            self.shown[of] = ports.0;
        }
    }

    /// The law of conservation: see `counters`.
    fn account(&self) {
        for board in &self.director.shared.boards {
            let event = |event| board.counters.event(event).read();
            let received: u64 = board.counters.ports().iter().map(|port| port.received.packets.read()).sum();
            let dropped: u64 = Drop::ALL.iter().map(|reason| board.counters.drop(*reason).read()).sum();
            let made = event(Event::ResetSent)
                + event(Event::IcmpSent)
                + event(Event::HandshakeSent)
                + event(Event::SegmentSent);
            let (came, went) = (received + made + event(Event::Released), event(Event::Forwarded) + event(Event::Held));
            assert_eq!(came, went + dropped);
        }
    }
}
