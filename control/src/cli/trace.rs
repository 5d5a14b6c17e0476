//! `sluice trace`: what becomes of packets in the running director, step by step.

use std::fmt::Write;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::process::ExitCode;

use clap::Args;

use super::reload::no_answer;
use super::{StateArguments, block_on, fail, output, say};
use crate::api::client;
use crate::state_dir::StateDir;
use crate::watch::{Form, Order, TracedPacket};

/// What filters are made of, for `--help` of trace and capture.
pub(super) const FILTERS: &str = "\
FILTER: conditions with `and`, `or`, `not` and parentheses; without one, every packet.
  tcp  udp  sctp  icmp  ip  ip6  fragment        by protocol
  syn  ack  fin  rst                             TCP segments with this flag
  [src|dst] host ADDRESS                         by address
  [src|dst] net PREFIX                           by addresses, as 192.0.2.0/24
  [src|dst] port NUMBER[-NUMBER]                 by port
  dev NAME                                       received by this port
  drop [REASON]                                  dropped, for the reason that `sluice status` names
Addresses and ports are those of the packet as it came or of the other side of its flow: a filter on the address
of a service shows the servers' answers too.";

#[derive(Debug, Args)]
#[command(after_help = FILTERS)]
pub(super) struct TraceArguments {
    /// Which packets: see below
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// End after so many packets
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Packets a second that each worker shows at most [default: 1000]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Print each packet as a line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArguments,
}

pub(super) fn run(arguments: &TraceArguments) -> ExitCode {
    let socket = StateDir::new(&arguments.state.state_dir).socket();
    let order = Order { filter: arguments.filter.join(" "), count: arguments.count, rate: arguments.rate, at: vec![] };
    let mut rest = Vec::new();
    let mut printed = Ok(());
    let each = |piece: &[u8]| {
        rest.extend_from_slice(piece);
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = rest.drain(..whole).collect();
        printed = output::print(&text(&lines, arguments.json));
        if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    let begun = || {
        if std::io::stderr().is_terminal() {
            say("tracing; Ctrl-C ends it");
        }
    };
    match block_on(client::watch(&socket, Form::Trace, &order, begun, each)) {
        Ok(Ok(())) => match printed {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail("cannot print", &error),
        },
        Ok(Err(error)) => no_answer("cannot trace", &error),
        Err(error) => fail("cannot trace", &error),
    }
}

/// Lines of the API as they are, or as blocks for people.
fn text(lines: &[u8], json: bool) -> String {
    let lines = String::from_utf8_lossy(lines);
    if json {
        return lines.into_owned();
    }
    let mut page = String::new();
    for line in lines.lines() {
        match serde_json::from_str::<TracedPacket>(line) {
            Ok(packet) => render(&mut page, &packet),
            Err(_) => page.push_str(line),
        }
    }
    page
}

fn render(page: &mut String, packet: &TracedPacket) {
    // Writing to a `String` cannot fail.
    if let Some(lost) = packet.lost {
        let _ = writeln!(page, "({lost} packets or steps could not be shown so far)");
        return;
    }
    let _ = writeln!(page, "{} UTC  worker {} packet {}", clock(&packet.time), packet.worker, packet.packet);
    for step in &packet.steps {
        let _ = writeln!(page, "  {:<9} {}", step.step, step.text);
    }
}

/// The time of day of seconds since the epoch with a fraction.
fn clock(time: &str) -> String {
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let day = seconds.parse::<u64>().unwrap_or_default() % 86_400;
    format!("{:02}:{:02}:{:02}.{fraction}", day / 3600, day / 60 % 60, day % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_a_block_and_a_loss_a_line() {
        let packet =
            r#"{"time":"1700000000.000120","worker":1,"packet":7,"steps":[{"step":"lookup","text":"no flow"}]}"#;
        let lost = r#"{"time":"","worker":0,"packet":0,"steps":[],"lost":3}"#;
        assert_eq!(
            text(format!("{packet}\n{lost}\n").as_bytes(), false),
            "22:13:20.000120 UTC  worker 1 packet 7\n  lookup    no flow\n(3 packets or steps could not be shown so far)\n"
        );
    }
}
