//! Rules for flows to come, kept among the flows: persistence templates and expected connections.
//!
//! Their keys are marked in bits that no packet's key has, so no packet is ever taken for one of theirs; a worker that
//! opens a flow asks for them by name. Like flows, a rule is inserted once or adopted, ends by its timer and outlives the
//! process. Its kind is its state, under the flag `TEMPLATE`.

use super::entry::{FlowEntry, flag};
use super::extension::FlowLink;
use super::key::{Family, FlowKey};
use super::lookup::Find;
use super::storage::Storage;
use super::table::Table;

/// What an entry with the flag `TEMPLATE` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// Where a client network's flows to a service go. The key: from the network, port 0, to the VIP and its port, or 0
    /// where the service has every port.
    Persistence = 1,
    /// The same for a service of a mark, which any transport and address may have: the key's destination is the mark,
    /// its protocol always TCP.
    MarkPersistence = 2,
    /// A connection that the client or the server announced in the commands of another, with port 0 for the port that
    /// is not known yet.
    Expected = 3,
}

/// The rule that an entry with these flags and this state is.
#[inline]
pub(super) const fn of(flags: u16, state: u8) -> Option<Rule> {
    match (flags & flag::TEMPLATE, state) {
        (0, _) => None,
        (_, 1) => Some(Rule::Persistence),
        (_, 2) => Some(Rule::MarkPersistence),
        _ => Some(Rule::Expected),
    }
}

/// A key as it is packed for a rule; for a flow of packets without one.
#[inline]
pub(super) fn pack<F: Family>(rule: Option<Rule>, key: &FlowKey<F::Addr>) -> F::Words {
    F::marked(F::pack(key), rule.map_or(0, |rule| rule as u8))
}

impl<F: Family> FlowEntry<F> {
    /// What rule this entry is; `None` for a flow of packets.
    #[inline]
    pub fn rule(&self) -> Option<Rule> {
        let seen = self.state();
        of(seen.flags(), seen.state())
    }
}

impl<F: Family, S: Storage<F, N>, const N: usize> Table<F, S, N> {
    /// Finds a rule by its key.
    pub fn find_rule(&self, rule: Rule, key: &FlowKey<F::Addr>) -> Find {
        let words = pack::<F>(Some(rule), key);
        self.lookup_words(&words)
    }

    /// Ends a rule whose time is up unless flows hang on it: whether nothing hangs on it any more.
    pub fn close(&self, entry: &FlowEntry<F>) -> bool {
        entry.close()
    }

    /// The entry that a flow hangs on: a template, or the flow of the commands.
    pub fn controller(&self, entry: &FlowEntry<F>) -> Option<&FlowEntry<F>> {
        let index = match self.extension(entry) {
            Some(record) => record.link()?.index,
            None => entry.beside()?,
        };
        Some(self.entry_at(index))
    }

    /// What another flow keeps to hang on this one.
    pub fn link(&self, entry: &FlowEntry<F>) -> FlowLink {
        let from = std::ptr::from_ref(entry).addr().wrapping_sub(self.store.entries().as_ptr().addr());
        FlowLink { index: (from / size_of::<FlowEntry<F>>()) as u32, generation: entry.state().generation() }
    }

    /// Whether flows hang on an entry that should end. Nothing can begin to after it said no.
    #[inline]
    pub(super) fn is_held(&self, entry: &FlowEntry<F>, flags: u16) -> bool {
        if flags & flag::TEMPLATE != 0 {
            return !entry.close();
        }
        flags & flag::FTP != 0 && self.extension(entry).is_some_and(|record| record.holders() > 0)
    }

    /// Tells what a flow hung on that it ended.
    #[cold]
    #[inline(never)]
    pub(super) fn let_go(&self, entry: &FlowEntry<F>) {
        let Some(on) = self.controller(entry) else { return };
        if on.rule().is_some() {
            on.release();
        } else if on.state().flags() & flag::FTP != 0
            && let Some(record) = self.extension(on)
        {
            record.release();
        }
    }
}
