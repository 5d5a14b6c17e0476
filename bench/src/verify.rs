//! Every frame that leaves, parsed by a library that shares no code with Sluice, its checksums verified.

use std::net::IpAddr;

use dataplane::ident::{Endpoint, NetPort};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

/// A packet without its tunnel, if it had one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The outer source and destination address, where the packet came in a tunnel.
    pub(crate) tunnel: Option<(IpAddr, IpAddr)>,
    pub(crate) source: Endpoint,
    pub(crate) destination: Endpoint,
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a frame that left is wrong: {0}")]
pub(crate) struct BadFrame(pub(crate) String);

/// Parses a frame from its Ethernet header on.
pub(crate) fn parse(frame: &[u8]) -> Result<Seen, BadFrame> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(bad)?;
    let (source, destination, payload) = addresses(&packet)?;
    let inner = match payload.0 {
        4 | 41 => Some(SlicedPacket::from_ip(payload.1).map_err(bad)?),
        _ => None,
    };
    let Some(inner) = inner else {
        let (from, to) = ports(&packet)?;
        return Ok(Seen { tunnel: None, source: at(source, from), destination: at(destination, to) });
    };
    let (from, to) = ports(&inner)?;
    let (inner_source, inner_destination, _) = addresses(&inner)?;
    let tunnel = Some((source, destination));
    Ok(Seen { tunnel, source: at(inner_source, from), destination: at(inner_destination, to) })
}

/// Protocol number and bytes of what an IP header carries.
type Payload<'p> = (u8, &'p [u8]);

/// Source, destination and payload of the outermost IP header; its checksum is verified.
fn addresses<'p>(packet: &'p SlicedPacket<'_>) -> Result<(IpAddr, IpAddr, Payload<'p>), BadFrame> {
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            if header.header_checksum() != header.to_header().calc_header_checksum() {
                return Err(BadFrame("IPv4 header checksum".into()));
            }
            let payload = ip.payload();
            Ok((header.source_addr().into(), header.destination_addr().into(), (payload.ip_number.0, payload.payload)))
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let payload = ip.payload();
            Ok((header.source_addr().into(), header.destination_addr().into(), (payload.ip_number.0, payload.payload)))
        }
        _ => Err(BadFrame("no IP header".into())),
    }
}

/// Source and destination port of the transport header; its checksum is verified.
fn ports(packet: &SlicedPacket<'_>) -> Result<(u16, u16), BadFrame> {
    let (source, destination, _) = addresses(packet)?;
    let (ports, carried, computed) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let header = tcp.to_header();
            let computed = match (source, destination) {
                (IpAddr::V4(s), IpAddr::V4(d)) => header.calc_checksum_ipv4_raw(s.octets(), d.octets(), tcp.payload()),
                (IpAddr::V6(s), IpAddr::V6(d)) => header.calc_checksum_ipv6_raw(s.octets(), d.octets(), tcp.payload()),
                _ => return Err(BadFrame("mixed address families".into())),
            };
            ((tcp.source_port(), tcp.destination_port()), tcp.checksum(), computed.map_err(bad)?)
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let computed = match (source, destination) {
                (IpAddr::V4(s), IpAddr::V4(d)) => header.calc_checksum_ipv4_raw(s.octets(), d.octets(), udp.payload()),
                (IpAddr::V6(s), IpAddr::V6(d)) => header.calc_checksum_ipv6_raw(s.octets(), d.octets(), udp.payload()),
                _ => return Err(BadFrame("mixed address families".into())),
            };
            ((udp.source_port(), udp.destination_port()), udp.checksum(), computed.map_err(bad)?)
        }
        other => return Err(BadFrame(format!("transport {other:?}"))),
    };
    if carried != computed {
        return Err(BadFrame(format!("transport checksum {carried:#06x}, should be {computed:#06x}")));
    }
    Ok(ports)
}

fn at(address: IpAddr, port: u16) -> Endpoint {
    Endpoint { address, port: NetPort::new(port) }
}

fn bad(error: impl std::fmt::Display) -> BadFrame {
    BadFrame(error.to_string())
}
