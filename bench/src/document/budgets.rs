//! What the design demands, beside what was measured: the worst of the modes and families.

use super::All;
use crate::results::{Results, Row};

/// Katran's balancer program under `bpf_prog_test_run`, one hot flow, in nanoseconds a packet. Not measured in these
/// runs: from the project's notes on the same kind of machine.
const KATRAN_NS: (f64, f64) = (130.0, 145.0);

/// Budgets of an established packet by the number of flows, in nanoseconds.
const PACKET_NS: [(f64, f64); 3] = [(1_000.0, 30.0), (1_000_000.0, 45.0), (10_000_000.0, 60.0)];
const NEW_FLOW_NS: f64 = 150.0;
const COOKIE_NS: f64 = 60.0;
const SCALING: f64 = 1.8;
/// Times as much at 10 million flows over 1 thousand as memory and port alone.
const GROWTH: f64 = 2.0;
/// Times as fast as Katran at few flows.
const KATRAN: f64 = 4.0;

/// A table of all budgets.
pub(super) fn table(all: &All) -> String {
    let mut rows = Vec::new();
    for (flows, budget) in PACKET_NS {
        let what = format!(
            "established packet, {} flows, ns",
            if flows < 1e6 { "1 k".into() } else { format!("{} M", flows / 1e6) }
        );
        rows.extend(at_most(
            &what,
            worst(all, "pipeline", "ns_per_packet", |row| row.number("flows") == Some(flows)),
            budget,
        ));
    }
    rows.extend(at_most("new flow, ns", worst(all, "new-flow", "new_flow_ns", |_| true), NEW_FLOW_NS));
    let is_syn = |row: &Row| row.text("packet").is_some_and(|packet| packet.starts_with("SYN"));
    rows.extend(at_most("SYN answered by a cookie, ns", worst(all, "cookie", "ns", is_syn), COOKIE_NS));
    for (family, budget) in [("IPv4", 128.0), ("IPv6", 256.0)] {
        let is_plain = |row: &Row| row.text("family") == Some(family) && row.number("extension_records") == Some(0.0);
        let bytes = worst(all, "memory", "bytes_per_flow", is_plain);
        rows.extend(at_most(&format!("{family} flow, bytes"), bytes, budget));
    }
    rows.extend(growth(all));
    rows.extend(scaling(all));
    rows.extend(katran(all));
    if rows.is_empty() { "*Nothing was measured yet.*".into() } else { Results::markdown(&rows) }
}

/// The largest value of a result's rows, with the row that has it.
fn worst<'a>(all: &'a All, name: &str, key: &str, is_wanted: impl Fn(&Row) -> bool) -> Option<(f64, &'a Row)> {
    let rows = all.get(name)?.rows.iter().filter(|row| is_wanted(row));
    rows.filter_map(|row| Some((row.number(key)?, row))).max_by(|a, b| a.0.total_cmp(&b.0))
}

fn at_most(what: &str, worst: Option<(f64, &Row)>, budget: f64) -> Option<Row> {
    let (value, row) = worst?;
    Some(line(what, value, &format!("≤ {budget}"), value <= budget, &subject(row)))
}

fn line(what: &str, value: f64, budget: &str, is_met: bool, worst: &str) -> Row {
    let met = if is_met { "yes" } else { "no" };
    Row::default().with("what", what).with("worst", value).with("budget", budget).with("met", met).with("which", worst)
}

/// Mode and family of a row.
fn subject(row: &Row) -> String {
    let words: Vec<&str> = ["mode", "family"].iter().filter_map(|key| row.text(key)).collect();
    words.join(" ")
}

/// By how much a packet costs more at 10 million flows than at 1 thousand, by how much memory and port alone do.
fn growth(all: &All) -> Option<Row> {
    let rows = &all.get("pipeline")?.rows;
    let at = |flows: f64, like: &Row| {
        rows.iter().find(|row| row.number("flows") == Some(flows) && subject(row) == subject(like))
    };
    let ratio = |few: &'_ Row| {
        let many = at(10_000_000.0, few)?;
        let grown =
            |keys: &[&str]| -> Option<f64> { keys.iter().map(|key| Some(many.number(key)? - few.number(key)?)).sum() };
        Some((grown(&["ns_per_packet"])? / grown(&["memory_limit_ns", "port_ns"])?.max(0.1), subject(few)))
    };
    let few = rows.iter().filter(|row| row.number("flows") == Some(1_000.0));
    let (value, which) = few.filter_map(ratio).max_by(|a, b| a.0.total_cmp(&b.0))?;
    let what = "growth from 1 k to 10 M flows, times that of memory limit and bare port";
    Some(line(what, value, &format!("≤ {GROWTH}"), value <= GROWTH, &which))
}

/// The ratio of two workers to one, of the case that is usual: each has flows of its own of one service.
fn scaling(all: &All) -> Option<Row> {
    let rows = &all.get("scaling")?.rows;
    let row = rows.iter().find(|row| row.text("case") == Some("established flows, one service"))?;
    let value = row.number("ratio")?;
    Some(line(
        "two workers, times one",
        value,
        &format!("≥ {SCALING}"),
        value >= SCALING,
        "established flows, one service",
    ))
}

fn katran(all: &All) -> Option<Row> {
    let (value, row) = worst(all, "pipeline", "ns_per_packet", |row| row.number("flows") == Some(1_000.0))?;
    let (low, high) = KATRAN_NS;
    let what = format!("1 k flows, times as fast as Katran's {low}–{high} ns (not measured here: an earlier note)");
    let times = low / value;
    Some(line(&what, times, &format!("≥ {KATRAN}"), times >= KATRAN, &subject(row)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Measured;

    #[test]
    fn the_worst_row_is_held_against_the_budget() {
        let row = |mode: &str, flows: u32, ns: f64| {
            let row = Row::default().with("mode", mode).with("family", "IPv4").with("flows", flows);
            row.with("ns_per_packet", ns).with("memory_limit_ns", f64::from(flows) / 1e6).with("port_ns", 7.0)
        };
        let rows = vec![row("NAT", 1_000, 20.0), row("TUN", 1_000, 31.0), row("NAT", 10_000_000, 35.0)];
        let pipeline = Results::new("pipeline", "", Measured { rows, warnings: Vec::new() });
        let text = table(&All::from([("pipeline".into(), pipeline)]));
        assert!(text.contains("| established packet, 1 k flows, ns | 31.0 | ≤ 30 | no | TUN IPv4 |"), "{text}");
        assert!(text.contains("| established packet, 10 M flows, ns | 35.0 | ≤ 60 | yes | NAT IPv4 |"), "{text}");
        assert!(text.contains("bare port | 1.50 | ≤ 2 | yes | NAT IPv4 |"), "{text}");
        assert!(text.contains("| 4.19 | ≥ 4 | yes |"), "{text}");
    }
}
