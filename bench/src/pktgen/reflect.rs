//! `reflect`: sends what comes back to where it came from, so that its sender measures the round trip.

use std::io::{self, Write};

use clap::Args;
use dataplane::clock;
use dataplane::ident::PortIndex;
use dataplane::port::{Burst, Ports};
use dataplane::wire::{IpVersion, ipv4, ipv6, number, parse};
use serde::Serialize;
use sluice_bench::machine::Machine;

use crate::cli::{Format, Run};
use crate::error::PktgenError;
use crate::link::{self, Place, PortRange, Receive};
use crate::report::{self, LinkReport, Rate};
use crate::stop::Stop;
use crate::turns;

/// Send datagrams back to where they came from
///
/// Swaps addresses and ports and changes nothing else, so `send --receive` at the other end measures the round trip.
/// TCP is left alone: `serve` answers it.
#[derive(Args, Debug)]
pub(crate) struct ReflectArgs {
    /// Where datagrams come in: [NETNS/]INTERFACE[:QUEUE[-QUEUE]]
    at: Place,
    /// Take only what comes to these ports; the kernel keeps the rest
    #[arg(long, default_value = "0-65535", value_name = "PORT[-PORT]")]
    ports: PortRange,
    #[command(flatten)]
    run: Run,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Reflected {
    received: u64,
    /// Sent back.
    sent: u64,
    /// Refused by a full ring.
    tx_full: u64,
    /// No datagrams.
    ignored: u64,
}

#[derive(Debug, Serialize)]
struct ReflectReport {
    command: &'static str,
    seconds: f64,
    cpu_seconds: f64,
    #[serde(flatten)]
    frames: Reflected,
    rate: Rate,
    link: LinkReport,
    machine: Machine,
}

const PORT: PortIndex = PortIndex(0);

/// Runs the command and prints its result.
pub(crate) fn run(args: &ReflectArgs) -> Result<(), PktgenError> {
    let mut opened = link::open(std::slice::from_ref(&args.at), Receive::Ports(args.ports), args.run.idle.into())?;
    args.run.hardware.pin()?;
    let stop = Stop::after(args.run.bounds.duration)?;
    report::ready("reflect")?;
    let began = clock::since_boot();
    let mut frames = Reflected::default();
    turns::take(&mut opened.ports, &args.run, &stop, |ports| turn(ports, &mut frames));
    let seconds = clock::since_boot().saturating_sub(began).as_secs_f64();
    let result = ReflectReport {
        command: "reflect",
        seconds,
        cpu_seconds: report::cpu_seconds(),
        frames,
        rate: Rate::of(frames.sent, 0, seconds),
        link: LinkReport::of(&opened.counters)?,
        machine: Machine::here(),
    };
    if let Format::Json = args.run.format {
        return report::json(&result);
    }
    let mut out = io::stdout().lock();
    let Reflected { received, sent, tx_full, ignored } = frames;
    writeln!(out, "reflect: {seconds:.1} s, {}, {:.2} s of processor time", result.rate, result.cpu_seconds)?;
    writeln!(out, "  received {received}, sent back {sent}, ring full {tx_full}, no datagrams {ignored}")?;
    result.link.text(&mut out)?;
    Ok(())
}

/// A burst back to where it came from; the number of frames.
fn turn(ports: &mut impl Ports, frames: &mut Reflected) -> usize {
    let mut burst = Burst::new();
    ports.receive(PORT, &mut burst);
    let taken = burst.len();
    frames.received += taken as u64;
    for mut frame in burst.drain(..) {
        if !turn_round(ports.bytes_mut(&mut frame)) {
            frames.ignored += 1;
            ports.free(frame);
            continue;
        }
        match ports.transmit(PORT, frame) {
            Ok(()) => frames.sent += 1,
            Err(frame) => {
                frames.tx_full += 1;
                ports.free(frame);
            }
        }
    }
    ports.flush();
    taken
}

/// Swaps both MACs, both addresses and both ports, which changes no checksum. False for what is no datagram.
fn turn_round(frame: &mut [u8]) -> bool {
    let Ok(headers) = parse(frame) else { return false };
    if headers.protocol != number::UDP {
        return false;
    }
    let (l3, l4) = (headers.l3 as usize, headers.l4 as usize);
    let (addresses, length) = match headers.version {
        IpVersion::V4 => (l3 + ipv4::SOURCE, 4),
        IpVersion::V6 => (l3 + ipv6::SOURCE, 16),
    };
    swap(frame, 0, 6) && swap(frame, addresses, length) && swap(frame, l4, 2)
}

/// Swaps two neighbours of `length` bytes at `at`.
fn swap(frame: &mut [u8], at: usize, length: usize) -> bool {
    let Some(both) = frame.get_mut(at..at + 2 * length) else { return false };
    let (first, second) = both.split_at_mut(length);
    first.swap_with_slice(second);
    true
}

#[cfg(test)]
mod tests {
    use dataplane::port::MemoryPorts;
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn a_datagram_comes_back_whole_and_others_do_not() {
        let datagram = |from: [u8; 4], to: [u8; 4], macs: [u8; 2], ports: [u16; 2]| {
            let mut frame = Vec::new();
            let builder = PacketBuilder::ethernet2([macs[0]; 6], [macs[1]; 6]).ipv4(from, to, 64);
            builder.udp(ports[0], ports[1]).write(&mut frame, b"ping").unwrap();
            frame
        };
        let mut segment = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 64);
        builder.tcp(1, 2, 3, 4).write(&mut segment, &[]).unwrap();
        let mut ports = MemoryPorts::new(1, 8);
        assert!(ports.inject(PORT, &datagram([10, 0, 0, 1], [10, 0, 0, 2], [2, 4], [1024, 7])));
        assert!(ports.inject(PORT, &segment));
        let mut frames = Reflected::default();
        assert_eq!(turn(&mut ports, &mut frames), 2);
        assert_eq!(ports.sent(PORT).unwrap(), datagram([10, 0, 0, 2], [10, 0, 0, 1], [4, 2], [7, 1024]));
        assert_eq!(ports.sent(PORT), None);
        assert_eq!(frames, Reflected { received: 2, sent: 1, tx_full: 0, ignored: 1 });
        assert_eq!(ports.available(), 8);
    }
}
