//! What the steering program costs a frame, beside a program that only redirects and the one of `sluice-pktgen wire`.
//!
//! The kernel runs the programs itself (`BPF_PROG_TEST_RUN`) as if frames had come in by the loopback interface of a
//! network namespace of its own; nothing is sent. A run's cost there is that of warm caches.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use dataplane::ident::{Endpoint, MacAddr, NetPort, PortIndex, Protocol, QueueIndex, ServiceKey};
use dataplane::port::xsk::{SocketPlace, XskConfig, XskPorts};
use dataplane::service::LocalPorts;
use dataplane::steer::{AttachMode, Decision, Interface, Steer, SteerLimits, SteerPlan, SteerPrefix};
use etherparse::PacketBuilder;
use ipnet::IpNet;
use libbpf_rs::{MapCore, MapFlags, Object, ObjectBuilder, ProgramInput};
use nix::sched::{CloneFlags, unshare};

use crate::cli::SteerArgs;
use crate::error::BenchError;
use crate::machine::Quiet;
use crate::results::{Measured, Row};

static TAKE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/take.bpf.o"));

/// The director's interfaces: two, as most have.
const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const PORT: u16 = 80;
/// Of every FULLNAT local address.
const LOCAL_PORTS: (u16, u16) = (5000, 65_000);

/// Measures on the core that the thread is on.
///
/// # Errors
/// When it is not allowed, or the program decides otherwise than it should.
pub(crate) fn run(args: &SteerArgs) -> Result<Measured, BenchError> {
    // This thread's only, and gone with it.
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| loopback("make a network namespace")(e.into()))?;
    let loopback = up()?;
    let place = SocketPlace { port: PortIndex(0), interface: loopback.name.clone(), queue: QueueIndex(0) };
    let ports = XskPorts::open(&[place], &XskConfig::default(), 1500)?;
    let socket = ports.sockets().map(|(_, socket, _)| socket).next().unwrap_or(-1);
    let (quiet, begin) = (Quiet::watch(), Instant::now());
    let mut rows = Vec::new();
    let frames = frames(args.entries)?;
    let bare = Bare::load(socket)?;
    for (what, program) in [("redirect only", "take_bare"), ("sluice-pktgen wire", "take_all")] {
        rows.push(row(what, "none", args, || bare.time(program, &[0; 60], args.runs))?);
    }
    for plan in Plan::ALL {
        let mut steer = Steer::load(&SteerLimits::default())?;
        steer.apply(&plan.steering(args.entries))?;
        steer.attach(&loopback, 0, AttachMode::Generic)?;
        steer.set_socket(0, socket)?;
        for frame in frames.iter().filter(|frame| frame.plans.contains(&plan)) {
            let timed = || {
                let (decision, time) = steer.time(&frame.bytes, args.runs)?;
                if decision == frame.decision {
                    Ok(time)
                } else {
                    Err(BenchError::Steered { what: frame.what.clone(), decision })
                }
            };
            rows.push(row(&frame.what, plan.name(), args, timed)?);
        }
        steer.detach(&loopback)?;
    }
    let warnings = quiet.disturbance(begin.elapsed().as_secs_f64()).into_iter().collect();
    Ok(Measured { rows, warnings })
}

fn loopback(what: &'static str) -> impl Fn(io::Error) -> BenchError {
    move |source| BenchError::Loopback { what, source }
}

/// The namespace's loopback interface, which takes a socket only when it is up.
fn up() -> Result<Interface, BenchError> {
    let failed = loopback("set the loopback interface up");
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().map_err(&failed)?;
    let found = Interface::by_name("lo").filter(|_| status.success());
    found.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
}

fn row(
    what: &str,
    plan: &str,
    args: &SteerArgs,
    mut time: impl FnMut() -> Result<Duration, BenchError>,
) -> Result<Row, BenchError> {
    let mut times =
        (0..args.repetitions).map(|_| Ok(time()?.as_nanos() as f64)).collect::<Result<Vec<_>, BenchError>>()?;
    times.sort_by(f64::total_cmp);
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    let row = Row::default().with("frame", what).with("maps", plan).with("ns", at(times.len() / 2));
    Ok(row.with("min_ns", at(0)).with("max_ns", at(times.len() - 1)))
}

/// What is in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// What one mode needs.
    Nat,
    Fullnat,
    /// What all need, with prefixes and whole addresses.
    Everything,
}

impl Plan {
    const ALL: [Self; 3] = [Self::Nat, Self::Fullnat, Self::Everything];

    const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Fullnat => "fullnat",
            Self::Everything => "everything",
        }
    }

    fn steering(self, entries: u16) -> SteerPlan {
        let mut plan = SteerPlan { macs: MACS.into(), ..SteerPlan::default() };
        plan.own.extend(both(Role::Own, 0));
        for n in 0..entries {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                plan.services.extend(both(Role::Service, n).map(|address| key(protocol, address, PORT)));
            }
            if self != Self::Fullnat {
                plan.replies.extend(both(Role::Server, n).map(|address| key(Protocol::Tcp, address, PORT)));
            }
            if self != Self::Nat
                && let Some(ports) = LocalPorts::new(LOCAL_PORTS.0, LOCAL_PORTS.1)
            {
                plan.locals.extend(both(Role::Local, n).map(|address| (address, ports)));
            }
        }
        if self == Self::Everything {
            plan.services.extend(both(Role::Whole, 0).map(|address| key(Protocol::Tcp, address, 0)));
            plan.replies.extend(both(Role::Whole, 1).map(|address| key(Protocol::Tcp, address, 0)));
            plan.prefixes.extend(both(Role::Whole, 2).map(|address| SteerPrefix {
                protocol: Protocol::Tcp,
                prefix: IpNet::from(address),
                low: 1,
                high: u16::MAX,
            }));
        }
        plan
    }
}

