//! The load of each endpoint, by the key that discovery knows it by. Kept by the owner, counted by calls.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use crate::health::orca::LoadReports;
use crate::load::Load;
use crate::subchannel::id::EndpointId;

/// Loads by key: they outlive removal while calls are in flight, so that an endpoint that comes back keeps its own.
pub(crate) struct Loads<K> {
    ids: HashMap<K, EndpointId>,
    pub(super) loads: HashMap<EndpointId, Arc<Load>>,
    parted: HashMap<K, Weak<Load>>,
    next: u64,
    /// After so many failures in a row the owner wants to hear.
    most_failures: Option<u32>,
    /// What the policy makes of load reports, if it wants them.
    pub(super) reports: Option<LoadReports>,
}

impl<K> Loads<K> {
    pub(crate) fn new(most_failures: Option<u32>) -> Self {
        Self {
            ids: HashMap::new(),
            loads: HashMap::new(),
            parted: HashMap::new(),
            next: 0,
            most_failures,
            reports: None,
        }
    }
}

impl<K: Hash + Eq + Clone> Loads<K> {
    pub(super) fn insert(&mut self, key: &K) -> EndpointId {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = EndpointId(self.next);
        self.next += 1;
        let parted = self.parted.remove(key).and_then(|parted| parted.upgrade());
        let load = parted.unwrap_or_else(|| Arc::new(Load::new(self.most_failures)));
        load.reported.want(self.reports.as_ref());
        self.ids.insert(key.clone(), id);
        self.loads.insert(id, load);
        id
    }

    /// What is made of load reports from here on.
    pub(super) fn set_reports(&mut self, reports: Option<LoadReports>) {
        self.reports = reports;
        for load in self.loads.values() {
            load.reported.want(reports.as_ref());
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<EndpointId> {
        let id = self.ids.remove(key)?;
        if let Some(load) = self.loads.remove(&id) {
            if self.parted.len() > 2 * self.ids.len() + 16 {
                self.parted.retain(|_, load| load.strong_count() > 0);
            }
            self.parted.insert(key.clone(), Arc::downgrade(&load));
        }
        Some(id)
    }

    /// Where failures in a row are told from here on.
    pub(super) fn set_most_failures(&mut self, most_failures: Option<u32>) {
        self.most_failures = most_failures;
        let parted = self.parted.values().filter_map(Weak::upgrade);
        for load in self.loads.values().cloned().chain(parted) {
            load.set_most_failures(most_failures);
        }
    }

    /// Calls in flight, those at endpoints that are gone included.
    pub(super) fn any_in_flight(&self) -> bool {
        let parted = self.parted.values().filter_map(Weak::upgrade);
        self.loads.values().any(|load| load.in_flight() > 0) || { parted }.any(|load| load.in_flight() > 0)
    }

    pub(super) fn of(&self, id: EndpointId) -> Arc<Load> {
        self.loads.get(&id).cloned().unwrap_or_default()
    }
}
