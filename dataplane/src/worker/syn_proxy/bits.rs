//! What a proxied flow's extension record keeps in its bits, from the client's acknowledgement on.
//!
//! Besides: `next` of the client is the first byte that the client sends, `next` of the server the first byte that
//! the client expects; before the flow is joined, the time stamps are the last `TSval` of the client and ours.

use crate::syn_proxy::cookie::Agreement;

/// The flow is proxied.
pub(in crate::worker) const PROXIED: u32 = 1 << 27;
/// Some worker has the server's answer.
pub(super) const ANSWERED: u32 = 1 << 28;
const SACK: u32 = 1 << 24;
const TIMESTAMPS: u32 = 1 << 25;
const SCALED: u32 = 1 << 26;
const CLIENT_SCALE: u32 = 16;
const TOLD_SCALE: u32 = 20;

/// What was agreed on with the client (but its MSS, which stands in the record's terms), and its window field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// As in the client's acknowledgement.
    pub(super) window: u16,
    /// The client's window scale and the one it was told.
    pub(super) scales: Option<(u8, u8)>,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
}

impl Agreed {
    pub(super) const fn new(agreement: Agreement, window: u16) -> Self {
        let Agreement { scales, sack, timestamps, .. } = agreement;
        Self { window, scales, sack, timestamps }
    }

    /// The client's window in bytes, as far as a segment with SYN can say it.
    pub(super) fn unscaled_window(self) -> u16 {
        let scale = self.scales.map_or(0, |(client, _)| client);
        (u32::from(self.window) << scale).min(u32::from(u16::MAX)) as u16
    }

    pub(super) fn pack(self) -> u32 {
        let flag = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let (client, told) = self.scales.unwrap_or((0, 0));
        PROXIED
            | u32::from(self.window)
            | u32::from(client & 0xf) << CLIENT_SCALE
            | u32::from(told & 0xf) << TOLD_SCALE
            | flag(self.scales.is_some(), SCALED)
            | flag(self.sack, SACK)
            | flag(self.timestamps, TIMESTAMPS)
    }

    pub(super) fn unpack(bits: u32) -> Self {
        let scale = |at: u32| (bits >> at) as u8 & 0xf;
        Self {
            window: bits as u16,
            scales: (bits & SCALED != 0).then(|| (scale(CLIENT_SCALE), scale(TOLD_SCALE))),
            sack: bits & SACK != 0,
            timestamps: bits & TIMESTAMPS != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_say_what_was_agreed_on() {
        for scales in [None, Some((0, 14)), Some((14, 0))] {
            for (sack, timestamps) in [(true, false), (false, true)] {
                let agreed = Agreed { window: 0x8001, scales, sack, timestamps };
                assert_eq!(Agreed::unpack(agreed.pack() | ANSWERED), agreed);
            }
        }
        let agreed = Agreed { window: 502, scales: Some((7, 7)), sack: true, timestamps: true };
        assert_eq!(agreed.unscaled_window(), 64_256);
        assert_eq!(Agreed { window: 513, ..agreed }.unscaled_window(), u16::MAX);
    }
}
