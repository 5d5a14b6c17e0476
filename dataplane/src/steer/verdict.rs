//! What the steering program counts. The order is that of `enum verdict` in bpf/maps.h.

/// One thing that the steering program decided about a frame. A hit counts twice: what it hit, and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Verdict {
    /// Passed: the destination MAC is not the director's.
    PassedNotOurs,
    /// Passed: neither IPv4 nor IPv6, or more than two VLAN tags.
    PassedNotIp,
    /// Passed: shorter than its headers say, more than eight IPv6 extension headers, an IPv4 address mapped into IPv6.
    PassedMalformed,
    /// Passed: a real server's answer to the director itself, such as to a health check.
    PassedOwn,
    /// Passed: of no service.
    PassedMiss,
    /// Caught: to a virtual service.
    HitService,
    /// Caught: from a NAT real server.
    HitReply,
    /// Caught: a fragment after the first, of a service's or a real server's address.
    HitFragment,
    /// Caught: an ICMP error about a packet of a service.
    HitIcmpError,
    /// A caught frame went to the socket of its queue.
    Redirected,
    /// A caught frame was dropped, for its queue has no socket.
    NoSocket,
    /// A caught frame was dropped, for its interface is a member of a bond that waits.
    Standby,
}

impl Verdict {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 12] = [
        Self::PassedNotOurs,
        Self::PassedNotIp,
        Self::PassedMalformed,
        Self::PassedOwn,
        Self::PassedMiss,
        Self::HitService,
        Self::HitReply,
        Self::HitFragment,
        Self::HitIcmpError,
        Self::Redirected,
        Self::NoSocket,
        Self::Standby,
    ];

    /// The name in `status` and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PassedNotOurs => "passed_not_ours",
            Self::PassedNotIp => "passed_not_ip",
            Self::PassedMalformed => "passed_malformed",
            Self::PassedOwn => "passed_own",
            Self::PassedMiss => "passed_miss",
            Self::HitService => "hit_service",
            Self::HitReply => "hit_reply",
            Self::HitFragment => "hit_fragment",
            Self::HitIcmpError => "hit_icmp_error",
            Self::Redirected => "redirected",
            Self::NoSocket => "no_socket",
            Self::Standby => "standby",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C enum is the other half of this contract.
    #[test]
    fn the_order_is_that_of_the_program() {
        let c = include_str!("../../bpf/maps.h");
        let body = c.split("enum verdict {").nth(1).unwrap().split('}').next().unwrap();
        let names: Vec<String> =
            body.split(',').map(|n| n.trim().to_lowercase()).filter(|n| !n.is_empty() && n != "verdicts").collect();
        assert_eq!(names, Verdict::ALL.map(|v| v.name().to_owned()));
        assert!(Verdict::ALL.iter().enumerate().all(|(n, v)| *v as usize == n));
    }
}
