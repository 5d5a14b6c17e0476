//! The MSS option of segments with SYN (RFC 9293 section 3.7.1, RFC 6691): lowered in place, with the TCP checksum kept
//! right by its difference.
//!
//! It is never raised, and never added: a SYN without one asks for the small default of its family anyhow.

use crate::wire::checksum::Delta;
use crate::wire::{Fragment, Headers, TcpFlags, TcpOption, TcpOptions, number, tcp};

/// The least that an option is lowered to, in bytes: `TCP_MIN_MSS` of Linux.
pub const LEAST: u16 = 88;

/// Lowers the MSS option of a TCP segment with SYN to `most` bytes. Gives what it said before; `None` where there is no
/// such option.
pub fn clamp(frame: &mut [u8], headers: &Headers, most: u16) -> Option<u16> {
    change(frame, headers, |said| said.min(most))
}

/// Lowers the MSS option of a TCP segment with SYN by `by` bytes, to make room for what will be put into each segment.
/// Gives what it said before; `None` where there is no such option.
pub fn reduce(frame: &mut [u8], headers: &Headers, by: u16) -> Option<u16> {
    change(frame, headers, |said| said.saturating_sub(by))
}

fn change(frame: &mut [u8], headers: &Headers, to: impl FnOnce(u16) -> u16) -> Option<u16> {
    let has_header = headers.protocol == number::TCP && !matches!(headers.fragment, Fragment::Later { .. });
    if !has_header || !headers.tcp.contains(TcpFlags::SYN) {
        return None;
    }
    let segment = frame.get_mut(headers.l4 as usize..headers.end as usize)?;
    let (at, said) = option(segment)?;
    let wanted = to(said).max(LEAST);
    if wanted < said {
        replace(segment, at + 2, wanted)?;
    }
    Some(said)
}

/// Where the option stands in a segment, and its value.
fn option(segment: &[u8]) -> Option<(usize, u16)> {
    TcpOptions::of(segment).find_map(|placed| match placed.option {
        TcpOption::MaxSegment(value) => Some((placed.at, value)),
        _ => None,
    })
}

/// Puts a word into a segment and the difference into its checksum, which takes words at even offsets only.
fn replace(segment: &mut [u8], at: usize, value: u16) -> Option<()> {
    let delta = if at.is_multiple_of(2) {
        let word: &mut [u8; 2] = segment.get_mut(at..)?.first_chunk_mut()?;
        let old = std::mem::replace(word, value.to_be_bytes());
        Delta::default().replace(old, *word)
    } else {
        // A header has whole words of four bytes, so one more byte follows a word at an odd offset.
        let window: &mut [u8; 4] = segment.get_mut(at - 1..)?.first_chunk_mut()?;
        let old = *window;
        [window[1], window[2]] = value.to_be_bytes();
        Delta::default().replace(old, *window)
    };
    let sum: &mut [u8; 2] = segment.get_mut(tcp::CHECKSUM..)?.first_chunk_mut()?;
    *sum = delta.apply(*sum);
    Some(())
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};

    use super::*;
    use crate::wire;

    /// The options with a 1460 at the end, behind so many paddings.
    fn syn(paddings: usize, is_v6: bool) -> Vec<u8> {
        let mut options = vec![TcpOptionElement::Noop; paddings];
        options.push(TcpOptionElement::MaximumSegmentSize(1460));
        options.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if is_v6 { link.ipv6([1; 16], [2; 16], 64) } else { link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
        let mut frame = Vec::new();
        ip.tcp(1, 80, 7, 1000).syn().options(&options).unwrap().write(&mut frame, b"odd").unwrap();
        frame
    }

    fn value(frame: &[u8], headers: &Headers) -> u16 {
        option(&frame[headers.l4 as usize..]).unwrap().1
    }

    #[test]
    fn the_option_is_lowered_wherever_it_stands_and_the_checksum_stays_right() {
        for (paddings, is_v6) in [(0, false), (1, false), (2, true), (3, true)] {
            let mut frame = syn(paddings, is_v6);
            let headers = wire::parse(&frame).unwrap();
            assert_eq!(clamp(&mut frame, &headers, 1400), Some(1460));
            assert_eq!(value(&frame, &headers), 1400);
            assert_eq!(wire::checksum::settle(&mut frame, &headers), Ok(wire::Settled::Valid));
            assert_eq!(reduce(&mut frame, &headers, 8), Some(1400));
            assert_eq!(value(&frame, &headers), 1392);
            assert_eq!(wire::checksum::settle(&mut frame, &headers), Ok(wire::Settled::Valid));
        }
    }

    #[test]
    fn it_is_never_raised_nor_lowered_to_nothing() {
        let mut frame = syn(0, false);
        let headers = wire::parse(&frame).unwrap();
        clamp(&mut frame, &headers, 9000);
        assert_eq!(frame, syn(0, false));
        reduce(&mut frame, &headers, 1460);
        assert_eq!(value(&frame, &headers), LEAST);
    }

    #[test]
    fn only_segments_with_syn_have_one() {
        let mut frame = syn(0, false);
        let headers = Headers { tcp: TcpFlags::ACK, ..wire::parse(&frame).unwrap() };
        assert_eq!(clamp(&mut frame, &headers, 500), None);
        let headers = Headers { fragment: Fragment::Later { id: 1 }, tcp: TcpFlags::SYN, ..headers };
        assert_eq!(clamp(&mut frame, &headers, 500), None);
        assert_eq!(frame, syn(0, false));
    }
}
