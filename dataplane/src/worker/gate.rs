//! What a packet passes before it may open a flow: rules, the service's lists of sources, the limit of its source.

use super::Context;
use super::pass::Keyed;
use super::path::Path;
use crate::counters::Drop;
use crate::flow::FlowKey;
use crate::ident::{Endpoint, Protocol};
use crate::rules::{Judgement, Subject};
use crate::service::{Access, AddressFamily, Service};
use crate::snapshot::Defended;

/// What rules say of a packet, nothing spent or counted yet, and the service that it is for: that of its mark before
/// that of its address.
pub(super) fn service<'s, F: Path>(
    context: Context<'s>,
    keyed: &Keyed<'_, F>,
    at: Endpoint,
) -> (Judgement, Option<&'s Service>) {
    let (services, rules) = (&context.snapshot.services, &context.snapshot.gates.rules);
    let judgement = if rules.is_empty() { Judgement::Pass(None) } else { rules.peek(&subject::<F>(keyed.key)) };
    let marked = match judgement {
        Judgement::Pass(Some(mark)) => services.marked(mark, AddressFamily::of(at.address)),
        Judgement::Pass(None) | Judgement::Denied | Judgement::Limited => None,
    };
    let found = marked.or_else(|| services.find(keyed.key.protocol, at));
    (judgement, found.map(|(_, service)| service))
}

/// Why a packet may not open a flow of a service, if it may not. Spends of rates, and counts.
pub(super) fn refusal<F: Path>(context: Context<'_>, keyed: &Keyed<'_, F>, service: &Service) -> Option<Drop> {
    let gates = &context.snapshot.gates;
    if !gates.rules.is_empty() {
        let judgement = gates.rules.judge(&subject::<F>(keyed.key), context.now);
        if let Some(reason) = unwelcome(keyed, judgement, service) {
            return Some(reason);
        }
    } else if let Some(reason) = listed(keyed, service) {
        return Some(reason);
    }
    let sources = gates.sources.as_ref()?;
    (!sources.spend(F::ip(keyed.key.source), context.now)).then_some(Drop::SourceLimited)
}

/// Why a packet is refused whatever rates say.
pub(super) fn unwelcome<F: Path>(keyed: &Keyed<'_, F>, judgement: Judgement, service: &Service) -> Option<Drop> {
    match judgement {
        Judgement::Denied => Some(Drop::Denied),
        Judgement::Limited => Some(Drop::RateLimited),
        Judgement::Pass(_) => listed(keyed, service),
    }
}

/// Why the lists of a service refuse a source.
fn listed<F: Path>(keyed: &Keyed<'_, F>, service: &Service) -> Option<Drop> {
    match service.settings.access.of(F::ip(keyed.key.source)) {
        Access::Blocked => Some(Drop::Blocklisted),
        Access::NotAllowed => Some(Drop::NotAllowlisted),
        Access::Granted => None,
    }
}

/// Whether a rule denies a packet of a flow.
#[cold]
#[inline(never)]
pub(super) fn denies<F: Path>(context: Context<'_>, key: &FlowKey<F::Addr>) -> bool {
    context.snapshot.gates.rules.denies(&subject::<F>(key))
}

/// Why a packet of no flow and no service does not go to the kernel, where that is so: it is to a service's address, and
/// that is defended.
pub(super) fn defended<F: Path>(context: Context<'_>, key: &FlowKey<F::Addr>) -> Option<Drop> {
    let defence = context.snapshot.policy.defence;
    let (defended, reason) = match key.protocol {
        Protocol::Tcp => (defence.tcp, Drop::DefendedTcp),
        Protocol::Udp => (defence.udp, Drop::DefendedUdp),
        Protocol::Sctp => return None,
    };
    (defended == Defended::On && context.snapshot.services.has_address(F::ip(key.destination))).then_some(reason)
}

fn subject<F: Path>(key: &FlowKey<F::Addr>) -> Subject {
    Subject {
        protocol: key.protocol,
        source: F::ip(key.source),
        destination: F::ip(key.destination),
        port: key.destination_port.host(),
    }
}
