//! The block `global_defs`. What has no effect is named in one warning a block.

use super::block::Statement;
use super::diagnostics::Diagnostic;
use super::keywords::Support;
use super::lower::Lower;
use super::model::{GlobalDefs, TimeoutOverrides};
use super::timeouts;

/// What the block gives to the model, directly and through other blocks.
#[derive(Default)]
pub(super) struct Globals {
    pub(super) defs: GlobalDefs,
    pub(super) default_interface: Option<String>,
    pub(super) timeouts: TimeoutOverrides,
}

/// Lowers every block of the name; later lines win.
pub(super) fn lower<'s>(lower: &mut Lower<'_>, blocks: impl Iterator<Item = &'s Statement>) -> Globals {
    let mut globals = Globals::default();
    for block in blocks {
        lower.extra(block, 0);
        for statement in block.inner() {
            one(lower, statement, &mut globals);
        }
        idle(lower, block);
    }
    globals
}

fn one(lower: &mut Lower<'_>, statement: &Statement, globals: &mut Globals) {
    match statement.keyword.map_or("", |keyword| keyword.name) {
        "router_id" => globals.defs.router_id = lower.one(statement, "a name").map(|word| word.text.clone()),
        "lvs_id" => {
            globals.defs.router_id = lower.one(statement, "a name").map(|word| word.text.clone());
            lower.warning(statement.head(), "`lvs_id` is the name that keepalived 1.x had", "now `router_id`");
        }
        "default_interface" => {
            globals.default_interface = lower.one(statement, "an interface").map(|word| word.text.clone());
        }
        "lvs_timeouts" => timeouts::lower(lower, statement, statement.arguments(), &mut globals.timeouts),
        _ => {}
    }
}

fn idle(lower: &mut Lower<'_>, block: &Statement) {
    let names: Vec<_> = block
        .inner()
        .iter()
        .filter_map(|statement| statement.keyword)
        .filter(|keyword| keyword.support == Support::NoEffect)
        .map(|keyword| keyword.name)
        .collect();
    if !names.is_empty() {
        lower.report.push(
            Diagnostic::warning(
                block.head(),
                "keywords of `global_defs` that have no effect in this version of Sluice",
            )
            .label("in this block")
            .help(format!("known to keepalived: {}", names.join(", "))),
        );
    }
}
