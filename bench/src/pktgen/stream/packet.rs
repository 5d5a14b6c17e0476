//! Frames, written whole for each packet: Ethernet, IPv4 or IPv6, and UDP with a probe or a TCP SYN.

use std::net::IpAddr;

use clap::ValueEnum;
use dataplane::ident::{Endpoint, MacAddr};
use dataplane::wire::{EtherType, TcpFlags, checksum, number, tcp};
use serde::Deserialize;

use super::Probe;
use crate::tcp::Segment;

/// What a stream is made of.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// UDP datagrams with a sequence number and a time.
    #[default]
    Udp,
    /// TCP SYNs that nobody follows up: a flood.
    Syn,
}

/// Source and destination on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) from: MacAddr,
    pub(crate) to: MacAddr,
}

/// A packet to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) link: Link,
    pub(crate) from: Endpoint,
    /// Of the same family as `from`.
    pub(crate) to: Endpoint,
    /// Bytes of the frame of a datagram without FCS; headers and probe get what they need.
    pub(crate) size: u16,
}

const ETHERNET: usize = 14;
const UDP: usize = 8;
/// The option that every real SYN has.
const MSS: usize = 4;
/// Not scaled.
const WINDOW: u16 = 0xffff;
const HOPS: u8 = 64;

impl Packet {
    /// Bytes of the frame with a datagram.
    pub(crate) fn udp_length(&self) -> usize {
        usize::from(self.size).max(self.transport() + UDP + Probe::LENGTH)
    }

    /// Bytes of the frame with a segment, which has no more than it needs.
    pub(crate) fn tcp_length(&self, segment: &Segment<'_>) -> usize {
        self.transport() + tcp_header(segment) + segment.payload.len()
    }

    /// Writes a datagram over `frame`, which has [`Packet::length`] bytes. Its payload is the probe and zeros.
    #[inline]
    pub(crate) fn write_udp(&self, probe: &Probe, frame: &mut [u8]) {
        let mut header = [0; UDP + Probe::LENGTH];
        let length = frame.len().saturating_sub(self.transport());
        header[..2].copy_from_slice(&self.from.port.to_wire());
        header[2..4].copy_from_slice(&self.to.port.to_wire());
        header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        header[UDP..].copy_from_slice(&probe.encode());
        let sum = checksum::transport(self.pseudo(number::UDP, length), number::UDP, &header);
        header[6..UDP].copy_from_slice(&sum);
        self.write(number::UDP, &header, frame);
    }

    /// Writes a segment over `frame`, which has [`Packet::tcp_length`] bytes.
    #[inline]
    pub(crate) fn write_tcp(&self, segment: &Segment<'_>, frame: &mut [u8]) {
        let mut header = [0; tcp::LENGTH + MSS];
        let used = tcp_header(segment);
        header[..2].copy_from_slice(&self.from.port.to_wire());
        header[2..4].copy_from_slice(&self.to.port.to_wire());
        header[4..8].copy_from_slice(&segment.sequence.to_be_bytes());
        header[8..12].copy_from_slice(&segment.acknowledgement.to_be_bytes());
        header[12] = (used as u8 / 4) << 4;
        header[13] = segment.flags.byte();
        header[14..16].copy_from_slice(&WINDOW.to_be_bytes());
        if used > tcp::LENGTH {
            let mss: u16 = if self.from.address.is_ipv4() { 1460 } else { 1440 };
            header[20..22].copy_from_slice(&[2, 4]);
            header[22..24].copy_from_slice(&mss.to_be_bytes());
        }
        let header = &mut header[..used];
        let below = self.pseudo(number::TCP, used + segment.payload.len());
        let sum = checksum::transport(below + checksum::sum(segment.payload), number::TCP, header);
        header[16..18].copy_from_slice(&sum);
        self.write(number::TCP, header, frame);
        if let Some(payload) = frame.get_mut(self.transport() + used..) {
            let length = payload.len().min(segment.payload.len());
            payload[..length].copy_from_slice(&segment.payload[..length]);
        }
    }

    /// Link and IP header, then `front`, then zeros, which no sum notices.
    fn write(&self, protocol: u8, front: &[u8], frame: &mut [u8]) {
        let at = self.transport();
        let Some((head, body)) = frame.split_at_mut_checked(at) else { return };
        head[..6].copy_from_slice(&self.link.to.0);
        head[6..12].copy_from_slice(&self.link.from.0);
        let (ip, payload) = (&mut head[ETHERNET..], body.len() as u16);
        ip.fill(0);
        let kind = match (self.from.address, self.to.address) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&payload.to_be_bytes());
                (ip[6], ip[7]) = (protocol, HOPS);
                ip[8..24].copy_from_slice(&from.octets());
                ip[24..40].copy_from_slice(&to.octets());
                EtherType::IPV6
            }
            (from, to) => {
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&(payload + 20).to_be_bytes());
                ip[6] = 0x40; // Don't fragment.
                (ip[8], ip[9]) = (HOPS, protocol);
                ip[12..16].copy_from_slice(&v4(from));
                ip[16..20].copy_from_slice(&v4(to));
                let sum = checksum::of(ip);
                ip[10..12].copy_from_slice(&sum);
                EtherType::IPV4
            }
        };
        head[12..ETHERNET].copy_from_slice(&kind);
        let (start, rest) = body.split_at_mut(front.len().min(payload.into()));
        start.copy_from_slice(&front[..start.len()]);
        rest.fill(0);
    }

    /// Where the transport header begins.
    fn transport(&self) -> usize {
        ETHERNET + if self.from.address.is_ipv4() { 20 } else { 40 }
    }

    fn pseudo(&self, protocol: u8, length: usize) -> u64 {
        match (self.from.address, self.to.address) {
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                checksum::pseudo(&from.octets(), protocol, length) + checksum::sum(&to.octets())
            }
            (from, to) => checksum::pseudo(&v4(from), protocol, length) + checksum::sum(&v4(to)),
        }
    }
}

