//! The program that gives an interface's frames to AF_XDP sockets; see bpf/take.bpf.c.
//!
//! It hangs on a link that the kernel takes away with the process: a generator, unlike a director, leaves nothing.

use std::os::fd::RawFd;

use dataplane::steer::Interface;
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder};
use serde::Serialize;

use crate::error::PktgenError;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/take.bpf.o"));

/// Destination ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortRange {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl PortRange {
    /// Every port.
    pub(crate) const ALL: Self = Self { first: 0, last: u16::MAX };
}

/// Which frames the program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// All of them.
    Everything,
    /// TCP and UDP to these ports; the kernel keeps the rest.
    Ports(PortRange),
}

/// What the program did with frames, over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Taken {
    /// Left to the kernel.
    pub(crate) passed: u64,
    /// Given to a socket, whose ring may have been full.
    pub(crate) taken: u64,
    /// Dropped: their queue has no socket.
    pub(crate) no_socket: u64,
}

/// The program on one interface, until this is dropped.
#[derive(Debug)]
pub(super) struct Take {
    interface: String,
    object: Object,
    _link: Link,
}

impl Take {
    /// Loads the program and attaches it to an interface of this thread's network namespace.
    pub(super) fn attach(interface: &Interface, filter: Filter) -> Result<Self, PktgenError> {
        // What libbpf would print is in the errors.
        libbpf_rs::set_print(None);
        let failed = |source| PktgenError::Attach { interface: interface.name.clone(), source };
        let mut open = ObjectBuilder::default().open_memory(OBJECT).map_err(failed)?;
        let wanted = match filter {
            Filter::Everything => "take_all",
            Filter::Ports(_) => "take_ports",
        };
        for mut program in open.progs_mut() {
            let is_wanted = program.name() == wanted;
            program.set_autoload(is_wanted);
        }
        if let Filter::Ports(ports) = filter {
            let mut value = [0; 4];
            value[..2].copy_from_slice(&ports.first.to_ne_bytes());
            value[2..].copy_from_slice(&ports.last.to_ne_bytes());
            let constants = open.maps_mut().find(|m| m.name().to_string_lossy().ends_with(".rodata"));
            constants.ok_or(PktgenError::Embedded(".rodata"))?.set_initial_value(&value).map_err(failed)?;
        }
        let object = open.load().map_err(failed)?;
        let program = object.progs_mut().find(|p| p.name() == wanted).ok_or(PktgenError::Embedded(wanted))?;
        let link = program.attach_xdp(interface.index.cast_signed()).map_err(failed)?;
        Ok(Self { interface: interface.name.clone(), object, _link: link })
    }

    /// Gives the frames of a queue to a socket.
    pub(super) fn give(&self, queue: u32, socket: RawFd) -> Result<(), PktgenError> {
        let map = self.map("xsks")?;
        let value = socket.cast_unsigned().to_ne_bytes();
        map.update(&queue.to_ne_bytes(), &value, MapFlags::ANY).map_err(|e| self.failed(e))
    }

    /// What it did so far.
    pub(super) fn taken(&self) -> Result<Taken, PktgenError> {
        let map = self.map("outcomes")?;
        let count = |key: u32| {
            let values = map.lookup_percpu(&key.to_ne_bytes(), MapFlags::ANY).map_err(|e| self.failed(e))?;
            let of_cpu = |bytes: Vec<u8>| bytes.try_into().map_or(0, u64::from_ne_bytes);
            Ok::<u64, PktgenError>(values.unwrap_or_default().into_iter().map(of_cpu).sum())
        };
        Ok(Taken { passed: count(0)?, taken: count(1)?, no_socket: count(2)? })
    }

    fn map(&self, name: &'static str) -> Result<libbpf_rs::Map<'_>, PktgenError> {
        self.object.maps().find(|m| m.name() == name).ok_or(PktgenError::Embedded(name))
    }

    fn failed(&self, source: libbpf_rs::Error) -> PktgenError {
        PktgenError::Attach { interface: self.interface.clone(), source }
    }
}
