//! The crate's calls to the system that have no safe wrapper in a library we use.

#![allow(unsafe_code)]

use std::time::Duration;

/// `CLOCK_MONOTONIC`.
pub(crate) fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to; CLOCK_MONOTONIC always exists on Linux, so the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

#[cfg(feature = "afxdp")]
pub(crate) use xdp::{ProgramIdentity, attach_xdp, interface_index, interface_mtu, program_identity};

/// What libbpf-rs does without telling the error number, or not at all.
#[cfg(feature = "afxdp")]
mod xdp {
    use std::ffi::CStr;
    use std::io;
    use std::mem::size_of;
    use std::os::fd::{AsRawFd, BorrowedFd};

    use libbpf_rs::libbpf_sys::{self, bpf_prog_info, bpf_xdp_attach_opts};

    /// What the kernel tells of a BPF program.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct ProgramIdentity {
        /// Its id.
        pub(crate) id: u32,
        /// Its name, cut to 15 bytes by the kernel.
        pub(crate) name: String,
        /// A hash of its instructions.
        pub(crate) tag: [u8; 8],
    }

    /// Puts `program` (`None`: nothing) on an interface, provided that `old` is there now (`None`: as `flags` say).
    pub(crate) fn attach_xdp(
        interface: u32,
        program: Option<BorrowedFd<'_>>,
        old: Option<BorrowedFd<'_>>,
        flags: u32,
    ) -> io::Result<()> {
        let raw = |fd: Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| fd.as_raw_fd());
        let options = bpf_xdp_attach_opts {
            sz: size_of::<bpf_xdp_attach_opts>() as u64,
            old_prog_fd: raw(old),
            ..bpf_xdp_attach_opts::default()
        };
        let flags = if old.is_some() { flags | libbpf_sys::XDP_FLAGS_REPLACE } else { flags };
        // SAFETY: `options` is a complete structure of the size that it names and outlives the call; the descriptors
        // are open, or -1 for none.
        let result =
            unsafe { libbpf_sys::bpf_xdp_attach(interface.cast_signed(), raw(program), flags, &raw const options) };
        result_of(result)
    }

    /// Name and tag of a program.
    pub(crate) fn program_identity(program: BorrowedFd<'_>) -> io::Result<ProgramIdentity> {
        let mut info = bpf_prog_info::default();
        let mut length = size_of::<bpf_prog_info>() as u32;
        // SAFETY: `info` has `length` writable bytes; zeroed, it asks for no further buffers.
        let result =
            unsafe { libbpf_sys::bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut info).cast(), &raw mut length) };
        result_of(result)?;
        let name = info.name.iter().map(|c| c.cast_unsigned()).take_while(|b| *b != 0).map(char::from).collect();
        Ok(ProgramIdentity { id: info.id, name, tag: info.tag })
    }

    /// The index of an interface in this thread's network namespace.
    pub(crate) fn interface_index(name: &CStr) -> Option<u32> {
        // SAFETY: `name` ends with a zero byte.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        (index != 0).then_some(index)
    }

    /// The MTU of an interface of this thread's network namespace, in bytes.
    pub(crate) fn interface_mtu(name: &str) -> io::Result<u32> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| std::net::UdpSocket::bind("[::]:0"))?;
        // SAFETY: an all-zero ifreq is a valid one: an empty name and numbers.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = from.cast_signed();
        }
        // SAFETY: SIOCGIFMTU reads the name and writes the MTU of the ifreq that it is given.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: SIOCGIFMTU succeeded, so this member of the union was written.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(mtu.unsigned_abs())
    }

    fn result_of(result: i32) -> io::Result<()> {
        if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
    }
}
