//! Every keyword of keepalived 1.2 to 2.4, of the Alibaba fork, and of Sluice: where it may stand, what follows it, and
//! whether this version acts on it.
//!
//! The tables tell an unknown keyword from one that is known and does nothing here. Each context is one table.

mod tables;

/// Where a statement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Context {
    Root,
    TrackGroup,
    GlobalDefs,
    SyncGroup,
    GarpGroup,
    VrrpInstance,
    Authentication,
    AuthHmac,
    VrrpScript,
    TrackProcess,
    TrackFile,
    BfdInstance,
    Ssl,
    VirtualServer,
    RealServer,
    SynProxy,
    TcpCheck,
    HttpGet,
    Url,
    SmtpCheck,
    SmtpHost,
    DnsCheck,
    UdpCheck,
    PingCheck,
    MiscCheck,
    FileCheck,
    BfdCheck,
    Dataplane,
    DataplaneInterface,
    DataplaneTimeouts,
    /// A list of lines that begin with no keyword.
    Lines,
    /// Inside something that was not understood: nothing in it is looked at.
    Skipped,
}

/// What may follow a keyword's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Nothing,
    Block(Context),
    /// A block, or nothing.
    Maybe(Context),
}

/// What this version does with a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It acts on it.
    Used,
    /// It takes it in silence: nothing is lost by that.
    Accepted,
    /// It does nothing, and says so.
    NoEffect,
}

/// A keyword in one context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keyword {
    pub(super) name: &'static str,
    pub(super) body: Body,
    pub(super) support: Support,
}

/// Keywords that share body and support.
struct Group {
    body: Body,
    support: Support,
    names: &'static [&'static str],
}

impl Context {
    /// What a block of this kind is called in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Root => "the top level",
            Self::TrackGroup => "`track_group`",
            Self::GlobalDefs => "`global_defs`",
            Self::SyncGroup => "`vrrp_sync_group`",
            Self::GarpGroup => "`garp_group`",
            Self::VrrpInstance => "`vrrp_instance`",
            Self::Authentication => "`authentication`",
            Self::AuthHmac => "`auth_hmac`",
            Self::VrrpScript => "`vrrp_script`",
            Self::TrackProcess => "`vrrp_track_process`",
            Self::TrackFile => "`track_file`",
            Self::BfdInstance => "`bfd_instance`",
            Self::Ssl => "`SSL`",
            Self::VirtualServer => "`virtual_server`",
            Self::RealServer => "`real_server`",
            Self::SynProxy => "`syn_proxy`",
            Self::TcpCheck => "`TCP_CHECK`",
            Self::HttpGet => "`HTTP_GET`",
            Self::Url => "`url`",
            Self::SmtpCheck => "`SMTP_CHECK`",
            Self::SmtpHost => "`host`",
            Self::DnsCheck => "`DNS_CHECK`",
            Self::UdpCheck => "`UDP_CHECK`",
            Self::PingCheck => "`PING_CHECK`",
            Self::MiscCheck => "`MISC_CHECK`",
            Self::FileCheck => "`FILE_CHECK`",
            Self::BfdCheck => "`BFD_CHECK`",
            Self::Dataplane => "`dataplane`",
            Self::DataplaneInterface => "`interface`",
            Self::DataplaneTimeouts => "`timeouts`",
            Self::Lines | Self::Skipped => "this block",
        }
    }

    /// Whether statements here begin with a keyword of a table.
    pub(super) const fn has_keywords(self) -> bool {
        !matches!(self, Self::Lines | Self::Skipped | Self::DataplaneTimeouts)
    }

    /// The keyword of this name, if it may stand here.
    pub(super) fn keyword(self, name: &str) -> Option<Keyword> {
        self.groups().iter().find_map(|group| {
            let name = group.names.iter().find(|known| **known == name)?;
            Some(Keyword { name, body: group.body, support: group.support })
        })
    }

    /// All names that may stand here.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        self.groups().iter().flat_map(|group| group.names.iter().copied())
    }

    fn groups(self) -> &'static [Group] {
        tables::groups(self)
    }
}

/// The contexts where a keyword may stand.
pub(super) fn homes(name: &str) -> impl Iterator<Item = Context> {
    tables::ALL.iter().copied().filter(move |context| context.keyword(name).is_some())
}

/// The keyword of any block that is nearest, and that block.
pub(super) fn elsewhere(word: &str) -> Option<(&'static str, Context)> {
    let meant = nearest(word, tables::ALL.iter().flat_map(|context| context.names()))?;
    homes(meant).next().map(|home| (meant, home))
}

/// Whether the words after this keyword are cut as a command line.
pub(super) fn is_script(name: &str) -> bool {
    tables::SCRIPTS.contains(&name)
}

/// The nearest of some names by edit distance, near enough to be what was meant.
pub(super) fn nearest(word: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let length = word.chars().count();
    if !(2..=40).contains(&length) {
        return None;
    }
    let most = if length < 5 { 1 } else { (length / 3).min(4) };
    let word = word.to_ascii_lowercase();
    names
        .filter(|name| name.len().abs_diff(length) <= most)
        .map(|name| (strsim::damerau_levenshtein(&word, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_keyword_stands_twice_in_a_table() {
        for &context in tables::ALL {
            let mut seen = HashSet::new();
            assert!(context.names().all(|name| seen.insert(name)), "{}", context.name());
        }
    }

    #[test]
    fn every_block_leads_to_a_table() {
        for &context in tables::ALL {
            for name in context.names() {
                let inner = match context.keyword(name).unwrap().body {
                    Body::Nothing => continue,
                    Body::Block(inner) | Body::Maybe(inner) => inner,
                };
                assert!(!inner.has_keywords() || tables::ALL.contains(&inner), "{name}");
            }
        }
    }

    #[test]
    fn a_slip_of_the_pen_finds_its_keyword() {
        let meant = |word, context: Context| nearest(word, context.names());
        assert_eq!(meant("lb_alog", Context::VirtualServer), Some("lb_algo"));
        assert_eq!(meant("preemtp_delay", Context::VrrpInstance), Some("preempt_delay"));
        assert_eq!(meant("autp_pass", Context::Authentication), Some("auth_pass"));
        assert_eq!(meant("lvs_sync_daemon_inteface", Context::VrrpInstance), Some("lvs_sync_daemon_interface"));
        assert_eq!(meant("Virtual_Server", Context::Root), Some("virtual_server"));
        assert_eq!(meant("qwertyuiop", Context::Root), None);
    }
}
