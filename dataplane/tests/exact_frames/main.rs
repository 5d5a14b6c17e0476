//! What the packet layer makes of a frame, byte for byte, and two other libraries' opinion of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails has to say so")]

mod frames;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::counters::Drop;
use dataplane::forward::icmp::{self, ErrorKind};
use dataplane::forward::icmp_translate;
use dataplane::forward::nat::{self, Rewrite};
use dataplane::forward::tun::{self, Shim, TunnelEnds};
use dataplane::forward::{reset, ttl};
use dataplane::ident::NetPort;
use dataplane::wire::{self, IpVersion, Settled, checksum, ipv4, ipv6, number};
use frames::*;
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Whether smoltcp and etherparse read the IP packet and find its checksums right.
fn others_agree(packet: &[u8]) {
    etherparse::SlicedPacket::from_ip(packet).unwrap();
    let (protocol, source, destination, payload): (u8, IpAddress, IpAddress, &[u8]) = if packet[0] >> 4 == 4 {
        let ip = Ipv4Packet::new_checked(packet).unwrap();
        assert!(ip.verify_checksum());
        (ip.next_header().into(), ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
    } else {
        let ip = Ipv6Packet::new_checked(packet).unwrap();
        (ip.next_header().into(), ip.src_addr().into(), ip.dst_addr().into(), ip.payload())
    };
    match (protocol, source, destination) {
        (number::TCP, ..) => assert!(TcpPacket::new_checked(payload).unwrap().verify_checksum(&source, &destination)),
        (number::UDP, ..) => assert!(UdpPacket::new_checked(payload).unwrap().verify_checksum(&source, &destination)),
        (number::ICMP, ..) => assert!(Icmpv4Packet::new_checked(payload).unwrap().verify_checksum()),
        (number::ICMPV6, IpAddress::Ipv6(from), IpAddress::Ipv6(to)) => {
            assert!(Icmpv6Packet::new_checked(payload).unwrap().verify_checksum(&from, &to));
        }
        (number::IPV4 | number::IPV6, ..) => others_agree(payload),
        other => panic!("{other:?}"),
    }
}

fn rewritten(frame: &str, source: (&str, u16), destination: (&str, u16)) -> Vec<u8> {
    let mut frame = bytes(frame);
    let headers = wire::parse(&frame).unwrap();
    let (source_port, destination_port) = (NetPort::new(source.1), NetPort::new(destination.1));
    match (source.0.parse().unwrap(), destination.0.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let to = Rewrite { source, source_port, destination, destination_port };
            nat::rewrite_v4(&mut frame, &headers, &to);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let to = Rewrite { source, source_port, destination, destination_port };
            nat::rewrite_v6(&mut frame, &headers, &to);
        }
        _ => panic!("one family only"),
    }
    others_agree(&frame[14..]);
    frame
}

const CLIENT4: (&str, u16) = ("10.1.0.5", 40000);
const CLIENT6: (&str, u16) = ("fd01::5", 40000);
const VIP4: (&str, u16) = ("192.0.2.80", 80);
const VIP6: (&str, u16) = ("2001:db8::80", 80);
const SERVER4: (&str, u16) = ("10.2.0.11", 8080);
const SERVER6: (&str, u16) = ("fd02::11", 8080);

#[test]
fn nat_to_the_server() {
    for (from, expected) in [(TCP4_REQUEST, TCP4_TO_SERVER), (UDP4_REQUEST, UDP4_TO_SERVER)] {
        assert_eq!(rewritten(from, CLIENT4, SERVER4), bytes(expected));
    }
    for (from, expected) in [(TCP6_REQUEST, TCP6_TO_SERVER), (UDP6_REQUEST, UDP6_TO_SERVER)] {
        assert_eq!(rewritten(from, CLIENT6, SERVER6), bytes(expected));
    }
}

#[test]
fn nat_to_the_client() {
    for (from, expected) in [(TCP4_REPLY, TCP4_TO_CLIENT), (UDP4_REPLY, UDP4_TO_CLIENT)] {
        assert_eq!(rewritten(from, VIP4, CLIENT4), bytes(expected));
    }
    for (from, expected) in [(TCP6_REPLY, TCP6_TO_CLIENT), (UDP6_REPLY, UDP6_TO_CLIENT)] {
        assert_eq!(rewritten(from, VIP6, CLIENT6), bytes(expected));
    }
}

