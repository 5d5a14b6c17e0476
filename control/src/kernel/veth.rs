//! The kernel port's pair: one end for the dataplane, the other for this machine's own kernel.
//!
//! The kernel's end takes packets whatever their source (they came from anywhere), computes its checksums itself, and
//! knows the dataplane's addresses without asking. Its IPv6 is of these addresses only: nothing advertises itself there.

use std::net::IpAddr;

use dataplane::ident::MacAddr;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{KernelError, Netlink, links, request, sysctl};
use crate::compile::kernel_port::{
    DATAPLANE_END, DATAPLANE_MAC, DATAPLANE_V4, DATAPLANE_V6, KERNEL_END, KERNEL_MAC, KERNEL_V4, KERNEL_V6, PREFIX_V4,
    PREFIX_V6,
};
use crate::sys;

/// Why there is no kernel port.
#[derive(Debug, thiserror::Error)]
pub enum KernelPortError {
    /// The name is taken by an interface of somebody else's.
    #[error(
        "interface {0} is not Sluice's, though it has the name of its kernel port; rename it, or set `kernel_port off`"
    )]
    Foreign(&'static str),
    /// The kernel refused a step.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Makes the pair with `queues` queues on each end (1 to 64) and packets of at most `mtu` bytes, and sets it up. A pair that
/// a crashed director left is made anew. On failure nothing is left.
///
/// # Errors
/// A foreign interface of the name, or a step that the kernel refuses.
pub async fn create_kernel_port(netlink: &Netlink, queues: u32, mtu: u32) -> Result<(), KernelPortError> {
    remove_kernel_port(netlink).await?;
    if netlink.link_index(KERNEL_END).await?.is_some() {
        return Err(KernelPortError::Foreign(KERNEL_END));
    }
    let pair = netlink.handle.link().add(pair(queues, mtu)).execute();
    request(format!("create the pair {DATAPLANE_END} and {KERNEL_END}"), pair).await?;
    let done = furnish(netlink, queues).await;
    if done.is_err() {
        remove_kernel_port(netlink).await?;
    }
    Ok(done?)
}

/// Takes the pair away; no pair is no error.
///
/// # Errors
/// A foreign interface of the name, or a kernel that refuses.
pub async fn remove_kernel_port(netlink: &Netlink) -> Result<(), KernelPortError> {
    let Some(message) = netlink.link(DATAPLANE_END).await? else { return Ok(()) };
    if !is_ours(&message) {
        return Err(KernelPortError::Foreign(DATAPLANE_END));
    }
    let index = message.header.index;
    match request(format!("remove {DATAPLANE_END}"), netlink.handle.link().del(index).execute()).await {
        Err(error) if !error.is(libc::ENODEV) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether packets from the kernel port may go to 127.0.0.0/8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loopback {
    /// They may: a real server is there.
    Open,
    /// They may not, as on any interface.
    Closed,
}

/// Opens or closes the way from the kernel port to 127.0.0.0/8.
///
/// # Errors
/// When there is no kernel port, or no privilege.
pub fn set_loopback(loopback: Loopback) -> Result<(), KernelError> {
    let value = if loopback == Loopback::Open { "1" } else { "0" };
    sysctl::set(&format!("net/ipv4/conf/{KERNEL_END}/route_localnet"), value)
}

/// A veth with our own Ethernet address.
fn is_ours(message: &LinkMessage) -> bool {
    let is_kind = |part: &LinkInfo| matches!(part, LinkInfo::Kind(InfoKind::Veth));
    let is_veth = |a: &LinkAttribute| matches!(a, LinkAttribute::LinkInfo(parts) if parts.iter().any(is_kind));
    let is_mac = |a: &LinkAttribute| matches!(a, LinkAttribute::Address(mac) if **mac == DATAPLANE_MAC.0);
    message.attributes.iter().any(is_veth) && message.attributes.iter().any(is_mac)
}

fn pair(queues: u32, mtu: u32) -> LinkMessage {
    let peer = end(LinkMessageBuilder::<LinkUnspec>::default(), KERNEL_END, KERNEL_MAC, queues, mtu).build();
    end(LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth), DATAPLANE_END, DATAPLANE_MAC, queues, mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

fn end<T>(builder: LinkMessageBuilder<T>, name: &str, mac: MacAddr, queues: u32, mtu: u32) -> LinkMessageBuilder<T>
where
    T: Default,
{
    builder
        .append_extra_attribute(LinkAttribute::IfName(name.to_owned()))
        .append_extra_attribute(LinkAttribute::Address(mac.0.to_vec()))
        .append_extra_attribute(LinkAttribute::Mtu(mtu))
        .append_extra_attribute(LinkAttribute::NumRxQueues(queues))
        .append_extra_attribute(LinkAttribute::NumTxQueues(queues))
}

async fn furnish(netlink: &Netlink, queues: u32) -> Result<(), KernelError> {
    let dataplane = index(netlink, DATAPLANE_END).await?;
    let kernel = index(netlink, KERNEL_END).await?;
    let has_ipv6 = settings()?;
    links::set_queues(DATAPLANE_END, queues)?;
    links::set_queues(KERNEL_END, queues)?;
    sys::disable_send_offloads(KERNEL_END)
        .map_err(|source| KernelError::new(format!("turn the offloads of {KERNEL_END} off"), source))?;
    for (name, index) in [(DATAPLANE_END, dataplane), (KERNEL_END, kernel)] {
        let up = LinkUnspec::new_with_index(index).up().build();
        request(format!("set {name} up"), netlink.handle.link().change(up).execute()).await?;
    }
    give_address(netlink, kernel, KERNEL_V4.into(), PREFIX_V4, DATAPLANE_V4.into()).await?;
    if has_ipv6 == Ipv6::On {
        give_address(netlink, kernel, KERNEL_V6.into(), PREFIX_V6, DATAPLANE_V6.into()).await?;
    }
    Ok(())
}

async fn index(netlink: &Netlink, name: &str) -> Result<u32, KernelError> {
    let gone = || KernelError::new(format!("find {name} again"), std::io::Error::from_raw_os_error(libc::ENODEV));
    netlink.link_index(name).await?.ok_or_else(gone)
}

/// The kernel's address on its end, and where the dataplane's is.
async fn give_address(
    netlink: &Netlink,
    kernel: u32,
    own: IpAddr,
    prefix: u8,
    other: IpAddr,
) -> Result<(), KernelError> {
    let mut add = netlink.handle.address().add(kernel, own, prefix);
    // Nobody else is on this wire: the address is usable at once.
    add.message_mut().header.flags = AddressHeaderFlags::Nodad;
    request(format!("add {own}/{prefix} to {KERNEL_END}"), add.execute()).await?;
    let neighbour = netlink.handle.neighbours().add(kernel, other).link_layer_address(&DATAPLANE_MAC.0).replace();
    request(format!("add neighbour {other} to {KERNEL_END}"), neighbour.execute()).await
}

/// Whether the kernel speaks IPv6 on a new interface.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ipv6 {
    On,
    Off,
}

/// The parameters of both ends, set before they are up.
fn settings() -> Result<Ipv6, KernelError> {
    let v4 = |name: &str, value: &str| sysctl::set(&format!("net/ipv4/conf/{KERNEL_END}/{name}"), value);
    // The kernel uses the stricter of `all` and the interface's own, of which 2 (loose) is the highest: where `all`
    // asks for a check, 2 here leaves every other interface as it is, and passes whatever can be answered.
    let all = sysctl::get("net/ipv4/conf/all/rp_filter");
    v4("rp_filter", if all.as_deref() == Some("0") { "0" } else { "2" })?;
    v4("accept_local", "1")?;
    sysctl::set(&format!("net/ipv4/conf/{DATAPLANE_END}/forwarding"), "0")?;
    if sysctl::get(&format!("net/ipv6/conf/{KERNEL_END}/disable_ipv6")).as_deref() != Some("0") {
        return Ok(Ipv6::Off);
    }
    sysctl::set(&format!("net/ipv6/conf/{DATAPLANE_END}/disable_ipv6"), "1")?;
    for (name, value) in [("addr_gen_mode", "1"), ("accept_ra", "0"), ("router_solicitations", "0")] {
        sysctl::set(&format!("net/ipv6/conf/{KERNEL_END}/{name}"), value)?;
    }
    Ok(Ipv6::On)
}
