//! What is registered, as far as commands need it: instances, wishes, and what could not be read.
//!
//! Comes in: a snapshot of the catalog, and its changes. Goes out: the values that every command prints or decides by.

use std::collections::BTreeMap;
use std::sync::Arc;

use svc_registry::catalog::{BadEntry, Catalog, Change, Entry, IntentEntry, Selector, Snapshot};
use svc_registry::intent::DrainIntent;
use svc_registry::{Etcd, InstanceId, Prefix, Revision, ServiceName, State};

use crate::exit::Failure;
use crate::output::{escape, view};

/// An instance's identity, in the order in which it is printed.
pub type Key = (ServiceName, InstanceId);

/// Everything about one service, or about all, at one revision.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// The revision at which all of it held.
    pub revision: Revision,
    /// One entry an id.
    pub entries: BTreeMap<Key, Arc<Entry>>,
    /// The wishes for single instances.
    pub own: BTreeMap<Key, DrainIntent>,
    /// The wishes for whole services.
    pub all: BTreeMap<ServiceName, DrainIntent>,
    /// What was skipped, by key, with the service that it lies below as far as the key tells.
    bad: BTreeMap<String, (Option<ServiceName>, view::Bad)>,
    /// Where all of it lies.
    prefix: Prefix,
}

/// What a command wants to know of the catalog: one service or all, whatever their state, and the wishes.
pub fn selector(service: Option<&ServiceName>) -> Selector {
    let selector = service.map_or_else(Selector::all, |service| Selector::service(service.clone()));
    selector.with_draining().with_intents()
}

impl Inventory {
    /// Reads everything about one service, or about all.
    ///
    /// # Errors
    /// etcd is away or refuses.
    pub async fn read(etcd: &Etcd, service: Option<&ServiceName>) -> Result<Inventory, Failure> {
        let snapshot = Catalog::new(etcd).list(selector(service)).await?;
        Ok(Inventory::new(etcd.prefix(), snapshot))
    }

    /// What a snapshot holds. What the catalog holds back from removal is gone for a command.
    pub fn new(prefix: &Prefix, snapshot: Snapshot) -> Inventory {
        let Snapshot { revision, instances, intents, bad, .. } = snapshot;
        let mut inventory = Inventory { revision, prefix: prefix.clone(), ..Inventory::default() };
        for entry in instances {
            inventory.entries.insert(key(&entry), entry);
        }
        for intent in &intents {
            inventory.wish(intent);
        }
        for bad in &bad {
            inventory.skip(bad);
        }
        inventory
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Added(entry) | Change::Modified(entry) => {
                self.entries.insert(key(entry), entry.clone());
            }
            Change::Removed(entry) | Change::Held(entry, _) => {
                self.entries.remove(&key(entry));
            }
            Change::Intent(intent) => self.wish(intent),
            Change::IntentGone(intent) => {
                let target = &intent.target;
                match &target.id {
                    Some(id) => drop(self.own.remove(&(target.service.clone(), id.clone()))),
                    None => drop(self.all.remove(&target.service)),
                }
            }
            // What its clients do, not what there is.
            Change::Policy(_) | Change::PolicyGone(_) => {}
            Change::Bad(bad) => self.skip(bad),
            Change::BadGone(bad) => drop(self.bad.remove(&bad.key)),
        }
    }

    fn wish(&mut self, entry: &IntentEntry) {
        let (service, intent) = (entry.target.service.clone(), entry.intent.clone());
        match &entry.target.id {
            Some(id) => drop(self.own.insert((service, id.clone()), intent)),
            None => drop(self.all.insert(service, intent)),
        }
    }

    fn skip(&mut self, bad: &BadEntry) {
        let service =
            self.prefix.parse_record(bad.key.as_bytes()).and_then(Result::ok).map(|key| key.service);
        let shown = view::Bad { key: bad.key.clone(), reason: escape(&bad.reason).into_owned() };
        self.bad.insert(bad.key.clone(), (service, shown));
    }

    /// The wish that holds for an instance: of its own and its service's the stronger.
    pub fn intent(&self, key: &Key) -> Option<&DrainIntent> {
        DrainIntent::stronger(self.own.get(key), self.all.get(&key.0))
    }

    /// The instance as every command prints it.
    pub fn instance(&self, key: &Key) -> Option<view::Instance> {
        self.entries.get(key).map(|entry| self.view(entry))
    }

    /// An entry that need not be there any more, with the wish that holds for its id.
    pub fn view(&self, entry: &Entry) -> view::Instance {
        view::Instance::new(&entry.record, entry.lease, self.intent(&key(entry)))
    }

    /// Everything in the shape of `get`.
    pub fn instances(&self) -> view::Instances {
        view::Instances {
            revision: self.revision.0,
            instances: self.entries.values().map(|entry| self.view(entry)).collect(),
            bad: self.bad.values().map(|(_, bad)| bad.clone()).collect(),
        }
    }

    /// Everything in the shape of `services`; a service that has only unreadable records counts too.
    pub fn services(&self) -> view::Services {
        let mut services: BTreeMap<&ServiceName, view::Service> = BTreeMap::new();
        let blank = |name: &ServiceName| view::Service {
            name: name.to_string(),
            serving: 0,
            draining: 0,
            drained: 0,
            bad: 0,
        };
        for ((service, _), entry) in &self.entries {
            let line = services.entry(service).or_insert_with(|| blank(service));
            *match entry.record.state {
                State::Serving => &mut line.serving,
                State::Draining => &mut line.draining,
                State::Drained => &mut line.drained,
            } += 1;
        }
        for service in self.bad.values().filter_map(|(service, _)| service.as_ref()) {
            services.entry(service).or_insert_with(|| blank(service)).bad += 1;
        }
        view::Services { services: services.into_values().collect() }
    }

    /// Who would still serve `service` if `id` did not: those that serve and that nobody wishes to drain.
    pub fn others_serving(&self, service: &ServiceName, id: &InstanceId) -> usize {
        let serves = |key: &Key, entry: &Entry| {
            entry.record.state == State::Serving
                && self.intent(key).is_none()
                && key.1 != *id
                && key.0 == *service
        };
        self.entries.iter().filter(|(key, entry)| serves(key, entry)).count()
    }
}

/// Whom an entry is about.
pub fn key(entry: &Entry) -> Key {
    (entry.record.service.clone(), entry.record.id.clone())
}
