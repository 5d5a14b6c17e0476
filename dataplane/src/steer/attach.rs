//! Attaching by netlink, so that the program stays when the process is killed; telling our program from others'.
//!
//! A program is ours when it has our name. Its tag (a hash of its instructions) tells whether it is of this build; one
//! of another build is replaced too, or no upgrade could take over from what it replaces.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use libbpf_rs::libbpf_sys::{XDP_ATTACHED_DRV, XDP_ATTACHED_SKB};
use libbpf_rs::{Program, Xdp, XdpFlags};

use super::SteerError;
use super::loader::PROGRAM;
use crate::sys::{self, ProgramIdentity};

/// Largest MTU, in bytes, at which a frame fits the one page that native XDP gives it on veth: 4096 less 256 of headroom,
/// 320 of `skb_shared_info` and 14 of Ethernet header. Other drivers' limits are lower or the same.
pub const NATIVE_MTU_LIMIT: u32 = 3506;

/// A network interface by name and index, in the network namespace of this thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its index in the kernel, from 1.
    pub index: u32,
}

impl Interface {
    /// Looks an interface up in the network namespace of this thread; `None` when there is none of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        let index = sys::interface_index(&CString::new(name).ok()?)?;
        Some(Self { name: name.to_owned(), index })
    }

    /// Its MTU in bytes. Fails when the interface is gone, or this thread in another network namespace.
    pub fn mtu(&self) -> io::Result<u32> {
        sys::interface_mtu(&self.name)
    }
}

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// In the driver, before a socket buffer is made.
    Native,
    /// After a socket buffer was made: any driver, slower.
    Generic,
}

impl AttachMode {
    const fn flags(self) -> XdpFlags {
        match self {
            Self::Native => XdpFlags::DRV_MODE,
            Self::Generic => XdpFlags::SKB_MODE,
        }
    }
}

/// What [`cleanup`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cleaned {
    /// There was no XDP program.
    Nothing,
    /// Our program was there and is gone.
    Removed,
    /// A program of somebody else's is there, and stays.
    Foreign {
        /// The program's id in the kernel.
        id: u32,
        /// The program's name.
        name: String,
    },
}

/// Detaches a steering program that any process left on the interface. A foreign program is left alone.
pub fn cleanup(interface: &Interface) -> Result<Cleaned, SteerError> {
    let Some(found) = Attached::on(interface)? else {
        return Ok(Cleaned::Nothing);
    };
    if !found.is_ours() {
        return Ok(Cleaned::Foreign { id: found.identity.id, name: found.identity.name });
    }
    found.remove(interface)?;
    Ok(Cleaned::Removed)
}

/// Attaches `program`: in place of one of ours, or where there is none.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    interface: &Interface,
    preferred: AttachMode,
) -> Result<AttachMode, SteerError> {
    if let Some(found) = Attached::on(interface)? {
        return replace(program, interface, &found);
    }
    match attach_new(program, interface, preferred) {
        Err(e) if preferred == AttachMode::Native && lacks_native_mode(&e) => {
            tracing::warn!(
                interface = interface.name,
                "no native XDP here ({e}): generic mode, which is slower; a driver with native XDP would be faster"
            );
            attach_new(program, interface, AttachMode::Generic)
        }
        result => result,
    }
    .map_err(|source| attach_error(interface, source))
}

/// Detaches `program`, unless something else is there by now.
pub(super) fn detach(program: BorrowedFd<'_>, interface: &Interface) -> Result<(), SteerError> {
    let own = sys::program_identity(program).map_err(interface_error("query", interface))?;
    match Attached::on(interface)? {
        Some(found) if found.identity.id == own.id => found.remove(interface),
        _ => Ok(()),
    }
}

fn attach_new(program: BorrowedFd<'_>, interface: &Interface, mode: AttachMode) -> io::Result<AttachMode> {
    let flags = mode.flags() | XdpFlags::UPDATE_IF_NOEXIST;
    sys::attach_xdp(interface.index, Some(program), None, flags.bits())?;
    Ok(mode)
}

/// Puts `program` where `found` is, in the same mode and in one step: no frame meets an interface without a program.
fn replace(program: BorrowedFd<'_>, interface: &Interface, found: &Attached) -> Result<AttachMode, SteerError> {
    if !found.is_ours() {
        return Err(found.foreign(interface));
    }
    let own = sys::program_identity(program).map_err(interface_error("query", interface))?;
    if own.tag == found.identity.tag {
        tracing::info!(interface = interface.name, id = found.identity.id, "replacing the program left here");
    } else {
        tracing::warn!(interface = interface.name, id = found.identity.id, "replacing the program of another build");
    }
    sys::attach_xdp(interface.index, Some(program), Some(found.fd.as_fd()), found.mode.flags().bits())
        .map_err(|source| attach_error(interface, source))?;
    Ok(found.mode)
}

/// The program that is on an interface.
struct Attached {
    fd: OwnedFd,
    identity: ProgramIdentity,
    mode: AttachMode,
}

impl Attached {
    fn on(interface: &Interface) -> Result<Option<Self>, SteerError> {
        let failed = |e: libbpf_rs::Error| interface_error("query", interface)(io::Error::other(e));
        // A query uses no program; any descriptor stands in for one.
        let stdin = io::stdin();
        let found = Xdp::new(stdin.as_fd()).query(interface.index.cast_signed(), XdpFlags::NONE).map_err(failed)?;
        let (id, mode) = match u32::from(found.attach_mode) {
            XDP_ATTACHED_DRV => (found.drv_prog_id, AttachMode::Native),
            XDP_ATTACHED_SKB => (found.skb_prog_id, AttachMode::Generic),
            // In hardware, or in several modes at once: nothing that we do.
            _ => (found.hw_prog_id.max(found.drv_prog_id), AttachMode::Native),
        };
        if id == 0 {
            return Ok(None);
        }
        let fd = Program::fd_from_id(id).map_err(failed)?;
        let identity = sys::program_identity(fd.as_fd()).map_err(interface_error("query", interface))?;
        Ok(Some(Self { fd, identity, mode }))
    }

    fn is_ours(&self) -> bool {
        self.identity.name == PROGRAM
    }

    fn foreign(&self, interface: &Interface) -> SteerError {
        let ProgramIdentity { id, name, .. } = self.identity.clone();
        SteerError::Foreign { interface: interface.name.clone(), id, name }
    }

    /// Takes it off, unless it was replaced meanwhile.
    fn remove(&self, interface: &Interface) -> Result<(), SteerError> {
        sys::attach_xdp(interface.index, None, Some(self.fd.as_fd()), self.mode.flags().bits())
            .map_err(interface_error("detach", interface))
    }
}

/// Whether a native attach failed because the driver cannot, so that generic mode is worth a try.
fn lacks_native_mode(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSYS | libc::ENOMEM | libc::ENOSPC))
}

fn attach_error(interface: &Interface, source: io::Error) -> SteerError {
    let name = interface.name.clone();
    match (source.raw_os_error(), Attached::on(interface)) {
        (Some(libc::ERANGE), _) => {
            SteerError::MtuTooLarge { mtu: sys::interface_mtu(&name).unwrap_or(0), interface: name }
        }
        // Somebody attached between our look and our attempt.
        (Some(libc::EBUSY | libc::EEXIST), Ok(Some(found))) if !found.is_ours() => found.foreign(interface),
        _ => SteerError::Attach { interface: name, source },
    }
}

fn interface_error(what: &'static str, interface: &Interface) -> impl Fn(io::Error) -> SteerError {
    move |source| SteerError::Interface { what, interface: interface.name.clone(), source }
}
