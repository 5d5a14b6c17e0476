//! The mark in the payload of a datagram by which its receiver knows the stream, the place in it and the time.
//!
//! 18 bytes, so that the smallest Ethernet frame has room for it below IPv4 and UDP. Times are since boot, so latency
//! from process to process means something on one machine only; a reflector brings the mark back to its sender.

use std::time::Duration;

/// What is written into a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// The run: what is left of an earlier one is not counted.
    pub(crate) run: u8,
    pub(crate) stream: u8,
    /// The number in the stream, modulo 2^32.
    pub(crate) sequence: u32,
    /// When it was due, since boot; whole nanoseconds, below 2^56 (two years).
    pub(crate) due: Duration,
    /// How long after that it was written, at most 4 s.
    pub(crate) late: Duration,
}

const MAGIC: u8 = 0xa7;

impl Probe {
    /// Its length in bytes.
    pub(crate) const LENGTH: usize = 18;

    /// The bytes of it.
    #[inline]
    pub(crate) fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let late = u32::try_from(self.late.as_nanos()).unwrap_or(u32::MAX);
        bytes[0] = MAGIC;
        bytes[1] = self.run;
        bytes[2] = self.stream;
        bytes[3..7].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[7..14].copy_from_slice(&(self.due.as_nanos() as u64).to_be_bytes()[1..]);
        bytes[14..].copy_from_slice(&late.to_be_bytes());
        bytes
    }

    /// The mark at the front of a payload, if there is one.
    #[inline]
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let [magic, run, stream, s0, s1, s2, s3, d0, d1, d2, d3, d4, d5, d6, l0, l1, l2, l3] =
            *payload.first_chunk::<{ Self::LENGTH }>()?;
        (magic == MAGIC).then_some(Self {
            run,
            stream,
            sequence: u32::from_be_bytes([s0, s1, s2, s3]),
            due: Duration::from_nanos(u64::from_be_bytes([0, d0, d1, d2, d3, d4, d5, d6])),
            late: Duration::from_nanos(u32::from_be_bytes([l0, l1, l2, l3]).into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_reads_as_it_was_written() {
        let probe = Probe {
            run: 3,
            stream: 200,
            sequence: 0xdead_beef,
            due: Duration::from_nanos((1 << 56) - 1),
            late: Duration::from_nanos(12_345),
        };
        assert_eq!(Probe::decode(&probe.encode()), Some(probe));
        assert_eq!(Probe::decode(&probe.encode()[..17]), None);
        assert_eq!(Probe::decode(&[0; 40]), None);
        let late = Probe { late: Duration::from_mins(1), ..probe };
        assert_eq!(Probe::decode(&late.encode()).unwrap().late, Duration::from_nanos(u32::MAX.into()));
    }
}
