//! Moved sequence numbers: what one side calls position n, the other calls n plus a shift.
//!
//! Sequence and acknowledgement numbers, SACK blocks (RFC 2018), time stamps (RFC 7323) and windows of a segment are
//! rewritten in place, with the TCP checksum kept right by its difference (RFC 1624). All arithmetic is modulo 2^32.

#![allow(clippy::inline_always, reason = "part of the way of every packet: see worker::carry")]

use super::nat::swap;
use crate::flow::{Direction, Extension, Shift};
use crate::wire::checksum::Delta;
use crate::wire::{Fragment, Headers, TcpFlags, TcpOption, TcpOptions, number, tcp};

/// The longest TCP header.
const LONGEST: usize = 60;

/// What happens to the numbers of one side's segments on their way to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// How far the sender's sequence numbers are moved.
    pub sender: Shift,
    /// How far those of the other side are moved on their way to the sender: acknowledgements are moved back.
    pub peer: Shift,
    /// What is added to `TSval`.
    pub timestamp: u32,
    /// What is taken off `TSecr`: what is added to the other side's `TSval`.
    pub echo: u32,
    /// By how many bits the window is shifted to the right; to the left if negative.
    pub window: i8,
}

impl Translation {
    /// For packets of a direction of an extended flow.
    #[inline]
    pub fn of(extension: &Extension, direction: Direction) -> Self {
        let [client, server] = extension.shifts();
        let (sender, peer) = match direction {
            Direction::Forward => (client, server),
            Direction::Reverse => (server, client),
        };
        let [timestamp, echo] = extension.timestamps_of(direction);
        Self { sender, peer, timestamp, echo, window: extension.terms().window(direction) }
    }

    fn there(&self, segment: &mut [u8], flags: TcpFlags) -> Delta {
        let Self { sender, peer, .. } = *self;
        let stamps = (self.timestamp, self.echo.wrapping_neg());
        edit(segment, flags, |n| sender.apply(n), |n| peer.undo(n), stamps, self.window)
    }

    /// Undoes [`Translation::there`] in what is left of a segment.
    pub(super) fn back(&self, segment: &mut [u8], flags: TcpFlags) -> Delta {
        let Self { sender, peer, .. } = *self;
        let stamps = (self.timestamp.wrapping_neg(), self.echo);
        edit(segment, flags, |n| sender.undo(n), |n| peer.apply(n), stamps, -self.window)
    }
}

/// As [`translate`], of the usual segment: with ACK and without SYN, its numbers moved the same everywhere, no options
/// but time stamps at their usual place, its window shifted to the right by so many bits. Gives the difference for the checksum, which is not touched; `None`, and
/// nothing changed, where there is more to it.
#[inline(always)]
pub fn translate_usual(segment: &mut [u8], record: &Extension, direction: Direction, window: i8) -> Option<Delta> {
    let (own, other) = record.uniform_shifts(direction)?;
    let options = UsualOptions::of(segment)?;
    let (head, rest) = segment.split_first_chunk_mut::<{ tcp::LENGTH }>()?;
    let sequence = move_number(head, tcp::SEQUENCE, own);
    let mut delta = sequence.and(move_number(head, tcp::ACKNOWLEDGEMENT, other.wrapping_neg()));
    if options == UsualOptions::Stamps
        && let Some(stamps) = rest.first_chunk_mut::<12>()
    {
        let [own, other] = record.timestamps_of(direction);
        delta = delta.and(move_number(stamps, 4, own)).and(move_number(stamps, 8, other.wrapping_neg()));
    }
    if window != 0 {
        delta = delta.and(rescale(head, window));
    }
    Some(delta)
}

/// As [`translate`], of a SYN of the client, whose numbers are moved the same everywhere. Gives the difference for the
/// checksum, which is not touched.
#[inline]
pub fn translate_opening(segment: &mut [u8], flags: TcpFlags, shift: u32, timestamp: u32) -> Delta {
    match segment.first_chunk_mut::<{ tcp::LENGTH }>() {
        // Without options.
        Some(head) if head[tcp::DATA_OFFSET] >> 4 == 5 => move_number(head, tcp::SEQUENCE, shift),
        _ => Translation { sender: Shift::by(shift), timestamp, ..Translation::default() }.there(segment, flags),
    }
}

/// Adds to the number at an even offset, which lies inside.
#[inline(always)]
fn move_number<const N: usize>(bytes: &mut [u8; N], at: usize, by: u32) -> Delta {
    let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) else { return Delta::default() };
    let old = *place;
    *place = u32::from_be_bytes(old).wrapping_add(by).to_be_bytes();
    Delta::default().replace(old, *place)
}

