//! Results in one plain form: JSON that scripts read and tables that people do.
//!
//! `{"name", "about", "command", "date", "machine": {...}, "commit", "rows": [{...}], "targets": [{...}]}`; the
//! comparisons of `scripts/compare` write the same.

use std::fmt;
use std::io::{self, Write};
use std::time::SystemTime;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::machine::Machine;

/// What one command measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// In a word, also the name of its file.
    pub(crate) name: String,
    /// What the rows are.
    #[serde(default)]
    pub(crate) about: String,
    /// What measures it again.
    #[serde(default)]
    pub(crate) command: String,
    /// When, in UTC.
    pub(crate) date: String,
    pub(crate) machine: Row,
    /// The commit of the source tree; `+` where it was changed since.
    pub(crate) commit: String,
    pub(crate) rows: Vec<Row>,
    /// Figures that something is demanded of.
    #[serde(default)]
    pub(crate) targets: Vec<Row>,
    /// What may have disturbed the measurement.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// Named values in the order in which they are to be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Row(Vec<(String, Value)>);

/// Rows that were measured, and what disturbed it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) rows: Vec<Row>,
    pub(crate) warnings: Vec<String>,
}

impl Measured {
    /// One row.
    pub(crate) fn one(row: Row, warnings: Vec<String>) -> Self {
        Self { rows: vec![row], warnings }
    }

    /// Rows that were measured after these.
    pub(crate) fn extend(&mut self, more: Self) {
        self.rows.extend(more.rows);
        self.warnings.extend(more.warnings);
    }
}

impl Results {
    /// Results of here and now.
    pub(crate) fn new(name: &str, about: &str, Measured { rows, mut warnings }: Measured) -> Self {
        warnings.dedup();
        let Machine { cpu, kernel, commit, huge_pages } = Machine::here();
        let machine = Row::default().with("cpu", cpu).with("kernel", kernel).with("huge_pages", huge_pages);
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            name: name.into(),
            about: about.into(),
            command: format!("cargo run --release -p sluice-bench --bin sluice-bench -- {}", arguments.join(" ")),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine,
            commit,
            rows,
            targets: Vec::new(),
            warnings,
        }
    }

    /// For people: a row below the other, or one row as a list.
    pub(crate) fn text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.about)?;
        match &self.rows[..] {
            [row] => row.list(out)?,
            rows => table(out, rows)?,
        }
        let machine: Vec<String> =
            self.machine.0.iter().map(|(key, value)| format!("{key} {}", shown(value))).collect();
        writeln!(out, "{}, commit {}", machine.join(", ").replace('_', " "), self.commit)
    }

    /// As a table of Markdown.
    pub(crate) fn markdown(rows: &[Row]) -> String {
        let columns = columns(rows);
        let is_number = |column: &&str| rows.iter().any(|row| row.number(column).is_some());
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = line(columns.iter().map(|column| heading(column)).collect());
        text += &line(columns.iter().map(|c| if is_number(c) { "---:" } else { "---" }.to_owned()).collect());
        for row in rows {
            text += &line(columns.iter().map(|column| row.shown(column)).collect());
        }
        text
    }
}

impl Row {
    /// The row with another value at its end. Fractions keep three digits.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let is_whole = value.is_u64() || value.is_i64();
        let value = match value.as_f64().filter(|_| !is_whole) {
            Some(number) => ((number * 1000.0).round() / 1000.0).into(),
            None => value,
        };
        self.0.push((key.to_owned(), value));
        self
    }

    /// A number by its name.
    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// A text by its name.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The values that are percentiles by their names (`turn_p99.9_us`, `p50 ms`, `max_us`), with those percentiles.
    pub(crate) fn percentiles(&self) -> Vec<(String, f64)> {
        let is_percentile = |word: &str| {
            word == "max" || word.strip_prefix('p').is_some_and(|rest| rest.parse::<f64>().is_ok_and(|n| n <= 100.0))
        };
        let named = |(key, value): &(String, Value)| {
            let word = key.split(['_', ' ', ',']).find(|word| is_percentile(word))?;
            Some((word.to_owned(), value.as_f64()?))
        };
        let mut found: Vec<(String, f64)> = self.0.iter().filter_map(named).collect();
        // Of several things the first.
        let mut seen = Vec::new();
        found.retain(|(name, _)| {
            let is_new = !seen.contains(name);
            seen.push(name.clone());
            is_new
        });
        found
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn shown(&self, key: &str) -> String {
        self.get(key).map_or_else(|| "–".to_owned(), shown)
    }

    fn list(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.0.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
        self.0.iter().try_for_each(|(key, value)| writeln!(out, "  {:width$}  {}", heading(key), shown(value)))
    }
}

