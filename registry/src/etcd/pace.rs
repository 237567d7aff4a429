//! How long an answer of etcd may take before its silence means that nobody is there.
//!
//! A value: what is known of etcd's pace. As TCP sets its timer (RFC 6298): by what the last round trip took, twice as long
//! after each silence, and between two bounds. The lower one keeps a dead stream from costing a lease, the upper one is
//! the lease's own life: what is not answered by then has to be asked again.

use std::time::Duration;

/// What the last answers took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    round_trip: Duration,
    /// Without an answer in between.
    silences: u32,
}

impl Pace {
    /// How long the answer for a lease of this time to live may take: a third of it, or more where etcd is slow.
    pub(super) fn patience(&self, ttl: Duration) -> Duration {
        let third = ttl / 3;
        // Two doublings of a third are more than the whole.
        let waited = third * (1 << self.silences.min(2));
        waited.max(self.round_trip.saturating_mul(2)).clamp(third, ttl.max(third))
    }

    /// Nothing came within the patience.
    pub(super) fn silent(&mut self) {
        self.silences = self.silences.saturating_add(1);
    }

    /// An answer came, after so long.
    pub(super) fn answered(&mut self, round_trip: Duration) {
        *self = Pace { round_trip, silences: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    #[test]
    fn patience_is_a_third_of_the_ttl_where_etcd_is_quick() {
        let mut pace = Pace::default();
        assert_eq!(pace.patience(TTL), TTL / 3);
        pace.answered(Duration::from_millis(2));
        assert_eq!(pace.patience(TTL), TTL / 3);
    }

    #[test]
    fn it_doubles_with_each_silence_up_to_the_ttl_and_an_answer_ends_that() {
        let mut pace = Pace::default();
        let waits = [TTL / 3, TTL / 3 * 2, TTL, TTL];
        for wait in waits {
            assert_eq!(pace.patience(TTL), wait);
            pace.silent();
        }
        pace.answered(Duration::from_millis(2));
        assert_eq!(pace.patience(TTL), TTL / 3);
    }

    #[test]
    fn a_slow_etcd_is_given_twice_what_it_took() {
        let mut pace = Pace::default();
        pace.answered(Duration::from_secs(4));
        assert_eq!(pace.patience(TTL), Duration::from_secs(8));
        pace.answered(Duration::from_secs(14));
        assert_eq!(pace.patience(TTL), TTL, "never more than the lease lives");
        assert_eq!(pace.patience(Duration::ZERO), Duration::ZERO, "whatever the time to live");
    }
}