/// The options of a segment after the handshake, where nothing was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsualOptions {
    /// None.
    None,
    /// Time stamps, behind two of no operation (RFC 7323 appendix A).
    Stamps,
}

impl UsualOptions {
    /// Of a segment. `None` where there are others.
    #[inline(always)]
    pub fn of(segment: &[u8]) -> Option<Self> {
        const STAMPS: [u8; 4] = [TcpOption::NO_OPERATION, TcpOption::NO_OPERATION, TcpOption::TIMESTAMPS, 10];
        match segment.get(tcp::DATA_OFFSET)? >> 4 {
            5 => Some(Self::None),
            8 if segment.get(tcp::LENGTH..tcp::LENGTH + 12)?.first_chunk() == Some(&STAMPS) => Some(Self::Stamps),
            _ => None,
        }
    }
}

/// Rewrites the numbers of a TCP segment. Leaves other packets and later fragments as they are.
pub fn translate(frame: &mut [u8], headers: &Headers, by: &Translation) {
    if headers.protocol != number::TCP || matches!(headers.fragment, Fragment::Later { .. }) {
        return;
    }
    let Some(segment) = frame.get_mut(headers.l4 as usize..headers.end as usize) else { return };
    let delta = by.there(segment, headers.tcp);
    if let Some(field) = segment.get_mut(tcp::CHECKSUM..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *field = delta.apply(*field);
    }
}

/// Applies changes to the numbers of a segment as far as it is there; gives the difference for its checksum, which is
/// not touched.
fn edit(
    segment: &mut [u8],
    flags: TcpFlags,
    sequence: impl Fn(u32) -> u32,
    acknowledgement: impl Fn(u32) -> u32,
    (value, echo): (u32, u32),
    window: i8,
) -> Delta {
    let is_answer = flags.contains(TcpFlags::ACK);
    let mut delta = change(segment, tcp::SEQUENCE, sequence);
    if is_answer {
        delta = delta.and(change(segment, tcp::ACKNOWLEDGEMENT, &acknowledgement));
    }
    // The window of a segment with SYN is never scaled (RFC 7323 section 2.2).
    if window != 0 && !flags.contains(TcpFlags::SYN) {
        delta = delta.and(rescale(segment, window));
    }
    let length = segment.get(tcp::DATA_OFFSET).map_or(0, |offset| usize::from(offset >> 4) * 4);
    if length <= tcp::LENGTH {
        return delta;
    }
    let Some(header) = segment.get(..length) else { return delta };
    let mut seen = [0; LONGEST];
    let Some(seen) = seen.get_mut(..length) else { return delta };
    seen.copy_from_slice(header);
    for placed in TcpOptions::of(seen) {
        match placed.option {
            TcpOption::Sack { blocks } => {
                for edge in 0..2 * blocks {
                    delta = delta.and(change(segment, placed.at + 2 + 4 * edge, &acknowledgement));
                }
            }
            TcpOption::Timestamps { .. } => {
                delta = delta.and(change(segment, placed.at + 2, |n| n.wrapping_add(value)));
                // It means nothing in a segment that acknowledges nothing (RFC 7323 section 3.2).
                if is_answer {
                    delta = delta.and(change(segment, placed.at + 6, |n| n.wrapping_add(echo)));
                }
            }
            _ => {}
        }
    }
    delta
}

/// Changes the number at an offset, even or odd.
#[inline]
fn change(segment: &mut [u8], at: usize, to: impl Fn(u32) -> u32) -> Delta {
    let Some(place) = segment.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) else { return Delta::default() };
    let old = *place;
    let new = to(u32::from_be_bytes(old)).to_be_bytes();
    if old == new {
        return Delta::default();
    }
    *place = new;
    if at.is_multiple_of(2) {
        return Delta::default().replace(old, new);
    }
    // The sum is of words at even offsets.
    let spread = |[a, b, c, d]: [u8; 4]| [0, a, b, c, d, 0];
    Delta::default().replace(spread(old), spread(new))
}