#[test]
fn all_four_change_at_once() {
    assert_eq!(rewritten(TCP4_REQUEST, ("10.2.0.1", 5001), SERVER4), bytes(TCP4_BOTH_ENDS));
    assert_eq!(rewritten(TCP6_REQUEST, ("fd02::1", 5001), SERVER6), bytes(TCP6_BOTH_ENDS));
}

#[test]
fn no_udp_checksum_stays_none() {
    assert_eq!(rewritten(UDP4_NO_CHECKSUM, CLIENT4, SERVER4), bytes(UDP4_NO_CHECKSUM_TO_SERVER));
}

#[test]
fn dr_changes_the_hop_count_only() {
    let pairs = [
        (TCP4_REQUEST, TCP4_ONE_HOP_LESS),
        (UDP4_REQUEST, UDP4_ONE_HOP_LESS),
        (TCP6_REQUEST, TCP6_ONE_HOP_LESS),
        (UDP6_REQUEST, UDP6_ONE_HOP_LESS),
    ];
    for (from, expected) in pairs {
        let mut frame = bytes(from);
        let headers = wire::parse(&frame).unwrap();
        assert_eq!(ttl::decrement(&mut frame, &headers), Ok(()));
        assert_eq!(frame, bytes(expected));
        others_agree(&frame[14..]);
    }
}

#[test]
fn the_last_hop_leaves_the_frame_alone() {
    for (from, at) in [(TCP4_REQUEST, 14 + ipv4::TTL), (TCP6_REQUEST, 14 + ipv6::HOP_LIMIT)] {
        for left in [0, 1] {
            let mut frame = bytes(from);
            frame[at] = left;
            if frame[14] >> 4 == 4 {
                frame[14 + ipv4::CHECKSUM..14 + ipv4::SOURCE].fill(0);
                let sum = checksum::of(&frame[14..34]);
                frame[14 + ipv4::CHECKSUM..14 + ipv4::SOURCE].copy_from_slice(&sum);
            }
            let before = frame.clone();
            let headers = wire::parse(&frame).unwrap();
            assert_eq!(ttl::decrement(&mut frame, &headers), Err(ttl::Expired));
            assert_eq!(frame, before);
        }
    }
}

fn tunnelled(inner: &str, from: &str, to: &str) -> Vec<u8> {
    let ends = TunnelEnds::new(from.parse().unwrap(), to.parse().unwrap()).unwrap();
    let inner = bytes(inner);
    let mut packet = vec![0xaa; ends.overhead()];
    tun::write_outer(&mut packet, &inner, ends, Shim::None, 7);
    packet.extend(inner);
    others_agree(&packet);
    packet
}

#[test]
fn tunnels_of_either_version_over_either() {
    for (inner, over4, over6) in
        [(TUNNEL_INNER4, TUNNEL_4_IN_4, TUNNEL_4_IN_6), (TUNNEL_INNER6, TUNNEL_6_IN_4, TUNNEL_6_IN_6)]
    {
        assert_eq!(tunnelled(inner, "10.2.0.1", "10.2.0.11"), bytes(over4));
        assert_eq!(tunnelled(inner, "fd02::1", "fd02::11"), bytes(over6));
    }
}

#[test]
fn a_tunnel_copies_congestion_and_leave_to_fragment() {
    let packet = tunnelled(TUNNEL_INNER_MAY_FRAGMENT, "10.2.0.1", "10.2.0.11");
    assert_eq!(packet, bytes(TUNNEL_MAY_FRAGMENT));
}

