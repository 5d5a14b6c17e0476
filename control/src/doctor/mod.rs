//! `sluice doctor`: what on this machine would keep a director from working, or works otherwise than its owner expects.
//!
//! It asks and never changes anything; what cannot be asked is said, not passed over.

pub mod firewall;
mod host_rule;
mod iptables;
mod machine;
mod nft;

use serde::Serialize;

use crate::config::Config;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Something will be otherwise than it was, or slower than it could be.
    Warning,
    /// The director cannot work.
    Problem,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// How much it matters.
    pub level: Level,
    /// What it is about, in one word.
    pub topic: &'static str,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Item {
    fn new(level: Level, topic: &'static str, text: impl Into<String>) -> Self {
        Self { level, topic, text: text.into(), help: None }
    }

    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// Everything that is asked of this machine; what concerns services, only with a configuration.
pub fn examine(config: Option<&Config>) -> Vec<Item> {
    let mut items = machine::examine(config);
    match config {
        Some(config) => items.extend(firewall::examine(config, &firewall::gather())),
        None => items.push(
            Item::new(
                Level::Note,
                "firewall",
                "not looked at: no configuration was named, so no virtual service is known",
            )
            .help("sluice doctor -f /etc/keepalived/keepalived.conf"),
        ),
    }
    items
}
