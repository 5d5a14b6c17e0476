//! Offsets and numbers of the headers that Sluice reads or writes, gathered.

/// What an Ethernet frame holds, as it stands on the wire.
#[derive(Debug)]
pub struct EtherType;

impl EtherType {
    /// IPv4.
    pub const IPV4: [u8; 2] = [0x08, 0x00];
    /// IPv6.
    pub const IPV6: [u8; 2] = [0x86, 0xdd];
    /// A VLAN tag (IEEE 802.1Q).
    pub const VLAN: [u8; 2] = [0x81, 0x00];
    /// An outer VLAN tag (IEEE 802.1ad).
    pub const QINQ: [u8; 2] = [0x88, 0xa8];
}

/// The Ethernet header.
pub mod ethernet {
    /// Length without tags.
    pub const LENGTH: usize = 14;
    /// Offset of the type, without tags: length of both addresses.
    pub const TYPE: usize = 12;
}

/// What both IP versions share.
pub mod ip {
    /// The longest chain of IPv6 extension headers that is followed.
    pub const MAX_EXTENSIONS: usize = 8;
    /// TTL and hop limit of packets of our own (RFC 1700).
    pub const TTL: u8 = 64;
}

/// The IPv4 header (RFC 791).
pub mod ipv4 {
    /// Length without options.
    pub const LENGTH: usize = 20;
    /// Type of service: DSCP and ECN.
    pub const TOS: usize = 1;
    /// Total length.
    pub const TOTAL_LENGTH: usize = 2;
    /// Identification.
    pub const ID: usize = 4;
    /// Flags and fragment offset.
    pub const FRAGMENT: usize = 6;
    /// Time to live.
    pub const TTL: usize = 8;
    /// Protocol.
    pub const PROTOCOL: usize = 9;
    /// Header checksum.
    pub const CHECKSUM: usize = 10;
    /// Source address.
    pub const SOURCE: usize = 12;
    /// Destination address.
    pub const DESTINATION: usize = 16;
    /// "Don't fragment", in the word at [`FRAGMENT`].
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// "More fragments", in the word at [`FRAGMENT`].
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// Fragment offset in units of 8 bytes, in the word at [`FRAGMENT`].
    pub const OFFSET_MASK: u16 = 0x1fff;
}

/// The IPv6 header (RFC 8200).
pub mod ipv6 {
    /// Length without extension headers.
    pub const LENGTH: usize = 40;
    /// Payload length.
    pub const PAYLOAD_LENGTH: usize = 4;
    /// Next header.
    pub const NEXT_HEADER: usize = 6;
    /// Hop limit.
    pub const HOP_LIMIT: usize = 7;
    /// Source address.
    pub const SOURCE: usize = 8;
    /// Destination address.
    pub const DESTINATION: usize = 24;
}

/// The TCP header (RFC 9293).
pub mod tcp {
    /// Length without options.
    pub const LENGTH: usize = 20;
    /// Sequence number.
    pub const SEQUENCE: usize = 4;
    /// Acknowledgement number.
    pub const ACKNOWLEDGEMENT: usize = 8;
    /// Data offset in the upper four bits, in units of 4 bytes.
    pub const DATA_OFFSET: usize = 12;
    /// Flags.
    pub const FLAGS: usize = 13;
    /// Window, not scaled.
    pub const WINDOW: usize = 14;
    /// Checksum.
    pub const CHECKSUM: usize = 16;
    /// Urgent pointer.
    pub const URGENT: usize = 18;
}

/// The UDP header (RFC 768).
pub mod udp {
    /// Length.
    pub const LENGTH: usize = 8;
    /// Length of header and data.
    pub const DATA_LENGTH: usize = 4;
    /// Checksum.
    pub const CHECKSUM: usize = 6;
}

/// IANA protocol numbers.
pub mod number {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP.
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// Generic routing encapsulation.
    pub const GRE: u8 = 47;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// IPv6 destination options.
    pub const DESTINATION_OPTIONS: u8 = 60;
}