/// Shifts the window to the right, or to the left as far as its 16 bits go.
#[inline(never)]
fn rescale(segment: &mut [u8], bits: i8) -> Delta {
    let Some(old) = segment.get(tcp::WINDOW..).and_then(<[u8]>::first_chunk::<2>) else { return Delta::default() };
    let window = u32::from(u16::from_be_bytes(*old));
    let by = u32::from(bits.unsigned_abs()).min(15);
    let window = if bits < 0 { (window << by).min(0xffff) } else { window >> by };
    swap::<2>(segment, tcp::WINDOW, (window as u16).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketBuilder, TcpOptionElement};
    use proptest::prelude::*;

    use super::*;
    use crate::flow::{NewExtension, Terms};
    use crate::wire::{self, Settled, checksum};

    const OPTIONS: usize = 4;

    /// A segment with options in one of several orders, so that numbers stand at even and odd offsets.
    fn segment(numbers: &[u32; 8], window: u16, order: usize, is_v6: bool, data: &[u8]) -> Vec<u8> {
        let [sequence, acknowledgement, value, echo, sack @ ..] = *numbers;
        let stamps = TcpOptionElement::Timestamp(value, echo);
        let blocks =
            TcpOptionElement::SelectiveAcknowledgement((sack[0], sack[1]), [Some((sack[2], sack[3])), None, None]);
        let options = match order {
            0 => vec![stamps, blocks],
            1 => vec![TcpOptionElement::Noop, stamps, blocks],
            2 => vec![TcpOptionElement::Noop, TcpOptionElement::Noop, blocks],
            _ => vec![TcpOptionElement::Noop, blocks, TcpOptionElement::Noop, stamps],
        };
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if is_v6 { link.ipv6([1; 16], [2; 16], 64) } else { link.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64) };
        let mut frame = Vec::new();
        let built = ip.tcp(1, 80, sequence, window).ack(acknowledgement).options(&options).unwrap();
        built.write(&mut frame, data).unwrap();
        frame
    }

    fn shift() -> impl Strategy<Value = Shift> {
        prop_oneof![
            any::<u32>().prop_map(Shift::by),
            (any::<u32>(), any::<u32>(), 0..5000u32).prop_map(|(from, before, more)| Shift {
                from,
                before,
                after: before.wrapping_add(more)
            }),
        ]
    }

    fn translation() -> impl Strategy<Value = Translation> {
        (shift(), shift(), any::<[u32; 2]>(), -14..=14i8)
            .prop_map(|(sender, peer, [timestamp, echo], window)| Translation { sender, peer, timestamp, echo, window })
    }

    proptest! {
        #[test]
        fn a_usual_segment_is_moved_as_any_other(
            shifts in [shift(), shift()],
            timestamps: [u32; 2],
            windows in [-14..=14i8, -14..=14i8],
            numbers in any::<[u32; 8]>(),
            window: u16,
            layout in 0..4usize,
            is_forward: bool,
            data in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let terms = Terms { mss: 0, client_window: windows[0], server_window: windows[1] };
            let record = Extension::of(&NewExtension { shifts, timestamps, terms, ..NewExtension::default() });
            let direction = if is_forward { Direction::Forward } else { Direction::Reverse };
            let options = match layout {
                0 => vec![],
                1 => vec![
                    TcpOptionElement::Noop,
                    TcpOptionElement::Noop,
                    TcpOptionElement::Timestamp(numbers[2], numbers[3]),
                ],
                2 => vec![TcpOptionElement::Timestamp(numbers[2], numbers[3])],
                _ => vec![TcpOptionElement::SelectiveAcknowledgement((numbers[4], numbers[5]), [None; 3])],
            };
            let mut ours = Vec::new();
            let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
            let built = ip.tcp(1, 80, numbers[0], window).ack(numbers[1]).options(&options).unwrap();
            built.write(&mut ours, &data).unwrap();
            let (mut theirs, before) = (ours.clone(), ours.clone());
            let headers = wire::parse(&ours).unwrap();
            let segment = &mut ours[headers.l4 as usize..];
            let window = Translation::of(&record, direction).window;
            let delta = translate_usual(segment, &record, direction, window);
            let is_uniform = shifts.iter().all(|shift| shift.before == shift.after);
            prop_assert_eq!(delta.is_some(), is_uniform && layout < 2);
            match delta {
                None => prop_assert_eq!(ours, before),
                Some(delta) => {
                    let field: &mut [u8; 2] = segment[tcp::CHECKSUM..].first_chunk_mut().unwrap();
                    *field = delta.apply(*field);
                    translate(&mut theirs, &headers, &Translation::of(&record, direction));
                    prop_assert_eq!(ours, theirs);
                }
            }
        }
    }

    #[test]
    fn an_insertion_moves_what_is_behind_it() {
        let shift = Shift { from: 1000, before: 5, after: 105 };
        assert_eq!([999, 1000, 1001].map(|n| shift.apply(n)), [1004, 1105, 1106]);
        // Whoever acknowledges a part of what was inserted acknowledges all before it.
        assert_eq!([1004, 1005, 1050, 1104, 1105, 1106].map(|n| shift.undo(n)), [999, 1000, 1000, 1000, 1000, 1001]);
    }

    #[test]
    fn a_deletion_is_acknowledged_with_what_is_left() {
        // 20 bytes became 15, from 1000 on.
        let shift = Shift { from: 1020, before: 0, after: 5u32.wrapping_neg() };
        assert_eq!([1000, 1020, 1021].map(|n| shift.apply(n)), [1000, 1015, 1016]);
        assert_eq!([1014, 1015, 1016].map(|n| shift.undo(n)), [1014, 1020, 1021]);
    }

    #[test]
    fn numbers_wrap() {
        let shift = Shift { from: 5, before: 10, after: 30 };
        assert_eq!([u32::MAX, 4, 5].map(|n| shift.apply(n)), [9, 14, 35]);
        assert_eq!([9, 14, 35].map(|n| shift.undo(n)), [u32::MAX, 4, 5]);
    }

    #[test]
    fn every_number_of_a_segment_is_moved() {
        let numbers = [100, 5000, 70, 80, 6000, 6100, 6200, 6300];
        let by = Translation {
            sender: Shift::by(1),
            peer: Shift { from: 6150, before: 10, after: 20 },
            timestamp: 3,
            echo: 4,
            window: 2,
        };
        for order in 0..OPTIONS {
            let mut frame = segment(&numbers, 400, order, false, b"");
            let headers = wire::parse(&frame).unwrap();
            translate(&mut frame, &headers, &by);
            let stamps = if order == 2 { [70, 80] } else { [73, 76] };
            let expected = [101, 4990, stamps[0], stamps[1], 5990, 6090, 6180, 6280];
            assert_eq!(frame, segment(&expected, 100, order, false, b""), "{order}");
        }
    }

    #[test]
    fn a_window_of_a_syn_is_not_scaled_and_none_overflows() {
        let by = |window| Translation { window, ..Translation::default() };
        let scaled = |flags: TcpFlags, window: u16, bits| {
            let mut frame = segment(&[0; 8], window, 0, false, b"");
            let headers = Headers { tcp: flags, ..wire::parse(&frame).unwrap() };
            translate(&mut frame, &headers, &by(bits));
            u16::from_be_bytes([frame[headers.l4 as usize + 14], frame[headers.l4 as usize + 15]])
        };
        assert_eq!(scaled(TcpFlags::ACK, 1000, -3), 8000);
        assert_eq!(scaled(TcpFlags::ACK, 10_000, -3), 0xffff);
        assert_eq!(scaled(TcpFlags::ACK, 1000, 3), 125);
        assert_eq!(scaled(TcpFlags::SYN.with(TcpFlags::ACK), 1000, 3), 1000);
    }

    proptest! {
        #[test]
        fn moving_there_and_back_changes_nothing(shift in shift(), n in any::<u32>()) {
            prop_assert_eq!(shift.undo(shift.apply(n)), n);
        }

        #[test]
        fn a_segment_comes_back_as_it_was(
            numbers in any::<[u32; 8]>(),
            by in translation(),
            peer in any::<u32>(),
            order in 0..OPTIONS,
        ) {
            // Only a shift that is the same everywhere leaves every number with one that it comes from.
            let by = Translation { peer: Shift::by(peer), window: 0, ..by };
            let mut frame = segment(&numbers, 1000, order, false, b"data");
            let (before, headers) = (frame.clone(), wire::parse(&frame).unwrap());
            translate(&mut frame, &headers, &by);
            let segment = &mut frame[headers.l4 as usize..];
            let delta = by.back(segment, headers.tcp);
            let field: &mut [u8; 2] = segment[tcp::CHECKSUM..].first_chunk_mut().unwrap();
            *field = delta.apply(*field);
            prop_assert_eq!(frame, before);
        }

        #[test]
        fn the_checksum_stays_right(
            numbers in any::<[u32; 8]>(),
            window in any::<u16>(),
            by in translation(),
            order in 0..OPTIONS,
            is_v6 in any::<bool>(),
            data in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let mut frame = segment(&numbers, window, order, is_v6, &data);
            let headers = wire::parse(&frame).unwrap();
            translate(&mut frame, &headers, &by);
            prop_assert_eq!(checksum::settle(&mut frame, &headers), Ok(Settled::Valid));
        }

        #[test]
        fn any_bytes_can_be_translated(
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            by in translation(),
            flags in any::<u8>(),
        ) {
            by.there(&mut bytes, TcpFlags::new(flags));
            by.back(&mut bytes, TcpFlags::new(flags));
            if let Ok(headers) = wire::parse(&bytes) {
                translate(&mut bytes, &headers, &by);
            }
        }
    }
}
