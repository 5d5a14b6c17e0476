//! The same packets through IPVS and through a replay: what IPVS made of them in the virtual machine
//! (scripts/vm/packets.py) is in scripts/vm/fixtures/packets, one directory a case.
//!
//! What may differ is named in [`normalised`], and in docs/operators-guide.md for operators.

use std::path::{Path, PathBuf};

use crate::bench::Bench;
use dataplane::port::capture;

/// A case's directory: the fixtures', or one that scripts/test.d/vm-packets.sh has made anew.
fn case(name: &str) -> PathBuf {
    let fixtures = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/vm/fixtures/packets");
    std::env::var_os("SLUICE_IPVS_PACKETS").map_or_else(fixtures, PathBuf::from).join(name)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a case and compares the frames that leave by both interfaces, one by one.
fn compare(name: &str) {
    let directory = case(name);
    let mut bench = Bench::new(&text(&directory.join("director.conf")), &text(&directory.join("machine.txt")));
    for interface in ["eth0", "eth1"] {
        let input = std::fs::read(directory.join(format!("in-{interface}.pcap"))).unwrap();
        bench.arrive_file(interface, &input);
    }
    let outcome = bench.run();
    let mut differences = Vec::new();
    for interface in ["eth0", "eth1"] {
        let theirs: Vec<_> = capture::read(&directory.join(format!("out-{interface}.pcap")))
            .unwrap()
            .into_iter()
            .map(|p| p.bytes)
            .collect();
        let ours = outcome.frames(interface);
        for n in 0..ours.len().max(theirs.len()) {
            let (our, their) = (ours.get(n).map(|f| normalised(f)), theirs.get(n).map(|f| normalised(f)));
            if our != their {
                differences.push(format!("{interface} #{n}\n  IPVS   {}\n  Sluice {}", shown(their), shown(our)));
            }
        }
    }
    assert!(differences.is_empty(), "{name}: {} frames differ\n{}", differences.len(), differences.join("\n"));
}

fn shown(frame: Option<Vec<u8>>) -> String {
    frame.map_or_else(|| "(none)".into(), |frame| format!("{frame:02x?}"))
}

/// A frame without what may differ. The flow label of IPv6. In a tunnel's outer header: identification, and TTL or hop
/// limit (IPVS copies the inner one, Sluice begins anew). In an ICMP error: identification and DF of its own header, the TTL in the
/// packet inside (IPVS has taken one off already), and that packet's transport checksum, which IPVS leaves as it was
/// while it rewrites what it covers. Checksums over these; ours are verified by [`crate::bench::Outcome::frames`].
fn normalised(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (end, next, l4) = ip(&frame, 14);
    frame.truncate(end);
    if frame[14] >> 4 == 6 {
        frame[15] &= 0xf0;
        blank(&mut frame, 14, &[2, 3]);
    }
    match next {
        4 | 41 if frame[14] >> 4 == 4 => blank(&mut frame, 14, &[4, 5, 8, 10, 11]),
        4 | 41 => blank(&mut frame, 14, &[7]),
        1 | 58 => {
            if next == 1 {
                blank(&mut frame, 14, &[4, 5, 6, 7, 10, 11]);
            }
            blank(&mut frame, l4, &[2, 3]);
            let inside = l4 + 8;
            let (_, transport, at) = ip(&frame, inside);
            blank(&mut frame, inside, if next == 1 { &[8, 10, 11] } else { &[7] });
            blank(&mut frame, at, if transport == 17 { &[6, 7] } else { &[16, 17] });
        }
        _ => {}
    }
    frame
}

/// End, protocol and end of the header of the IP packet at an offset.
fn ip(frame: &[u8], at: usize) -> (usize, u8, usize) {
    let word = |offset: usize| usize::from(u16::from_be_bytes([frame[at + offset], frame[at + offset + 1]]));
    match frame[at] >> 4 {
        4 => (at + word(2), frame[at + 9], at + usize::from(frame[at] & 15) * 4),
        _ => (at + 40 + word(4), frame[at + 6], at + 40),
    }
}

fn blank(frame: &mut [u8], at: usize, offsets: &[usize]) {
    for offset in offsets {
        if let Some(byte) = frame.get_mut(at + offset) {
            *byte = 0;
        }
    }
}

#[test]
fn nat_is_as_ipvs_does_it() {
    compare("nat4");
    compare("nat6");
}

#[test]
fn dr_is_as_ipvs_does_it() {
    compare("dr4");
    compare("dr6");
}

#[test]
fn tun_is_as_ipvs_does_it() {
    compare("tun4");
    compare("tun6");
}
