//! Which pictures there are, and of which rows they are drawn.

use std::path::Path;

use super::All;
use super::plot::{Chart, Line, Scale, draw as draw_chart};
use crate::error::BenchError;
use crate::report::ITEMS;
use crate::results::{Results, Row};

/// The pictures' names.
const NAMES: [&str; 6] = ["cost-v4", "cost-v6", "workers", "fill", "turns", "latency"];

/// Whether there is such a picture.
pub(super) fn is_known(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Draws a picture and says what it shows; `None` when nothing of it was measured.
///
/// # Errors
/// When it cannot be written.
pub(super) fn draw(name: &str, all: &All, directory: &Path) -> Result<Option<String>, BenchError> {
    let chart = match name {
        "cost-v4" => cost(all, "IPv4", "Cost of an established packet, IPv4"),
        "cost-v6" => cost(all, "IPv6", "Cost of an established packet, IPv6"),
        "workers" => workers(all),
        "fill" => fill(all),
        "turns" => turns(all),
        "latency" => latency(all),
        _ => None,
    };
    let Some(chart) = chart else { return Ok(None) };
    draw_chart(&directory.join(format!("{name}.svg")), &chart)?;
    Ok(Some(format!("{}: {} by {}", chart.title, chart.up.0, chart.across.0)))
}

/// Nanoseconds against flows, a line for each mode, with the limits below.
fn cost(all: &All, family: &str, title: &'static str) -> Option<Chart<'static>> {
    let rows: Vec<&Row> = all.get("pipeline")?.rows.iter().filter(|row| row.text("family") == Some(family)).collect();
    let points = |rows: &[&Row], key: &str| -> Vec<(f64, f64)> {
        rows.iter().filter_map(|row| Some((row.number("flows")?, row.number(key)?))).collect()
    };
    let of_mode =
        |mode: &str| -> Vec<&Row> { rows.iter().copied().filter(|row| row.text("mode") == Some(mode)).collect() };
    let mut lines: Vec<Line> = ["NAT", "DR", "TUN", "FULLNAT"]
        .iter()
        .map(|mode| Line { name: (*mode).into(), points: points(&of_mode(mode), "ns_per_packet") })
        .collect();
    let nat = of_mode("NAT");
    lines.push(Line { name: "memory limit".into(), points: points(&nat, "memory_limit_ns") });
    lines.push(Line { name: "bare port".into(), points: points(&nat, "port_ns") });
    drawable(Chart { title, across: ("flows", Scale::Decades), up: ("ns a packet", Scale::Even), lines })
}

/// Rates of one worker and of all.
fn workers(all: &All) -> Option<Chart<'static>> {
    let line = |row: &Row| {
        let points =
            vec![(1.0, row.number("one_alone_mpps")?), (row.number("workers")?, row.number("all_at_once_mpps")?)];
        // The limits are so much faster that nothing else could be seen.
        let case = row.text("case").filter(|case| !matches!(*case, "bare port" | "memory limit"))?;
        Some(Line { name: case.into(), points })
    };
    let rows = &all.get("scaling")?.rows;
    let most = rows.iter().filter_map(|row| row.number("workers")).fold(1.0, f64::max) as usize;
    let numbers = Scale::Named((1..=most).map(|n| n.to_string()).collect());
    let lines = rows.iter().filter_map(line).collect();
    let up = ("million packets or flows a second", Scale::Even);
    drawable(Chart { title: "Rate against workers", across: ("workers", numbers), up, lines })
}

/// The flow table's costs against how full it is.
fn fill(all: &All) -> Option<Chart<'static>> {
    let rows = &all.get("fill")?.rows;
    let line = |(name, key): (&str, &str)| Line {
        name: name.into(),
        points: rows.iter().filter_map(|row| Some((row.number("filled_percent")?, row.number(key)?))).collect(),
    };
    let series = [("insert", "insert_ns"), ("hit", "hit_ns"), ("miss", "miss_ns"), ("memory limit", "memory_limit_ns")];
    let lines = series.map(line).into();
    let (across, up) = (("flows in the table, % of its capacity", Scale::Even), ("ns", Scale::Even));
    drawable(Chart { title: "The flow table, the fuller it is", across, up, lines })
}

