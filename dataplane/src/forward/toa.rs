//! The TCP option of Alibaba's LVS that tells a server its client's address: kind, length, port, address.

use std::net::IpAddr;

use arrayvec::ArrayVec;

use crate::ident::Endpoint;

/// The length of the option for a client of IPv4, in bytes.
pub const LENGTH_V4: u16 = 8;
/// The same of IPv6.
pub const LENGTH_V6: u16 = 20;

/// Kind of the option with an IPv4 address.
pub const KIND_V4: u8 = 254;
/// Kind of the option with an IPv6 address.
pub const KIND_V6: u8 = 253;
/// The longest, in bytes.
const LONGEST: usize = 20;

/// The option for a client. An IPv4 address in IPv6 form (`::ffff:a.b.c.d`) is an IPv4 address.
pub fn option(client: Endpoint) -> ArrayVec<u8, LONGEST> {
    let mut option = ArrayVec::new();
    let mut put = |bytes: &[u8]| option.extend(bytes.iter().copied());
    let port = client.port.to_wire();
    match client.address.to_canonical() {
        IpAddr::V4(address) => {
            put(&[KIND_V4, 8]);
            put(&port);
            put(&address.octets());
        }
        IpAddr::V6(address) => {
            put(&[KIND_V6, 20]);
            put(&port);
            put(&address.octets());
        }
    }
    option
}

/// The length of the option for a client, in bytes.
pub fn length(client: IpAddr) -> u16 {
    if client.to_canonical().is_ipv4() { LENGTH_V4 } else { LENGTH_V6 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::NetPort;

    #[test]
    fn the_layout_is_that_of_the_kernel_modules() {
        let client = |address: &str| Endpoint { address: address.parse().unwrap(), port: NetPort::new(0x1234) };
        assert_eq!(option(client("10.1.2.3")).as_slice(), [254, 8, 0x12, 0x34, 10, 1, 2, 3]);
        assert_eq!(option(client("::ffff:10.1.2.3")), option(client("10.1.2.3")));
        let v6 = option(client("2001:db8::1"));
        assert_eq!(v6.as_slice(), [253, 20, 0x12, 0x34, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!([length("10.1.2.3".parse().unwrap()), length("::1".parse().unwrap())], [8, 20]);
    }
}
