//! A subscriber that keeps what it was told, and raw records as anybody may put them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use svc_registry::catalog::{
    Catalog, CatalogEvent, Change, Changes, Entry, Freshness, Selector, Subscription,
};
use svc_registry::{Etcd, EtcdConfig, ServiceName};

/// Longer than anything here takes on a busy machine; what takes as long hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A catalog on the etcd at this URL.
pub(crate) fn catalog(url: &str) -> Catalog {
    let config = EtcdConfig::new([url]).expect("an endpoint");
    Catalog::new(&Etcd::new(config).expect("inside a runtime"))
}

pub(crate) fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a good name")
}

/// The key of a record.
pub(crate) fn key(service: &str, n: usize) -> String {
    format!("/services/{service}/i-{n:04}")
}

/// A record with an address of its own, and as many bytes of tags.
pub(crate) fn record(n: usize, version: &str, padding: usize) -> String {
    format!(
        r#"{{"state":"serving","address":"10.0.{}.{}:50051","version":"{version}","incarnation":"{n:016x}","tags":{{"padding":"{}"}}}}"#,
        n / 250,
        n % 250 + 1,
        "x".repeat(padding),
    )
}

/// What a subscriber knows after each event.
#[derive(Debug)]
pub(crate) struct View {
    events: Subscription,
    started: bool,
    pub(crate) present: BTreeMap<String, Arc<Entry>>,
    pub(crate) held: BTreeSet<String>,
    pub(crate) bad: BTreeSet<String>,
    pub(crate) fresh: bool,
    /// The changes of each step.
    pub(crate) steps: Vec<Vec<Change>>,
}

impl View {
    pub(crate) fn of(catalog: &Catalog, selector: Selector) -> Self {
        let events = catalog.watch(selector);
        let (present, held, bad) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { events, started: false, present, held, bad, fresh: true, steps: Vec::new() }
    }

    /// Follows one service and waits for its snapshot.
    pub(crate) async fn following(catalog: &Catalog, name: &str) -> Self {
        let mut view = Self::of(catalog, Selector::service(service(name)));
        view.until("the snapshot came", |view| view.started).await;
        view
    }

    /// Takes events until the condition holds.
    pub(crate) async fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let follow = async {
            while !condition(self) {
                let event = self.events.next().await.expect("a subscription never ends");
                self.note(event);
            }
        };
        if tokio::time::timeout(LIMIT, follow).await.is_err() {
            panic!("not within {LIMIT:?}: {what}; {} present, held {:?}", self.present.len(), self.held);
        }
    }

    /// How many changes there were in all steps.
    pub(crate) fn differences(&self) -> usize {
        self.steps.iter().map(Vec::len).sum()
    }

    /// The version that each present instance has.
    pub(crate) fn versions(&self) -> BTreeMap<String, String> {
        let version = |entry: &Entry| entry.record.version.as_deref().unwrap_or_default().to_owned();
        self.present.iter().map(|(id, entry)| (id.clone(), version(entry))).collect()
    }

    fn note(&mut self, event: CatalogEvent) {
        match event {
            CatalogEvent::Snapshot(snapshot) => {
                assert!(!self.started, "a snapshot comes once");
                self.started = true;
                self.present.extend(snapshot.instances.into_iter().map(|entry| (id(&entry), entry)));
                self.bad.extend(snapshot.bad.iter().map(|bad| bad.key.clone()));
            }
            CatalogEvent::Changes(Changes { changes, .. }) => {
                assert!(self.started, "the snapshot comes first");
                for change in changes.clone() {
                    self.change(change);
                }
                self.steps.push(changes);
            }
            CatalogEvent::Freshness(freshness) => self.fresh = freshness == Freshness::Live,
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Added(entry) => {
                self.held.remove(&id(&entry));
                assert_eq!(
                    self.present.insert(id(&entry), entry.clone()),
                    None,
                    "{entry:?} was there already"
                );
            }
            Change::Modified(entry) => {
                let old = self.present.insert(id(&entry), entry.clone());
                assert!(old.is_some_and(|old| old != entry), "{entry:?} did not change");
            }
            Change::Removed(entry) => {
                let known = self.present.remove(&id(&entry)).is_some() | self.held.remove(&id(&entry));
                assert!(known, "{entry:?} was not there");
            }
            Change::Held(entry, _) => {
                assert!(self.present.remove(&id(&entry)).is_some(), "{entry:?} was not there");
                self.held.insert(id(&entry));
            }
            Change::Bad(bad) => {
                self.bad.insert(bad.key.clone());
            }
            Change::BadGone(bad) => assert!(self.bad.remove(&bad.key), "{bad:?} was not there"),
            Change::Intent(_) | Change::IntentGone(_) | Change::Policy(_) | Change::PolicyGone(_) => {}
        }
    }
}

fn id(entry: &Entry) -> String {
    entry.record.id.to_string()
}
