//! The packets of the benchmarks: flow number in, frame out, from one template and a handful of additions.
//!
//! Ten million flows need no ten million frames: the client's address and port follow from the flow's number, and both
//! checksums from the template's sum (RFC 1071 lets parts be added in any order).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::ident::{Endpoint, MacAddr, NetPort, Protocol};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(into = "u8")]
pub(crate) enum Family {
    V4,
    V6,
}

impl From<Family> for u8 {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }
}

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// Opens a TCP connection.
    Syn,
    /// Anything on an established TCP connection.
    Ack,
    /// A UDP datagram.
    Datagram,
}

/// Clients on one address, each with a port of its own.
const PORTS_PER_CLIENT: u32 = 1 << 12;
const FIRST_PORT: u16 = 1024;
/// Bytes at the front of a frame that forwarding may change: they are written anew for each packet.
const HEADERS: usize = 128;

/// The client of a flow.
#[cfg(test)]
pub(crate) fn client(family: Family, flow: u32) -> Endpoint {
    let (host, port) = host_and_port(flow);
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from_bits(CLIENTS_V4.to_bits() + host)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from_bits(CLIENTS_V6.to_bits() + u128::from(host))),
    };
    Endpoint { address, port: NetPort::new(port) }
}

/// The first client's address. All clients are within its /9.
pub(crate) const CLIENTS_V4: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
/// The first client's address. All clients are within its /64.
pub(crate) const CLIENTS_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0);

/// Everything about the packets of a run but the flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PacketShape {
    /// The family of both addresses.
    pub(crate) family: Family,
    /// The service that the packets go to.
    pub(crate) to: Endpoint,
    /// Source and destination on the wire.
    pub(crate) link: (MacAddr, MacAddr),
    /// Bytes of a frame without its FCS; headers that need more get more.
    pub(crate) size: usize,
}

/// A frame with the client's address and port left out.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    headers: [u8; HEADERS],
    length: usize,
    /// Sum of the IPv4 header without client; unused in IPv6.
    ip_sum: u32,
    /// Sum of pseudo-header and segment without client.
    transport_sum: u32,
    family: Family,
    at: Offsets,
}

/// Where the fields that differ from flow to flow lie.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    /// The last four bytes of the source address.
    host: usize,
    port: usize,
    checksum: usize,
}

const ETHERNET: usize = 14;
const IPV4_CHECKSUM: usize = ETHERNET + 10;

impl Template {
    /// The template of a kind of packet.
    pub(crate) fn new(shape: PacketShape, segment: Segment) -> Self {
        let (ip_length, host) = match shape.family {
            Family::V4 => (20, ETHERNET + 12),
            Family::V6 => (40, ETHERNET + 8 + 12),
        };
        let transport = ETHERNET + ip_length;
        let (transport_length, checksum, protocol) = match segment {
            Segment::Syn | Segment::Ack => (20, 16, Protocol::Tcp),
            Segment::Datagram => (8, 6, Protocol::Udp),
        };
        let length = shape.size.max(transport + transport_length);
        let at = Offsets { host, port: transport, checksum: transport + checksum };
        let mut headers = [0; HEADERS];
        write_ethernet(&mut headers, shape);
        write_ip(&mut headers, shape, protocol, length - ETHERNET - ip_length);
        write_transport(&mut headers[transport..], shape.to.port, segment, length - transport);
        let ip_sum = sum(&headers[ETHERNET..transport]);
        let pseudo =
            sum(&headers[addresses(shape.family)]) + u32::from(protocol.number()) + (length - transport) as u32;
        let transport_sum = pseudo + sum(&headers[transport..transport + transport_length]);
        Self { headers, length, ip_sum, transport_sum, family: shape.family, at }
    }

    /// Bytes of a frame.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// Writes the packet of a flow over a frame's bytes: its headers; what follows stays as it is (zero, for the sums).
    #[inline]
    pub(crate) fn write(&self, flow: u32, frame: &mut [u8]) {
        let (host, port) = host_and_port(flow);
        let used = self.length.min(HEADERS);
        let Some(frame) = frame.get_mut(..used) else { return };
        frame.copy_from_slice(&self.headers[..used]);
        let first = match self.family {
            Family::V4 => CLIENTS_V4.to_bits(),
            Family::V6 => 0,
        };
        let host = first + host;
        let host_sum = (host >> 16) + (host & 0xffff);
        put(frame, self.at.host, host.to_be_bytes());
        put(frame, self.at.port, port.to_be_bytes());
        put(frame, self.at.checksum, finish(self.transport_sum + host_sum + u32::from(port)));
        if self.family == Family::V4 {
            put(frame, IPV4_CHECKSUM, finish(self.ip_sum + host_sum));
        }
    }
}

