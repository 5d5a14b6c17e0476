//! Steering: which frames the XDP program takes for the director.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::ident::{MacAddr, ServiceKey};

/// What to steer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SteerPlan {
    /// Destination MACs to look at: the ports' own, VRRP's and macvlans'. Frames to any other pass.
    pub macs: BTreeSet<MacAddr>,
    /// Virtual services whose address is local now. Port 0: every port of the address, for that transport.
    pub services: BTreeSet<ServiceKey>,
    /// NAT real servers, whose packets are replies. Port 0: every port of the server, for that transport.
    pub replies: BTreeSet<ServiceKey>,
    /// The director's own addresses: a real server's packet to one of them is the kernel's, unless it is to a service.
    pub own: BTreeSet<IpAddr>,
}