/// Rows as columns of text.
fn table(out: &mut impl Write, rows: &[Row]) -> io::Result<()> {
    let columns = columns(rows);
    let cells = |column: &&str| -> Vec<String> {
        std::iter::once(heading(column)).chain(rows.iter().map(|row| row.shown(column))).collect()
    };
    let cells: Vec<Vec<String>> = columns.iter().map(cells).collect();
    for line in 0..=rows.len() {
        for (column, name) in cells.iter().zip(&columns) {
            let width = column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
            let cell = column.get(line).map_or("", String::as_str);
            let is_number = rows.iter().any(|row| row.number(name).is_some());
            if is_number { write!(out, "  {cell:>width$}")? } else { write!(out, "  {cell:width$}")? }
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The names of all rows in the order of their first appearance.
fn columns(rows: &[Row]) -> Vec<&str> {
    let mut columns: Vec<&str> = Vec::new();
    for (key, _) in rows.iter().flat_map(|row| &row.0) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    columns
}

fn heading(key: &str) -> String {
    key.replace('_', " ")
}

/// A value as people read it: three digits of what is small, thousands apart where it is large.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::String(_) | Value::Null => "–".into(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => apart(whole),
            (None, Some(number)) if number.abs() < 10.0 => format!("{number:.2}"),
            (None, Some(number)) if number.abs() < 1000.0 => format!("{number:.1}"),
            (None, Some(number)) if number < 0.0 => format!("-{}", apart(-number.round() as u64)),
            (None, Some(number)) => apart(number.round() as u64),
            (None, None) => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn apart(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push('\u{a0}');
        }
        text.push(digit);
    }
    text
}

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Row;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of named values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut row = Row::default();
                while let Some(entry) = map.next_entry()? {
                    row.0.push(entry);
                }
                Ok(row)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        vec![
            Row::default().with("mode", "NAT").with("flows", 1_000_000).with("ns_per_packet", 28.123_456),
            Row::default().with("mode", "DR").with("flows", 1_000).with("ratio", 1.9),
        ]
    }

    #[test]
    fn rows_keep_their_order_by_way_of_json() {
        let results = Results::new("pipeline", "Packets.", Measured { rows: rows(), warnings: Vec::new() });
        let read: Results = serde_json::from_str(&serde_json::to_string(&results).unwrap()).unwrap();
        assert_eq!(read.rows, rows());
        assert_eq!(read.rows[0].number("ns_per_packet"), Some(28.123));
    }

    #[test]
    fn percentiles_are_known_by_their_names() {
        let row =
            Row::default().with("p50_us", 2.0).with("turn_p99.9_us", 9.0).with("p50_of_others", 3.0).with("mpps", 1);
        assert_eq!(row.percentiles(), [("p50".to_owned(), 2.0), ("p99.9".to_owned(), 9.0)]);
        assert_eq!(shown(&Value::from(-1234.5)), "-1\u{a0}235");
    }

    #[test]
    fn tables_have_the_columns_of_all_rows() {
        let expected = "| mode | flows | ns per packet | ratio |\n| --- | ---: | ---: | ---: |\n\
                        | NAT | 1\u{a0}000\u{a0}000 | 28.1 | – |\n| DR | 1\u{a0}000 | – | 1.90 |\n";
        assert_eq!(Results::markdown(&rows()), expected);
        let mut text = Vec::new();
        table(&mut text, &rows()).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("  mode      flows  ns per packet  ratio\n"), "{text}");
    }
}