fn key(protocol: Protocol, address: IpAddr, port: u16) -> ServiceKey {
    ServiceKey { protocol, at: Endpoint { address, port: NetPort::new(port) } }
}

/// Who has an address; each role has a network of its own.
#[derive(Clone, Copy, Debug)]
enum Role {
    Own,
    Service,
    Server,
    Local,
    Client,
    Whole,
}

/// The addresses of both families, IPv4 first.
fn both(role: Role, n: u16) -> [IpAddr; 2] {
    let [high, low] = n.to_be_bytes();
    let v4 = Ipv4Addr::new(10, role as u8, high, low);
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, role as u16, 0, 0, 0, 0, n);
    [v4.into(), v6.into()]
}

/// A frame and what should become of it.
struct Frame {
    what: String,
    plans: &'static [Plan],
    decision: Decision,
    bytes: Vec<u8>,
}

/// Frames between entries in the middle of the maps.
fn frames(entries: u16) -> Result<Vec<Frame>, BenchError> {
    use Decision::{Pass, Redirect};
    let n = entries / 2;
    let two_way: &[Plan] = &[Plan::Nat, Plan::Everything];
    let fullnat: &[Plan] = &[Plan::Fullnat, Plan::Everything];
    let (service, client, server) = ((Role::Service, n), (Role::Client, 7), (Role::Server, n));
    let kinds = [
        ("TCP request", Protocol::Tcp, (client, 40_000), (service, PORT), MACS[0], &Plan::ALL[..], Redirect),
        ("UDP request", Protocol::Udp, (client, 40_000), (service, PORT), MACS[1], &Plan::ALL, Redirect),
        ("TCP reply", Protocol::Tcp, (server, PORT), (client, 40_000), MACS[1], two_way, Redirect),
        (
            "reply to a local address",
            Protocol::Tcp,
            (server, PORT),
            ((Role::Local, n), 6000),
            MACS[1],
            fullnat,
            Redirect,
        ),
        ("answer to the director", Protocol::Tcp, (server, PORT), ((Role::Own, 0), 40_000), MACS[1], two_way, Pass),
        ("of no service", Protocol::Tcp, (client, 40_000), (service, 22), MACS[0], &Plan::ALL, Pass),
        ("to another MAC", Protocol::Tcp, (client, 40_000), (service, PORT), OTHER, &Plan::ALL, Pass),
    ];
    let mut frames = Vec::new();
    for (what, protocol, from, to, mac, plans, decision) in kinds {
        for (family, name) in ["IPv4", "IPv6"].into_iter().enumerate() {
            let address = |(role, n): (Role, u16)| both(role, n)[family];
            let bytes = frame(protocol, (address(from.0), from.1), (address(to.0), to.1), mac)?;
            frames.push(Frame { what: format!("{name} {what}"), plans, decision, bytes });
        }
    }
    Ok(frames)
}

fn frame(protocol: Protocol, from: (IpAddr, u16), to: (IpAddr, u16), mac: MacAddr) -> Result<Vec<u8>, BenchError> {
    let ethernet = PacketBuilder::ethernet2(OTHER.0, mac.0);
    let ip = match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (from, to) => ethernet.ipv6(octets(from), octets(to), 64),
    };
    let mut bytes = Vec::new();
    // What steering reads ends with the ports.
    match protocol {
        Protocol::Udp => ip.udp(from.1, to.1).write(&mut bytes, &[0; 18]),
        _ => ip.tcp(from.1, to.1, 1, 65_535).write(&mut bytes, &[0; 18]),
    }
    .map_err(|e| BenchError::Output(io::Error::other(e)))?;
    Ok(bytes)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The programs to compare with, each with a socket behind queue 0.
struct Bare {
    object: Object,
}

impl Bare {
    fn load(socket: RawFd) -> Result<Self, BenchError> {
        libbpf_rs::set_print(None);
        let object = ObjectBuilder::default().open_memory(TAKE)?.load()?;
        if let Some(sockets) = object.maps().find(|map| map.name() == "xsks") {
            sockets.update(&0u32.to_ne_bytes(), &socket.cast_unsigned().to_ne_bytes(), MapFlags::ANY)?;
        }
        Ok(Self { object })
    }

    fn time(&self, program: &'static str, frame: &[u8], runs: u32) -> Result<Duration, BenchError> {
        let found = self.object.progs_mut().find(|p| p.name() == program);
        let found = found.ok_or(BenchError::NoProgram(program))?;
        let input = ProgramInput { data_in: Some(frame), repeat: runs, ..ProgramInput::default() };
        Ok(found.test_run(input)?.duration)
    }
}
