//! GUE: the packet in UDP, behind a GUE header of version 0 (draft-ietf-intarea-gue), as Linux's fou reads it and IPVS
//! writes it.
//!
//! With remote checksum offload (draft-herbert-remotecsumoffload) the transport's checksum inside holds the pseudo
//! header's sum only, and a private option says where the receiver completes it; the outer checksum covers all.

use super::tun::TunnelEnds;
use crate::ident::NetPort;
use crate::wire::{Fragment, Headers, checksum, number, tcp, udp};

/// Length of the GUE header without options.
const BASE: usize = 4;
/// Length of UDP and GUE headers without options.
pub const LENGTH: usize = udp::LENGTH + BASE;
/// Length of the private flags and of the option for remote checksums.
const REMOTE_OPTION: usize = 8;
/// Length of UDP and GUE headers with that option.
pub const LENGTH_WITH_REMOTE: usize = LENGTH + REMOTE_OPTION;
/// In the flags: private flags follow.
const PRIVATE: u16 = 1;
/// In the private flags: the option for remote checksums follows.
const REMOTE_CHECKSUM: u32 = 1 << 31;
/// The least of the ephemeral ports, of which each flow has one as its source.
const FIRST_SOURCE: u16 = 49_152;

/// Whether the outer UDP header has a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OuterChecksum {
    /// It is zero.
    Zero,
    /// It covers all.
    Whole,
}

/// Where the receiver completes a checksum, from the start of the packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// What it covers begins here.
    start: u16,
    /// It stands here.
    at: u16,
}

/// A UDP and GUE header to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gue {
    /// The flow's source port.
    pub source: NetPort,
    /// The server's port.
    pub destination: NetPort,
    /// Whether there is an outer checksum.
    pub checksum: OuterChecksum,
    /// The option for remote checksums.
    pub remote: Option<Remote>,
}

impl Gue {
    /// Bytes that it takes.
    pub const fn length(&self) -> usize {
        if self.remote.is_some() { LENGTH_WITH_REMOTE } else { LENGTH }
    }
}

/// The source port of the flow that `entropy` is of: one of the ephemeral ports (RFC 6335), as RFC 8086 has it.
pub const fn source_port(entropy: u32) -> NetPort {
    NetPort::new(FIRST_SOURCE | (entropy & 0x3fff) as u16)
}

/// Leaves the transport checksum of an IP packet to the receiver, where it is one that covers just this packet.
/// `headers` are those of the packet, from its start.
pub fn leave_checksum(packet: &mut [u8], headers: &Headers) -> Option<Remote> {
    let (start, end) = (headers.l4 as usize, headers.end as usize);
    let transport = packet.get(start..end).filter(|_| headers.fragment == Fragment::Whole)?;
    let at = match headers.protocol {
        number::TCP => tcp::CHECKSUM,
        number::UDP => {
            let header: &[u8; udp::LENGTH] = transport.first_chunk()?;
            let length = usize::from(u16::from_be_bytes([header[udp::DATA_LENGTH], header[udp::DATA_LENGTH + 1]]));
            let has_checksum = header[udp::CHECKSUM..] != [0, 0];
            (length == transport.len() && has_checksum).then_some(udp::CHECKSUM)?
        }
        _ => return None,
    };
    let partial = checksum::fold(checksum::pseudo_of(packet, headers, end - start)).to_ne_bytes();
    *packet.get_mut(start + at..)?.first_chunk_mut()? = partial;
    Some(Remote { start: headers.l4, at: headers.l4 + at as u16 })
}

/// Writes UDP and GUE headers of `inner`, an IP packet, into `out`, which has their length.
pub fn write(out: &mut [u8], inner: &[u8], ends: TunnelEnds, gue: &Gue) {
    out.fill(0);
    write_gue(out.get_mut(udp::LENGTH..).unwrap_or_default(), inner, gue.remote);
    let length = out.len() + inner.len();
    let Some(header) = out.first_chunk_mut::<{ udp::LENGTH }>() else { return };
    let ([a, b], [c, d]) = (gue.source.to_wire(), gue.destination.to_wire());
    header[..udp::DATA_LENGTH].copy_from_slice(&[a, b, c, d]);
    header[udp::DATA_LENGTH..udp::CHECKSUM].copy_from_slice(&(length as u16).to_be_bytes());
    if gue.checksum == OuterChecksum::Whole {
        // The headers have an even length, so the packet's bytes are summed as they stand in the whole.
        let below = ends.pseudo(number::UDP, length) + checksum::sum(inner);
        let sum = checksum::transport(below, number::UDP, out);
        if let Some(field) = out.get_mut(udp::CHECKSUM..).and_then(<[u8]>::first_chunk_mut) {
            *field = sum;
        }
    }
}

