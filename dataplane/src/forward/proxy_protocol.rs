//! The header of the PROXY protocol, versions 1 and 2 (the `doc/proxy-protocol.txt`): who connects to what.

use std::io::Write;
use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::ident::{Endpoint, Protocol};
use crate::service::ProxyVersion;

/// The longest header, in bytes: a line of version 1, its end included.
pub const LONGEST: usize = 107;
/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;

/// The header for a connection from `client` to `service`, which are of one family.
pub fn header(version: ProxyVersion, protocol: Protocol, client: Endpoint, service: Endpoint) -> ArrayVec<u8, LONGEST> {
    match version {
        ProxyVersion::V1 => text(client, service),
        ProxyVersion::V2 => binary(protocol, client, service),
    }
}

fn text(client: Endpoint, service: Endpoint) -> ArrayVec<u8, LONGEST> {
    let mut header = ArrayVec::new();
    let (source, destination) = (client.address.to_canonical(), service.address.to_canonical());
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (from, to) = (client.port.host(), service.port.host());
    // It fits: two addresses of 39 characters and two ports of 5 at most.
    let _ = write!(header, "PROXY {family} {source} {destination} {from} {to}\r\n");
    header
}

fn binary(protocol: Protocol, client: Endpoint, service: Endpoint) -> ArrayVec<u8, LONGEST> {
    let mut header = ArrayVec::new();
    let mut put = |bytes: &[u8]| header.extend(bytes.iter().copied());
    let transport = if protocol == Protocol::Tcp { 1 } else { 2 };
    put(&SIGNATURE);
    match (client.address.to_canonical(), service.address.to_canonical()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            put(&[PROXY, 0x10 | transport, 0, 12]);
            put(&source.octets());
            put(&destination.octets());
        }
        (source, destination) => {
            let wide = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            put(&[PROXY, 0x20 | transport, 0, 36]);
            put(&wide(source));
            put(&wide(destination));
        }
    }
    put(&client.port.to_wire());
    put(&service.port.to_wire());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::NetPort;

    fn at(address: &str, port: u16) -> Endpoint {
        Endpoint { address: address.parse().unwrap(), port: NetPort::new(port) }
    }

    #[test]
    fn version_1_is_a_line() {
        let line = |client, service| header(ProxyVersion::V1, Protocol::Tcp, client, service);
        let v4 = line(at("198.51.100.7", 40_000), at("192.0.2.80", 80));
        assert_eq!(v4.as_slice(), b"PROXY TCP4 198.51.100.7 192.0.2.80 40000 80\r\n");
        let v6 = line(at("2001:db8::7", 1), at("2001:db8::80", 443));
        assert_eq!(v6.as_slice(), b"PROXY TCP6 2001:db8::7 2001:db8::80 1 443\r\n");
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let header = line(at(longest, 65_535), at(longest, 65_535));
        assert!(header.ends_with(b" 65535 65535\r\n"), "{}", header.len());
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = header(ProxyVersion::V2, Protocol::Tcp, at("198.51.100.7", 0x1234), at("192.0.2.80", 80));
        let addresses = [198, 51, 100, 7, 192, 0, 2, 80, 0x12, 0x34, 0, 80];
        assert_eq!(v4.as_slice(), [&SIGNATURE[..], &[0x21, 0x11, 0, 12], &addresses].concat());
        let v6 = header(ProxyVersion::V2, Protocol::Udp, at("2001:db8::7", 1), at("2001:db8::80", 2));
        assert_eq!((v6.len(), &v6[12..16]), (52, &[0x21, 0x22, 0, 36][..]));
        assert_eq!(v6[48..], [0, 1, 0, 2]);
    }
}
