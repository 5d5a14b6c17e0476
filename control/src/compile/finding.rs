//! What an operator should know of a configuration that works only in part on this machine, as it is now.

use std::fmt;
use std::net::IpAddr;

use dataplane::ident::Endpoint;
use dataplane::service::{AddressRange, ServiceName};
use ipnet::IpNet;

/// One thing to know; each tells what, where and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Finding {
    /// No interface has the service's address: its packets stay with the kernel.
    VipNotLocal {
        /// The service.
        service: ServiceName,
        /// Its addresses, or the first of them.
        address: AddressRange,
    },
    /// No real server takes connections: the sorry server does.
    SorryServer {
        /// The service.
        service: ServiceName,
    },
    /// No rule gives the mark of a service.
    NoRuleMarks {
        /// The service.
        service: ServiceName,
    },
    /// A rule gives a mark that no service has.
    NoServiceOfMark {
        /// The rule.
        rule: String,
    },
    /// Nothing leads to a real server.
    NoRoute {
        /// The service.
        service: ServiceName,
        /// The real server.
        server: Endpoint,
    },
    /// The Ethernet address of a real server, or of the gateway to it, is not known yet.
    Unresolved {
        /// The service.
        service: ServiceName,
        /// The real server.
        server: Endpoint,
        /// Whose Ethernet address it is.
        neighbour: IpAddr,
        /// The interface on which it should be.
        interface: String,
    },
    /// The way to a real server leaves by an interface that is no port of the director.
    NotByPort {
        /// The service.
        service: ServiceName,
        /// The real server.
        server: Endpoint,
        /// The interface.
        interface: String,
    },
    /// A real server of method DR stands behind a gateway.
    DrByGateway {
        /// The service.
        service: ServiceName,
        /// The real server.
        server: Endpoint,
        /// The gateway.
        gateway: IpAddr,
    },
    /// A tunnel with no address to start from.
    NoTunnelSource {
        /// The service.
        service: ServiceName,
        /// The real server.
        server: Endpoint,
    },
    /// A real server on this machine, and no way into its kernel.
    NoKernelPort {
        /// The service.
        service: ServiceName,
        /// The real server.
        server: Endpoint,
    },
    /// A real server at `::1`, which the kernel lets nothing from outside reach.
    LoopbackV6 {
        /// The service.
        service: ServiceName,
        /// The real server.
        server: Endpoint,
    },
    /// A route with several ways, of which one is used.
    OneOfSeveral {
        /// Where to.
        prefix: IpNet,
        /// The interface that is used.
        interface: String,
        /// The gateway that is used.
        gateway: Option<IpAddr>,
    },
    /// A port that is down.
    PortDown {
        /// The interface.
        interface: String,
    },
    /// A member of a bond that is no port: it joined after the start.
    MemberWithoutPort {
        /// The bond.
        bond: String,
        /// The member.
        interface: String,
    },
    /// A port whose interface was removed. One that has its name now is another: the sockets are not on it.
    PortGone {
        /// The interface.
        interface: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VipNotLocal { service, address } => {
                write!(f, "{service} waits: no interface has {address}; add it by static_ipaddress or `ip addr add`")
            }
            Self::SorryServer { service } => {
                write!(f, "{service}: all real servers have weight 0, new connections go to the sorry server")
            }
            Self::NoRuleMarks { service } => write!(
                f,
                "{service} gets no packet, no rule gives its mark: netfilter does not see what Sluice takes; add \
                 `mark … to …` to `rules` in the dataplane block"
            ),
            Self::NoServiceOfMark { rule } => write!(f, "the rule `{rule}` gives a mark that no virtual server has"),
            Self::NoRoute { service, server } => {
                write!(f, "{service}: no route to real server {server}; add one by `ip route add`")
            }
            Self::Unresolved { service, server, neighbour, interface } => write!(
                f,
                "{service}: real server {server} cannot be reached yet, {neighbour} has not answered on {interface}; \
                 check that it is up and the cable, VLAN and prefix are right"
            ),
            Self::NotByPort { service, server, interface } => write!(
                f,
                "{service}: real server {server} cannot be reached, the way to it is {interface}, which is no port of the \
                 director; where that is an Ethernet interface, name it in `dataplane {{ interface {interface} {{ }} }}`"
            ),
            Self::DrByGateway { service, server, gateway } => write!(
                f,
                "{service}: real server {server} (DR) is reached by gateway {gateway}, which will get the packets in its \
                 place; put it on a network of the director, or use TUN"
            ),
            Self::NoTunnelSource { service, server } => write!(
                f,
                "{service}: no address to send a tunnel to {server} from; give the interface towards it one of its family"
            ),
            Self::NoKernelPort { service, server } => write!(
                f,
                "{service}: real server {server} is this machine, and the kernel port is off; set `kernel_port on`"
            ),
            Self::LoopbackV6 { service, server } => write!(
                f,
                "{service}: real server {server} cannot be reached, the kernel drops what comes to ::1 from elsewhere; \
                 give it another address of this machine"
            ),
            Self::OneOfSeveral { prefix, interface, gateway } => {
                write!(f, "{prefix} has several ways; all packets take the one by {interface}")?;
                gateway.map_or(Ok(()), |gateway| write!(f, " to {gateway}"))
            }
            Self::PortDown { interface } => {
                write!(f, "interface {interface} is down; `ip link set {interface} up`, and check its cable")
            }
            Self::MemberWithoutPort { bond, interface } => write!(
                f,
                "interface {interface} joined {bond} after the start and is no port yet: what arrives there for services \
                 reaches the kernel, which does not know them; restart sluice, or take it out of {bond}"
            ),
            Self::PortGone { interface } => write!(
                f,
                "interface {interface} was removed; once there is one of this name again, a restart of sluice takes it into use"
            ),
        }
    }
}