fn write_gue(out: &mut [u8], inner: &[u8], remote: Option<Remote>) {
    let is_v6 = inner.first().is_some_and(|first| first >> 4 == 6);
    let Some((base, options)) = out.split_first_chunk_mut::<BASE>() else { return };
    // Version 0, data: the length of the options in words.
    base[0] = (options.len() / 4) as u8;
    base[1] = if is_v6 { number::IPV6 } else { number::IPV4 };
    let Some((remote, options)) = remote.zip(options.first_chunk_mut::<REMOTE_OPTION>()) else { return };
    base[2..].copy_from_slice(&PRIVATE.to_be_bytes());
    options[..4].copy_from_slice(&REMOTE_CHECKSUM.to_be_bytes());
    options[4..6].copy_from_slice(&remote.start.to_be_bytes());
    options[6..].copy_from_slice(&remote.at.to_be_bytes());
}

/// Where the packet inside begins in a packet that begins with a UDP header; `None` if GUE with IP does not follow.
pub fn payload(packet: &[u8]) -> Option<usize> {
    let [first, kind, ..] = *packet.get(udp::LENGTH..)?.first_chunk::<BASE>()?;
    let is_data = first >> 5 == 0 && (kind == number::IPV4 || kind == number::IPV6);
    is_data.then_some(LENGTH + usize::from(first & 0x1f) * 4)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::wire;

    fn ends() -> TunnelEnds {
        TunnelEnds::new("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()).unwrap()
    }

    #[test]
    fn the_header_is_that_of_the_draft() {
        let gue = Gue {
            source: source_port(0xabcd_0007),
            destination: NetPort::new(6080),
            checksum: OuterChecksum::Zero,
            remote: None,
        };
        let mut out = [0xff; LENGTH];
        write(&mut out, &[0x45, 0, 0], ends(), &gue);
        assert_eq!(out, [0xc0, 7, 0x17, 0xc0, 0, 15, 0, 0, 0, 4, 0, 0]);
        assert_eq!(payload(&out), Some(12));
    }

    #[test]
    fn a_remote_checksum_is_completed_to_what_it_was() {
        let mut inner = Vec::new();
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(1, 80, 7, 1000);
        builder.write(&mut inner, b"odd").unwrap();
        let headers = wire::parse_ip(&inner).unwrap();
        let before = inner.clone();
        let remote = leave_checksum(&mut inner, &headers).unwrap();
        assert_eq!((remote.start, remote.at), (40, 56));
        let gue = Gue {
            source: source_port(1),
            destination: NetPort::new(6080),
            checksum: OuterChecksum::Whole,
            remote: Some(remote),
        };
        let mut out = [0; LENGTH_WITH_REMOTE];
        write(&mut out, &inner, ends(), &gue);
        assert_eq!(out[8..], [2, 41, 0, 1, 0x80, 0, 0, 0, 0, 40, 0, 56]);
        let whole = [&out[..], &inner].concat();
        let sum = checksum::pseudo(&[10, 0, 0, 1, 10, 0, 0, 2], number::UDP, whole.len()) + checksum::sum(&whole);
        assert_eq!(checksum::fold(sum), 0xffff);
        assert_eq!(payload(&out), Some(20));
        // What the receiver does.
        let value = (!checksum::fold(checksum::sum(&inner[40..]))).to_ne_bytes();
        inner[56..58].copy_from_slice(&value);
        assert_eq!(inner, before);
    }

    #[test]
    fn only_whole_packets_with_a_checksum_leave_it() {
        let mut inner = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2).write(&mut inner, b"x").unwrap();
        let headers = wire::parse_ip(&inner).unwrap();
        let mut bare = inner.clone();
        bare[26..28].fill(0);
        assert_eq!(leave_checksum(&mut bare, &headers), None);
        let first = Headers { fragment: Fragment::First { id: 1 }, ..headers };
        assert_eq!(leave_checksum(&mut inner.clone(), &first), None);
        assert!(leave_checksum(&mut inner, &headers).is_some());
    }
}
