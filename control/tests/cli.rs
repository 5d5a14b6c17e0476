//! The command line, without privilege: help, errors and exit codes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says by a panic what went wrong")]

use assert_cmd::Command;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;

fn sluice() -> Command {
    let mut command = Command::cargo_bin("sluice").unwrap();
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
    command
}

#[test]
fn help_teaches_by_examples() {
    sluice().arg("--help").assert().success().stdout(contains("Examples:").and(contains("sluice run -f")));
    for command in ["run", "status", "cleanup"] {
        sluice().args([command, "--help"]).assert().success().stdout(contains("--state-dir"));
    }
    // What the guard starts is nobody's business.
    sluice().arg("--help").assert().stdout(contains("director --").not());
}

#[test]
fn a_configuration_that_is_not_there_is_named_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for guard in [&["--no-guard"][..], &[]] {
        let mut run = sluice();
        run.args(["run", "-f", "/nonexistent/sluice.conf", "--state-dir"]).arg(&state).args(guard);
        run.assert().code(1).stderr(contains("/nonexistent/sluice.conf"));
    }
    assert!(!state.join("state.json").exists());
}

#[test]
fn every_mistake_of_a_configuration_is_shown_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.conf");
    std::fs::write(&file, "virtual_server 10.0.0.1 70000 {\n}\nvirtual_sever 10.0.0.1 80 {\n}\n").unwrap();
    let mut run = sluice();
    run.args(["run", "--no-guard", "-f"]).arg(&file).arg("--state-dir").arg(dir.path().join("state"));
    run.assert().code(1).stderr(contains("70000").and(contains("virtual_sever")).and(contains("cannot start")));
}

#[test]
fn without_a_director_status_and_reload_say_so_by_their_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["status", "reload"] {
        let mut ask = sluice();
        ask.arg(command).arg("--state-dir").arg(dir.path());
        ask.assert().code(3).stderr(contains("no director is running here"));
    }
}

#[test]
fn cleanup_of_nothing_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let mut cleanup = sluice();
        cleanup.arg("cleanup").arg("--state-dir").arg(dir.path());
        cleanup.assert().success().stdout("nothing to clean up\n");
    }
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    sluice().arg("run").assert().code(2).stderr(contains("--file"));
    sluice().args(["run", "-f", "x", "--log", "control=loud"]).assert().code(1).stderr(contains("'control=loud'"));
}
