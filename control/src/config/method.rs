//! `lb_kind`, `lvs_method`: NAT, DR, or TUN with the form of its tunnel.

use dataplane::service::Encapsulation;

use super::block::Statement;
use super::lower::Lower;
use super::model::ForwardingMethod;
use super::tunnel;

/// The method that a statement names, if this version has it, and the form of its tunnel.
pub(super) fn lower(lower: &mut Lower<'_>, statement: &Statement) -> Option<(ForwardingMethod, Encapsulation)> {
    let Some((word, options)) = statement.arguments().split_first() else {
        lower.lacking(statement, "NAT, DR or TUN");
        return None;
    };
    match word.text.as_str() {
        "TUN" => Some((ForwardingMethod::Tun, tunnel::lower(lower, options)?)),
        "FNAT" | "FULLNAT" => {
            let message = format!("the method {} is not supported yet", word.text);
            lower.error(word.span, message, "this version has NAT, DR and TUN");
            None
        }
        _ => {
            lower.extra(statement, 1);
            let choices =
                [("NAT", ForwardingMethod::Nat), ("DR", ForwardingMethod::Dr), ("TUN", ForwardingMethod::Tun)];
            Some((lower.choice(word, "forwarding method", &choices)?, Encapsulation::default()))
        }
    }
}
