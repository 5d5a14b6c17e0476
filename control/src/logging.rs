//! Where log lines go: to journald under systemd, else to standard error with time and level.

use std::ffi::OsString;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// A `--log` or `RUST_LOG` that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error(
    "log level '{0}' is not understood; use error, warn, info, debug, trace, or such as info,control::kernel=debug: {1}"
)]
pub struct BadLevel(String, #[source] ParseError);

/// Begins to log. `level` is what `--log` says; without it `RUST_LOG`, and without that `info`.
pub fn init(level: Option<&str>) -> Result<(), BadLevel> {
    let from_environment = std::env::var("RUST_LOG").ok();
    let text = level.or(from_environment.as_deref()).unwrap_or("info").to_owned();
    let filter = EnvFilter::try_new(&text).map_err(|error| BadLevel(text, error))?;
    let registry = tracing_subscriber::registry().with(filter);
    // Both fail only when logging was set up before, which leaves it as it is.
    let _ = if let Some(journal) = journal(std::env::var_os("JOURNAL_STREAM")) {
        registry.with(journal).try_init()
    } else {
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
        registry.with(lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))).try_init()
    };
    Ok(())
}

/// The way to journald, when systemd set `JOURNAL_STREAM` for this process's own standard error and it can be opened.
fn journal(stream: Option<OsString>) -> Option<tracing_journald::Layer> {
    let stream = stream?;
    let file = nix::sys::stat::fstat(std::io::stderr()).ok()?;
    // An inherited variable means nothing when standard error was redirected since: see systemd.exec(5).
    if stream.to_str()? != format!("{}:{}", file.st_dev, file.st_ino) {
        return None;
    }
    tracing_journald::layer().ok().map(|layer| layer.with_syslog_identifier("sluice".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_is_said() {
        assert!(init(Some("control=loud")).unwrap_err().to_string().contains("'control=loud'"));
    }

    #[test]
    fn a_stream_of_another_file_is_not_ours() {
        assert!(journal(Some("1:1".into())).is_none());
        assert!(journal(None).is_none());
    }
}
