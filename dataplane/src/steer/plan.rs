//! What steering should catch, and its expansion into the contents of the program's maps.
//!
//! Keys are laid out as in bpf/maps.h: IPv4 addresses as `::ffff:a.b.c.d`, everything in network byte order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::ident::{MacAddr, NetPort, Protocol, ServiceKey};
use crate::service::LocalPorts;

/// What the steering program should catch, for all ports of the director.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteerPlan {
    /// Destination MACs to look at: the ports' own, VRRP's and macvlans'. Frames to any other pass.
    pub macs: BTreeSet<MacAddr>,
    /// Virtual services whose address is local now. Port 0: every port of the address, for that transport.
    pub services: BTreeSet<ServiceKey>,
    /// Services of many addresses, and those of marks: local now or routed here.
    pub prefixes: BTreeSet<SteerPrefix>,
    /// NAT real servers, whose packets are replies. Port 0: every port of the server, for that transport.
    pub replies: BTreeSet<ServiceKey>,
    /// Ends of tunnels: ICMP errors about our outer packets to them.
    pub tunnels: BTreeSet<TunnelEnd>,
    /// The director's own addresses: a real server's packet to one of them is the kernel's, unless it is to a service.
    pub own: BTreeSet<IpAddr>,
    /// Interfaces, by index, whose frames of services are dropped: members of a bond that wait.
    pub standby: BTreeSet<u32>,
    /// Local addresses of FULLNAT: what comes to their ports, of any transport, are replies.
    pub locals: BTreeMap<IpAddr, LocalPorts>,
}

/// Addresses of one prefix, for one transport and a span of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SteerPrefix {
    /// The transport.
    pub protocol: Protocol,
    /// The addresses, without host bits.
    pub prefix: IpNet,
    /// The lowest port, in host order.
    pub low: u16,
    /// The highest port.
    pub high: u16,
}

/// Where outer packets of one kind go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelEnd {
    /// The real server's address.
    pub address: IpAddr,
    /// The protocol that the outer header names, an IANA number: 4, 41, 47, or 17 for GUE.
    pub protocol: u8,
    /// The UDP port of GUE, else [`NetPort::ANY`].
    pub port: NetPort,
}

/// One of the program's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Own,
    Macs,
    Services,
    Addresses,
    Replies,
    ReplySources,
    FragmentDestinations,
    FragmentSources,
    Tunnels,
    Prefixes,
    Locals,
}

impl Table {
    /// All of them, in the order in which entries are added: `Own` before what it is an exception to.
    pub(super) const ALL: [Self; 11] = [
        Self::Own,
        Self::Macs,
        Self::Services,
        Self::Addresses,
        Self::Replies,
        Self::ReplySources,
        Self::FragmentDestinations,
        Self::FragmentSources,
        Self::Tunnels,
        Self::Prefixes,
        Self::Locals,
    ];

    /// The map's name in the program.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Macs => "macs",
            Self::Services => "services",
            Self::Addresses => "addresses",
            Self::Replies => "replies",
            Self::ReplySources => "reply_sources",
            Self::FragmentDestinations => "fragment_destinations",
            Self::FragmentSources => "fragment_sources",
            Self::Tunnels => "tunnels",
            Self::Prefixes => "prefixes",
            Self::Locals => "locals",
        }
    }

    /// Bytes of a key.
    pub(super) const fn key_size(self) -> usize {
        match self {
            Self::Macs => 8,
            Self::Services | Self::Replies | Self::Tunnels => 20,
            Self::Prefixes => 24,
            _ => 16,
        }
    }
}

/// A key of any table, with zeroes behind its [`Table::key_size`].
pub(super) type Key = [u8; 24];

/// Every entry of every table: (table, key) to value.
pub(super) type Contents = BTreeMap<(Table, Key), u32>;

impl SteerPlan {
    /// The maps' contents that carry out this plan.
    pub(super) fn contents(&self) -> Contents {
        let mut contents = Contents::new();
        for mac in &self.macs {
            let mut key = Key::default();
            key[..6].copy_from_slice(&mac.0);
            contents.insert((Table::Macs, key), 1);
        }
        for end in &self.tunnels {
            let mut key = address_key(end.address);
            key[16..18].copy_from_slice(&end.port.to_wire());
            key[18] = end.protocol;
            contents.insert((Table::Tunnels, key), 1);
        }
        for address in &self.own {
            contents.insert((Table::Own, address_key(*address)), 1);
        }
        for (address, ports) in &self.locals {
            let (low, high) = ports.range().into_inner();
            contents.insert((Table::Locals, address_key(*address)), u32::from(low) << 16 | u32::from(high));
        }
        let services = (Table::Services, Table::Addresses, Table::FragmentDestinations);
        let replies = (Table::Replies, Table::ReplySources, Table::FragmentSources);
        for (keys, (exact, whole, fragments)) in [(&self.services, services), (&self.replies, replies)] {
            for key in keys {
                let address = address_key(key.at.address);
                if key.at.port.is_any() {
                    *contents.entry((whole, address)).or_default() |= transport_bit(key.protocol);
                } else {
                    contents.insert((exact, endpoint_key(key)), 1);
                }
                *contents.entry((fragments, address)).or_default() |= transport_bit(key.protocol);
            }
        }
        for (key, span) in spans(&self.prefixes) {
            contents.insert((Table::Prefixes, prefix_key(&key)), span.packed());
        }
        contents
    }
}

/// Ports from the lowest to the highest, in host order.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) low: u16,
    pub(super) high: u16,
}

