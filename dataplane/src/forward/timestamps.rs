//! The TCP time stamps option (RFC 7323), taken out of a segment.

use crate::wire::checksum::Delta;
use crate::wire::{Fragment, Headers, TcpOption, TcpOptions, number, tcp};

/// Length of the option.
const LENGTH: usize = 10;

/// `TSval` of a segment that has one.
pub fn value(segment: &[u8]) -> Option<u32> {
    TcpOptions::of(segment).find_map(|placed| match placed.option {
        TcpOption::Timestamps { value, .. } => Some(value),
        _ => None,
    })
}

/// Overwrites the option with paddings, so that a SYN does not offer it.
pub fn remove(frame: &mut [u8], headers: &Headers) {
    if headers.protocol != number::TCP || matches!(headers.fragment, Fragment::Later { .. }) {
        return;
    }
    let Some(segment) = frame.get_mut(headers.l4 as usize..headers.end as usize) else { return };
    let place = TcpOptions::of(segment).find(|placed| matches!(placed.option, TcpOption::Timestamps { .. }));
    let Some(at) = place.map(|placed| placed.at) else { return };
    // From an even offset on; the fixed header is in front of it.
    let (start, skip) = (at & !1, at % 2);
    let Some(window) = segment.get_mut(start..start + LENGTH + 2 * skip) else { return };
    let delta = match window.len() {
        LENGTH => pad::<LENGTH>(window, skip),
        _ => pad::<{ LENGTH + 2 }>(window, skip),
    };
    if let Some(field) = segment.get_mut(tcp::CHECKSUM..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *field = delta.apply(*field);
    }
}

fn pad<const N: usize>(window: &mut [u8], skip: usize) -> Delta {
    let Some(bytes) = window.first_chunk_mut::<N>() else { return Delta::default() };
    let old = *bytes;
    if let Some(option) = bytes.get_mut(skip..skip + LENGTH) {
        option.fill(TcpOption::NO_OPERATION);
    }
    Delta::default().replace(old, *bytes)
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};

    use super::*;
    use crate::wire::{self, Settled, checksum};

    #[test]
    fn the_option_becomes_paddings_wherever_it_stands() {
        for paddings in 0..4 {
            let mut options = vec![TcpOptionElement::Noop; paddings];
            options.push(TcpOptionElement::Timestamp(0x0102_0304, 5));
            options.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
            let mut frame = Vec::new();
            let packet = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            packet.tcp(1, 80, 7, 1000).syn().options(&options).unwrap().write(&mut frame, b"").unwrap();
            let headers = wire::parse(&frame).unwrap();
            assert_eq!(value(&frame[headers.l4 as usize..]), Some(0x0102_0304));
            remove(&mut frame, &headers);
            assert_eq!(value(&frame[headers.l4 as usize..]), None);
            let left: Vec<_> = TcpOptions::of(&frame[headers.l4 as usize..]).map(|placed| placed.option).collect();
            assert_eq!(left, [TcpOption::SackPermitted]);
            assert_eq!(checksum::settle(&mut frame, &headers), Ok(Settled::Valid));
        }
    }
}
