//! Segments made by hand, with the numbers and options that a test wants, and read again by another library.

use std::net::IpAddr;

use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};

use crate::common::packet::verify;
use crate::common::{BACK_MAC, FRONT_MAC, ROUTER_MAC, server_mac};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// One side of a connection, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    side: Side,
    ends: [&'static str; 3],
    port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    /// The time stamp that it was told.
    pub(crate) echo: u32,
}

/// What was read of a segment.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) flags: String,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) window: u16,
    pub(crate) mss: Option<u16>,
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) sack_block: Option<(u32, u32)>,
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) payload: Vec<u8>,
}

impl Hand {
    pub(crate) fn new(side: Side, ends: [&'static str; 3], port: u16) -> Self {
        Self { side, ends, port, sequence: 0, acknowledged: 0, echo: 0 }
    }

    pub(crate) fn with(&self, sequence: u32, acknowledged: u32) -> Self {
        Self { sequence, acknowledged, ..*self }
    }

    pub(crate) fn echoing(&self, echo: u32) -> Self {
        Self { echo, ..*self }
    }

    pub(crate) fn other(&self) -> Self {
        let side = if self.side == Side::Client { Side::Server } else { Side::Client };
        Self { side, ..*self }
    }

    /// Source and destination of what it sends.
    fn path(&self) -> [(IpAddr, u16); 2] {
        let [client, vip, server] = self.ends.map(|text| text.parse().unwrap());
        match self.side {
            Side::Client => [(client, self.port), (vip, 80)],
            Side::Server => [(server, 8080), (client, self.port)],
        }
    }

    pub(crate) fn segment(&self, flags: &str, options: &[TcpOptionElement], payload: &[u8]) -> Vec<u8> {
        let [(source, source_port), (destination, destination_port)] = self.path();
        let link = match self.side {
            Side::Client => PacketBuilder::ethernet2(ROUTER_MAC, FRONT_MAC),
            Side::Server => PacketBuilder::ethernet2(server_mac(11), BACK_MAC),
        };
        let ip = match (source, destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => link.ipv4(s.octets(), d.octets(), 64),
            (IpAddr::V6(s), IpAddr::V6(d)) => link.ipv6(s.octets(), d.octets(), 64),
            _ => panic!("mixed families"),
        };
        let mut tcp = ip.tcp(source_port, destination_port, self.sequence, 8192).options(options).unwrap();
        for flag in flags.chars() {
            tcp = match flag {
                'S' => tcp.syn(),
                'F' => tcp.fin(),
                'R' => tcp.rst(),
                'P' => tcp.psh(),
                'A' => tcp.ack(self.acknowledged),
                _ => panic!("{flag}"),
            };
        }
        let mut frame = Vec::new();
        tcp.write(&mut frame, payload).unwrap();
        frame
    }

    /// Reads a segment that was sent to this side.
    pub(crate) fn read(&self, frame: &[u8]) -> Read {
        verify(frame);
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let letters = [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), 'A')];
        let client = |side| if side == Side::Client { tcp.destination_port() } else { tcp.source_port() };
        assert_eq!(client(self.side), self.port);
        let mut read = Read {
            flags: letters.iter().filter(|(set, _)| *set).map(|(_, letter)| *letter).collect(),
            sequence: tcp.sequence_number(),
            acknowledged: tcp.acknowledgment_number(),
            window: tcp.window_size(),
            mss: None,
            scale: None,
            sack: false,
            sack_block: None,
            timestamps: None,
            payload: tcp.payload().to_vec(),
        };
        for option in tcp.options_iterator() {
            match option.unwrap() {
                TcpOptionElement::MaximumSegmentSize(mss) => read.mss = Some(mss),
                TcpOptionElement::WindowScale(scale) => read.scale = Some(scale),
                TcpOptionElement::SelectiveAcknowledgementPermitted => read.sack = true,
                TcpOptionElement::SelectiveAcknowledgement(block, _) => read.sack_block = Some(block),
                TcpOptionElement::Timestamp(value, echo) => read.timestamps = Some((value, echo)),
                TcpOptionElement::Noop => {}
            }
        }
        read
    }
}

pub(crate) mod options {
    use super::TcpOptionElement;

    pub(crate) fn all(mss: u16, scale: u8, value: u32, echo: u32) -> Vec<TcpOptionElement> {
        vec![
            TcpOptionElement::MaximumSegmentSize(mss),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::Timestamp(value, echo),
            TcpOptionElement::Noop,
            TcpOptionElement::WindowScale(scale),
        ]
    }

    pub(crate) fn stamps(value: u32, echo: u32) -> Vec<TcpOptionElement> {
        vec![TcpOptionElement::Noop, TcpOptionElement::Noop, TcpOptionElement::Timestamp(value, echo)]
    }

    pub(crate) fn sack(first: u32, last: u32) -> Vec<TcpOptionElement> {
        let blocks = TcpOptionElement::SelectiveAcknowledgement((first, last), [None; 3]);
        vec![TcpOptionElement::Noop, TcpOptionElement::Noop, blocks]
    }
}
