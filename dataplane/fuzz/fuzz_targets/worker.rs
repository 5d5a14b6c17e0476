//! Frames of any kind through whole workers, in every mode: nothing panics, and every frame is sent, held, or dropped for
//! a counted reason.
//!
//! An input is a byte for the setup, then frames: a byte that says where it arrives and how much time passes before, two
//! bytes of length, the frame. Checksums of IPv4 headers are made right, else few frames came far.

#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{BACK, Director, FRONT, KERNEL, Setup};
use dataplane::counters::{Drop, Event};
use dataplane::port::ChecksumMode;
use dataplane::service::{ClientAddress, Ftp, Method, ProxyVersion, Toa};
use dataplane::snapshot::StraySegments;
use dataplane::wire::checksum;
use libfuzzer_sys::fuzz_target;

/// Frames of one input, at most.
const MOST: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((setting, mut rest)) = data.split_first() else { return };
    let mut director = Director::with_workers(&setup(*setting), 2);
    for _ in 0..MOST {
        let Some((head, after)) = rest.split_first_chunk::<3>() else { break };
        let length = usize::from(u16::from_be_bytes([head[1], head[2]])).min(after.len()).min(3000);
        let (frame, after) = after.split_at(length);
        rest = after;
        let mut frame = frame.to_vec();
        repair(&mut frame);
        let port = [FRONT, BACK, KERNEL][usize::from(head[0] & 3) % 3];
        director.now += Duration::from_millis([0, 10, 1100, 70_000][usize::from(head[0] >> 2 & 3)]);
        director.pass_by(usize::from(head[0] >> 4 & 1), port, &frame);
    }
    account(&director);
});

fn setup(choice: u8) -> Setup {
    let mut setup = Setup::new([Method::Nat, Method::Dr, Method::Tun, Method::FullNat][usize::from(choice & 3)]);
    setup.capacity = 64;
    setup.mtu = 1400;
    if choice & 4 != 0 {
        setup.checksum = ChecksumMode::Full;
    }
    if choice & 8 != 0 {
        setup.policy.stray = StraySegments::Open;
    }
    if choice & 16 != 0 {
        setup.servers4 = vec![("10.2.0.11", 1), ("10.2.0.1", 1), ("10.2.0.99", 1)];
    }
    if choice & 32 != 0 {
        setup.settings.ftp = Ftp::On;
    }
    if choice & 64 != 0 {
        setup.settings.client_address = ClientAddress { toa: Toa::On, proxy: Some(ProxyVersion::V2) };
    }
    // IPv6 behind IPv4 and the other way round.
    if choice & 128 != 0 && matches!(setup.method, Method::Tun | Method::FullNat) {
        (setup.servers4, setup.servers6) = (setup.servers6, setup.servers4);
    }
    setup
}

/// Makes the checksum of an IPv4 header right, behind up to two tags.
fn repair(frame: &mut [u8]) {
    let mut l3 = 14;
    while matches!(frame.get(l3 - 2..l3), Some([0x81, 0x00] | [0x88, 0xa8])) && l3 < 22 {
        l3 += 4;
    }
    if frame.get(l3 - 2..l3) != Some(&[8, 0]) {
        return;
    }
    let length = frame.get(l3).map_or(0, |first| usize::from(first & 15) * 4);
    if let Some(header) = frame.get_mut(l3..l3 + length).filter(|header| header.len() >= 20) {
        header[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum::of(header);
        header[10..12].copy_from_slice(&sum);
    }
}

/// The law of conservation: see `counters`.
fn account(director: &Director) {
    for board in &director.shared.boards {
        let event = |event| board.counters.event(event).read();
        let received: u64 = board.counters.ports().iter().map(|port| port.received.packets.read()).sum();
        let dropped: u64 = Drop::ALL.iter().map(|reason| board.counters.drop(*reason).read()).sum();
        let made =
            event(Event::ResetSent) + event(Event::IcmpSent) + event(Event::HandshakeSent) + event(Event::SegmentSent);
        assert_eq!(received + made + event(Event::Released), event(Event::Forwarded) + dropped + event(Event::Held));
    }
}
