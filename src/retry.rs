//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with jitter, bounded, for ever: the n-th wait is uniform between `min` and `min · 2ⁿ`, at most `max`.
///
/// It is AWS's "full jitter" above a floor: processes that lost the same endpoint at the same moment do not come back at the same moment, and
/// a draw near zero does not become a busy loop.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Waits between `min` and `max` (which is raised to `min` when it is less). The same `seed` gives the same waits.
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Backoff { min, max: max.max(min), failures: 0, rng: fastrand::Rng::with_seed(seed) }
    }

    /// Something failed again: how long to wait now.
    pub fn failed(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let factor = 2_u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        let ceiling = self.min.saturating_mul(factor).min(self.max);
        let spread = u64::try_from((ceiling - self.min).as_micros()).unwrap_or(u64::MAX);
        self.min + Duration::from_micros(self.rng.u64(0..=spread))
    }

    /// It worked: the next failure starts from `min` again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(30);

    #[test]
    fn every_wait_is_within_the_bounds_and_their_ceiling_doubles() {
        for seed in 0..50 {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            for n in 1..200_u32 {
                let wait = backoff.failed();
                let ceiling = MIN.saturating_mul(2_u32.saturating_pow(n)).min(MAX);
                assert!(MIN <= wait && wait <= ceiling, "seed={seed} n={n} wait={wait:?} ceiling={ceiling:?}");
            }
            assert_eq!(backoff.failures(), 199);
        }
    }

    #[test]
    fn waits_differ_between_seeds_and_repeat_for_one() {
        let waits = |seed| {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            (0..10).map(|_| backoff.failed()).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(MIN, MAX, 7);
        for _ in 0..20 {
            backoff.failed();
        }
        backoff.succeeded();
        assert!(backoff.failed() <= 2 * MIN);
    }

    #[test]
    fn a_maximum_below_the_minimum_is_the_minimum() {
        assert_eq!(Backoff::new(MIN, Duration::ZERO, 1).failed(), MIN);
    }
}
