//! What is said about wrong files, word for word. `SLUICE_BLESS=1 cargo nextest run` writes the expectations anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use control::config::{Includes, LoadOptions, parse_text};

fn fixtures(under: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(under);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no file in {}", directory.display());
    files
}

fn options() -> LoadOptions {
    LoadOptions { config_id: "lb1".to_owned(), includes: Includes::Refuse, ..LoadOptions::default() }
}

fn compare(path: &Path) {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let loaded = parse_text(&name, &fs::read(path).unwrap(), &options());
    let found = loaded.diagnostics.render_plain();
    let expected_file = path.with_extension("expected");
    if std::env::var_os("SLUICE_BLESS").is_some() {
        fs::write(&expected_file, &found).unwrap();
    }
    let expected = fs::read_to_string(&expected_file).unwrap();
    assert!(found == expected, "{name}: found\n{found}\nbut expected\n{expected}");
}

#[test]
fn wrong_files_are_answered_as_expected() {
    for path in fixtures("tests/fixtures/config") {
        compare(&path);
    }
}

#[test]
fn files_that_people_run_are_usable() {
    for path in fixtures("tests/fixtures/config/real") {
        let loaded = parse_text(&path.to_string_lossy(), &fs::read(&path).unwrap(), &options());
        assert!(loaded.config.is_some(), "{}", loaded.diagnostics.render_plain());
        compare(&path);
    }
}

#[test]
fn the_examples_have_nothing_to_complain_about() {
    for path in fixtures("../configs") {
        let loaded = parse_text(&path.to_string_lossy(), &fs::read(&path).unwrap(), &options());
        assert_eq!(loaded.diagnostics.render_plain(), "");
        let config = loaded.config.unwrap();
        assert!(!config.virtual_servers.is_empty() && !config.static_addresses.is_empty(), "{}", path.display());
    }
}
