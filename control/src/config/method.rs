//! `lb_kind`, `lvs_method`: NAT, DR, or TUN with the form of its tunnel.

use dataplane::service::Encapsulation;

use super::block::Statement;
use super::lower::Lower;
use super::model::ForwardingMethod;
use super::tunnel;

/// The method that a statement names, if this version has it, and the form of its tunnel.
pub(super) fn lower(lower: &mut Lower<'_>, statement: &Statement) -> Option<(ForwardingMethod, Encapsulation)> {
    let Some((word, options)) = statement.arguments().split_first() else {
        lower.lacking(statement, "NAT, DR, TUN or FNAT");
        return None;
    };
    if word.text == "TUN" {
        return Some((ForwardingMethod::Tun, tunnel::lower(lower, options)?));
    }
    lower.extra(statement, 1);
    let methods = [
        ("NAT", ForwardingMethod::Nat),
        ("DR", ForwardingMethod::Dr),
        ("TUN", ForwardingMethod::Tun),
        ("FNAT", ForwardingMethod::FullNat),
        ("FULLNAT", ForwardingMethod::FullNat),
    ];
    Some((lower.choice(word, "forwarding method", &methods)?, Encapsulation::default()))
}