/// Length of a segment's header.
fn tcp_header(segment: &Segment<'_>) -> usize {
    tcp::LENGTH + if segment.flags.contains(TcpFlags::SYN) { MSS } else { 0 }
}

/// The octets of an IPv4 address. Streams never mix families, see `Spec`.
fn v4(address: IpAddr) -> [u8; 4] {
    match address {
        IpAddr::V4(address) => address.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane::ident::NetPort;
    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    fn packet(family: u8, size: u16) -> Packet {
        let (from, to) = if family == 4 { ("10.0.0.1", "10.9.8.7") } else { ("fd00::1", "fd00:9::7") };
        let end = |address: &str, port| Endpoint { address: address.parse().unwrap(), port: NetPort::new(port) };
        let link = Link { from: MacAddr([2, 0, 0, 0, 0, 1]), to: MacAddr([2, 0, 0, 0, 0, 2]) };
        Packet { link, from: end(from, 1024), to: end(to, 53), size }
    }

    /// Parsed by another library, its checksums verified by it.
    fn checked(frame: &[u8]) -> SlicedPacket<'_> {
        let parsed = SlicedPacket::from_ethernet(frame).unwrap();
        let net = parsed.net.as_ref().unwrap();
        match (net, parsed.transport.as_ref().unwrap()) {
            (etherparse::NetSlice::Ipv4(ip), transport) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                let (found, right) = match transport {
                    TransportSlice::Udp(udp) => {
                        (udp.checksum(), udp.to_header().calc_checksum_ipv4(&header, udp.payload()).unwrap())
                    }
                    TransportSlice::Tcp(tcp) => {
                        (tcp.checksum(), tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap())
                    }
                    _ => panic!("neither UDP nor TCP"),
                };
                assert_eq!(found, right);
            }
            (etherparse::NetSlice::Ipv6(ip), transport) => {
                let header = ip.header().to_header();
                let (found, right) = match transport {
                    TransportSlice::Udp(udp) => {
                        (udp.checksum(), udp.to_header().calc_checksum_ipv6(&header, udp.payload()).unwrap())
                    }
                    TransportSlice::Tcp(tcp) => {
                        (tcp.checksum(), tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()).unwrap())
                    }
                    _ => panic!("neither UDP nor TCP"),
                };
                assert_eq!(found, right);
            }
            _ => panic!("no IP"),
        }
        parsed
    }

    #[test]
    fn datagrams_are_whole_and_carry_their_probe() {
        let probe = Probe { run: 1, stream: 2, sequence: 3, due: Duration::from_nanos(4), late: Duration::ZERO };
        for family in [4, 6] {
            for size in [60, 61, 590, 1514] {
                let packet = packet(family, size);
                let mut frame = vec![0xff; packet.udp_length()];
                packet.write_udp(&probe, &mut frame);
                let parsed = checked(&frame);
                let Some(TransportSlice::Udp(udp)) = &parsed.transport else { panic!("no UDP") };
                assert_eq!((udp.source_port(), udp.destination_port()), (1024, 53));
                assert_eq!(Probe::decode(udp.payload()), Some(probe));
                let least = if family == 4 { 60 } else { 80 };
                assert_eq!(frame.len(), usize::from(size).max(least));
            }
        }
    }

    #[test]
    fn a_syn_offers_an_mss_and_nothing_else() {
        for family in [4, 6] {
            let packet = packet(family, 60);
            let segment = Segment { sequence: 0x0102_0304, acknowledgement: 0, flags: TcpFlags::SYN, payload: &[] };
            let mut frame = vec![0xff; packet.tcp_length(&segment)];
            packet.write_tcp(&segment, &mut frame);
            let parsed = checked(&frame);
            let Some(TransportSlice::Tcp(tcp)) = &parsed.transport else { panic!("no TCP") };
            assert_eq!(tcp.sequence_number(), 0x0102_0304);
            assert!(tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin());
            assert_eq!(tcp.options_iterator().count(), 1);
        }
    }

    #[test]
    fn a_segment_carries_its_payload_whatever_its_length() {
        for payload in [&b""[..], b"G", b"GET / HTTP/1.0"] {
            let packet = packet(6, 0);
            let flags = TcpFlags::ACK.with(TcpFlags::PSH);
            let segment = Segment { sequence: 1, acknowledgement: 2, flags, payload };
            let mut frame = vec![0xff; packet.tcp_length(&segment)];
            packet.write_tcp(&segment, &mut frame);
            let parsed = checked(&frame);
            let Some(TransportSlice::Tcp(tcp)) = &parsed.transport else { panic!("no TCP") };
            assert_eq!((tcp.payload(), tcp.acknowledgment_number()), (payload, 2));
        }
    }
}
