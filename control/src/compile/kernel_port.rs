//! The kernel port's fixed names and addresses: a veth pair between the dataplane and the director's own kernel.
//!
//! Both ends live in one machine and nothing else is on the wire, so fixed addresses collide with nobody's. They are
//! constants so that flows to local real servers stay right over a restart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::ident::MacAddr;
use dataplane::next_hop::{Egress, Exit};
use dataplane::snapshot::KernelPort;

use super::ports::{PortPlan, PortRole};
use crate::config::{Config, VirtualServer};
use crate::topology::Topology;

/// The end that is an AF_XDP port.
pub const DATAPLANE_END: &str = "sluice0";
/// The end that the kernel has.
pub const KERNEL_END: &str = "sluice1";
/// The Ethernet address of [`DATAPLANE_END`].
pub const DATAPLANE_MAC: MacAddr = MacAddr([0x02, b'S', b'l', b'u', b'i', 0]);
/// The Ethernet address of [`KERNEL_END`].
pub const KERNEL_MAC: MacAddr = MacAddr([0x02, b'S', b'l', b'u', b'i', 1]);
/// The kernel's IPv4 address (link-local, RFC 3927).
pub const KERNEL_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 83, 109);
/// The dataplane's IPv4 address: what local real servers see NAT connections come from.
pub const DATAPLANE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 83, 110);
/// The prefix length of both.
pub const PREFIX_V4: u8 = 30;
/// The kernel's IPv6 address (unique local, RFC 4193: a link-local one would need a zone in every server's answer).
pub const KERNEL_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x6c75, 0x6963, 0x6500, 0, 0, 0, 1);
/// The dataplane's IPv6 address.
pub const DATAPLANE_V6: Ipv6Addr = Ipv6Addr::new(0xfd53, 0x6c75, 0x6963, 0x6500, 0, 0, 0, 2);
/// The prefix length of both.
pub const PREFIX_V6: u8 = 64;

/// The source of NAT connections to a local real server, by its family: replies to it come back by the kernel port.
pub const fn local_source(server: IpAddr) -> IpAddr {
    match server {
        IpAddr::V4(_) => IpAddr::V4(DATAPLANE_V4),
        IpAddr::V6(_) => IpAddr::V6(DATAPLANE_V6),
    }
}

/// Whether a real server is in 127.0.0.0/8, so that the kernel has to let the port's packets through to there.
pub fn needs_loopback(config: &Config) -> bool {
    let mut servers = config.virtual_servers.iter().flat_map(VirtualServer::all_servers);
    servers.any(|server| server.at.address.is_ipv4() && server.at.address.is_loopback())
}

/// What workers need to know of it; `None` where no port is the kernel's.
pub(super) fn settings(config: &Config, topology: &Topology, ports: &[PortPlan]) -> Option<KernelPort> {
    let rate = config.dataplane.kernel_port?.rate;
    let port = ports.iter().find(|port| port.role == PortRole::Kernel)?;
    let other_end = topology.link_named(KERNEL_END).and_then(|(_, state)| state.mac).unwrap_or(KERNEL_MAC);
    let egress = Egress { exit: Exit::One(port.index), source: port.mac, tags: arrayvec::ArrayVec::new(), mtu: 0 };
    let workers = super::ports::worker_limit(config, ports) as u32;
    Some(KernelPort { port: port.index, header: egress.link_header(other_end), rate: rate.div_ceil(workers.max(1)) })
}
