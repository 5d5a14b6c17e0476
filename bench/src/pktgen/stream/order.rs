//! The order in which a stream takes its pairs of endpoints.

use clap::ValueEnum;
use serde::Deserialize;

/// How the flow of a packet is chosen.
#[derive(ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// One after the other, then again.
    #[default]
    Sequential,
    /// At random: as a flood, or as many clients.
    Random,
}

impl Order {
    /// The flow of packet `number`, of `flows` flows. The same number has the same flow in every run.
    #[inline]
    pub(crate) const fn flow(self, number: u64, flows: u64) -> u64 {
        match self {
            Self::Sequential => number % flows,
            Self::Random => mix(number) % flows,
        }
    }
}

/// The finaliser of splitmix64: every bit of the input changes half of the output's.
#[inline]
pub(crate) const fn mix(number: u64) -> u64 {
    let mut n = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_flows_are_all_drawn_and_about_equally_often() {
        let mut drawn = [0u32; 100];
        for number in 0..10_000 {
            drawn[Order::Random.flow(number, 100) as usize] += 1;
        }
        assert!(drawn.iter().all(|n| (50..200).contains(n)), "{drawn:?}");
        assert_eq!(Order::Sequential.flow(205, 100), 5);
    }
}
