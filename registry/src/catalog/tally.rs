//! How many instances a range has, by their state, and what dashboards see of it.

use std::sync::Arc;

use super::entry::Item;
use super::event::Freshness;
use super::range::{Range, Scope};
use crate::metrics::{INSTANCES, STALE};
use crate::record::State;

/// Counts of a range's keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) serving: usize,
    draining: usize,
    drained: usize,
    bad: usize,
    pub(super) held: usize,
}

impl Tally {
    /// The count that something in etcd belongs to; intents and policies are no instances.
    pub(super) fn of(&mut self, item: &Item) -> Option<&mut usize> {
        match item {
            Item::Record(entry) => Some(match entry.record.state {
                State::Serving => &mut self.serving,
                State::Draining => &mut self.draining,
                State::Drained => &mut self.drained,
            }),
            Item::Bad(_) => Some(&mut self.bad),
            Item::Intent(_) | Item::Policy(_) => None,
        }
    }

    fn named(self) -> [(&'static str, usize); 5] {
        let Tally { serving, draining, drained, bad, held } = self;
        [("serving", serving), ("draining", draining), ("drained", drained), ("bad", bad), ("held", held)]
    }
}

/// What the gauges show of one range that is followed; its drop takes it out of them. They are added to, not set: two
/// ranges, or two catalogs, may show the same service.
#[derive(Debug)]
#[must_use]
pub(super) struct Shown {
    service: Arc<str>,
    tally: Tally,
    stale: bool,
}

impl Shown {
    /// Nothing yet. A range of all services is shown as `*`.
    pub(super) fn new(range: &Range) -> Self {
        let service = match range {
            Range::Records(Scope::Service(service)) | Range::Draining(Scope::Service(service)) => {
                service.as_str().into()
            }
            Range::Records(Scope::All) | Range::Draining(Scope::All) | Range::Intents | Range::Policies => {
                "*".into()
            }
        };
        Self { service, tally: Tally::default(), stale: false }
    }

    pub(super) fn counts(&mut self, tally: Tally) {
        let before = std::mem::replace(&mut self.tally, tally);
        for ((state, before), (_, now)) in before.named().into_iter().zip(tally.named()) {
            if before != now {
                let gauge = metrics::gauge!(INSTANCES, "service" => self.service.clone(), "state" => state);
                gauge.increment(now as f64 - before as f64);
            }
        }
    }

    pub(super) fn is(&mut self, freshness: &Freshness) {
        self.set_stale(matches!(freshness, Freshness::Stale { .. }));
    }

    fn set_stale(&mut self, stale: bool) {
        if std::mem::replace(&mut self.stale, stale) != stale {
            let gauge = metrics::gauge!(STALE, "service" => self.service.clone());
            gauge.increment(if stale { 1.0 } else { -1.0 });
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.counts(Tally::default());
        self.set_stale(false);
    }
}
