//! How long an answer of etcd may take before its silence means that nobody is there.
//!
//! A value: what is known of etcd's pace. As TCP sets its timer (RFC 6298): by what the last round trip took, longer after a
//! silence, and between two bounds. The lower one, a third of the lease's life, keeps a dead stream from costing a lease.
//! The upper one is two thirds: whoever asks again each time reaches etcd well within the lease's life, also where no
//! answer is in time. To give up too early costs little, for the stream is listened to all the same; to wait too long
//! costs the lease, where a slow etcd has lost a member. So it is a quarter more than the round trip, and not twice as long.

use std::time::Duration;

use crate::backoff::LONGEST;

/// What the last answers took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    round_trip: Duration,
    /// Without an answer since.
    silent: bool,
}

impl Pace {
    /// How long the answer for a lease of this time to live may take: a third of it, or more where etcd is slow.
    pub(super) fn patience(&self, ttl: Duration) -> Duration {
        let third = ttl / 3;
        if self.silent { third * 2 } else { (self.round_trip + self.round_trip / 4).clamp(third, third * 2) }
    }

    /// Nothing came within the patience.
    pub(super) fn silent(&mut self) {
        self.silent = true;
    }

    /// An answer came, after so long.
    pub(super) fn answered(&mut self, round_trip: Duration) {
        *self = Pace { round_trip: round_trip.min(LONGEST), silent: false };
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
    fn it_doubles_with_a_silence_and_an_answer_ends_that() {
        let mut pace = Pace::default();
        for wait in [TTL / 3, TTL / 3 * 2, TTL / 3 * 2] {
            assert_eq!(pace.patience(TTL), wait);
            pace.silent();
        }
        pace.answered(Duration::from_millis(2));
        assert_eq!(pace.patience(TTL), TTL / 3);
    }

    #[test]
    fn a_slow_etcd_is_given_a_quarter_more_than_it_took() {
        let mut pace = Pace::default();
        pace.answered(Duration::from_secs(6));
        assert_eq!(pace.patience(TTL), Duration::from_millis(7_500));
        pace.answered(Duration::from_secs(14));
        assert_eq!(pace.patience(TTL), TTL / 3 * 2, "asked again while the lease lives");
        assert_eq!(pace.patience(Duration::ZERO), Duration::ZERO, "whatever the time to live");
        pace.answered(Duration::MAX);
        assert_eq!(pace.patience(LONGEST), LONGEST / 3 * 2);
    }
}
