//! What live tests share: two network namespaces with veth pairs between them, packet sockets, and frames by hand.

#![allow(unsafe_code)]
// Each test binary uses a part of it; the casts are of small numbers for C.
#![allow(dead_code, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

pub(crate) mod director;

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dataplane::ident::{Endpoint, MacAddr, NetPort, Protocol, ServiceKey};
use dataplane::steer::Interface;

/// The director's and the others' end of one veth pair have these MACs, with the pair's number at the end.
pub(crate) fn director_mac(pair: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, pair])
}

pub(crate) fn peer_mac(pair: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 1, pair])
}

/// Two namespaces, joined by veth pairs `a0`–`b0`, `a1`–`b1`, … with two queues each: the director has the a's. The
/// pairs' subnets are 10.9.N.0/24, the director `.1`, the peer `.2`. All is removed at the end, also of a failed test.
pub(crate) struct Lab {
    pub(crate) director: String,
    pub(crate) peer: String,
}

impl Lab {
    pub(crate) fn new(pairs: u8) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lab = Self { director: format!("sp-{id}-d"), peer: format!("sp-{id}-p") };
        for name in [&lab.director, &lab.peer] {
            ip(&format!("netns add {name}"));
            inside(name, || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap());
        }
        for n in 0..pairs {
            lab.pair(n);
        }
        lab
    }

    fn pair(&self, n: u8) {
        let Self { director, peer } = self;
        ip(&format!(
            "link add a{n} netns {director} numrxqueues 2 numtxqueues 2 type veth \
             peer name b{n} netns {peer} numrxqueues 2 numtxqueues 2"
        ));
        for (ns, device, mac, host) in [(director, 'a', director_mac(n), 1), (peer, 'b', peer_mac(n), 2)] {
            ip(&format!("-n {ns} link set {device}{n} address {mac}"));
            ip(&format!("-n {ns} addr add 10.9.{n}.{host}/24 dev {device}{n}"));
            ip(&format!("-n {ns} link set {device}{n} up"));
        }
    }

    pub(crate) fn director<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.director, work)
    }

    pub(crate) fn peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.peer, work)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in [&self.director, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs `ip` with these words; a failure fails the test and says what is missing.
pub(crate) fn ip(words: &str) {
    let done = Command::new("ip").args(words.split_ascii_whitespace()).output().expect("iproute2 is needed");
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "this test needs root and network namespaces: ip {words}: {error}");
}

/// Runs `work` on a thread of its own inside a network namespace.
pub(crate) fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let file = std::fs::File::open(format!("/run/netns/{namespace}")).expect("the namespace exists");
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            // SAFETY: the descriptor is open; only this thread changes its namespace.
            let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "setns: {}", io::Error::last_os_error());
            work()
        });
        match done.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

pub(crate) fn interface(name: &str) -> Interface {
    Interface::by_name(name).expect("the interface exists")
}

/// Tries until `done`, or fails after five seconds.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < give_up, "not within five seconds: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A packet socket on one interface, for whole frames.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    /// In the network namespace of this thread.
    pub(crate) fn on(name: &str) -> Self {
        let every = i32::from((libc::ETH_P_ALL as u16).to_be());
        // SAFETY: no pointers are given.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, every) };
        assert!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let wire = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let size: i32 = 16 << 20;
        // SAFETY: the option's value is a C int.
        let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const size).cast(), 4) };
        assert_eq!(set, 0);
        // SAFETY: zeroes are a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every as u16;
        address.sll_ifindex = interface(name).index.cast_signed();
        // SAFETY: the address is complete and its size is given.
        let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) };
        assert_eq!(bound, 0, "bind: {}", io::Error::last_os_error());
        wire
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the buffer is valid for its length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "send: {}", io::Error::last_os_error());
    }

    /// The next frame that came in (not one that went out) and is not ARP, or `None` after `patience`.
    pub(crate) fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let give_up = Instant::now() + patience;
        let mut buffer = vec![0u8; 65_536];
        while Instant::now() < give_up {
            // SAFETY: zeroes are a valid sockaddr_ll.
            let mut from: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            let mut length = size_of_val(&from) as u32;
            // SAFETY: buffer and address are valid for the lengths given.
            let got = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    libc::MSG_DONTWAIT,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            match usize::try_from(got) {
                Ok(got) if from.sll_pkttype != libc::PACKET_OUTGOING && buffer[12..14] != [8, 6] => {
                    buffer.truncate(got);
                    return Some(buffer);
                }
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }
}

