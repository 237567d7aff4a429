//! Waiting longer after each failure: exponential, capped, with full jitter, so that a thousand processes that
//! lost the same etcd do not come back in one wave.
//!
//! A pure value: the caller holds the clock and the random source.

use std::time::Duration;

/// The longest that anything is waited for, a year: a caller's `Duration::MAX` means for ever and must not overflow
/// the clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The waits between attempts; uniform between zero and a bound that doubles from `first` up to `most`.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    /// Bounds of 100 ms, doubling, up to 10 s: what re-registration owes (the first wait is felt by nobody, the
    /// last one costs etcd nothing).
    pub(crate) const fn registration() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(10))
    }

    /// Bounds of 100 ms up to 1 s: for opening a stream again, which costs little and delays everything behind it.
    pub(crate) const fn stream() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_secs(1))
    }

    /// Bounds of 100 ms up to 500 ms: for the keepalive stream. An etcd that comes back gives a lease no more than its
    /// time to live, which may be 2 s.
    pub(crate) const fn keepalive() -> Backoff {
        Backoff::new(Duration::from_millis(100), Duration::from_millis(500))
    }

    const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub(crate) fn next(&mut self, random: &mut fastrand::Rng) -> Duration {
        // 2^16 times any sensible first wait is above any sensible cap: the shift cannot overflow.
        let bound = self.first.saturating_mul(1 << self.failures.min(16)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random.f64())
    }

    /// After a success the next failure waits as the first did.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_jittered_below_a_doubling_bound() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..100 {
            let mut backoff = Backoff::registration();
            let mut bound = Duration::from_millis(100);
            for _ in 0..50 {
                assert!(backoff.next(&mut random) <= bound);
                bound = (bound * 2).min(Duration::from_secs(10));
            }
            backoff.reset();
            assert!(backoff.next(&mut random) <= Duration::from_millis(100), "a success resets it");
        }
    }

    #[test]
    fn two_processes_do_not_draw_alike() {
        let wait = |seed| Backoff::registration().next(&mut fastrand::Rng::with_seed(seed));
        assert_ne!(wait(1), wait(2));
    }
}
