//! What a flow takes of memory: by the table's own account, and by what the process grew.

use std::fs;

use dataplane::flow::{Capacity, FlowTable, TableError, V4, V6};

use crate::error::BenchError;
use crate::packets::Family;
use crate::results::{Measured, Row};

/// Most bytes of a flow without an extension record, and of the record.
const fn budget(family: Family) -> u32 {
    match family {
        Family::V4 => 128,
        Family::V6 => 256,
    }
}

/// Makes tables for so many flows, without extension records and with one for each, and lets them go again.
///
/// # Errors
/// When the memory cannot be had.
pub(crate) fn run(flows: u32) -> Result<Measured, BenchError> {
    let mut rows = Vec::new();
    for family in [Family::V4, Family::V6] {
        for extensions in [0, flows] {
            let capacity = Capacity { flows, extensions };
            let before = resident();
            let (bytes, grown) = match family {
                Family::V4 => measured(FlowTable::<V4>::anonymous(capacity, 1), FlowTable::memory, before)?,
                Family::V6 => measured(FlowTable::<V6>::anonymous(capacity, 1), FlowTable::memory, before)?,
            };
            let per_flow = |bytes: u64| bytes as f64 / f64::from(flows);
            let row = Row::default()
                .with("family", if family == Family::V4 { "IPv4" } else { "IPv6" })
                .with("flows", flows)
                .with("extension_records", extensions)
                .with("bytes_per_flow", per_flow(bytes))
                .with("grown_bytes_per_flow", per_flow(grown));
            rows.push(if extensions == 0 { row.with("budget_bytes", budget(family)) } else { row });
        }
    }
    Ok(Measured { rows, warnings: Vec::new() })
}

/// Bytes of a table, and what the process has grown by with it.
fn measured<T>(table: Result<T, TableError>, bytes: fn(&T) -> usize, before: u64) -> Result<(u64, u64), BenchError> {
    let table = table?;
    let grown = resident().saturating_sub(before);
    Ok((bytes(&table) as u64, grown))
}

/// Bytes of this process in memory; 0 when the kernel does not tell.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).map_or(0, |kib: u64| kib * 1024)
}