#[test]
fn resets_answer_what_belongs_to_no_connection() {
    let pairs = [
        (ACK4, RESET_OF_ACK4),
        (ACK6, RESET_OF_ACK6),
        (SYN4, RESET_OF_SYN4),
        (SYN6, RESET_OF_SYN6),
        (FIN4, RESET_OF_FIN4),
        (FIN6, RESET_OF_FIN6),
    ];
    for (segment, expected) in pairs {
        let mut out = [0xaa; 128];
        let length = reset::reply(&mut out, &bytes(segment)).unwrap();
        assert_eq!(out[..length], bytes(expected));
        others_agree(&out[..length]);
        assert_eq!(reset::reply(&mut [0; 128], &out[..length]), None);
    }
    assert_eq!(reset::reply(&mut [0; 128], &bytes(UDP4_REQUEST)[14..]), None);
    assert_eq!(reset::reply(&mut [0; 39], &bytes(ACK4)), None, "no room");
}

/// The packet with another IPv4 field, and a right header checksum.
fn patched(packet: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    packet[at..at + new.len()].copy_from_slice(new);
    packet[ipv4::CHECKSUM..ipv4::SOURCE].fill(0);
    let sum = checksum::of(&packet[..ipv4::LENGTH]);
    packet[ipv4::CHECKSUM..ipv4::SOURCE].copy_from_slice(&sum);
    packet
}

#[test]
fn no_reset_for_fragments_and_groups() {
    let segment = bytes(ACK4);
    let more = patched(&segment, ipv4::FRAGMENT, &[0x20, 0]);
    assert_eq!(reset::reply(&mut [0; 128], &more), None);
    for at in [ipv4::SOURCE, ipv4::DESTINATION] {
        for address in [[224, 0, 0, 1], [255; 4], [0; 4], [127, 0, 0, 1]] {
            assert_eq!(reset::reply(&mut [0; 128], &patched(&segment, at, &address)), None);
        }
    }
}

fn error(offending: &[u8], kind: ErrorKind, speaker: &str) -> Option<Vec<u8>> {
    let mut out = [0xaa; 1500];
    let length = icmp::error(&mut out, offending, kind, speaker.parse().unwrap())?;
    others_agree(&out[..length]);
    Some(out[..length].to_vec())
}

#[test]
fn errors_of_our_own() {
    let kinds = [
        (ErrorKind::TooBig { mtu: 1400 }, TOO_BIG4, TOO_BIG6),
        (ErrorKind::TimeExceeded, TIME_EXCEEDED4, TIME_EXCEEDED6),
        (ErrorKind::PortUnreachable, PORT_UNREACHABLE4, PORT_UNREACHABLE6),
    ];
    for (kind, expected4, expected6) in kinds {
        assert_eq!(error(&bytes(UDP4_REQUEST)[14..], kind, VIP4.0).unwrap(), bytes(expected4));
        assert_eq!(error(&bytes(UDP6_REQUEST)[14..], kind, VIP6.0).unwrap(), bytes(expected6));
    }
}

#[test]
fn errors_leave_out_padding_and_stay_below_their_limits() {
    let mut padded = bytes(UDP4_REQUEST)[14..].to_vec();
    padded.extend([0; 9]);
    assert_eq!(error(&padded, ErrorKind::TimeExceeded, VIP4.0).unwrap(), bytes(TIME_EXCEEDED4));
    let mut large = Vec::new();
    etherparse::PacketBuilder::ipv4([10, 1, 0, 5], [192, 0, 2, 80], 64)
        .udp(1, 2)
        .write(&mut large, &[7; 1400])
        .unwrap();
    assert_eq!(error(&large, ErrorKind::TimeExceeded, VIP4.0).unwrap().len(), 576);
    let (from, to) = (Ipv6Addr::LOCALHOST.octets().map(|b| b | 0x20), [0x20; 16]);
    let mut large = Vec::new();
    etherparse::PacketBuilder::ipv6(from, to, 64).udp(1, 2).write(&mut large, &[7; 1400]).unwrap();
    assert_eq!(error(&large, ErrorKind::TimeExceeded, VIP6.0).unwrap().len(), 1280);
}