impl Span {
    const fn packed(self) -> u32 {
        (self.low as u32) << 16 | self.high as u32
    }

    fn with(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }
}

/// The span of ports of each prefix: of its own and, for the longest match alone is looked at, of all that hold it.
pub(super) fn spans(prefixes: &BTreeSet<SteerPrefix>) -> BTreeMap<(Protocol, IpNet), Span> {
    let mut spans = BTreeMap::<(Protocol, IpNet), Span>::new();
    for SteerPrefix { protocol, prefix, low, high } in prefixes {
        let span = Span { low: *low, high: *high };
        spans.entry((*protocol, prefix.trunc())).and_modify(|known| *known = known.with(span)).or_insert(span);
    }
    let own = spans.clone();
    for ((protocol, prefix), span) in &mut spans {
        // Up to the whole address space: at most 128 look-ups each.
        let mut above = prefix.supernet();
        while let Some(holder) = above {
            if let Some(more) = own.get(&(*protocol, holder)) {
                *span = span.with(*more);
            }
            above = holder.supernet();
        }
    }
    spans
}

/// The length counts the transport's 32 bits and, for IPv4, the 96 in front of the mapped address.
fn prefix_key((protocol, prefix): &(Protocol, IpNet)) -> Key {
    let mapped = if prefix.addr().is_ipv4() { 96 } else { 0 };
    let mut key = Key::default();
    key[..4].copy_from_slice(&(32 + mapped + u32::from(prefix.prefix_len())).to_ne_bytes());
    key[4] = protocol.number();
    key[8..].copy_from_slice(&address_key(prefix.network())[..16]);
    key
}

fn address_key(address: IpAddr) -> Key {
    let mut key = Key::default();
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    key[..16].copy_from_slice(&octets);
    key
}

fn endpoint_key(service: &ServiceKey) -> Key {
    let mut key = address_key(service.at.address);
    key[16..18].copy_from_slice(&service.at.port.to_wire());
    key[18] = service.protocol.number();
    key
}

const fn transport_bit(protocol: Protocol) -> u32 {
    match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
        Protocol::Sctp => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ident::Endpoint;

    fn key(protocol: Protocol, address: &str, port: u16) -> ServiceKey {
        ServiceKey { protocol, at: Endpoint { address: address.parse().unwrap(), port: NetPort::new(port) } }
    }

    fn of(contents: &Contents, table: Table) -> Vec<(Key, u32)> {
        contents.iter().filter(|((t, _), _)| *t == table).map(|((_, k), v)| (*k, *v)).collect()
    }

    #[test]
    fn a_service_is_an_endpoint_and_catches_fragments_of_its_transport() {
        let plan = SteerPlan { services: [key(Protocol::Tcp, "192.0.2.1", 80)].into(), ..SteerPlan::default() };
        let contents = plan.contents();
        let mut address = Key::default();
        address[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        let mut endpoint = address;
        endpoint[16..20].copy_from_slice(&[0, 80, 6, 0]);
        assert_eq!(of(&contents, Table::Services), [(endpoint, 1)]);
        assert_eq!(of(&contents, Table::FragmentDestinations), [(address, 1)]);
        assert_eq!(contents.len(), 2);
    }

    #[test]
    fn port_zero_is_the_whole_address_for_its_transports_only() {
        let vip = "2001:db8::1";
        let services = [key(Protocol::Tcp, vip, 0), key(Protocol::Udp, vip, 0), key(Protocol::Udp, "2001:db8::2", 0)];
        let contents = SteerPlan { services: services.into(), ..SteerPlan::default() }.contents();
        assert!(of(&contents, Table::Services).is_empty());
        let values: Vec<u32> = of(&contents, Table::Addresses).iter().map(|(_, v)| *v).collect();
        assert_eq!(values, [3, 2]);
        assert_eq!(of(&contents, Table::Addresses), of(&contents, Table::FragmentDestinations));
    }

    #[test]
    fn real_servers_are_sources_and_never_destinations() {
        let replies = [key(Protocol::Tcp, "10.0.0.2", 80), key(Protocol::Tcp, "10.0.0.2", 81)];
        let plan = SteerPlan {
            replies: replies.into(),
            own: ["10.0.0.1".parse().unwrap()].into(),
            macs: [MacAddr([2, 0, 0, 0, 0, 1])].into(),
            ..SteerPlan::default()
        };
        let contents = plan.contents();
        assert_eq!(of(&contents, Table::Replies).len(), 2);
        assert_eq!(of(&contents, Table::FragmentSources).len(), 1);
        assert_eq!(of(&contents, Table::Own).len(), 1);
        assert_eq!(of(&contents, Table::Macs)[0].0[..8], [2, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(contents.len(), 5);
    }

    #[test]
    fn local_addresses_have_a_range_of_ports() {
        let locals = [("10.0.0.9".parse().unwrap(), LocalPorts::new(5000, 0xffff).unwrap())].into();
        let contents = SteerPlan { locals, ..SteerPlan::default() }.contents();
        assert_eq!(of(&contents, Table::Locals).iter().map(|(_, ports)| *ports).collect::<Vec<_>>(), [0x1388_ffff]);
        assert_eq!(contents.len(), 1);
    }

    #[test]
    fn keys_fit_their_tables() {
        let services = [key(Protocol::Tcp, "::1", 0), key(Protocol::Udp, "::1", 53)];
        let plan = SteerPlan { services: services.into(), replies: services.into(), ..SteerPlan::default() };
        for ((table, key), _) in plan.contents() {
            assert!(key[table.key_size()..].iter().all(|b| *b == 0), "{table:?}");
        }
    }
}
