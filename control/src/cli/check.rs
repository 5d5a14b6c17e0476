//! `sluice check FILE…`: reads configurations and says everything that is wrong with them.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::doctor;
use crate::config::{self, Config, Diagnostics, LoadOptions, Loaded};
use crate::doctor::{Item, firewall};

/// Where the block `dataplane` may stand on its own.
const DATAPLANE_FILE: &str = "/etc/sluice/dataplane.conf";

/// Arguments of `sluice check`.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Exit status: 0 if the configuration can be used (warnings allowed), 1 if there is any error.\n\n\
    Examples:\n  sluice check /etc/keepalived/keepalived.conf\n  sluice check --format json a.conf | jq .diagnostics"
)]
pub struct CheckArgs {
    /// Configuration files, read one after the other as one configuration
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// Also look for rules of this host's firewall that would no longer meet packets of the services
    #[arg(long)]
    pub host: bool,
    /// How to print what is found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// The id that `@id` lines are compared with [default: the host name up to the first dot]
    #[arg(short = 'i', long, value_name = "ID")]
    pub config_id: Option<String>,
    /// A file with the block `dataplane`, read if it exists
    #[arg(long, value_name = "FILE", default_value = DATAPLANE_FILE)]
    pub dataplane_file: PathBuf,
}

/// An output format.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people: each finding with its line, then a summary
    Text,
    /// For programs: one object with `ok`, `summary` and `diagnostics`
    Json,
}

/// Runs the command. 0: usable, warnings allowed. 1: there is an error, or the output cannot be written.
pub fn run(args: &CheckArgs) -> ExitCode {
    let options = LoadOptions {
        config_id: args.config_id.clone().unwrap_or_else(host_id),
        dataplane_file: Some(args.dataplane_file.clone()),
        ..LoadOptions::default()
    };
    let loaded = config::load(&args.files, &options);
    let firewall = loaded.config.as_ref().filter(|_| args.host);
    let firewall = firewall.map(|config| firewall::examine(config, &firewall::gather())).unwrap_or_default();
    let written = match args.format {
        Format::Text => write_text(&loaded, &firewall),
        Format::Json => write_json(&loaded, args.host.then_some(&firewall)),
    };
    match (&loaded.config, written) {
        (Some(_), Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// keepalived's default config-id: the host name up to the first dot; empty if it cannot be had.
pub fn host_id() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().split('.').next().unwrap_or_default().to_owned()
}

fn write_text(loaded: &Loaded, firewall: &[Item]) -> io::Result<()> {
    let stderr = io::stderr();
    let fancy = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let diagnostics = &loaded.diagnostics;
    let findings = if fancy { diagnostics.render_fancy() } else { diagnostics.render_plain() };
    stderr.lock().write_all(findings.as_bytes())?;
    stderr.lock().write_all(doctor::page(firewall).as_bytes())?;
    writeln!(io::stdout(), "{}", summary(loaded))
}

fn write_json(loaded: &Loaded, firewall: Option<&Vec<Item>>) -> io::Result<()> {
    let diagnostics = &loaded.diagnostics;
    let (services, servers) = counts(loaded.config.as_ref());
    let mut object = serde_json::json!({
        "ok": loaded.config.is_some(),
        "summary": {
            "virtual_servers": services,
            "real_servers": servers,
            "errors": diagnostics.error_count(),
            "warnings": diagnostics.warning_count(),
        },
        "diagnostics": diagnostics.to_json(),
    });
    if let Some(firewall) = firewall {
        object["firewall"] = serde_json::json!(firewall);
    }
    writeln!(io::stdout(), "{object:#}")
}

fn summary(loaded: &Loaded) -> String {
    let findings = findings(&loaded.diagnostics);
    match &loaded.config {
        Some(config) => {
            let (services, servers) = counts(Some(config));
            let contents = format!("{}, {}", number(services, "virtual server"), number(servers, "real server"));
            if findings.is_empty() { contents } else { format!("{contents}; {findings}") }
        }
        None => format!("not usable: {findings}"),
    }
}

fn findings(diagnostics: &Diagnostics) -> String {
    let parts = [(diagnostics.error_count(), "error"), (diagnostics.warning_count(), "warning")];
    let shown: Vec<_> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| number(*count, what)).collect();
    shown.join(", ")
}

fn counts(config: Option<&Config>) -> (usize, usize) {
    config.map_or((0, 0), |config| {
        let servers = config.virtual_servers.iter().map(|server| server.real_servers.len()).sum();
        (config.virtual_servers.len(), servers)
    })
}

fn number(count: usize, what: &str) -> String {
    if count == 1 { format!("{count} {what}") } else { format!("{count} {what}s") }
}
