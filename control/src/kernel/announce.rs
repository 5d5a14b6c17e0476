//! Telling the network that an address is here: gratuitous ARP (RFC 5227, as a request, as keepalived sends it) and
//! unsolicited neighbour advertisements (RFC 4861 section 7.2.6), five of each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::ident::MacAddr;
use dataplane::next_hop::Link;

use super::{KernelError, sysctl};
use crate::sys;
use crate::topology::LinkState;

/// How many frames one announcement is.
const TIMES: usize = 5;
/// All nodes of the link, and their Ethernet group.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const ICMPV6: u8 = 58;
/// Flags of an advertisement.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;

/// Announces an address on an interface; one that is not Ethernet has nobody to tell.
///
/// # Errors
/// When the frames cannot be sent: no privilege (`CAP_NET_RAW`), or the link is down.
pub fn announce(link: Link, state: &LinkState, address: IpAddr) -> Result<(), KernelError> {
    let Some(mac) = state.mac else { return Ok(()) };
    let frame = match address {
        IpAddr::V4(address) => gratuitous_arp(mac, address).to_vec(),
        IpAddr::V6(address) => advertisement(mac, address, role(&state.name)).to_vec(),
    };
    let send = || {
        let socket = sys::frame_socket()?;
        (0..TIMES).try_for_each(|_| sys::send_frame(&socket, link.0, &frame))
    };
    send().map_err(|source| KernelError::new(format!("announce {address} on {}", state.name), source))
}

/// What the director is to its IPv6 neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Router,
    Host,
}

fn role(interface: &str) -> Role {
    let forwarding = sysctl::get(&format!("net/ipv6/conf/{interface}/forwarding"));
    if forwarding.as_deref() == Some("1") { Role::Router } else { Role::Host }
}

fn gratuitous_arp(mac: MacAddr, address: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].copy_from_slice(&MacAddr::BROADCAST.0);
    frame[6..12].copy_from_slice(&mac.0);
    // EtherType ARP; Ethernet, IPv4, lengths 6 and 4, request.
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&address.octets());
    frame[32..38].copy_from_slice(&MacAddr::BROADCAST.0);
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

fn advertisement(mac: MacAddr, address: Ipv6Addr, role: Role) -> [u8; 86] {
    let mut frame = [0; 86];
    frame[..6].copy_from_slice(&ALL_NODES_MAC.0);
    frame[6..12].copy_from_slice(&mac.0);
    // EtherType IPv6; version 6, 32 bytes of payload, hop limit 255.
    frame[12..22].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, ICMPV6, 255]);
    frame[22..38].copy_from_slice(&address.octets());
    frame[38..54].copy_from_slice(&ALL_NODES.octets());
    frame[54] = 136;
    frame[58] = if role == Role::Router { ROUTER | OVERRIDE } else { OVERRIDE };
    frame[62..78].copy_from_slice(&address.octets());
    // Option: target link-layer address, one unit of 8 bytes.
    frame[78..80].copy_from_slice(&[2, 1]);
    frame[80..86].copy_from_slice(&mac.0);
    let sum = checksum(&frame);
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    frame
}

/// The ICMPv6 checksum (RFC 4443 section 2.3) of a frame whose checksum field is zero.
fn checksum(frame: &[u8; 86]) -> u16 {
    let words = frame[22..].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum::<u32>() + 32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    #[test]
    fn a_gratuitous_arp_asks_for_its_own_address() {
        let frame = gratuitous_arp(MAC, Ipv4Addr::new(10, 1, 0, 9));
        let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(etherparse::NetSlice::Arp(arp)) = packet.net else { panic!("not ARP") };
        assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!((arp.sender_protocol_addr(), arp.target_protocol_addr()), (&[10, 1, 0, 9][..], &[10, 1, 0, 9][..]));
        assert_eq!((arp.sender_hw_addr(), arp.target_hw_addr()), (&MAC.0[..], &[0xff; 6][..]));
    }

    #[test]
    fn an_advertisement_overrides_and_its_checksum_is_right() {
        let address: Ipv6Addr = "2001:db8::9".parse().unwrap();
        for (role, flags) in [(Role::Host, 0x20), (Role::Router, 0xa0)] {
            let frame = advertisement(MAC, address, role);
            let packet = etherparse::SlicedPacket::from_ethernet(&frame).unwrap();
            let Some(etherparse::NetSlice::Ipv6(ip)) = packet.net else { panic!("not IPv6") };
            let Some(etherparse::TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("not ICMPv6") };
            assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
            assert_eq!((ip.header().hop_limit(), icmp.type_u8(), icmp.slice()[4]), (255, 136, flags));
        }
    }
}
