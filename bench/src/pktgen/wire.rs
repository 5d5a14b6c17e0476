//! `wire`: frames from one interface to another by AF_XDP and nothing else. The limit that a director is compared with.
//!
//! Ports, flush and idling are those of Sluice's worker, so what a director costs more than a wire is its work.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use dataplane::clock;
use dataplane::ident::{MacAddr, PortIndex};
use dataplane::port::{Burst, ChecksumMode, Ports};
use dataplane::wire::{checksum, parse};
use serde::Serialize;
use sluice_bench::machine::Machine;

use crate::cli::{Format, Run};
use crate::error::PktgenError;
use crate::link::{self, Place, Receive};
use crate::report::{self, LinkReport, Rate};
use crate::stop::Stop;
use crate::turns;

/// Forward every frame between two interfaces, and do nothing else
///
/// A bare AF_XDP forwarder (l2fwd): the limit that a director is compared with. Without MAC addresses it is a cable:
/// every frame, ARP too, leaves unchanged. With them it is a hop: TCP and UDP leave with the given destination, the
/// interface's own address as source, and the kernel keeps the rest, so that it answers ARP and ND.
///
/// Prints, at its end, the frames of each direction and the processor time that they took.
#[derive(Args, Debug)]
pub(crate) struct WireArgs {
    /// One end: [NETNS/]INTERFACE[:QUEUE[-QUEUE]]
    first: Place,
    /// The other end, in the same network namespace
    second: Place,
    /// Destination MAC of what leaves by the first end
    #[arg(long, requires = "second_mac", value_name = "MAC")]
    first_mac: Option<MacAddr>,
    /// Destination MAC of what leaves by the second end
    #[arg(long, requires = "first_mac", value_name = "MAC")]
    second_mac: Option<MacAddr>,
    /// full: complete transport checksums that a sender left to its device, as over veth
    #[arg(long, value_enum, default_value_t = Checksum::Offload)]
    checksum: Checksum,
    #[command(flatten)]
    run: Run,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Checksum {
    Offload,
    Full,
}

/// The MAC addresses of what leaves by one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    to: MacAddr,
    from: MacAddr,
}

/// What a wire does to frames: the addresses by the port that they leave by, and their checksums.
#[derive(Clone, Copy, Debug)]
struct Treatment {
    addresses: Option<[Addresses; 2]>,
    checksums: ChecksumMode,
}

/// Frames that came in by one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Direction {
    /// Taken from the socket.
    received: u64,
    /// Queued on the other end.
    sent: u64,
    /// Bytes of these, without FCS.
    sent_bytes: u64,
    /// Refused by the other end's full ring.
    tx_full: u64,
    /// Not forwarded: their transport checksum was wrong.
    bad_checksum: u64,
}

#[derive(Debug, Serialize)]
struct WireReport {
    command: &'static str,
    seconds: f64,
    /// Processor time of the forwarding thread, in its own code and in the kernel.
    cpu_seconds: f64,
    first_to_second: Direction,
    second_to_first: Direction,
    rate: Rate,
    link: LinkReport,
    machine: Machine,
}

/// Runs the command and prints its result.
pub(crate) fn run(args: &WireArgs) -> Result<(), PktgenError> {
    let receive = if args.first_mac.is_some() { Receive::Ports(link::PortRange::ALL) } else { Receive::Everything };
    let mut opened = link::open(&[args.first.clone(), args.second.clone()], receive, args.run.idle.into())?;
    let treatment = Treatment { addresses: addresses(args, &opened.macs), checksums: args.checksum.into() };
    args.run.hardware.pin()?;
    let stop = Stop::after(args.run.bounds.duration)?;
    report::ready("wire")?;
    let began = clock::since_boot();
    let mut totals = [Direction::default(); 2];
    turns::take(&mut opened.ports, &args.run, &stop, |ports| turn(ports, treatment, &mut totals));
    let seconds = clock::since_boot().saturating_sub(began).as_secs_f64();
    let [first_to_second, second_to_first] = totals;
    let sent = |of: fn(&Direction) -> u64| totals.iter().map(of).sum();
    let result = WireReport {
        command: "wire",
        seconds,
        cpu_seconds: report::cpu_seconds(),
        first_to_second,
        second_to_first,
        rate: Rate::of(sent(|d| d.sent), sent(|d| d.sent_bytes), seconds),
        link: LinkReport::of(&opened.counters)?,
        machine: Machine::here(),
    };
    print(&result, args.run.format)
}

fn addresses(args: &WireArgs, own: &[MacAddr]) -> Option<[Addresses; 2]> {
    let end = |to: Option<MacAddr>, port: usize| Some(Addresses { to: to?, from: *own.get(port)? });
    Some([end(args.first_mac, 0)?, end(args.second_mac, 1)?])
}

