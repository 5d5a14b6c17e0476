//! Loss, reordering and duplicates of one stream, by its sequence numbers.
//!
//! A packet is reordered when one with a higher number came before it (RFC 4737, type-P-reordered); it is a duplicate
//! when its own number came before. Duplicates are known among the last 65 536 numbers.

/// Numbers below the highest that are remembered.
const WINDOW: u64 = 1 << 16;

/// What was seen of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    received: u64,
    reordered: u64,
    duplicates: u64,
    /// One more than the highest number seen, with all its bits; 0 before the first.
    next: u64,
    /// A bit for each number of the window, by the number modulo its size.
    seen: Box<[u64]>,
}

impl Tally {
    /// A stream of which nothing was seen.
    pub(crate) fn new() -> Self {
        let seen = vec![0; (WINDOW / 64) as usize].into_boxed_slice();
        Self { received: 0, reordered: 0, duplicates: 0, next: 0, seen }
    }

    /// Notes a packet by the lower half of its number.
    #[inline]
    pub(crate) fn note(&mut self, sequence: u32) {
        let number = self.whole(sequence);
        self.received += 1;
        if number >= self.next {
            self.forget(self.next, number);
            self.next = number + 1;
        } else if self.next - number > WINDOW {
            // Too old to know whether it came before.
            self.reordered += 1;
            return;
        } else if self.was_seen(number) {
            self.duplicates += 1;
            return;
        } else {
            self.reordered += 1;
        }
        *self.word(number) |= 1 << (number % 64);
    }

    /// Packets, duplicates included.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    /// Packets that came after one with a higher number.
    pub(crate) const fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Packets that came again.
    pub(crate) const fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Numbers that did not come, of those up to the highest that did.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost_of(self.next)
    }

    /// Numbers that did not come, of so many that were sent: the sender knows of losses at the end, too.
    pub(crate) const fn lost_of(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.received - self.duplicates)
    }

    /// The number nearest to the next one whose lower half this is.
    #[inline]
    const fn whole(&self, sequence: u32) -> u64 {
        let ahead = sequence.wrapping_sub(self.next as u32).cast_signed() as i64;
        // Before the first packet nothing can be behind.
        match self.next.checked_add_signed(ahead) {
            Some(number) => number,
            None => sequence as u64,
        }
    }

    /// Clears the places of numbers from `first` to `last`: others were there a window ago.
    #[inline]
    fn forget(&mut self, first: u64, last: u64) {
        if last - first >= WINDOW {
            self.seen.fill(0);
            return;
        }
        for number in first..=last {
            *self.word(number) &= !(1 << (number % 64));
        }
    }

    #[inline]
    fn was_seen(&mut self, number: u64) -> bool {
        *self.word(number) & (1 << (number % 64)) != 0
    }

    #[inline]
    fn word(&mut self, number: u64) -> &mut u64 {
        &mut self.seen[(number % WINDOW / 64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sequence: impl IntoIterator<Item = u32>) -> Tally {
        let mut tally = Tally::new();
        sequence.into_iter().for_each(|n| tally.note(n));
        tally
    }

    /// Received, lost, reordered, duplicates.
    fn figures(tally: &Tally) -> (u64, u64, u64, u64) {
        (tally.received(), tally.lost(), tally.reordered(), tally.duplicates())
    }

    #[test]
    fn packets_in_order_are_neither_lost_nor_late() {
        assert_eq!(figures(&after(0..1000)), (1000, 0, 0, 0));
        assert_eq!(figures(&after([])), (0, 0, 0, 0));
    }

    #[test]
    fn gaps_are_losses_until_they_are_filled() {
        let mut tally = after([0, 1, 4, 5]);
        assert_eq!(figures(&tally), (4, 2, 0, 0));
        tally.note(2);
        assert_eq!(figures(&tally), (5, 1, 1, 0));
        assert_eq!(tally.lost_of(10), 5, "four more at the end, which only the sender knows of");
    }

    #[test]
    fn one_late_packet_is_one_reordering() {
        // RFC 4737: only the late one counts, not those that overtook it.
        assert_eq!(figures(&after([0, 2, 3, 4, 1])), (5, 0, 1, 0));
        assert_eq!(figures(&after([1, 0])), (2, 0, 1, 0));
    }

    #[test]
    fn a_packet_that_comes_again_is_a_duplicate_and_covers_no_loss() {
        assert_eq!(figures(&after([0, 1, 1, 3, 0])), (5, 1, 0, 2));
        assert_eq!(figures(&after([0, 2, 1, 1])), (4, 0, 1, 1));
    }

    #[test]
    fn numbers_go_on_after_two_to_the_thirty_two() {
        let mut tally = Tally::new();
        // As after four thousand million packets.
        tally.next = u64::from(u32::MAX) - 1;
        tally.received = tally.next;
        for sequence in [u32::MAX - 1, u32::MAX, 0, 2, 1] {
            tally.note(sequence);
        }
        assert_eq!(tally.next, (1 << 32) + 3);
        assert_eq!((tally.lost(), tally.reordered()), (0, 1));
    }

    #[test]
    fn what_is_older_than_the_window_is_still_counted() {
        let mut tally = after((0..200_000).filter(|n| *n != 7));
        assert_eq!(tally.lost(), 1);
        tally.note(7);
        assert_eq!(figures(&tally), (200_000, 0, 1, 0));
        let jumped = after([0, 1_000_000, 1_000_000]);
        assert_eq!(figures(&jumped), (3, 999_999, 0, 1));
    }
}