#[test]
fn no_error_about_reports_later_fragments_and_groups() {
    let none = |packet: &[u8], why: &str| {
        for speaker in [VIP4.0, VIP6.0] {
            assert_eq!(error(packet, ErrorKind::TimeExceeded, speaker), None, "{why}");
        }
    };
    for report in [3, 4, 5, 11, 12] {
        let mut packet = bytes(TIME_EXCEEDED4);
        packet[ipv4::LENGTH] = report;
        none(&packet, "an ICMP report");
    }
    for report in [1, 2, 3, 4, 100, 127, 137] {
        let mut packet = bytes(TIME_EXCEEDED6);
        packet[ipv6::LENGTH] = report;
        none(&packet, "an ICMPv6 report");
    }
    let packet = bytes(UDP4_REQUEST)[14..].to_vec();
    none(&patched(&packet, ipv4::FRAGMENT, &[0, 3]), "a later fragment");
    for address in [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]] {
        none(&patched(&packet, ipv4::SOURCE, &address), "from no single host");
    }
    none(&patched(&packet, ipv4::DESTINATION, &[224, 0, 0, 9]), "to a group");
    none(&patched(&packet, ipv4::DESTINATION, &[255; 4]), "to all");
    let packet = bytes(UDP6_REQUEST)[14..].to_vec();
    for (at, address) in [
        (ipv6::SOURCE, Ipv6Addr::UNSPECIFIED),
        (ipv6::SOURCE, Ipv6Addr::LOCALHOST),
        (ipv6::SOURCE, "ff02::1".parse().unwrap()),
        (ipv6::DESTINATION, "ff02::1".parse().unwrap()),
    ] {
        let mut packet = packet.clone();
        packet[at..at + 16].copy_from_slice(&address.octets());
        none(&packet, "from or to no single host");
    }
    none(&packet[..30], "cut off");
    assert!(error(&bytes(UDP4_REQUEST)[14..], ErrorKind::TimeExceeded, VIP6.0).is_none(), "another family");
}

#[test]
fn errors_of_others_reach_the_client_in_its_own_terms() {
    let port = NetPort::new;
    for (from, expected) in [
        (ERROR_TCP4, ERROR_TCP4_TO_CLIENT),
        (ERROR_UDP4, ERROR_UDP4_TO_CLIENT),
        (ERROR_TCP4_SHORT, ERROR_TCP4_SHORT_TO_CLIENT),
        (ERROR_UDP4_SHORT, ERROR_UDP4_SHORT_TO_CLIENT),
    ] {
        let mut frame = bytes(from);
        let headers = wire::parse(&frame).unwrap();
        assert!(headers.is_icmp_error(&frame));
        let inside = icmp_translate::embedded(&frame, &headers).unwrap();
        assert_eq!((inside.source, inside.source_port), (CLIENT4.0.parse().unwrap(), port(CLIENT4.1)));
        assert_eq!((inside.destination, inside.destination_port), (SERVER4.0.parse().unwrap(), port(SERVER4.1)));
        let (client, vip): (Ipv4Addr, Ipv4Addr) = (CLIENT4.0.parse().unwrap(), VIP4.0.parse().unwrap());
        let to = Rewrite { source: client, source_port: port(40000), destination: vip, destination_port: port(80) };
        icmp_translate::translate_v4(&mut frame, &headers, &inside, (vip, client), &to);
        assert_eq!(frame, bytes(expected));
        assert_eq!(checksum::settle(&mut frame, &headers), Ok(Settled::Valid));
    }
    for (from, expected) in [
        (ERROR_TCP6, ERROR_TCP6_TO_CLIENT),
        (ERROR_UDP6, ERROR_UDP6_TO_CLIENT),
        (ERROR_TCP6_SHORT, ERROR_TCP6_SHORT_TO_CLIENT),
        (ERROR_UDP6_SHORT, ERROR_UDP6_SHORT_TO_CLIENT),
    ] {
        let mut frame = bytes(from);
        let headers = wire::parse(&frame).unwrap();
        assert!(headers.is_icmp_error(&frame));
        let inside = icmp_translate::embedded(&frame, &headers).unwrap();
        let (client, vip): (Ipv6Addr, Ipv6Addr) = (CLIENT6.0.parse().unwrap(), VIP6.0.parse().unwrap());
        let to = Rewrite { source: client, source_port: port(40000), destination: vip, destination_port: port(80) };
        icmp_translate::translate_v6(&mut frame, &headers, &inside, (vip, client), &to);
        assert_eq!(frame, bytes(expected));
        assert_eq!(checksum::settle(&mut frame, &headers), Ok(Settled::Valid));
    }
}

