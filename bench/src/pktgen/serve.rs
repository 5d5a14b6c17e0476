//! `serve`: the other end of `connect`, for when no real server is to be the limit.

use std::io::{self, Write};

use clap::Args;
use dataplane::clock;
use dataplane::ident::PortIndex;
use serde::Serialize;
use sluice_bench::machine::Machine;

use crate::cli::{Format, Run};
use crate::error::PktgenError;
use crate::link::{self, Place, PortRange, Receive};
use crate::report::{self, LinkReport};
use crate::stop::Stop;
use crate::tcp::{Served, Server};
use crate::turns;

/// Answer TCP connections without keeping state
///
/// Takes every connection to its ports, answers each request with the same bytes, and ends the connection. It sends
/// nothing again: clients do. The kernel must not listen on these ports here.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Where connections come in: [NETNS/]INTERFACE[:QUEUE[-QUEUE]]
    at: Place,
    /// Take only what comes to these ports; the kernel keeps the rest
    #[arg(long, default_value = "80", value_name = "PORT[-PORT]")]
    ports: PortRange,
    /// Bytes of an answer
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1400))]
    answer: u16,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Serialize)]
struct ServeReport {
    command: &'static str,
    seconds: f64,
    cpu_seconds: f64,
    #[serde(flatten)]
    served: Served,
    link: LinkReport,
    machine: Machine,
}

const PORT: PortIndex = PortIndex(0);

/// Runs the command and prints its result.
pub(crate) fn run(args: &ServeArgs) -> Result<(), PktgenError> {
    let mut opened = link::open(std::slice::from_ref(&args.at), Receive::Ports(args.ports), args.run.idle.into())?;
    args.run.hardware.pin()?;
    let stop = Stop::after(args.run.bounds.duration)?;
    let mut server = Server::new(args.answer.into());
    report::ready("serve")?;
    let began = clock::since_boot();
    turns::take(&mut opened.ports, &args.run, &stop, |ports| server.turn(ports, PORT));
    let seconds = clock::since_boot().saturating_sub(began).as_secs_f64();
    let served = server.served();
    let link = LinkReport::of(&opened.counters)?;
    let cpu_seconds = report::cpu_seconds();
    if let Format::Json = args.run.format {
        let machine = Machine::here();
        return report::json(&ServeReport { command: "serve", seconds, cpu_seconds, served, link, machine });
    }
    let mut out = io::stdout().lock();
    let Served { received, syns, requests, fins, resets, tx_full, ignored } = served;
    writeln!(out, "serve: {seconds:.1} s, {received} segments, {cpu_seconds:.2} s of processor time")?;
    writeln!(
        out,
        "  SYN {syns}, requests {requests}, FIN {fins}, RST {resets}; ring full {tx_full}, ignored {ignored}"
    )?;
    link.text(&mut out)?;
    Ok(())
}
