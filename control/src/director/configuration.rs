//! Reading the configuration, at start and at reload, and which of its settings only a new start can change.

use super::options::RunOptions;
use crate::compile::PortPlan;
use crate::config::{self, Config, Diagnostics, Severity};

/// A configuration that is not used.
#[derive(Debug, thiserror::Error)]
#[error("the configuration has {errors} error(s), nothing was changed\n{rendered}")]
pub struct Refused {
    /// How many.
    pub errors: usize,
    /// All of them with their places, for people.
    pub rendered: String,
    /// One line each, for logs and the API.
    pub lines: Vec<String>,
}

/// Reads files as one configuration. Warnings are logged.
pub fn read(options: &RunOptions) -> Result<Config, Refused> {
    let loaded = config::load(&options.files, &options.load_options());
    let diagnostics = &loaded.diagnostics;
    match loaded.config {
        Some(config) => {
            for line in lines(diagnostics, Severity::Warning) {
                tracing::warn!("{line}");
            }
            Ok(config)
        }
        None => Err(Refused {
            errors: diagnostics.error_count(),
            rendered: render(diagnostics),
            lines: lines(diagnostics, Severity::Error),
        }),
    }
}

fn lines(diagnostics: &Diagnostics, severity: Severity) -> Vec<String> {
    let of_severity = diagnostics.iter().filter(|diagnostic| diagnostic.severity == severity);
    of_severity.map(|diagnostic| format!("{}: {}", diagnostics.place(diagnostic), diagnostic.message)).collect()
}

fn render(diagnostics: &Diagnostics) -> String {
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        diagnostics.render_fancy()
    } else {
        diagnostics.render_plain()
    }
}

/// Settings that differ and that a reload cannot apply, in words. Both configurations with the ports that they lead to;
/// `None` where the new ones could not be derived.
pub fn needs_restart(old: &Config, new: &Config, ports: &[PortPlan], new_ports: Option<&[PortPlan]>) -> Vec<String> {
    let (before, after) = (&old.dataplane, &new.dataplane);
    let numbers = [
        ("connections", before.connections, after.connections),
        ("connections6", before.connections6, after.connections6),
    ];
    let mut waiting: Vec<String> = numbers
        .iter()
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| format!("`{name}` stays {before} until a restart makes it {after}"))
        .collect();
    if before.extensions != after.extensions {
        waiting.push("`extensions` takes effect at a restart".to_owned());
    }
    if before.workers != after.workers {
        waiting.push("`workers` takes effect at a restart".to_owned());
    }
    if before.idle != after.idle {
        waiting.push("`idle` takes effect at a restart".to_owned());
    }
    if before.kernel_port.is_some() != after.kernel_port.is_some() {
        waiting.push("`kernel_port` takes effect at a restart".to_owned());
    }
    if new_ports.is_some_and(|new| opened(new) != opened(ports)) {
        waiting.push("ports would change, which takes effect at a restart".to_owned());
    }
    waiting
}

/// What of the ports is fixed when they are opened: all but the reason for which they are ports, and
/// what is read of them then.
fn opened(ports: &[PortPlan]) -> Vec<PortPlan> {
    ports.iter().map(|port| PortPlan { why: String::new(), rss: None, ..port.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataplaneConfig, Idle};

    #[test]
    fn what_a_reload_cannot_apply_is_said() {
        let old = Config::default();
        assert_eq!(needs_restart(&old, &old.clone(), &[], Some(&[])), Vec::<String>::new());
        let dataplane = DataplaneConfig { connections: 5, idle: Idle::Busy, ..DataplaneConfig::default() };
        let new = Config { dataplane, ..Config::default() };
        let said = needs_restart(&old, &new, &[], None).join("; ");
        assert_eq!(said, "`connections` stays 1048576 until a restart makes it 5; `idle` takes effect at a restart");
    }

    #[test]
    fn a_file_that_is_not_there_is_refused() {
        let options = RunOptions {
            files: vec!["/nonexistent/sluice.conf".into()],
            dataplane_file: "/nonexistent/dataplane.conf".into(),
            config_id: "a".into(),
            state_dir: "/nonexistent".into(),
            log: None,
        };
        let refused = read(&options).unwrap_err();
        assert!(refused.errors > 0);
        assert!(refused.to_string().contains("/nonexistent/sluice.conf"), "{refused}");
    }
}
