//! `sluice check` as a user calls it: exit codes, text and JSON.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assert_cmd::Command;
use predicates::prelude::*;

fn check() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["check", "--config-id", "lb1", "--dataplane-file", "/nonexistent/dataplane.conf"]);
    command
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_usable_file_gives_zero_and_a_summary() {
    check()
        .arg(fixture("real/nat_pair.conf"))
        .assert()
        .code(0)
        .stdout("1 virtual server, 2 real servers; 3 warnings\n")
        .stderr(predicate::str::contains("`TCP_CHECK` is known to keepalived"));
}

#[test]
fn a_wrong_file_gives_one_and_every_error() {
    check()
        .arg(fixture("values.conf"))
        .assert()
        .code(1)
        .stdout(predicate::str::starts_with("not usable: "))
        .stderr(predicate::str::contains("port 70000 is out of range"))
        .stderr(predicate::str::contains("did you mean `wrr`?"));
}

#[test]
fn json_has_every_field() {
    let output = check().args(["--format", "json", &fixture("twice.conf")]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["ok"], false);
    assert_eq!(json["summary"]["errors"], 3);
    let first = &json["diagnostics"][0];
    assert_eq!(first["severity"], "error");
    assert_eq!((&first["line"], &first["column"]), (&7.into(), &5.into()));
    assert_eq!(first["message"], "the real server 198.51.100.1:80 stands twice");
    assert!(first["file"].as_str().unwrap().ends_with("twice.conf"));
    assert!(first["span"]["end"].as_u64() > first["span"]["start"].as_u64());

    let output = check().args(["--format", "json", &fixture("real/ftp_dr.conf")]).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["ok"], &json["summary"]["real_servers"]), (&true.into(), &2.into()));
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    check().arg(dir.path()).assert().code(1).stderr(predicate::str::contains("it is a directory"));
    check().arg(dir.path().join("none")).assert().code(1).stderr(predicate::str::contains("No such file"));
    let secret = dir.path().join("secret.conf");
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&secret).is_err() {
        check().arg(&secret).assert().code(1).stderr(predicate::str::contains("Permission denied"));
    } else {
        // Root reads everything.
        check().arg(&secret).assert().code(0);
    }
}

#[test]
fn several_files_are_one_configuration() {
    check()
        .args([fixture("real/nat_pair.conf"), fixture("real/ftp_dr.conf")])
        .assert()
        .code(0)
        .stdout(predicate::str::starts_with("2 virtual servers, 4 real servers"));
}

#[test]
fn no_file_is_a_wrong_call() {
    check().assert().code(2);
}
