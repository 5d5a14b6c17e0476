//! `lb_kind`, `lvs_method`: NAT, DR, or TUN with the form of its tunnel.

use super::block::Statement;
use super::lexer::Word;
use super::lower::{Lower, shown};
use super::model::ForwardingMethod;

/// The method that a statement names, if this version has it.
pub(super) fn lower(lower: &mut Lower<'_>, statement: &Statement) -> Option<ForwardingMethod> {
    let Some((word, options)) = statement.arguments().split_first() else {
        lower.lacking(statement, "NAT, DR or TUN");
        return None;
    };
    match word.text.as_str() {
        "TUN" => tunnel(lower, options).then_some(ForwardingMethod::Tun),
        "FNAT" | "FULLNAT" => {
            let message = format!("the method {} is not supported yet", word.text);
            lower.error(word.span, message, "this version has NAT, DR and TUN");
            None
        }
        _ => {
            lower.extra(statement, 1);
            lower.choice(
                word,
                "forwarding method",
                &[("NAT", ForwardingMethod::Nat), ("DR", ForwardingMethod::Dr), ("TUN", ForwardingMethod::Tun)],
            )
        }
    }
}

/// Whether the options after TUN are what this version does: IPIP without checksums.
fn tunnel(lower: &mut Lower<'_>, options: &[Word]) -> bool {
    let mut words = options.iter();
    while let Some(word) = words.next() {
        let known = match word.text.as_str() {
            "type" => tunnel_type(lower, word, words.next()),
            "nocsum" | "csum" | "remcsum" => {
                let message = format!("a tunnel of type ipip has no `{}`", word.text);
                lower.error(word.span, message, "only gue and gre have checksums");
                false
            }
            other => {
                let message = format!("`{}` is no option of TUN", shown(other));
                lower.error(word.span, message, "expected `type ipip`, or nothing");
                false
            }
        };
        if !known {
            return false;
        }
    }
    true
}

fn tunnel_type(lower: &mut Lower<'_>, keyword: &Word, kind: Option<&Word>) -> bool {
    let Some(kind) = kind else {
        lower.error(keyword.span, "`type` needs a tunnel", "expected ipip after this");
        return false;
    };
    match kind.text.as_str() {
        "ipip" => true,
        "gue" | "gre" => {
            let message = format!("tunnels of type {} are not supported yet", kind.text);
            lower.error(kind.span, message, "this version has ipip");
            false
        }
        other => {
            lower.error(kind.span, format!("`{}` is no type of tunnel", shown(other)), "expected ipip");
            false
        }
    }
}
