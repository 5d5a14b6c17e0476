//! Every subcommand of `sluice-bench`, with so little to do that no figure means anything: that they work, not how fast.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says by a panic what went wrong")]

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

fn bench(arguments: &str) -> Command {
    let mut command = Command::cargo_bin("sluice-bench").unwrap();
    command.args(arguments.split_whitespace());
    command
}

/// The rows of a result, or what was said instead.
fn rows_or_error(arguments: &str) -> Result<Vec<Value>, String> {
    let output = bench(arguments).args(["--format", "json"]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["name", "date", "machine", "commit", "command"] {
        assert!(!result[key].is_null(), "{arguments}: {key}");
    }
    Ok(result["rows"].as_array().unwrap().clone())
}

fn rows(arguments: &str) -> Vec<Value> {
    rows_or_error(arguments).unwrap_or_else(|said| panic!("{arguments}: {said}"))
}

fn is_positive(row: &Value, key: &str) {
    assert!(row[key].as_f64().is_some_and(|number| number > 0.0), "{key} of {row}");
}

const FEW: &str = "--packets 500 --repetitions 1";

#[test]
fn pipeline_forwards_in_every_mode_and_direction_and_verifies_what_leaves() {
    for (mode, directions) in [("nat", 3), ("dr", 1), ("tun", 1), ("fullnat", 3)] {
        for direction in &["request", "reply", "both"][..directions] {
            for family in [4, 6] {
                for protocol in ["tcp", "udp"] {
                    let what = format!("--mode {mode} --family {family} --protocol {protocol} --direction {direction}");
                    let rows = rows(&format!("pipeline --flows 100 --verify --size imix {FEW} {what}"));
                    assert_eq!(rows[0]["flows"], 100);
                    is_positive(&rows[0], "ns_per_packet");
                }
            }
        }
    }
}

#[test]
fn replies_of_a_method_without_are_refused() {
    let said = rows_or_error(&format!("pipeline --mode dr --direction reply --flows 10 {FEW}")).unwrap_err();
    assert!(said.contains("--direction request"), "{said}");
}

#[test]
fn new_flows_are_opened_in_every_mode() {
    for mode in ["nat", "dr", "tun", "fullnat"] {
        is_positive(&rows(&format!("new-flow --mode {mode} --flows 100 {FEW}"))[0], "new_flow_ns");
    }
}

#[test]
fn cookies_are_answered_brought_back_and_joined() {
    for mode in ["nat", "fullnat"] {
        for family in [4, 6] {
            let rows = rows(&format!("cookie --mode {mode} --family {family} --flows 100 {FEW}"));
            assert_eq!(rows.len(), 5);
            for row in &rows {
                is_positive(row, "ns");
            }
        }
    }
    let said = rows_or_error(&format!("cookie --mode tun {FEW}")).unwrap_err();
    assert!(said.contains("no SYN proxy"), "{said}");
}

#[test]
fn workers_are_compared_in_every_case() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        let said = rows_or_error(&format!("scaling --flows 100 {FEW}")).unwrap_err();
        assert!(said.contains("core 1 is not among"), "{said}");
        return;
    }
    let rows = rows(&format!("scaling --flows 100 {FEW}"));
    assert_eq!(rows.len(), 7);
    for row in &rows {
        is_positive(row, "ratio");
    }
}

#[test]
fn the_table_is_filled_swept_and_weighed() {
    for family in [4, 6] {
        let rows = rows(&format!("fill --family {family} --flows 1000"));
        assert_eq!(rows.last().unwrap()["filled_percent"], 95);
        assert!(rows.iter().all(|row| row["refused"] == 0), "{rows:?}");
    }
    assert_eq!(rows("expiry --flows 1000").len(), 2);
    for row in rows("memory --flows 100000") {
        let (told, grown) = (row["bytes_per_flow"].as_f64().unwrap(), row["grown_bytes_per_flow"].as_f64().unwrap());
        assert!((0.8..1.3).contains(&(grown / told)), "{row}");
    }
}

#[test]
fn no_packet_is_lost_when_snapshots_are_swapped() {
    let rows = rows("swap --services 20 --flows 100 --seconds 0.05");
    is_positive(&rows[1], "swaps");
}

/// The rows that another program is needed for, which need not be installed: then the command says which package has it.
fn rows_or_package(arguments: &str, package: &str) -> Option<Vec<Value>> {
    let rows = rows_or_error(arguments).map_err(|said| assert!(said.contains(&format!("package {package}")), "{said}"));
    rows.ok()
}

#[test]
fn instructions_are_counted_where_valgrind_is() {
    if let Some(rows) = rows_or_package("instructions --flows 10 --few 64", "valgrind") {
        is_positive(&rows[0], "instructions_per_packet");
        is_positive(&rows[0], "port_instructions");
    }
}

#[test]
fn the_null_port_is_measured_where_dpdk_is() {
    if let Some(rows) = rows_or_package("null-port --seconds 4", "dpdk-dev") {
        is_positive(&rows[0], "mpps");
    }
}

#[test]
fn the_page_is_made_of_a_report() {
    let directory = tempfile::tempdir().unwrap();
    let (results, page) = (directory.path().join("performance"), directory.path().join("performance.md"));
    let parts = "--only pipeline,fill,memory,swap";
    bench(&format!("report --quick --packets 500 --flows 50,100 --usual 1000 {parts}"))
        .arg("--out")
        .arg(&results)
        .assert()
        .success();
    let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance/page.md.in");
    std::fs::copy(template, results.join("page.md.in")).unwrap();
    bench("document").arg("--results").arg(&results).arg("--page").arg(&page).assert().success();
    let text = std::fs::read_to_string(page).unwrap();
    for expected in ["| FULLNAT | IPv6 |", "(performance/cost-v4.svg)", "Not measured yet: `expiry`"] {
        assert!(text.contains(expected), "{expected}");
    }
    assert!(!text.contains("{{"), "{text}");
    assert!(results.join("cost-v4.svg").exists());
}

/// The command itself fails where the program decides otherwise than it should.
#[cfg(feature = "afxdp")]
#[test]
fn root_frames_of_each_kind_are_steered_as_they_should() {
    for entries in [1, 1000] {
        let rows = rows(&format!("steer --runs 10 --repetitions 1 --entries {entries}"));
        assert!(rows.len() > 30 && rows.iter().all(|row| row["ns"].as_f64() > Some(0.0)), "{rows:?}");
    }
}
