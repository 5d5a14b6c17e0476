//! `uthreshold` and `lthreshold`: how many connections make a destination overloaded, and how few relieve it again.
//!
//! An overloaded destination takes no new flows; those that it has go on.

/// Bounds on active and inactive connections together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Thresholds {
    /// So many make it overloaded; 0: never.
    pub upper: u32,
    /// Fewer than these relieve it; 0: fewer than three quarters of `upper`.
    pub lower: u32,
}

impl Thresholds {
    /// Whether a destination with so many connections is to be called overloaded.
    pub(super) const fn is_over(self, connections: u32) -> bool {
        self.upper > 0 && connections >= self.upper
    }

    /// Whether an overloaded destination with so many connections is so no longer.
    pub(super) const fn is_relieved(self, connections: u32) -> bool {
        if self.lower > 0 { connections < self.lower } else { connections as u64 * 4 < self.upper as u64 * 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hysteresis_is_that_of_ipvs() {
        let both = Thresholds { upper: 10, lower: 4 };
        assert!(!both.is_over(9) && both.is_over(10) && !both.is_relieved(4) && both.is_relieved(3));
        let upper = Thresholds { upper: 10, lower: 0 };
        assert!(!upper.is_relieved(8) && upper.is_relieved(7), "below three quarters");
        assert!(!Thresholds::default().is_over(u32::MAX));
    }

    #[test]
    fn an_overloaded_server_is_relieved_where_ipvs_relieves_it() {
        let seen = include_str!("../../../scripts/vm/fixtures/overload.txt");
        let mut cases = 0;
        for line in seen.lines().filter(|line| !line.starts_with('#')) {
            let numbers: Vec<u32> = line.split(' ').map(|word| word.parse().unwrap()).collect();
            let &[upper, lower, relieved] = numbers.as_slice() else { panic!("{line}") };
            let thresholds = Thresholds { upper, lower };
            assert!(thresholds.is_over(upper) && !thresholds.is_over(upper - 1));
            let ours = (0..upper).rev().find(|connections| thresholds.is_relieved(*connections));
            assert_eq!(ours, Some(relieved), "{line}");
            cases += 1;
        }
        assert_eq!(cases, 6);
    }
}
