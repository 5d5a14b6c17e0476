//! From the tree to the model: what the blocks share. Each block has a file of its own.
//!
//! Every function reports what is wrong, and goes on with a harmless value; the model is used only if nothing was.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::block::Statement;
use super::diagnostics::{Diagnostic, Diagnostics};
use super::keywords::{self, Context, Support};
use super::lexer::Word;
use super::model::Config;
use super::source::{Place, SourceMap, Span};
use super::virtual_server::VirtualServers;
use super::{dataplane, global_defs, static_ipaddress, virtual_server_group};

/// What lowering works with.
pub(super) struct Lower<'a> {
    pub(super) sources: &'a SourceMap,
    pub(super) report: &'a mut Diagnostics,
}

impl Lower<'_> {
    /// The whole configuration.
    pub(super) fn config(&mut self, root: &[Statement]) -> Config {
        let named = |name: &'static str| root.iter().filter(move |statement| statement.name() == name);
        let mut config = Config::default();
        let globals = global_defs::lower(self, named("global_defs"));
        let default_interface = globals.default_interface;
        config.global = globals.defs;
        for block in named("static_ipaddress") {
            static_ipaddress::lower(self, block, default_interface.as_deref(), &mut config.static_addresses);
        }
        let groups = virtual_server_group::lower(self, named("virtual_server_group"));
        let mut servers = VirtualServers::new(groups);
        for block in named("local_address_group") {
            servers.local_groups.lower(self, block);
        }
        for block in named("virtual_server") {
            servers.lower(self, block);
        }
        config.virtual_servers = servers.finish();
        config.dataplane = dataplane::lower(self, named("dataplane"), globals.timeouts);
        for statement in root {
            self.no_effect(statement);
        }
        config
    }

    /// Where a span begins, for the model.
    pub(super) fn place(&self, span: Span) -> Place {
        self.sources.place(span)
    }

    /// An error about a word or line; dropped where an earlier layer has found fault with a part of it.
    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        if !self.report.has_error_in(span) {
            self.report.push(Diagnostic::error(span, message).label(label));
        }
    }

    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>, label: impl Into<String>) {
        self.report.push(Diagnostic::warning(span, message).label(label));
    }

    /// Warns about a statement that the tables know to do nothing.
    pub(super) fn no_effect(&mut self, statement: &Statement) {
        let Some(keyword) = statement.keyword.filter(|keyword| keyword.support == Support::NoEffect) else { return };
        let diagnostic = Diagnostic::warning(
            statement.head(),
            format!("`{}` is known to keepalived and has no effect in this version of Sluice", keyword.name),
        )
        .label("has no effect");
        self.report.push(match consequence(keyword.name) {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        });
    }

    /// The one argument of a statement; an error if there is none, a warning if there are more.
    pub(super) fn one<'s>(&mut self, statement: &'s Statement, expected: &str) -> Option<&'s Word> {
        self.extra(statement, 1);
        let word = statement.arguments().first();
        if word.is_none() {
            self.lacking(statement, expected);
        }
        word
    }

    /// A statement lacks an argument. keepalived ends at such a line.
    pub(super) fn lacking(&mut self, statement: &Statement, expected: &str) {
        let message = format!("`{}` needs {expected}", statement.name());
        self.error(statement.span(), message, format!("expected {expected} after this"));
    }

    /// Reports arguments after the first `count`.
    pub(super) fn extra(&mut self, statement: &Statement, count: usize) {
        let Some(word) = statement.arguments().get(count) else { return };
        let servers = [Context::VirtualServer, Context::RealServer, Context::Root];
        if servers.iter().any(|context| context.keyword(&word.text).is_some()) {
            self.error(
                word.span,
                format!("`{}` stands on the line of `{}`", word.text, statement.name()),
                "must begin a line of its own",
            );
        } else {
            let message = format!("more words than `{}` takes", statement.name());
            self.warning(word.span, message, "ignored from here");
        }
    }

    /// A whole number in a range.
    pub(super) fn number(&mut self, word: &Word, range: RangeInclusive<u64>, what: &str) -> Option<u64> {
        let expected = format!("expected a number from {} to {}", range.start(), range.end());
        if word.text.is_empty() || !word.text.bytes().all(|byte| byte.is_ascii_digit()) {
            self.error(word.span, format!("`{}` is not a {what}", shown(&word.text)), expected);
            return None;
        }
        let value = word.text.parse().ok().filter(|value| range.contains(value));
        if value.is_none() {
            self.error(word.span, format!("{what} {} is out of range", shown(&word.text)), expected);
        }
        value
    }

    /// An IP address of either family.
    pub(super) fn address(&mut self, word: &Word) -> Option<IpAddr> {
        let address = word.text.parse().ok();
        if address.is_none() {
            let message = format!("`{}` is not an IP address", shown(&word.text));
            self.error(word.span, message, "expected an address such as 192.0.2.1 or 2001:db8::1");
        }
        address
    }

    /// `on`, `true`, `yes` and their opposites; on where the statement names none.
    pub(super) fn switch(&mut self, statement: &Statement) -> bool {
        self.extra(statement, 1);
        statement.arguments().first().is_none_or(|word| self.boolean(word))
    }

    /// One of the words for on and off, in lower case.
    pub(super) fn boolean(&mut self, word: &Word) -> bool {
        match word.text.as_str() {
            "on" | "true" | "yes" => true,
            "off" | "false" | "no" => false,
            other => {
                self.error(
                    word.span,
                    format!("`{}` is neither on nor off", shown(other)),
                    "expected on, true, yes, off, false or no",
                );
                false
            }
        }
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&mut self, word: &Word, what: &str, choices: &[(&'static str, T)]) -> Option<T> {
        if let Some((_, value)) = choices.iter().find(|(name, _)| *name == word.text) {
            return Some(*value);
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let plain = word.text.trim_matches(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}', '\u{201e}']);
        if plain.len() < word.text.len() {
            self.error(word.span, format!("`{}` is no {what}", shown(&word.text)), "curly quotes are part of the word");
            return None;
        }
        let label = match keywords::nearest(&word.text, names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("expected {}", either(&names)),
        };
        self.error(word.span, format!("`{}` is no {what}", shown(&word.text)), label);
        None
    }
}

/// `a, b or c`.
pub(super) fn either(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// A word short enough for a message.
pub(super) fn shown(word: &str) -> String {
    if word.chars().count() <= 60 { word.to_owned() } else { word.chars().take(60).chain(['…']).collect() }
}

/// What follows from a keyword's having no effect, where that is not plain.
fn consequence(name: &str) -> Option<&'static str> {
    Some(match name {
        "vrrp_instance" => "its addresses are not added; `static_ipaddress` adds addresses without VRRP",
        "TCP_CHECK" | "HTTP_GET" | "SSL_GET" | "SMTP_CHECK" | "DNS_CHECK" | "UDP_CHECK" | "PING_CHECK"
        | "MISC_CHECK" | "FILE_CHECK" | "BFD_CHECK" => "without checks the real server always counts as up",
        "persistence_engine" => "clients are told apart by their addresses",
        "ops" => "packets of one client port stay with one real server",
        _ => return None,
    })
}
