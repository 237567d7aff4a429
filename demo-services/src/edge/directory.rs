//! Which services the catalog has, for people: how many instances of each take work, and whether that is fresh. Calls do
//! not ask it; they have their channels, which know more.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use serde::Serialize;
use svc_registry::Etcd;
use svc_registry::catalog::{Catalog, CatalogEvent, Change, Freshness, Selector};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What the catalog has, as of its last event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Listing {
    /// Instances that take new work, by service.
    pub(super) instances: BTreeMap<String, usize>,
    /// Whether this is what etcd holds now; `false` too before anything is known.
    pub(super) fresh: bool,
}

impl Listing {
    /// What an event makes of it.
    fn apply(&mut self, event: CatalogEvent) {
        match event {
            CatalogEvent::Snapshot(all) => {
                // etcd has just answered; that it no longer does is an event of its own.
                self.fresh = true;
                self.instances.clear();
                all.instances.iter().for_each(|entry| self.add(entry.record.service.as_str()));
            }
            CatalogEvent::Changes(step) => step.changes.iter().for_each(|change| match change {
                Change::Added(entry) => self.add(entry.record.service.as_str()),
                Change::Removed(entry) => self.remove(entry.record.service.as_str()),
                _ => {}
            }),
            CatalogEvent::Freshness(freshness) => self.fresh = freshness == Freshness::Live,
        }
    }

    fn add(&mut self, service: &str) {
        *self.instances.entry(service.to_owned()).or_default() += 1;
    }

    fn remove(&mut self, service: &str) {
        if let Some(count) = self.instances.get_mut(service) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.instances.remove(service);
            }
        }
    }
}

/// Follows the catalog for as long as it lives.
#[derive(Debug)]
pub(super) struct Directory {
    listing: watch::Receiver<Listing>,
    task: AbortHandle,
}

impl Directory {
    pub(super) fn follow(etcd: &Etcd) -> Directory {
        let mut events = Catalog::new(etcd).watch(Selector::all());
        let (publish, listing) = watch::channel(Listing::default());
        // Owned by the directory, whose drop ends it; holds one count a service; an etcd that is away is an event.
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                publish.send_modify(|listing| listing.apply(event));
            }
        });
        Directory { listing, task: task.abort_handle() }
    }

    pub(super) fn now(&self) -> Listing {
        self.listing.borrow().clone()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        self.task.abort();
    }
}
