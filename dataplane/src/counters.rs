//! Counters: one writer (a worker), any number of readers; every drop has a reason and every reason a counter.
//!
//! No frame is lost between them: of a worker, frames received (all ports) with [`Event::ResetSent`],
//! [`Event::IcmpSent`], [`Event::HandshakeSent`], [`Event::SegmentSent`] and [`Event::Released`] are as many as
//! [`Event::Forwarded`] (= frames sent, all ports), all
//! [`Drop`]s and [`Event::Held`] together. A test holds the workers to it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with a single writer: a plain load and store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Its value, from any thread.
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares an enum of things that are counted, with the names that metrics use and what each means.
macro_rules! counted {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $text:literal, $doc:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $(#[doc = $doc] $variant,)* }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name in `status`, metrics and replay results.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What it means, for people.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

counted! {
    /// Why a worker dropped a frame.
    Drop {
        Truncated = "truncated", "shorter than its headers say";
        Martian = "martian", "from or to a loopback address, which no wire may carry (RFC 1122 section 3.2.1.3)";
        BadEthernet = "bad_ethernet", "neither IPv4 nor IPv6, or more than two VLAN tags";
        BadIpHeader = "bad_ip_header", "an IP header with a wrong version, length or checksum";
        SourceRoute = "source_route", "an IPv4 packet with a source route (RFC 7126)";
        BadExtension = "bad_extension", "an IPv6 extension header that does not end, or too many of them";
        BadTransport = "bad_transport", "a transport header with an impossible length";
        BadChecksum = "bad_checksum", "a wrong transport checksum on a port with `checksum full`";
        UnhandledProtocol = "unhandled_protocol", "a transport that services do not balance";
        BadFragment = "bad_fragment", "a fragment with an impossible length, or inside the TCP header (RFC 3128)";
        FragmentOverlap = "fragment_overlap", "of a datagram of which fragments overlap (RFC 5722): no more of it passes";
        FragmentRepeated = "fragment_repeated", "a fragment of which all has passed before";
        FragmentUnknown = "fragment_unknown", "a later fragment whose first did not come in time";
        FragmentLimited = "fragment_limited", "a fragment before its first, with too many waiting already";
        NotForUs = "not_for_us", "for the kernel, and from it: matches no flow and no service";
        NoFlow = "no_flow", "a segment that opens no connection and belongs to none; answered by a reset";
        NoFlowLimited = "no_flow_limited", "as `no_flow`, with the limit on resets reached";
        Denied = "denied", "a rule denies it";
        RateLimited = "rate_limited", "a rule's rate of new flows is used up";
        SourceLimited = "source_limited", "its source opens more flows a second than `source_rate` allows";
        Blocklisted = "blocklisted", "its source is on the service's blocklist";
        NotAllowlisted = "not_allowlisted", "its source is not on the service's allowlist";
        DefendedTcp = "defence_tcp_drop", "TCP of no flow, or to a VIP's port without a service, under `defence_tcp_drop`";
        DefendedUdp = "defence_udp_drop", "UDP to a VIP's port without a service, under `defence_udp_drop`";
        DefendedFragment = "defence_frag_drop", "a fragment, under `defence_frag_drop`";
        NoDestination = "no_destination", "the service has no server that takes connections";
        DestinationGone = "destination_gone", "the flow's server was removed, and its service does not `drain`";
        ConnectionLimit = "connection_limit", "the service has as many flows as its `connection_limit` allows";
        ConnectionRate = "connection_rate", "the service began as many flows in this second as its `connection_rate` allows";
        TableFull = "table_full", "the flow table has no room for a new flow";
        NoExtension = "no_extension", "the flow would need an extension record, and none is free";
        ReverseTaken = "reverse_taken", "every server tried already has a flow with the same client address and port";
        Untranslatable = "untranslatable", "between IPv4 and IPv6, and of a kind that has no translation (RFC 7915)";
        NoLocalPort = "no_local_port", "every local address and port that was tried for the server is taken (FULLNAT)";
        StrayReply = "stray_reply", "to a local address of FULLNAT, of no flow; a segment is answered by a reset within the limit";
        InsertContended = "insert_contended", "another worker was inserting the same flow for too long";
        Deferred = "deferred", "an acknowledgement without data to a service with `syn_proxy { defer }`";
        HandshakePending = "handshake_pending", "of a proxied connection whose server has not answered, with nothing to keep";
        HandshakeFull = "handshake_full", "data for a server that has not answered, with too much kept already";
        HandshakeFailed = "handshake_failed", "data for a server that refused the connection or did not answer";
        AckStorm = "ack_storm", "one of too many equal acknowledgements of a proxied connection";
        TtlExceeded = "ttl_exceeded", "TTL or hop limit ran out; answered by ICMP within the limit";
        TooBig = "too_big", "larger than the way to the server; answered by ICMP within the limit";
        NoRoute = "no_route", "no route to where it should go";
        NoNeighbour = "no_neighbour", "the next hop's Ethernet address is not known yet";
        NoHeadroom = "no_headroom", "no room in the frame for an outer header";
        IcmpUnrelated = "icmp_unrelated", "an ICMP error about a packet of no flow";
        TunnelError = "tunnel_error", "an ICMP error about an outer packet: its client is told by an error of ours within the limit";
        IcmpTruncated = "icmp_truncated", "an ICMP error that holds too little of the packet it is about";
        KernelLimited = "kernel_limited", "over the rate that goes to the kernel port";
        KernelAbsent = "kernel_absent", "meant for the kernel, and there is no kernel port";
        PortFull = "port_full", "the port's transmit ring was full";
    }
}

counted! {
    /// What else a worker counts.
    Event {
        Forwarded = "forwarded", "frames sent by any port: forwarded ones, resets and ICMP errors, those to the kernel";
        ToKernel = "to_kernel", "frames given to the kernel by the kernel port (also counted as `forwarded`)";
        FlowCreated = "flow_created", "flows inserted";
        FlowAdopted = "flow_adopted", "flows that another worker had inserted first";
        FlowExpired = "flow_expired", "flows that ended by their timer";
        FlowEvicted = "flow_evicted", "embryonic flows ended early because the table was nearly full";
        FlowReused = "flow_reused", "flows ended by a new SYN of the same client port";
        FlowOrphaned = "flow_orphaned", "flows ended because their server was removed (`expire_nodest_conn`)";
        ReplyElsewhere = "reply_elsewhere", "flows of FULLNAT whose replies will arrive at another worker, where RSS is known";
        DatagramScheduled = "datagram_scheduled", "datagrams scheduled one by one (`ops`)";
        TemplateCreated = "template_created", "persistence templates made: a client got its server";
        TemplateMoved = "template_moved", "persistence templates whose server was gone: their clients got another";
        TemplateExpired = "template_expired", "persistence templates and expected connections that ended";
        FtpExpected = "ftp_expected", "data connections that FTP commands announced";
        FtpRefused = "ftp_refused", "data connections announced to elsewhere than the client or the server: not helped";
        FtpUnreadable = "ftp_unreadable", "FTP commands that were not understood, and passed as they were";
        ResetSent = "reset_sent", "TCP resets made for segments of no flow";
        IcmpSent = "icmp_sent", "ICMP errors made";
        SegmentSent = "segment_sent", "segments made to carry a PROXY header that did not fit the client's";
        ClientTold = "client_told", "packets to FULLNAT servers that got the TOA option or a PROXY header";
        ClientUntold = "client_untold", "packets to FULLNAT servers that had no room for it";
        IcmpTranslated = "icmp_translated", "ICMP errors of others that were translated and passed on";
        IcmpSuppressed = "icmp_suppressed", "ICMP errors not sent because of the rate limit";
        FragmentTableFull = "fragment_table_full", "datagrams in pieces given up before their time because newer ones had no place";
        Held = "held", "frames kept for a while, such as a fragment before its first";
        Released = "released", "frames that were held and then forwarded or dropped: `held` less this are held now";
        CookieSent = "cookie_sent", "SYNs answered by a cookie";
        CookieAccepted = "cookie_accepted", "acknowledgements with a cookie that opened a flow";
        CookieRejected = "cookie_rejected", "acknowledgements to proxied services without a cookie of ours";
        HandshakeSent = "handshake_sent", "SYNs to servers made in frames of our own";
        HandshakeRetried = "handshake_retried", "SYNs sent again to servers that did not answer in time";
        HandshakeJoined = "handshake_joined", "servers that accepted a proxied connection";
        HandshakeRefused = "handshake_refused", "servers that reset one";
        HandshakeTimedOut = "handshake_timed_out", "servers that did not answer one in all its time";
        HandshakeRepeated = "handshake_repeated", "answers of servers that came again and were acknowledged again";
        ChecksumCompleted = "checksum_completed", "partial checksums completed on a port with `checksum full`";
        RouteRefreshed = "route_refreshed", "flows that looked their way to the client up again after a route change";
    }
}

/// Frames and bytes, one direction.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Frames.
    pub packets: Counter,
    /// Bytes, with Ethernet header, without preamble and FCS.
    pub bytes: Counter,
}

impl Traffic {
    /// Counts one frame.
    #[inline]
    pub fn count(&self, bytes: usize) {
        self.packets.add(1);
        self.bytes.add(bytes as u64);
    }
}

/// One port's traffic, seen by one worker.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Received from the port.
    pub received: Traffic,
    /// Sent by the port.
    pub sent: Traffic,
}

