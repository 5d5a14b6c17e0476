//! What memory alone costs: the limit that no flow table of this size can beat, measured in the same run.
//!
//! Bursts of 64; for each packet one random bucket line is prefetched and read, then one random flow's lines are
//! prefetched and written. No key is compared, no packet touched.

use std::io;

use dataplane::port::BURST;
use memmap2::{Advice, MmapMut, MmapOptions};

use crate::loop_ports::random;
use crate::packets::Family;
use crate::sys::prefetch;

const LINE: usize = 64;
/// How full the flow table's index is when the table is, in per cent.
pub(crate) const INDEX_LOAD: u64 = 50;

/// Memory shaped like a flow table.
#[derive(Debug)]
pub(crate) struct Limit {
    buckets: MmapMut,
    flows: MmapMut,
    lines_per_flow: usize,
    state: u64,
}

impl Limit {
    /// Memory for `flows` flows of a family, with an index as the flow table's: two keys each, 8 to a line.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub(crate) fn new(family: Family, flows: u32) -> io::Result<Self> {
        let lines_per_flow = if family == Family::V4 { 1 } else { 2 };
        let keys = 2 * u64::from(flows);
        let buckets = (keys * 100).div_ceil(INDEX_LOAD * 8) as usize;
        Ok(Self {
            buckets: map(buckets * LINE)?,
            flows: map(flows as usize * lines_per_flow * LINE)?,
            lines_per_flow,
            state: 1,
        })
    }

    /// One burst.
    #[inline]
    pub(crate) fn turn(&mut self) -> usize {
        let buckets: [usize; BURST] =
            std::array::from_fn(|_| random(&mut self.state, self.buckets.len() / LINE) * LINE);
        let lines = self.lines_per_flow;
        let range = self.flows.len() / (LINE * lines);
        let flows: [usize; BURST] = std::array::from_fn(|_| random(&mut self.state, range) * LINE * lines);
        for at in buckets {
            prefetch(&self.buckets[at]);
        }
        let mut read = 0u8;
        for at in buckets {
            read ^= self.buckets[at + 8];
        }
        for at in flows {
            for line in 0..lines {
                prefetch(&self.flows[at + line * LINE]);
            }
        }
        for at in flows {
            for line in 0..lines {
                let cell = &mut self.flows[at + line * LINE];
                *cell = cell.wrapping_add(read | 1);
            }
        }
        BURST
    }
}

/// Zeroed memory in huge pages where there are any, as the flow table has it, touched before it is measured.
fn map(bytes: usize) -> io::Result<MmapMut> {
    let mut map = MmapOptions::new().len(bytes.max(LINE)).map_anon()?;
    // Huge pages are a gain, not a need.
    let _ = map.advise(Advice::HugePage);
    for page in map.chunks_mut(4096) {
        page[0] = 1;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_touches_all_of_memory_shaped_like_the_table() {
        let mut limit = Limit::new(Family::V6, 100).unwrap();
        assert_eq!(limit.buckets.len(), 50 * LINE);
        assert_eq!(limit.flows.len(), 200 * LINE);
        for _ in 0..100 {
            assert_eq!(limit.turn(), BURST);
        }
        assert!(limit.flows.chunks(LINE).all(|line| line[0] > 0), "6400 writes over 100 flows reach each");
    }
}
