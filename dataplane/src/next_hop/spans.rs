//! Routes of IPv6 as spans of addresses: where each begins, in order, and its hop. A span is found by halving, without a
//! jump that depends on the address, so that strangers from everywhere cost as little as one client.
//!
//! Only the first half of an address counts. Where more is to be known (hosts of a connected prefix, routes longer
//! than that), a span's hop is [`UNSURE`].

use ipnet::Ipv6Net;
use prefix_trie::PrefixMap;

use super::{HopIndex, NO_ROUTE, Route, UNSURE};

/// Spans in the order of their addresses; each ends where the next begins.
#[derive(Debug, Default)]
pub(super) struct Spans {
    begins: Box<[u64]>,
    hops: Box<[HopIndex]>,
}

impl Spans {
    /// Those of all routes: of the longest one, where one lies in another.
    pub(super) fn of_routes(routes: &PrefixMap<Ipv6Net, Route>) -> Self {
        let mut routes: Vec<_> = routes.iter().collect();
        // The shorter of two that begin alike comes first, and holds the other.
        routes.sort_unstable_by_key(|(prefix, _)| (prefix.network(), prefix.prefix_len()));
        let mut spans = vec![(0, NO_ROUTE)];
        let mut open = vec![(u64::MAX, NO_ROUTE)];
        for (prefix, route) in routes {
            let (begin, end, hop) = span(&prefix, *route);
            close(&mut spans, &mut open, |open| open < begin);
            add(&mut spans, begin, hop);
            open.push((end, hop));
        }
        close(&mut spans, &mut open, |open| open < u64::MAX);
        let (begins, hops): (Vec<_>, Vec<_>) = spans.into_iter().unzip();
        Self { begins: begins.into(), hops: hops.into() }
    }

    /// The hop of the span that holds an address with this first half.
    #[inline]
    pub(super) fn of(&self, half: u64) -> HopIndex {
        let behind = self.begins.partition_point(|begin| *begin <= half);
        self.hops.get(behind.wrapping_sub(1)).copied().unwrap_or(NO_ROUTE)
    }
}

/// First and last half that a route holds, and its hop.
fn span(prefix: &Ipv6Net, route: Route) -> (u64, u64, HopIndex) {
    let half = |address: std::net::Ipv6Addr| (address.to_bits() >> 64) as u64;
    let hop = match route {
        Route::Via(hop) if prefix.prefix_len() <= 64 => hop,
        Route::Connected(..) | Route::Via(_) => UNSURE,
    };
    (half(prefix.network()), half(prefix.broadcast()), hop)
}

/// Ends the innermost spans as long as their end is `over`; what holds them goes on behind them.
fn close(spans: &mut Vec<(u64, HopIndex)>, open: &mut Vec<(u64, HopIndex)>, over: impl Fn(u64) -> bool) {
    while let Some((end, _)) = open.pop_if(|(end, _)| over(*end)) {
        if let Some((_, hop)) = open.last() {
            add(spans, end + 1, *hop);
        }
    }
}

/// Begins a span. Of two that begin alike, the later one is right.
fn add(spans: &mut Vec<(u64, HopIndex)>, begin: u64, hop: HopIndex) {
    match spans.last_mut() {
        Some((last, of)) if *last == begin => *of = hop,
        _ => spans.push((begin, hop)),
    }
}
