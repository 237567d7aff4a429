//! How long an answer of etcd may take before its silence means that nobody is there.
//!
//! A value: what is known of etcd's pace. As TCP sets its timer (RFC 6298): by what the last round trip took, between two
//! bounds. The lower one, a third of the lease's life, keeps a dead stream from costing a lease. The upper one is two
//! thirds: whoever asks again each time reaches etcd well within the lease's life, also where no answer is in time. To give
//! up too early costs little, for the stream is listened to all the same; to wait too long costs the lease, where a slow etcd
//! has lost a member. So it is a quarter more than the round trip and no longer, and a silence makes it no longer either.

use std::time::Duration;

/// What the last answer took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    round_trip: Duration,
}

impl Pace {
    /// How long the answer for a lease of this time to live may take: a third of it, or more where etcd is slow.
    pub(super) fn patience(&self, ttl: Duration) -> Duration {
        let third = ttl / 3;
        self.round_trip.saturating_add(self.round_trip / 4).clamp(third, third * 2)
    }

    /// An answer came, after so long.
    pub(super) fn answered(&mut self, round_trip: Duration) {
        self.round_trip = round_trip;
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
        pace.answered(Duration::from_secs(6));
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
        pace.answered(Duration::MAX);
        assert_eq!(pace.patience(Duration::MAX), Duration::MAX / 3 * 2, "nothing overflows");
        assert_eq!(pace.patience(Duration::ZERO), Duration::ZERO, "whatever the time to live");
    }
}
