//! Plans on paper: how many cores 100 Gb/s would take, and what a hundred million flows would need. Computed from what
//! was measured, with what was assumed named beside it.

use super::All;
use crate::results::{Results, Row};

/// Bits a second of the plan.
const LINE_RATE: f64 = 100e9;
/// Bytes on the wire besides a frame without FCS: FCS, preamble, start of frame and the gap between two.
const WIRE: f64 = 4.0 + 8.0 + 12.0;
/// What receiving and sending a frame by zero-copy rings is assumed to cost, in nanoseconds: no such card is here.
const RINGS_NS: f64 = 50.0;
/// Flows of the plan, and how long one is assumed to live, in seconds.
const FLOWS: f64 = 100e6;
const LIFETIME: f64 = 300.0;

/// Cores for 100 Gb/s in one direction, by the size of frames.
pub(super) fn cores(all: &All) -> String {
    let Some((mode, net)) = slowest(all) else { return "*Nothing was measured yet.*".into() };
    let row = |(what, bytes): (&str, f64)| {
        let rate = LINE_RATE / ((bytes + WIRE) * 8.0);
        let cost = net + RINGS_NS;
        Row::default()
            .with("frames", what)
            .with("bytes_without_FCS", bytes as u64)
            .with("Mpps_at_100_Gb/s", rate / 1e6)
            .with("rings_ns_(assumed)", RINGS_NS)
            .with("forwarding_ns_(measured)", net)
            .with("cores", (rate * cost / 1e9).ceil() as u64)
    };
    let sizes = [("smallest", 60.0), ("IMIX", 361.0), ("512 B", 512.0), ("full", 1514.0)];
    let rows: Vec<Row> = sizes.map(row).into();
    format!("The dearest of the measured ways with the most flows is {mode}.\n\n{}", Results::markdown(&rows))
}

/// What forwarding costs without the port in the dearest mode of IPv4 with the most flows.
fn slowest(all: &All) -> Option<(String, f64)> {
    let rows = all.get("pipeline")?.rows.iter().filter(|row| row.text("family") == Some("IPv4"));
    let most = rows.clone().filter_map(|row| row.number("flows")).fold(0.0, f64::max);
    let costs = rows.filter(|row| row.number("flows") == Some(most));
    let costs = costs.filter_map(|row| Some((row.text("mode")?.to_owned(), row.number("net_ns")?)));
    costs.max_by(|a, b| a.1.total_cmp(&b.1))
}

/// What a hundred million flows need.
pub(super) fn flows(all: &All) -> String {
    let number = |name: &str, key: &str, is_wanted: &dyn Fn(&Row) -> bool| {
        all.get(name)?.rows.iter().find(|row| is_wanted(row))?.number(key)
    };
    let mut rows = Vec::new();
    for family in ["IPv4", "IPv6"] {
        for (what, is_extended) in [("", false), (", each with an extension record (FULLNAT, SYN proxy)", true)] {
            let is_this = move |row: &Row| {
                row.text("family") == Some(family)
                    && row.number("extension_records").is_some_and(|n| (n > 0.0) == is_extended)
            };
            let bytes = number("memory", "bytes_per_flow", &is_this);
            rows.extend(
                bytes.map(|bytes| line(&format!("memory, {family}{what}"), bytes * FLOWS / f64::from(1 << 30), "GiB")),
            );
        }
    }
    let begun = FLOWS / LIFETIME;
    rows.push(line(&format!("new flows, if one lives {LIFETIME} s (assumed)"), begun / 1e3, "thousand a second"));
    let is_nat = |row: &Row| row.text("mode") == Some("NAT") && row.text("family") == Some("IPv4");
    let new_flow = number("new-flow", "net_ns", &is_nat);
    let expiry = |what: &'static str| number("expiry", "ns", &move |row| is_nat(row) && row.text("what") == Some(what));
    if let (Some(begin), Some(end)) = (new_flow, expiry("a flow ended")) {
        rows.push(line("of one core, for beginning and ending them", begun * (begin + end) / 1e9 * 100.0, "%"));
    }
    let looked_at = expiry("an entry looked at");
    rows.extend(
        looked_at.map(|ns| {
            line("of one core, for looking at each entry once in 10 s", FLOWS * ns / 10.0 / 1e9 * 100.0, "%")
        }),
    );
    Results::markdown(&rows)
}

fn line(what: &str, value: f64, unit: &str) -> Row {
    Row::default().with("what", what).with("value", value).with("unit", unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Measured;

    fn all(name: &str, rows: Vec<Row>) -> All {
        All::from([(name.to_owned(), Results::new(name, "", Measured { rows, warnings: Vec::new() }))])
    }

    #[test]
    fn smallest_frames_at_line_rate_take_most_cores() {
        let row = |flows: u32, ns: f64| {
            Row::default().with("mode", "NAT").with("family", "IPv4").with("flows", flows).with("net_ns", ns)
        };
        let text = cores(&all("pipeline", vec![row(1000, 10.0), row(10_000_000, 50.0)]));
        // 148.8 million frames a second, 100 ns each.
        assert!(text.contains("| smallest | 60 | 148.8 | 50.0 | 50.0 | 15 |"), "{text}");
    }

    #[test]
    fn memory_is_told_for_both_families() {
        let row = Row::default().with("family", "IPv4").with("extension_records", 0).with("bytes_per_flow", 100.0);
        let text = flows(&all("memory", vec![row]));
        assert!(text.contains("| memory, IPv4 | 9.31 | GiB |"), "{text}");
    }
}
