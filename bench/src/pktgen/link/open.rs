//! Opens places: a Sluice port over AF_XDP for each, and the program that feeds it where frames are to be received.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use dataplane::ident::{MacAddr, PortIndex, QueueIndex};
use dataplane::port::xsk::{self, CopyMode, SocketPlace, XskConfig, XskPorts, XskStatistics};
use dataplane::steer::Interface;
use dataplane::worker::Idle;
use serde::Serialize;

use super::namespace::within;
use super::take::{Filter, Take, Taken};
use super::{Place, PortRange};
use crate::error::PktgenError;

/// What is received on opened places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receive {
    /// Nothing: frames are only sent, and the kernel keeps what comes.
    Nothing,
    /// TCP and UDP to these ports.
    Ports(PortRange),
    /// Every frame.
    Everything,
}

/// Places that are open as the ports of one worker: the first is port 0, and so on.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The interfaces' own addresses, by port.
    pub(crate) macs: Vec<MacAddr>,
    /// The largest MTU of the interfaces, in bytes.
    pub(crate) mtu: u32,
    /// What the programs and sockets count.
    pub(crate) counters: LinkCounters,
    /// The ports. Dropped after the programs, so that none gives frames to sockets that are gone.
    pub(crate) ports: XskPorts,
}

/// Reads what kernel and program counted, also while the ports are at work.
#[derive(Debug)]
pub(crate) struct LinkCounters {
    programs: Vec<(String, Take)>,
    sockets: Vec<(SocketPlace, RawFd, CopyMode)>,
}

/// What one socket's kernel side counted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SocketReport {
    interface: String,
    queue: u32,
    mode: CopyMode,
    #[serde(flatten)]
    statistics: XskStatistics,
}

/// What one interface's program counted.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProgramReport {
    interface: String,
    #[serde(flatten)]
    pub(crate) taken: Taken,
}

impl fmt::Display for SocketReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interface, queue, statistics: s, .. } = self;
        let lost = s.rx_dropped + s.rx_ring_full;
        write!(
            f,
            "socket {interface}:{queue}  lost {lost} (ring full {}), no frame {}",
            s.rx_ring_full, s.fill_ring_empty
        )
    }
}

impl fmt::Display for ProgramReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken { passed, taken, no_socket } = self.taken;
        write!(f, "XDP {}  taken {taken}, left to the kernel {passed}, no socket {no_socket}", self.interface)
    }
}

/// Opens places of one network namespace, for somebody who idles so.
pub(crate) fn open(places: &[Place], receive: Receive, idle: Idle) -> Result<Opened, PktgenError> {
    let namespace = places.first().and_then(|p| p.namespace.as_deref());
    if let Some(other) = places.iter().find(|p| p.namespace.as_deref() != namespace) {
        return Err(PktgenError::TwoNamespaces { place: other.to_string() });
    }
    within(namespace, || open_here(places, receive, idle))
}

fn open_here(places: &[Place], receive: Receive, idle: Idle) -> Result<Opened, PktgenError> {
    let mut programs = Vec::new();
    let mut macs = Vec::new();
    let mut mtu = 0;
    for place in places {
        let missing = || PktgenError::NoInterface { place: place.to_string() };
        let interface = Interface::by_name(&place.interface).ok_or_else(missing)?;
        mtu = mtu.max(interface.mtu().map_err(|source| failed(place, source))?);
        macs.push(mac_of(&place.interface).map_err(|source| failed(place, source))?.ok_or_else(missing)?);
        let filter = match receive {
            Receive::Nothing => continue,
            Receive::Ports(ports) => Filter::Ports(ports),
            Receive::Everything => Filter::Everything,
        };
        programs.push((place.interface.clone(), Take::attach(&interface, filter)?));
    }
    let sockets: Vec<SocketPlace> = places.iter().enumerate().flat_map(sockets_of).collect();
    let config = XskConfig { wake_up: idle.into(), ..XskConfig::default() };
    let ports = XskPorts::open(&sockets, &config, mtu)?;
    let sockets: Vec<_> = ports.sockets().map(|(place, fd, mode)| (place.clone(), fd, mode)).collect();
    for (place, fd, _) in &sockets {
        if let Some((_, program)) = programs.get(place.port.0 as usize) {
            program.give(place.queue.0, *fd)?;
        }
    }
    Ok(Opened { macs, mtu, counters: LinkCounters { programs, sockets }, ports })
}

impl LinkCounters {
    /// What each program did with frames.
    pub(crate) fn programs(&self) -> Result<Vec<ProgramReport>, PktgenError> {
        let report = |(interface, program): &(String, Take)| {
            Ok(ProgramReport { interface: interface.clone(), taken: program.taken()? })
        };
        self.programs.iter().map(report).collect()
    }

    /// What the kernel counted on each socket. Fails when the ports are gone.
    pub(crate) fn sockets(&self) -> Result<Vec<SocketReport>, PktgenError> {
        let report = |(place, fd, mode): &(SocketPlace, RawFd, CopyMode)| {
            Ok(SocketReport {
                interface: place.interface.clone(),
                queue: place.queue.0,
                mode: *mode,
                statistics: xsk::statistics(*fd)
                    .map_err(|source| PktgenError::Interface { place: place.interface.clone(), source })?,
            })
        };
        self.sockets.iter().map(report).collect()
    }
}

fn sockets_of((port, place): (usize, &Place)) -> impl Iterator<Item = SocketPlace> {
    let interface = place.interface.clone();
    place.queues.clone().map(move |queue| SocketPlace {
        port: PortIndex(port as u8),
        interface: interface.clone(),
        queue: QueueIndex(queue),
    })
}

fn mac_of(interface: &str) -> io::Result<Option<MacAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?;
    let own = addresses.filter(|a| a.interface_name == interface);
    Ok(own.filter_map(|a| a.address?.as_link_addr()?.addr()).map(MacAddr).next())
}

fn failed(place: &Place, source: io::Error) -> PktgenError {
    PktgenError::Interface { place: place.to_string(), source }
}
