//! Results as people read them: a few lines for one measurement, a markdown table for all of them.

use std::io::{self, Write};

use dataplane::service::Method;

use crate::machine::Machine;
use crate::measure::{Cost, Percentiles};
use crate::plan::Flowing;
use crate::{cookie, new_flow, pipeline};

/// One measurement in a few lines.
pub(crate) fn pipeline_text(out: &mut impl Write, o: &pipeline::Outcome) -> io::Result<()> {
    let whole = &o.details.whole;
    writeln!(
        out,
        "{} IPv{} {} {}, {} flows, {} B, {} worker(s)",
        name(o.mode),
        u8::from(o.family),
        o.protocol,
        direction(o.direction),
        o.flows,
        o.size,
        o.workers
    )?;
    writeln!(
        out,
        "  a packet      {:6.1} ns   ({:.2} Mpps; repetitions {:.1} to {:.1}; batches of 4096: median {:.1}, p99 {:.1})",
        o.ns_per_packet,
        o.packets_per_second / 1e6,
        whole.min,
        whole.max,
        whole.batches.p50,
        whole.batches.p99
    )?;
    writeln!(out, "  bare port     {:6.1} ns   the same loop with no work, included above", o.port_ns_per_packet)?;
    writeln!(out, "  forwarding    {:6.1} ns", o.net_ns_per_packet)?;
    writeln!(
        out,
        "  memory limit  {:6.1} ns   random bucket and flow lines of such a table, prefetched",
        o.memory_limit_ns
    )?;
    writeln!(out, "  a new flow    {:6.1} ns", o.new_flow_ns)?;
    writeln!(
        out,
        "  memory        {:6.1} B a flow; index {:.0} % full",
        o.memory_bytes_per_flow,
        o.table_load * 100.0
    )?;
    machine(out, &o.machine)?;
    warn(&o.warnings)
}

/// One measurement of new flows.
pub(crate) fn new_flow_text(out: &mut impl Write, o: &new_flow::Outcome) -> io::Result<()> {
    let cost = &o.details.new_flow;
    let (mode, family) = (name(o.mode), u8::from(o.family));
    writeln!(out, "{mode} IPv{family} {}, wlc over 10 servers, {} flows in the table", o.protocol, o.flows)?;
    writeln!(
        out,
        "  a new flow    {:6.1} ns   (repetitions {:.1} to {:.1}; batches of 4096: median {:.1}, p99 {:.1})",
        o.new_flow_ns, cost.min, cost.max, cost.batches.p50, cost.batches.p99
    )?;
    writeln!(out, "  bare port     {:6.1} ns   included above", o.port_ns_per_packet)?;
    machine(out, &o.machine)?;
    warn(&o.warnings)
}

/// One measurement of the SYN proxy.
pub(crate) fn cookie_text(out: &mut impl Write, o: &cookie::Outcome) -> io::Result<()> {
    let mut line = |what, ns: f64, cost: &Cost| {
        let Percentiles { p1, p50, p99, .. } = cost.batches;
        writeln!(out, "  {what:<44} {ns:6.1} ns   (batches of 4096: p1 {p1:.1}, median {p50:.1}, p99 {p99:.1})")
    };
    line("a SYN without options, answered", o.syn_ns, &o.details.syn)?;
    line("a SYN with the options of Linux, answered", o.linux_syn_ns, &o.details.linux_syn)?;
    line("an acknowledgement that opens a connection", o.acknowledgement_ns, &o.details.acknowledgement)?;
    line("a server's answer that joins it", o.join_ns, &o.details.join)?;
    line("of each the bare port", o.port_ns_per_packet, &o.details.port)?;
    let (mode, family) = (name(o.mode), u8::from(o.family));
    writeln!(out, "  {mode} IPv{family}, {} proxied connections in the table", o.flows)?;
    machine(out, &o.machine)?;
    warn(&o.warnings)
}

/// The head of the table of all measurements.
pub(crate) fn table_head(out: &mut impl Write) -> io::Result<()> {
    writeln!(
        out,
        "| mode | family | flows | ns a packet | of it the bare port | forwarding alone | Mpps | memory limit, ns | budget, ns | new flow, ns | B a flow |"
    )?;
    writeln!(out, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
}

/// One line of the table.
pub(crate) fn table_line(out: &mut impl Write, o: &pipeline::Outcome) -> io::Result<()> {
    writeln!(
        out,
        "| {} | IPv{} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {:.0} | {:.0} |",
        name(o.mode),
        u8::from(o.family),
        count(o.flows),
        o.ns_per_packet,
        o.port_ns_per_packet,
        o.net_ns_per_packet,
        o.packets_per_second / 1e6,
        o.memory_limit_ns,
        budget(o.flows).map_or_else(|| "–".to_owned(), |ns| ns.to_string()),
        o.new_flow_ns,
        o.memory_bytes_per_flow
    )?;
    out.flush()?;
    warn(&o.warnings)
}

/// What stands below the table.
pub(crate) fn table_foot(out: &mut impl Write) -> io::Result<()> {
    let here = Machine::here();
    writeln!(out)?;
    writeln!(
        out,
        "Established flows in random order, frames of 64 B where not asked otherwise (IPv6 with TCP: 74 B), one worker on one core, median of the repetitions."
    )?;
    writeln!(out, "{}, kernel {}, huge pages {}, commit {}.", here.cpu, here.kernel, here.huge_pages, here.commit)
}

/// The most that a packet of an established flow may cost, for the numbers of flows that have a budget.
const fn budget(flows: u32) -> Option<u32> {
    match flows {
        1_000 => Some(30),
        1_000_000 => Some(45),
        10_000_000 => Some(60),
        _ => None,
    }
}

fn count(flows: u32) -> String {
    match flows {
        n if n >= 1_000_000 && n.is_multiple_of(1_000_000) => format!("{} M", n / 1_000_000),
        n if n >= 1_000 && n.is_multiple_of(1_000) => format!("{} k", n / 1_000),
        n => n.to_string(),
    }
}

const fn name(mode: Method) -> &'static str {
    match mode {
        Method::Nat => "NAT",
        Method::Dr => "DR",
        Method::Tun => "TUN",
        Method::FullNat => "FULLNAT",
    }
}

const fn direction(direction: Flowing) -> &'static str {
    match direction {
        Flowing::Request => "requests",
        Flowing::Reply => "replies",
        Flowing::Both => "requests and replies",
    }
}

fn machine(out: &mut impl Write, machine: &Machine) -> io::Result<()> {
    let Machine { cpu, kernel, commit, huge_pages } = machine;
    writeln!(out, "  {cpu}; kernel {kernel}; huge pages {huge_pages}; commit {commit}")
}

/// Warnings go to standard error, so that a result in a file stays a result.
pub(crate) fn warn(warnings: &[String]) -> io::Result<()> {
    warnings.iter().try_for_each(|warning| writeln!(io::stderr(), "warning: {warning}"))
}
