//! What can go wrong between the steering program and the kernel.

use super::attach::NATIVE_MTU_LIMIT;

/// Why the steering program could not be loaded, attached or told.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// The kernel did not take the program or its maps.
    #[error("the kernel refused the steering program: {0} (root or CAP_BPF and CAP_NET_ADMIN are needed)")]
    Load(#[source] libbpf_rs::Error),
    /// A part of the embedded program is missing: a broken build.
    #[error("the embedded steering program has no {0}; rebuild Sluice")]
    Missing(&'static str),
    /// Somebody else's XDP program is on the interface. It was not touched.
    #[error(
        "interface {interface} has a foreign XDP program '{name}' (id {id}); detach it first: ip link set {interface} xdp off"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// The program's id in the kernel.
        id: u32,
        /// The program's name.
        name: String,
    },
    /// The driver refuses XDP at this MTU (ERANGE).
    #[error(
        "interface {interface} has MTU {mtu}, or its veth peer has a larger one: too large for XDP. The limit is {limit} \
         bytes, less on some drivers: lower it with ip link set {interface} mtu {limit}",
        limit = NATIVE_MTU_LIMIT
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU in bytes; 0 when that could not be read.
        mtu: u32,
    },
    /// Neither mode could be attached.
    #[error("cannot attach the steering program to interface {interface}: {source}")]
    Attach {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The program on the interface could not be queried or taken off.
    #[error("cannot {what} the XDP program of interface {interface}: {source}")]
    Interface {
        /// The attempt: "query" or "detach".
        what: &'static str,
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// More entries than [`super::SteerLimits`] allows. Nothing was changed.
    #[error("{wanted} entries for the steering map '{map}', which was loaded for {limit}; restart with a larger limit")]
    Full {
        /// The map.
        map: &'static str,
        /// Entries that the plan needs.
        wanted: usize,
        /// Entries that the map was made for.
        limit: usize,
    },
    /// An entry could not be written, read or removed.
    #[error("steering map '{map}': {source}")]
    Map {
        /// The map.
        map: &'static str,
        /// What the kernel said.
        source: libbpf_rs::Error,
    },
    /// A trial run of the program failed.
    #[error("cannot run the steering program on a frame of {bytes} bytes (it needs 14 or more): {source}")]
    Trial {
        /// The frame's length.
        bytes: usize,
        /// What the kernel said.
        source: libbpf_rs::Error,
    },
}