#[test]
fn an_error_that_holds_no_ports_is_told_apart() {
    let frame = bytes(ERROR_TCP4);
    let mut headers = wire::parse(&frame).unwrap();
    headers.end = headers.l4 + 8 + 20 + 3;
    assert_eq!(icmp_translate::embedded(&frame, &headers), Err(Drop::IcmpTruncated));
    let mut about_icmp = frame;
    about_icmp[headers.l4 as usize + 8 + ipv4::PROTOCOL] = number::ICMP;
    let headers = wire::parse(&about_icmp).unwrap();
    assert_eq!(icmp_translate::embedded(&about_icmp, &headers), Err(Drop::IcmpUnrelated));
}

#[test]
fn extensions_behind_the_embedded_packet_are_not_taken_for_it() {
    // Room for eight bytes of TCP only; what stands where its checksum would be belongs to an extension.
    let mut frame = bytes(ERROR_TCP4);
    let at = wire::parse(&frame).unwrap().l4 as usize + 8;
    frame[at + ipv4::TOTAL_LENGTH..at + ipv4::ID].copy_from_slice(&28u16.to_be_bytes());
    let headers = wire::parse(&frame).unwrap();
    let inside = icmp_translate::embedded(&frame, &headers).unwrap();
    let behind = frame[at + 28..].to_vec();
    let (client, vip): (Ipv4Addr, Ipv4Addr) = (CLIENT4.0.parse().unwrap(), VIP4.0.parse().unwrap());
    let (source_port, destination_port) = (NetPort::new(1), NetPort::new(2));
    let to = Rewrite { source: client, source_port, destination: vip, destination_port };
    icmp_translate::translate_v4(&mut frame, &headers, &inside, (vip, client), &to);
    assert_eq!(frame[at + 28..], behind);
}

/// Where the transport checksum of a plain TCP or UDP frame stands.
fn checksum_at(frame: &[u8]) -> usize {
    let headers = wire::parse(frame).unwrap();
    headers.l4 as usize + if headers.protocol == number::UDP { 6 } else { 16 }
}

#[test]
fn a_partial_checksum_is_completed_and_a_wrong_one_refused() {
    for hex in [TCP4_REQUEST, UDP4_REQUEST, TCP6_REQUEST, UDP6_REQUEST] {
        let (whole, mut frame) = (bytes(hex), bytes(hex));
        let headers = wire::parse(&frame).unwrap();
        assert_eq!(checksum::settle(&mut frame, &headers), Ok(Settled::Valid));
        let at = checksum_at(&frame);
        let addresses = match headers.version {
            IpVersion::V4 => &whole[14 + ipv4::SOURCE..14 + ipv4::LENGTH],
            IpVersion::V6 => &whole[14 + ipv6::SOURCE..14 + ipv6::LENGTH],
        };
        let length = usize::from(headers.end - headers.l4);
        let pseudo = checksum::fold(checksum::pseudo(addresses, headers.protocol, length));
        frame[at..at + 2].copy_from_slice(&pseudo.to_ne_bytes());
        assert_eq!(checksum::settle(&mut frame, &headers), Ok(Settled::Completed));
        assert_eq!(frame, whole);
        frame[at] ^= 1;
        assert_eq!(checksum::settle(&mut frame, &headers), Err(Drop::BadChecksum));
    }
}

#[test]
fn no_udp_checksum_is_right_in_ipv4_only() {
    let mut frame = bytes(UDP4_NO_CHECKSUM);
    let headers = wire::parse(&frame).unwrap();
    assert_eq!(checksum::settle(&mut frame, &headers), Ok(Settled::Valid));
    assert_eq!(frame, bytes(UDP4_NO_CHECKSUM));
    let mut frame = bytes(UDP6_REQUEST);
    let at = checksum_at(&frame);
    frame[at..at + 2].fill(0);
    let headers = wire::parse(&frame).unwrap();
    assert_eq!(checksum::settle(&mut frame, &headers), Err(Drop::BadChecksum));
}
