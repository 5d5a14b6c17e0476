//! Where frames come from or go to: `[NETNS/]INTERFACE[:QUEUE[-QUEUE]]`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Some queues of one interface, in a named network namespace or in that of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A namespace as `ip netns` names it; `None` for the process's own.
    pub(crate) namespace: Option<String>,
    pub(crate) interface: String,
    pub(crate) queues: RangeInclusive<u32>,
}

/// Queues that one place may have: as many as the map of sockets holds.
const MOST_QUEUES: u32 = 64;

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, rest) = match text.split_once('/') {
            Some((namespace, rest)) => (Some(namespace.to_owned()), rest),
            None => (None, text),
        };
        let (interface, queues) = rest.split_once(':').unwrap_or((rest, "0"));
        if interface.is_empty() || namespace.as_deref() == Some("") {
            return Err("expected [NETNS/]INTERFACE[:QUEUE[-QUEUE]]".into());
        }
        let (first, last) = queues.split_once('-').unwrap_or((queues, queues));
        let queue = |text: &str| text.parse().ok().filter(|n| *n < MOST_QUEUES);
        match (queue(first), queue(last)) {
            (Some(first), Some(last)) if first <= last => {
                Ok(Self { namespace, interface: interface.to_owned(), queues: first..=last })
            }
            _ => Err(format!("'{queues}' are no queues: expected 0 to {}, or a range such as 0-3", MOST_QUEUES - 1)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        let (first, last) = (self.queues.start(), self.queues.end());
        write!(f, "{}:{first}", self.interface)?;
        if first == last { Ok(()) } else { write!(f, "-{last}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_as_they_are_written() {
        for text in ["eth0:0", "eth0:2-5", "lab-client/eth0:1"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        assert_eq!("eth0".parse::<Place>().unwrap().queues, 0..=0);
        for wrong in ["", "ns/", "/eth0", "eth0:", "eth0:x", "eth0:5-2", "eth0:64"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