fn host_and_port(flow: u32) -> (u32, u16) {
    (flow / PORTS_PER_CLIENT, FIRST_PORT + (flow % PORTS_PER_CLIENT) as u16)
}

#[inline]
fn put<const N: usize>(frame: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(field) = frame.get_mut(at..at + N) {
        field.copy_from_slice(&bytes);
    }
}

fn write_ethernet(frame: &mut [u8], shape: PacketShape) {
    frame[..6].copy_from_slice(&shape.link.1.0);
    frame[6..12].copy_from_slice(&shape.link.0.0);
    let kind: [u8; 2] = if shape.family == Family::V4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    frame[12..14].copy_from_slice(&kind);
}

fn write_ip(frame: &mut [u8], shape: PacketShape, protocol: Protocol, payload: usize) {
    let ip = &mut frame[ETHERNET..];
    match shape.to.address {
        IpAddr::V4(vip) => {
            ip[0] = 0x45;
            ip[2..4].copy_from_slice(&(payload as u16 + 20).to_be_bytes());
            ip[6] = 0x40; // Don't fragment, as TCP sends.
            ip[8] = 64;
            ip[9] = protocol.number();
            ip[16..20].copy_from_slice(&vip.octets());
        }
        IpAddr::V6(vip) => {
            ip[0] = 0x60;
            ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
            ip[6] = protocol.number();
            ip[7] = 64;
            ip[8..24].copy_from_slice(&CLIENTS_V6.octets());
            ip[24..40].copy_from_slice(&vip.octets());
        }
    }
}

fn write_transport(header: &mut [u8], port: NetPort, segment: Segment, length: usize) {
    header[2..4].copy_from_slice(&port.to_wire());
    match segment {
        Segment::Datagram => header[4..6].copy_from_slice(&(length as u16).to_be_bytes()),
        Segment::Syn | Segment::Ack => {
            header[12] = 5 << 4;
            header[13] = if segment == Segment::Syn { 0x02 } else { 0x10 };
            header[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
        }
    }
}

fn addresses(family: Family) -> std::ops::Range<usize> {
    match family {
        Family::V4 => ETHERNET + 12..ETHERNET + 20,
        Family::V6 => ETHERNET + 8..ETHERNET + 40,
    }
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

/// The checksum field of a sum. Never zero: all that is summed here has a bit set.
#[inline]
fn finish(sum: u32) -> [u8; 2] {
    let folded = (sum >> 16) + (sum & 0xffff);
    let folded = (folded >> 16) + (folded & 0xffff);
    (!(folded as u16)).to_be_bytes()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::verify;

    pub(crate) fn shape(family: Family, size: usize) -> PacketShape {
        let vip: IpAddr = match family {
            Family::V4 => "192.0.2.1".parse().unwrap(),
            Family::V6 => "2001:db8:f::1".parse().unwrap(),
        };
        let link = (MacAddr([2, 0, 0, 0, 0, 0x10]), MacAddr([2, 0, 0, 0, 0, 1]));
        PacketShape { family, to: Endpoint { address: vip, port: NetPort::new(80) }, link, size }
    }

    #[test]
    fn every_packet_parses_with_right_checksums_and_is_its_flows() {
        for family in [Family::V4, Family::V6] {
            for segment in [Segment::Syn, Segment::Ack, Segment::Datagram] {
                for size in [0, 64, 128, 1514] {
                    let template = Template::new(shape(family, size), segment);
                    for flow in [0, 1, 4095, 4096, 9_999_999] {
                        let mut frame = vec![0; template.length()];
                        template.write(flow, &mut frame);
                        let packet = verify::parse(&frame).unwrap();
                        assert_eq!(packet.source, client(family, flow));
                        assert_eq!(packet.destination, shape(family, size).to);
                    }
                }
            }
        }
    }

    #[test]
    fn sixty_four_bytes_hold_tcp_over_ipv4_and_ipv6_gets_what_it_needs() {
        assert_eq!(Template::new(shape(Family::V4, 64), Segment::Ack).length(), 64);
        assert_eq!(Template::new(shape(Family::V6, 64), Segment::Ack).length(), 74);
        assert_eq!(Template::new(shape(Family::V6, 64), Segment::Datagram).length(), 64);
    }
}
