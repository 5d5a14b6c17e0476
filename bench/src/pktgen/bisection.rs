//! The search of RFC 2544, section 26.1: halving what lies between the highest rate that passed and the lowest that
//! failed.

/// How a trial at a rate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
}

/// A search under way.
#[derive(Clone, Debug)]
pub(crate) struct Bisection {
    /// The highest rate that passed; 0 before any did.
    passed: f64,
    /// The lowest rate that failed.
    failed: Option<f64>,
    ceiling: f64,
    precision: f64,
}

impl Bisection {
    /// Searches below `ceiling` until the answer is known to `precision`, a share of the ceiling.
    pub(crate) const fn new(ceiling: f64, precision: f64) -> Self {
        Self { passed: 0.0, failed: None, ceiling, precision }
    }

    /// The rate to try next; `None` when the answer is known. The ceiling comes first: most often it fails, but when it
    /// passes it is the answer.
    pub(crate) fn next(&self) -> Option<f64> {
        let Some(failed) = self.failed else {
            return (self.passed < self.ceiling).then_some(self.ceiling);
        };
        (failed - self.passed > self.precision * self.ceiling).then(|| f64::midpoint(failed, self.passed))
    }

    /// Notes how a trial at a rate ended.
    pub(crate) fn note(&mut self, rate: f64, verdict: Verdict) {
        match verdict {
            Verdict::Passed => self.passed = self.passed.max(rate),
            Verdict::Failed => self.failed = Some(self.failed.map_or(rate, |failed| failed.min(rate))),
        }
    }

    /// The highest rate that passed; 0 when none did.
    pub(crate) const fn passed(&self) -> f64 {
        self.passed
    }

    /// Whether nothing failed: the limit lies above the ceiling.
    pub(crate) const fn is_unlimited(&self) -> bool {
        self.failed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a device that loses above `limit`; the answer and the number of trials.
    fn search(limit: f64, ceiling: f64, precision: f64) -> (f64, u32) {
        let (mut search, mut trials) = (Bisection::new(ceiling, precision), 0);
        while let Some(rate) = search.next() {
            trials += 1;
            search.note(rate, if rate <= limit { Verdict::Passed } else { Verdict::Failed });
        }
        (search.passed(), trials)
    }

    #[test]
    fn the_limit_is_found_to_the_precision() {
        for limit in [1.0, 123_456.0, 500_000.0, 999_999.0] {
            let (found, trials) = search(limit, 1e6, 0.01);
            assert!(found <= limit && limit - found <= 10_000.0, "{limit}: {found}");
            assert!(trials <= 8, "{trials} trials");
        }
    }

    #[test]
    fn a_device_that_keeps_up_is_asked_once() {
        let mut search = Bisection::new(1e6, 0.01);
        search.note(1e6, Verdict::Passed);
        assert_eq!((search.next(), search.passed(), search.is_unlimited()), (None, 1e6, true));
    }

    #[test]
    fn one_that_passes_nothing_has_no_rate() {
        let (found, trials) = search(0.0, 1e6, 0.1);
        assert!(found < 1.0 && trials < 10, "{found}, {trials} trials");
    }
}