/// A minimal XDP program of this name, loaded: it passes everything.
pub(crate) fn other_program(name: &str) -> OwnedFd {
    use libbpf_rs::libbpf_sys::{BPF_PROG_TYPE_XDP, bpf_insn, bpf_prog_load};
    // r0 = XDP_PASS; exit
    let mut code = [bpf_insn::default(); 2];
    code[0].code = 0xb7;
    code[0].imm = 2;
    code[1].code = 0x95;
    let (name, licence) = (CString::new(name).unwrap(), CString::new("GPL").unwrap());
    // SAFETY: names end with zero, the instructions are valid for their number, no options are given.
    let fd = unsafe {
        bpf_prog_load(BPF_PROG_TYPE_XDP, name.as_ptr(), licence.as_ptr(), code.as_ptr(), 2, std::ptr::null_mut())
    };
    assert!(fd >= 0, "bpf_prog_load: {fd}");
    // SAFETY: the descriptor is new and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub(crate) fn service(protocol: Protocol, address: &str, port: u16) -> ServiceKey {
    ServiceKey { protocol, at: Endpoint { address: address.parse().unwrap(), port: NetPort::new(port) } }
}

/// An Ethernet frame from 02:00:00:00:00:99, with VLAN tags of these types.
pub(crate) fn ethernet(to: MacAddr, tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&to.0[..], &[2, 0, 0, 0, 0, 0x99]].concat();
    for tag in tags {
        frame.extend_from_slice(&tag.to_be_bytes());
        frame.extend_from_slice(&[0, 7]);
    }
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// An IPv4 packet with `options` bytes of no-operation options and these flags and fragment offset. No checksum.
pub(crate) fn ipv4(protocol: u8, ends: (&str, &str), options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (Ipv4Addr, Ipv4Addr) = (ends.0.parse().unwrap(), ends.1.parse().unwrap());
    let header = 20 + options;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend_from_slice(&((header + payload.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet.extend_from_slice(&fragment.to_be_bytes());
    packet.extend_from_slice(&[64, protocol, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend(std::iter::repeat_n(1, options));
    packet.extend_from_slice(payload);
    packet
}

/// An IPv6 packet whose first header is of type `next`.
pub(crate) fn ipv6(next: u8, ends: (&str, &str), payload: &[u8]) -> Vec<u8> {
    let (source, destination): (Ipv6Addr, Ipv6Addr) = (ends.0.parse().unwrap(), ends.1.parse().unwrap());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

/// The first eight bytes of a transport header: ports, then zeroes.
pub(crate) fn ports(source: u16, destination: u16) -> Vec<u8> {
    [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0; 4]].concat()
}

/// A frame with an IPv4 UDP packet, its payload's first bytes a number.
pub(crate) fn numbered(to: MacAddr, ends: (&str, &str), port: u16, number: u32) -> Vec<u8> {
    let udp = [&ports(9, port)[..4], &16u16.to_be_bytes(), &[0, 0], &number.to_be_bytes(), &[0; 4]].concat();
    let mut frame = ethernet(to, &[], 0x0800, &ipv4(17, ends, 0, 0, &udp));
    frame.resize(60, 0);
    frame
}

/// The number in a frame of [`numbered`].
pub(crate) fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[42..46].try_into().unwrap())
}
