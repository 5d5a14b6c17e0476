//! How often packets are sent: `max`, or so many a second, `250000`, `100k`, `1.5M`.

use std::fmt;
use std::str::FromStr;

/// Packets a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Rate {
    /// As many as the machine sends.
    #[default]
    Max,
    /// So many, evenly.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Self::Max);
        }
        crate::number::count(text).map(|n| Self::PerSecond(n as f64)).map_err(|e| format!("{e}; or max"))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::PerSecond(rate) => write!(f, "{rate:.0}"),
        }
    }
}