/// A burst from each end to the other; the number of frames.
#[inline]
fn turn(ports: &mut impl Ports, treatment: Treatment, totals: &mut [Direction; 2]) -> usize {
    let mut burst = Burst::new();
    let mut taken = 0;
    for (from, to, total) in [(0, 1, 0), (1, 0, 1)] {
        ports.receive(PortIndex(from), &mut burst);
        let total = &mut totals[total];
        taken += burst.len();
        total.received += burst.len() as u64;
        for mut frame in burst.drain(..) {
            if !treat(ports.bytes_mut(&mut frame), treatment, to) {
                total.bad_checksum += 1;
                ports.free(frame);
                continue;
            }
            let length = frame.len() as u64;
            match ports.transmit(PortIndex(to), frame) {
                Ok(()) => {
                    total.sent += 1;
                    total.sent_bytes += length;
                }
                Err(frame) => {
                    total.tx_full += 1;
                    ports.free(frame);
                }
            }
        }
    }
    ports.flush();
    taken
}

/// What the other side needs; false for a frame that it could not use.
#[inline]
fn treat(frame: &mut [u8], treatment: Treatment, to: u8) -> bool {
    if let Some(addresses) = treatment.addresses
        && let (Some(both), Some(link)) = (frame.first_chunk_mut::<12>(), addresses.get(to as usize))
    {
        both[..6].copy_from_slice(&link.to.0);
        both[6..].copy_from_slice(&link.from.0);
    }
    match treatment.checksums {
        ChecksumMode::Offload => true,
        // What does not parse has no checksum that could be completed.
        ChecksumMode::Full => match parse(frame) {
            Ok(headers) => checksum::settle(frame, &headers).is_ok(),
            Err(_) => true,
        },
    }
}

fn print(result: &WireReport, format: Format) -> Result<(), PktgenError> {
    if let Format::Json = format {
        return report::json(result);
    }
    let mut out = io::stdout().lock();
    let WireReport { seconds, cpu_seconds, rate, .. } = result;
    writeln!(out, "wire: {seconds:.1} s, {rate}, {cpu_seconds:.2} s of processor time")?;
    for (name, d) in [("first to second", result.first_to_second), ("second to first", result.second_to_first)] {
        let Direction { received, sent, tx_full, bad_checksum, .. } = d;
        writeln!(out, "  {name}  received {received}, sent {sent}, ring full {tx_full}, bad checksum {bad_checksum}")?;
    }
    result.link.text(&mut out)?;
    Ok(())
}

impl From<Checksum> for ChecksumMode {
    fn from(mode: Checksum) -> Self {
        match mode {
            Checksum::Offload => Self::Offload,
            Checksum::Full => Self::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane::port::MemoryPorts;

    use super::*;

    const AS_IT_IS: Treatment = Treatment { addresses: None, checksums: ChecksumMode::Offload };

    fn one_turn(treatment: Treatment, frames: [&[u8]; 2]) -> (MemoryPorts, [Direction; 2]) {
        let mut ports = MemoryPorts::new(2, 16);
        for (port, frame) in frames.iter().enumerate() {
            assert!(ports.inject(PortIndex(port as u8), frame));
        }
        let mut totals = [Direction::default(); 2];
        assert_eq!(turn(&mut ports, treatment, &mut totals), 2);
        (ports, totals)
    }

    #[test]
    fn a_cable_changes_nothing_in_either_direction() {
        let (mut ports, totals) = one_turn(AS_IT_IS, [&[1; 60], &[2; 1514]]);
        assert_eq!(ports.sent(PortIndex(1)).unwrap(), [1; 60]);
        assert_eq!(ports.sent(PortIndex(0)).unwrap(), [2; 1514]);
        assert_eq!(totals.map(|d| (d.received, d.sent, d.sent_bytes)), [(1, 1, 60), (1, 1, 1514)]);
        assert_eq!(ports.available(), 16);
    }

    #[test]
    fn a_hop_sets_the_addresses_of_the_end_that_a_frame_leaves_by() {
        let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
        let ends = [Addresses { to: mac(1), from: mac(10) }, Addresses { to: mac(2), from: mac(20) }];
        let hop = Treatment { addresses: Some(ends), ..AS_IT_IS };
        let (mut ports, _) = one_turn(hop, [&[0xff; 60], &[0xff; 60]]);
        let frame = ports.sent(PortIndex(1)).unwrap();
        assert_eq!(frame[..12], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 20]);
        assert!(frame[12..].iter().all(|byte| *byte == 0xff));
        assert_eq!(ports.sent(PortIndex(0)).unwrap()[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 10]);
    }

    #[test]
    fn a_checksum_left_to_the_device_is_completed_and_a_wrong_one_does_not_pass() {
        use etherparse::PacketBuilder;
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64).udp(1, 2);
        let mut whole = Vec::new();
        builder.write(&mut whole, b"payload").unwrap();
        let mut partial = whole.clone();
        let below = checksum::pseudo(&whole[26..34], 17, 15);
        partial[40..42].copy_from_slice(&checksum::fold(below).to_ne_bytes());
        let mut wrong = whole.clone();
        wrong[45] ^= 1;
        let full = Treatment { checksums: ChecksumMode::Full, ..AS_IT_IS };
        let (mut ports, totals) = one_turn(full, [&partial, &wrong]);
        assert_eq!(ports.sent(PortIndex(1)).unwrap(), whole);
        assert_eq!(ports.sent(PortIndex(0)), None);
        assert_eq!(totals[1].bad_checksum, 1);
        assert_eq!(ports.available(), 16);
    }
}
