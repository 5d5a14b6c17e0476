//! `dh`: the destination by a hash of the VIP (`ip_vs_dh`), whatever the weights: for caches behind a service of many
//! addresses. Where the destination found takes no flows, the flow is refused.

use std::net::IpAddr;

use super::buckets::{Buckets, hash};
use crate::ident::{Endpoint, NetPort};
use crate::service::Destination;

pub(super) fn buckets(destinations: &[Destination]) -> Buckets {
    Buckets::fill(destinations, |_| 1)
}

pub(super) fn pick<'d>(buckets: &Buckets, destinations: &'d [Destination], vip: IpAddr) -> Option<&'d Destination> {
    let bucket = hash(Endpoint { address: vip, port: NetPort::ANY });
    buckets.at(destinations, bucket).filter(|d| d.takes_flows())
}
