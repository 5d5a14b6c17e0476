//! `sluice doctor`: what on this machine is in a director's way.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::check::host_id;
use crate::config::{self, Config, LoadOptions};
use crate::doctor::{self, Item, Level};

/// Arguments of `sluice doctor`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit status: 0 if nothing keeps a director from working (warnings allowed), 1 if something does or the \
    configuration cannot be used.\n\nExamples:\n  sluice doctor -f /etc/keepalived/keepalived.conf\n  \
    sluice doctor -f a.conf --json | jq '.findings[] | select(.level == \"warning\")'"
)]
pub(super) struct DoctorArgs {
    /// The configuration whose services the host's firewall is held against; may be given several times
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// For programs: one object with `ok` and `findings`
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let config = match load(&args.files) {
        Ok(config) => config,
        Err(said) => {
            let _ = io::stderr().lock().write_all(said.as_bytes());
            return ExitCode::FAILURE;
        }
    };
    let mut items = doctor::examine(config.as_ref());
    // The worst first; equals stay in the order in which they were asked.
    items.sort_by_key(|item| std::cmp::Reverse(item.level));
    let is_well = items.iter().all(|item| item.level < Level::Problem);
    let written = if args.json {
        let object = serde_json::json!({ "ok": is_well, "findings": items });
        writeln!(io::stdout(), "{object:#}")
    } else {
        io::stdout().write_all(page(&items).as_bytes())
    };
    if is_well && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn load(files: &[PathBuf]) -> Result<Option<Config>, String> {
    if files.is_empty() {
        return Ok(None);
    }
    let options = LoadOptions { config_id: host_id(), ..LoadOptions::default() };
    let loaded = config::load(files, &options);
    loaded.config.map(Some).ok_or_else(|| loaded.diagnostics.render_plain())
}

/// The findings for people: a line each, and what to do below it.
pub(super) fn page(items: &[Item]) -> String {
    items.iter().map(entry).collect()
}

fn entry(item: &Item) -> String {
    let Item { level, topic, text, help } = item;
    let level = match level {
        Level::Good => "ok",
        Level::Note => "note",
        Level::Warning => "WARNING",
        Level::Problem => "PROBLEM",
    };
    let help = help.as_ref().map(|help| format!("{:20}{help}\n", "")).unwrap_or_default();
    format!("{level:<8} {topic:<10} {text}\n{help}")
}