/// How long turns take, without and with swaps.
fn turns(all: &All) -> Option<Chart<'static>> {
    let rows = &all.get("swap")?.rows;
    let named = |row: &Row| row.text("what").unwrap_or_default().to_owned();
    percentiles(
        "A worker's turn of 64 packets while snapshots are swapped",
        "µs",
        rows.iter().map(|row| (named(row), row)),
    )
}

/// Latencies through whole directors, of all comparisons whose rows have percentiles.
fn latency(all: &All) -> Option<Chart<'static>> {
    let is_own = |results: &Results| ITEMS.iter().any(|item| item.name == results.name);
    let rows = all.values().filter(|results| !is_own(results)).flat_map(|results| {
        let named = move |row: &Row| {
            let who = row.text("peer").or(row.text("what")).or(row.text("mode")).unwrap_or_default();
            let each = row.text("each").map(|each| format!(", a {each}")).unwrap_or_default();
            format!("{}: {who}{each}", results.name)
        };
        results.rows.iter().filter(|row| row.percentiles().len() > 1).map(move |row| (named(row), row))
    });
    percentiles("Latency through a director", "as in the tables", rows)
}

/// Rows' percentiles, the slowest upwards.
fn percentiles<'r>(
    title: &'static str,
    unit: &'static str,
    rows: impl Iterator<Item = (String, &'r Row)>,
) -> Option<Chart<'static>> {
    let rows: Vec<(String, &Row)> = rows.collect();
    let longest = rows.iter().map(|(_, row)| row.percentiles()).max_by_key(Vec::len)?;
    let names: Vec<String> = longest.into_iter().map(|(name, _)| name).collect();
    let line = |(name, row): (String, &Row)| {
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let points = row.percentiles().into_iter().filter_map(|(name, value)| Some((place(&name)? as f64, value)));
        Line { name, points: points.collect() }
    };
    let lines = rows.into_iter().map(line).collect();
    drawable(Chart { title, across: ("percentile", Scale::Named(names)), up: (unit, Scale::Decades), lines })
}

/// A chart with something to be seen.
fn drawable(mut chart: Chart<'static>) -> Option<Chart<'static>> {
    chart.lines.retain(|line| !line.points.is_empty());
    (!chart.lines.is_empty()).then_some(chart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Measured;

    #[test]
    fn every_picture_is_drawn_of_its_rows() {
        let results = |name: &str, row: Row| {
            (name.to_owned(), Results::new(name, "", Measured { rows: vec![row], warnings: Vec::new() }))
        };
        let pipeline = |family: &str| {
            let row = Row::default().with("mode", "NAT").with("family", family).with("flows", 1000);
            row.with("ns_per_packet", 30.0).with("memory_limit_ns", 2.0).with("port_ns", 7.0)
        };
        let mut both = results("pipeline", pipeline("IPv4"));
        both.1.rows.push(pipeline("IPv6"));
        let scaling = Row::default().with("case", "one").with("workers", 2);
        let scaling = scaling.with("one_alone_mpps", 10.0).with("all_at_once_mpps", 19.0);
        let fill = Row::default().with("filled_percent", 10).with("insert_ns", 80.0);
        let swap = Row::default().with("what", "no swap").with("turn_p50_us", 2.0).with("turn_p99.9_us", 9.0);
        let peer = Row::default().with("peer", "haproxy").with("p50_ms", 2.0).with("p99_ms", 9.0);
        let all = All::from([
            both,
            results("scaling", scaling),
            results("fill", fill),
            results("swap", swap),
            results("compare", peer),
        ]);
        let directory = tempfile::tempdir().unwrap();
        for name in NAMES {
            assert!(draw(name, &all, directory.path()).unwrap().is_some(), "{name}");
            assert!(directory.path().join(format!("{name}.svg")).exists(), "{name}");
        }
        assert!(draw("cost-v4", &All::new(), directory.path()).unwrap().is_none());
    }
}
