//! From which sources a service takes new flows: a blocklist and an allowlist of prefixes.
//!
//! A source on the blocklist is refused; where there is an allowlist, so is one that is not on it.

use std::net::IpAddr;
use std::sync::Arc;

use crate::rules::PrefixSet;

/// The lists of a service; both absent where it takes everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLists {
    /// Sources that are refused.
    pub blocked: Option<Arc<PrefixSet>>,
    /// The only sources that are not refused.
    pub allowed: Option<Arc<PrefixSet>>,
}

/// What lists say of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may open flows.
    Granted,
    /// It is on the blocklist.
    Blocked,
    /// There is an allowlist, and it is not on it.
    NotAllowed,
}

impl AccessLists {
    /// What they say of a source.
    #[inline]
    pub fn of(&self, source: IpAddr) -> Access {
        if self.blocked.as_ref().is_some_and(|list| list.contains(source)) {
            return Access::Blocked;
        }
        match &self.allowed {
            Some(list) if !list.contains(source) => Access::NotAllowed,
            _ => Access::Granted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_blocklist_goes_before_the_allowlist() {
        let set = |prefix: &str| Some(Arc::new([prefix.parse().unwrap()].into_iter().collect::<PrefixSet>()));
        let of = |lists: &AccessLists, source: &str| lists.of(source.parse().unwrap());
        let both = AccessLists { blocked: set("10.1.0.0/16"), allowed: set("10.0.0.0/8") };
        assert_eq!(of(&both, "10.1.0.1"), Access::Blocked);
        assert_eq!(of(&both, "10.2.0.1"), Access::Granted);
        assert_eq!(of(&both, "172.16.0.1"), Access::NotAllowed);
        assert_eq!(of(&AccessLists::default(), "172.16.0.1"), Access::Granted);
    }
}
