//! Addresses that the director puts on interfaces, in the way keepalived does, and takes away again.
//!
//! An address that was there before is used and left alone. What was added is a list that a journal can hold, so that
//! another process can take it away after a crash.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use dataplane::next_hop::Link;
use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use serde::{Deserialize, Serialize};

use futures_util::StreamExt;

use super::{KernelError, Netlink, io_error, request};
use crate::config::{Broadcast, StaticAddress};

/// The addresses that this director has added.
#[derive(Debug)]
pub struct Addresses {
    netlink: Netlink,
    added: Vec<AddedAddress>,
}

/// One of them, with all that is needed to take it away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedAddress {
    /// The interface's name.
    pub interface: String,
    /// The address with its prefix length.
    pub address: IpNet,
    /// The other end of a point-to-point link.
    pub peer: Option<IpNet>,
}

impl AddedAddress {
    /// What adding `address` to `interface` will add.
    pub fn new(interface: &str, address: &StaticAddress) -> Self {
        Self { interface: interface.to_owned(), address: address.address, peer: address.peer }
    }
}

/// What came of adding an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new, and goes when the director stops.
    Added,
    /// It was there before, and stays.
    AlreadyThere,
}

impl Addresses {
    /// None yet.
    pub fn new(netlink: Netlink) -> Self {
        Self { netlink, added: Vec::new() }
    }

    /// What was added, for the journal.
    pub fn added(&self) -> &[AddedAddress] {
        &self.added
    }

    /// Takes over an address that an earlier director has added and could not take away.
    pub fn adopt(&mut self, address: AddedAddress) {
        if !self.added.contains(&address) {
            self.added.push(address);
        }
    }

    /// Adds an address to an interface.
    ///
    /// # Errors
    /// What the kernel says, unless it says that the address is there.
    pub async fn add(&mut self, link: Link, interface: &str, address: &StaticAddress) -> Result<Outcome, KernelError> {
        let what = format!("add {} to {interface}", address.address);
        let added = AddedAddress::new(interface, address);
        match self.send_new(message(link, address)).await {
            Ok(()) => {
                self.adopt(added);
                Ok(Outcome::Added)
            }
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(Outcome::AlreadyThere),
            Err(source) => Err(KernelError::new(what, source)),
        }
    }

    /// Takes one address away; one that is gone already, with its interface or without, is no error.
    ///
    /// # Errors
    /// What the kernel says; the address stays on the list then.
    pub async fn remove(&mut self, address: &AddedAddress) -> Result<(), KernelError> {
        let what = format!("remove {} from {}", address.address, address.interface);
        if let Some(index) = self.netlink.link_index(&address.interface).await? {
            let doing = self.netlink.handle.address().del(body(Link(index), address.address, address.peer)).execute();
            match request(what, doing).await {
                Err(error) if !error.is(libc::EADDRNOTAVAIL) && !error.is(libc::ENODEV) => return Err(error),
                _ => {}
            }
        }
        self.added.retain(|standing| standing != address);
        Ok(())
    }

    /// Takes away everything that was added, the last first; goes on where one fails and returns what failed.
    pub async fn remove_all(&mut self) -> Vec<KernelError> {
        let mut failed = Vec::new();
        for address in self.added.clone().iter().rev() {
            failed.extend(self.remove(address).await.err());
        }
        failed
    }

    /// Like `AddressHandle::add`, which would add a broadcast address that nobody asked for.
    async fn send_new(&self, message: AddressMessage) -> io::Result<()> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewAddress(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE;
        let mut handle = self.netlink.handle.clone();
        let mut answers = handle.request(request).map_err(io_error)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                return Err(error.to_io());
            }
        }
        Ok(())
    }
}

/// The part of a message that names an address.
fn body(link: Link, address: IpNet, peer: Option<IpNet>) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.addr().is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.index = link.0;
    // With a peer the prefix is that of the peer's side.
    let other_end = peer.unwrap_or(address);
    message.header.prefix_len = other_end.prefix_len();
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(other_end.addr()));
    message
}

fn message(link: Link, wanted: &StaticAddress) -> AddressMessage {
    let mut message = body(link, wanted.address, wanted.peer);
    message.header.scope = AddressScope::from(wanted.scope);
    let flags = flags(wanted);
    message.header.flags = AddressHeaderFlags::from_bits_truncate(flags.bits() as u8);
    message.attributes.push(AddressAttribute::Flags(flags));
    if let Some(lifetime) = wanted.preferred_lifetime {
        let mut times = CacheInfo::default();
        times.ifa_valid = u32::MAX;
        times.ifa_preferred = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(times));
    }
    if wanted.address.addr().is_ipv4() {
        message.attributes.extend(wanted.label.clone().map(AddressAttribute::Label));
        message.attributes.extend(broadcast(wanted).map(AddressAttribute::Broadcast));
    }
    message
}

fn flags(wanted: &StaticAddress) -> AddressFlags {
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Nodad, wanted.flags.nodad);
    flags.set(AddressFlags::Noprefixroute, wanted.flags.noprefixroute);
    flags.set(AddressFlags::Homeaddress, wanted.flags.home);
    flags
}

fn broadcast(wanted: &StaticAddress) -> Option<Ipv4Addr> {
    let net = wanted.peer.unwrap_or(wanted.address);
    let of_net = |address| match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    };
    match wanted.broadcast {
        Broadcast::Unset => None,
        Broadcast::Last => of_net(net.broadcast()),
        Broadcast::First => of_net(net.network()),
        Broadcast::Address(address) => Some(address),
    }
}
