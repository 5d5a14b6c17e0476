//! What a proxied flow's extension record keeps in the sixteen bits of its method, from the client's acknowledgement on.
//!
//! Besides: `next` of the client is the first byte that the client sends, `next` of the server the first byte that
//! the client expects; before the flow is joined, the time stamps are the last `TSval` of the client and ours, and
//! `from` of the server's shift is what is added to the client's time stamps.

use crate::syn_proxy::cookie::Agreement;

/// The flow is proxied.
pub(in crate::worker) const PROXIED: u32 = 1 << 14;
/// Some worker has the server's answer.
pub(super) const ANSWERED: u32 = 1 << 15;
const SACK: u32 = 1 << 12;
const TIMESTAMPS: u32 = 1 << 13;
/// Where the window scales stand: the client's, and the one that it was told.
const CLIENT_SCALE: u32 = 0;
const TOLD_SCALE: u32 = 4;
/// Instead of both scales: windows are not scaled.
const NO_SCALE: u8 = 15;
/// Where the window stands, as a power of two.
const WINDOW: u32 = 8;

/// What was agreed on with the client (but its MSS, which stands in the record's terms), and its window field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// As in the client's acknowledgement, rounded down to a power of two: the client's next packet has it whole.
    pub(super) window: u16,
    /// The client's window scale and the one it was told.
    pub(super) scales: Option<(u8, u8)>,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
}

impl Agreed {
    pub(super) fn new(agreement: Agreement, window: u16) -> Self {
        let Agreement { scales, sack, timestamps, .. } = agreement;
        Self { window: 1 << window.max(1).ilog2(), scales, sack, timestamps }
    }

    /// The client's window in bytes, as far as a segment with SYN can say it.
    pub(super) fn unscaled_window(self) -> u16 {
        let scale = self.scales.map_or(0, |(client, _)| client);
        (u32::from(self.window) << scale).min(u32::from(u16::MAX)) as u16
    }

    pub(super) fn pack(self) -> u32 {
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let (client, told) = self.scales.unwrap_or((NO_SCALE, NO_SCALE));
        PROXIED
            | u32::from(client & 0xf) << CLIENT_SCALE
            | u32::from(told & 0xf) << TOLD_SCALE
            | self.window.max(1).ilog2() << WINDOW
            | flag(self.sack, SACK)
            | flag(self.timestamps, TIMESTAMPS)
    }

    pub(super) fn unpack(bits: u32) -> Self {
        let nibble = |at: u32| (bits >> at) as u8 & 0xf;
        let (client, told) = (nibble(CLIENT_SCALE), nibble(TOLD_SCALE));
        Self {
            window: 1 << nibble(WINDOW),
            scales: (client != NO_SCALE).then_some((client, told)),
            sack: bits & SACK != 0,
            timestamps: bits & TIMESTAMPS != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_say_what_was_agreed_on_and_leave_the_rest_alone() {
        for scales in [None, Some((0, 14)), Some((14, 0))] {
            for (sack, timestamps) in [(true, false), (false, true)] {
                for (window, kept) in [(0, 1), (1, 1), (502, 256), (u16::MAX, 0x8000)] {
                    let agreed = Agreed::new(Agreement { mss: 1460, scales, sack, timestamps }, window);
                    assert_eq!(agreed, Agreed { window: kept, scales, sack, timestamps });
                    assert!(agreed.pack() <= 0xffff && agreed.pack() & ANSWERED == 0);
                    assert_eq!(Agreed::unpack(agreed.pack() | ANSWERED | 0x3ff_0000), agreed);
                }
            }
        }
        let agreed = Agreed { window: 256, scales: Some((7, 7)), sack: true, timestamps: true };
        assert_eq!(agreed.unscaled_window(), 32_768);
        assert_eq!(Agreed { window: 512, ..agreed }.unscaled_window(), u16::MAX);
    }
}
