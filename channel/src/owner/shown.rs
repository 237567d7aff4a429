//! What is shown of each endpoint, and when it is shown next: publications that only add are paced. Where they take long, the
//! owner rests for a multiple of that in between.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::subchannel::Subchannel;
use crate::subchannel::id::EndpointId;

/// A publication that took less is not worth a timer: tokio's have a millisecond.
const SHORT: Duration = Duration::from_micros(200);

/// The owner rests so many times as long as the last publication took: it takes a fifth of a core at most.
const REST: u32 = 4;

/// What is shown of each endpoint, and when next.
#[derive(Default)]
pub(crate) struct Shown {
    /// Of exactly the endpoints that the set has.
    pub(super) endpoints: BTreeMap<EndpointId, Subchannel>,
    /// There is something new to show.
    due: bool,
    /// Until when it may wait.
    rest: Option<Instant>,
}

impl Shown {
    /// There is something new; where it is `urgent` it waits for nothing.
    pub(crate) fn has_changed(&mut self, urgent: bool) {
        self.due = true;
        if urgent {
            self.rest = None;
        }
    }

    /// When to publish next, if there is anything new.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.rest.filter(|_| self.due)
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due && self.rest.is_none_or(|rest| rest <= now)
    }

    pub(super) fn was_published(&mut self, begun: Instant) {
        let took = begun.elapsed();
        self.due = false;
        self.rest = (took >= SHORT).then(|| begun + took * (REST + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_long_publication_what_adds_waits_and_what_takes_away_does_not() {
        let begun = Instant::now();
        let mut shown = Shown::default();
        tokio::time::advance(Duration::from_millis(2)).await;
        shown.was_published(begun);
        assert!(!shown.is_due(Instant::now()), "nothing is new");
        shown.has_changed(false);
        assert_eq!(shown.next(), Some(begun + Duration::from_millis(10)));
        assert!(!shown.is_due(Instant::now()));
        assert!(shown.is_due(begun + Duration::from_millis(10)));
        shown.has_changed(true);
        assert!(shown.is_due(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_short_publication_nothing_waits() {
        let mut shown = Shown::default();
        shown.was_published(Instant::now());
        shown.has_changed(false);
        assert!(shown.is_due(Instant::now()) && shown.next().is_none());
    }
}