/// All counters of one worker, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerCounters {
    drops: [Counter; Drop::ALL.len()],
    events: [Counter; Event::ALL.len()],
    ports: Box<[PortCounters]>,
}

impl WorkerCounters {
    /// Zeroed counters for a worker with `ports` ports.
    pub fn new(ports: usize) -> Self {
        Self {
            drops: std::array::from_fn(|_| Counter::default()),
            events: std::array::from_fn(|_| Counter::default()),
            ports: (0..ports).map(|_| PortCounters::default()).collect(),
        }
    }

    /// The counter of a drop reason.
    #[inline]
    pub fn drop(&self, reason: Drop) -> &Counter {
        &self.drops[reason as usize]
    }

    /// The counter of an event.
    #[inline]
    pub fn event(&self, event: Event) -> &Counter {
        &self.events[event as usize]
    }

    /// The counters of each port, by index.
    #[inline]
    pub fn ports(&self) -> &[PortCounters] {
        &self.ports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_counter_and_a_name_of_its_own() {
        let counters = WorkerCounters::new(1);
        for (n, reason) in Drop::ALL.iter().enumerate() {
            counters.drop(*reason).add(n as u64 + 1);
        }
        for (n, reason) in Drop::ALL.iter().enumerate() {
            assert_eq!(counters.drop(*reason).read(), n as u64 + 1);
        }
        let names: std::collections::HashSet<_> = Drop::ALL.iter().map(|d| d.name()).collect();
        assert_eq!(names.len(), Drop::ALL.len());
    }
}
