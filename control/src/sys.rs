//! The crate's calls to the system that have no safe wrapper in a library we use.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Commands of `SIOCETHTOOL` (linux/ethtool.h).
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_STSO: u32 = 0x1f;
const ETHTOOL_SGSO: u32 = 0x24;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GRXFH: u32 = 0x29;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;
const ETHTOOL_GRSSH: u32 = 0x46;
/// `ETH_FLAG_RXVLAN` of the flags.
const FLAG_STRIP_TAGS: u32 = 1 << 8;
const SIOCETHTOOL: libc::Ioctl = 0x8946;

/// `struct ethtool_channels` without its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    /// The most receive-only, send-only, other and combined channels.
    pub most: [u32; 4],
    /// Those in use, in the same order.
    pub used: [u32; 4],
}

/// The channels of an interface in the current network namespace; `EOPNOTSUPP` where its driver has none.
pub(crate) fn channels(interface: &str) -> io::Result<Channels> {
    let mut words = [0_u32; 9];
    words[0] = ETHTOOL_GCHANNELS;
    ethtool(interface, &mut words)?;
    let [_, rx_most, tx_most, other_most, combined_most, rx, tx, other, combined] = words;
    Ok(Channels { most: [rx_most, tx_most, other_most, combined_most], used: [rx, tx, other, combined] })
}

/// Sets the channels in use of an interface.
pub(crate) fn set_channels(interface: &str, channels: Channels) -> io::Result<()> {
    let mut words = [0_u32; 9];
    words[0] = ETHTOOL_SCHANNELS;
    words[1..5].copy_from_slice(&channels.most);
    words[5..9].copy_from_slice(&channels.used);
    ethtool(interface, &mut words)
}

/// The name of an interface's driver.
pub(crate) fn driver(interface: &str) -> io::Result<String> {
    // struct ethtool_drvinfo: the command, six texts in 172 bytes of which the driver's name is the first 32, five counts.
    let mut words = [0_u32; 49];
    words[0] = ETHTOOL_GDRVINFO;
    ethtool(interface, &mut words)?;
    let bytes: Vec<u8> = words[1..9].iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0).collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Has the kernel compute checksums and cut segments itself before it sends by an interface.
pub(crate) fn disable_send_offloads(interface: &str) -> io::Result<()> {
    for command in [ETHTOOL_STXCSUM, ETHTOOL_STSO, ETHTOOL_SGSO] {
        ethtool(interface, &mut [command, 0])?;
    }
    Ok(())
}

/// What an interface does with the VLAN tag of a frame that it receives (`rxvlan` of `ethtool -k`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceivedTags {
    /// It is moved out of the frame, where XDP does not see it.
    Stripped,
    /// It stays in the frame.
    Kept,
}

/// What becomes of received VLAN tags.
pub(crate) fn received_tags(interface: &str) -> io::Result<ReceivedTags> {
    let flags = flags(interface)?;
    Ok(if flags & FLAG_STRIP_TAGS == 0 { ReceivedTags::Kept } else { ReceivedTags::Stripped })
}

/// Decides what becomes of received VLAN tags.
pub(crate) fn set_received_tags(interface: &str, tags: ReceivedTags) -> io::Result<()> {
    let others = flags(interface)? & !FLAG_STRIP_TAGS;
    let flags = if tags == ReceivedTags::Stripped { others | FLAG_STRIP_TAGS } else { others };
    ethtool(interface, &mut [ETHTOOL_SFLAGS, flags])
}

fn flags(interface: &str) -> io::Result<u32> {
    let mut words = [ETHTOOL_GFLAGS, 0];
    ethtool(interface, &mut words)?;
    Ok(words[1])
}

/// How an interface chooses the queue of what it receives (`struct ethtool_rxfh`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReceiveHash {
    /// The function: a bit of `ETH_RSS_HASH_*`, 1 for Toeplitz.
    pub function: u8,
    /// What is done to the packet's fields before (`RXH_XFRM_*`); 0: nothing.
    pub transformation: u8,
    /// The queue of each hash, modulo its length.
    pub indirection: Vec<u32>,
    /// The key.
    pub key: Vec<u8>,
}

/// How an interface chooses queues; `EOPNOTSUPP` where its driver does not say.
pub(crate) fn receive_hash(interface: &str) -> io::Result<ReceiveHash> {
    const HEAD: usize = 6;
    // The command, the context, entries of the table, bytes of the key, the function, one that is reserved: without
    // room for table and key only their sizes are told.
    let mut sizes = [ETHTOOL_GRSSH, 0, 0, 0, 0, 0];
    ethtool(interface, &mut sizes)?;
    let (entries, bytes) = (sizes[2] as usize, sizes[3] as usize);
    if entries > MOST_ENTRIES || bytes > MOST_KEY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut words = vec![0_u32; HEAD + entries + bytes.div_ceil(4)];
    words[..4].copy_from_slice(&[ETHTOOL_GRSSH, 0, sizes[2], sizes[3]]);
    ethtool(interface, &mut words)?;
    let [function, transformation, _, _] = words[4].to_ne_bytes();
    let key = words[HEAD + entries..].iter().flat_map(|word| word.to_ne_bytes()).take(bytes).collect();
    Ok(ReceiveHash { function, transformation, indirection: words[HEAD..HEAD + entries].to_vec(), key })
}

/// Entries of a table of queues, and bytes of a key, that are believed.
const MOST_ENTRIES: usize = 1 << 16;
const MOST_KEY: usize = 1 << 10;

/// What an interface hashes of packets of a kind (`TCP_V4_FLOW` and the like), as bits of `RXH_*`.
pub(crate) fn hashed_fields(interface: &str, kind: u32) -> io::Result<u64> {
    // struct ethtool_rxnfc: the command, the kind, 64 bits of data, and a rule that this command has no use for.
    let mut words = [0_u32; 48];
    (words[0], words[1]) = (ETHTOOL_GRXFH, kind);
    ethtool(interface, &mut words)?;
    let [low, high] = [words[2].to_ne_bytes(), words[3].to_ne_bytes()];
    let mut data = [0; 8];
    data[..4].copy_from_slice(&low);
    data[4..].copy_from_slice(&high);
    Ok(u64::from_ne_bytes(data))
}

/// One `SIOCETHTOOL`. `words` begins with a command of this file, and is as long as that command's structure.
fn ethtool(interface: &str, words: &mut [u32]) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: `ifreq` is plain data of integers, byte arrays and a pointer; all zero is a value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if interface.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the name ends in a zero (its last byte was never written), and `words` is valid for reads and writes of
    // the structure that its command names, as the callers above size it; both live until the call returns.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A socket that sends whole Ethernet frames and receives none.
pub(crate) fn frame_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Sends a frame by the interface of an index.
pub(crate) fn send_frame(socket: &OwnedFd, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data of integers; all zero is a value of it.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as libc::c_ushort;
    to.sll_ifindex = index.cast_signed();
    let size = size_of_val(&to) as libc::socklen_t;
    // SAFETY: `frame` and `to` are valid for reads of the lengths given, for as long as the call lasts.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), size)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        assert!(channels("sc-none").is_err());
        assert!(receive_hash("sc-none").is_err());
        assert!(hashed_fields("sc-none", 1).is_err());
        assert!(driver("a-name-that-is-far-too-long").is_err());
    }
}
