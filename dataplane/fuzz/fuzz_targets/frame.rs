//! Everything that the packet layer does to bytes from outside: it must not panic on any, and what it makes of a frame
//! that it accepts must be a frame that it accepts.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::forward::gue::{Gue, OuterChecksum};
use dataplane::forward::icmp::ErrorKind;
use dataplane::forward::nat::{self, Rewrite};
use dataplane::forward::tun::{self, Shim, TunnelEnds};
use dataplane::forward::{icmp, icmp_translate, mtu, reset, ttl};
use dataplane::ident::NetPort;
use dataplane::service::GreChecksum;
use dataplane::wire::{self, Headers, IpVersion, Settled, checksum, number};
use libfuzzer_sys::fuzz_target;

const V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 2));
const V6: (Ipv6Addr, Ipv6Addr) =
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2));

fuzz_target!(|data: &[u8]| {
    // A packet without a link header goes through the same parser.
    answer(data);
    let Ok(headers) = wire::parse(data) else { return };
    assert!(headers.l3 <= headers.l4 && headers.l4 <= headers.end && headers.end as usize <= data.len());
    answer(&data[headers.l3 as usize..]);
    let _ = checksum::settle(&mut data.to_vec(), &headers);
    forward(data, &headers);
    translate(data, &headers);
    encapsulate(&data[headers.l3 as usize..headers.end as usize]);
});

/// The packets that the director sends in answer parse, with right checksums.
fn answer(packet: &[u8]) {
    let mut out = [0; 1500];
    let kinds = [ErrorKind::TooBig { mtu: 1400 }, ErrorKind::TimeExceeded, ErrorKind::PortUnreachable];
    for kind in kinds {
        for speaker in [IpAddr::V4(V4.0), IpAddr::V6(V6.0)] {
            if let Some(length) = icmp::error(&mut out, packet, kind, speaker) {
                check_answer(&mut out[..length]);
            }
        }
    }
    if let Some(length) = reset::reply(&mut out, packet) {
        check_answer(&mut out[..length]);
        assert_eq!(reset::reply(&mut [0; 1500], &out[..length]), None, "a reset answered by a reset");
    }
}

fn check_answer(packet: &mut [u8]) {
    let headers = wire::parse_ip(packet).expect("an answer parses");
    assert_eq!(headers.end as usize, packet.len());
    assert_eq!(checksum::settle(packet, &headers), Ok(Settled::Valid));
    let again = icmp::error(&mut [0; 1500], packet, ErrorKind::TimeExceeded, IpAddr::V4(V4.0));
    assert!(again.is_none() || !headers.is_icmp_error(packet), "an error about an error");
}

/// Rewritten frames parse with the same layout, and rewriting back gives back the addresses and ports.
fn forward(data: &[u8], headers: &Headers) {
    let mut frame = data.to_vec();
    let (source_port, destination_port) = (NetPort::new(1024), NetPort::new(8080));
    match headers.version {
        IpVersion::V4 => {
            let to = Rewrite { source: V4.0, source_port, destination: V4.1, destination_port };
            nat::rewrite_v4(&mut frame, headers, &to);
        }
        IpVersion::V6 => {
            let to = Rewrite { source: V6.0, source_port, destination: V6.1, destination_port };
            nat::rewrite_v6(&mut frame, headers, &to);
        }
    }
    let after = wire::parse(&frame).expect("a rewritten frame parses");
    assert_eq!((after.l4, after.end, after.fragment), (headers.l4, headers.end, headers.fragment));
    if ttl::decrement(&mut frame, headers).is_ok() {
        assert_eq!(wire::parse(&frame).expect("a frame parses with one hop less").ttl, headers.ttl - 1);
    }
    let valid = checksum::settle(&mut data.to_vec(), headers) == Ok(Settled::Valid);
    if valid && matches!(headers.protocol, number::TCP | number::UDP) {
        assert_eq!(checksum::settle(&mut frame, &after), Ok(Settled::Valid));
    }
    let _ = mtu::exceeded(headers, 1400, 20);
}

fn translate(data: &[u8], headers: &Headers) {
    if !headers.is_icmp_error(data) {
        return;
    }
    let Ok(inside) = icmp_translate::embedded(data, headers) else { return };
    let mut frame = data.to_vec();
    let valid = checksum::settle(&mut frame, headers);
    let (source_port, destination_port) = (NetPort::new(80), NetPort::new(50000));
    match headers.version {
        IpVersion::V4 => {
            let to = Rewrite { source: V4.0, source_port, destination: V4.1, destination_port };
            icmp_translate::translate_v4(&mut frame, headers, &inside, V4, &to);
        }
        IpVersion::V6 => {
            let to = Rewrite { source: V6.0, source_port, destination: V6.1, destination_port };
            icmp_translate::translate_v6(&mut frame, headers, &inside, V6, &to);
        }
    }
    let after = wire::parse(&frame).expect("a translated error parses");
    assert_eq!(checksum::settle(&mut frame, &after), valid);
}

fn encapsulate(inner: &[u8]) {
    let gue = Gue {
        source: NetPort::new(50000),
        destination: NetPort::new(6080),
        checksum: OuterChecksum::Whole,
        remote: None,
    };
    let shims = [Shim::None, Shim::Gre(GreChecksum::Absent), Shim::Gre(GreChecksum::Present), Shim::Gue(gue)];
    let both = [TunnelEnds::V4(V4.0, V4.1), TunnelEnds::V6(V6.0, V6.1)];
    for (ends, shim) in both.into_iter().flat_map(|ends| shims.map(|shim| (ends, shim))) {
        let start = ends.overhead() + shim.length();
        let mut packet = vec![0; start];
        packet.extend_from_slice(inner);
        // The parser's own bound is the sum of 65535; so is the header's.
        if packet.len() > usize::from(u16::MAX) {
            continue;
        }
        let (outer, inner) = packet.split_at_mut(start);
        tun::write_outer(outer, inner, ends, shim, 7);
        let headers = wire::parse_ip(&packet).expect("a tunnelled packet parses");
        assert_eq!((headers.l4 as usize, headers.end as usize), (ends.overhead(), packet.len()));
    }
}
