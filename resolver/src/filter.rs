//! Which instances of a service a client uses, and why the others are left out.
//!
//! In come the catalog's snapshot and changes; out go the differences of what a client is to use. The order of the
//! filters: state, intents (for owners that are foreign or dead; a living one obeys by itself), selector, and of two
//! ids with one address the newer. A pure value; a change costs the same among ten instances and ten thousand.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use svc_registry::InstanceId;
use svc_registry::State;
use svc_registry::catalog::{Change, Entry, Snapshot};
use tokio::time::Instant;

use crate::resolved::{InstanceKey, Resolved};
use crate::target::Wanted;

/// Why a client leaves an instance out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Excluded {
    /// It drains or has drained.
    State(State),
    /// An operator wishes it drained.
    Intent,
    /// Its version or tags are not the ones asked for.
    Selector,
    /// A newer instance has the same address.
    SameAddress,
}

impl fmt::Display for Excluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::State(state) => write!(f, "it is {state}"),
            Self::Intent => f.write_str("an operator drains it"),
            Self::Selector => f.write_str("its version or tags are not the ones asked for"),
            Self::SameAddress => f.write_str("a newer instance has its address"),
        }
    }
}

/// One difference of what a client uses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Difference {
    Use(Resolved),
    Drop(InstanceKey),
}

#[derive(Debug, Default)]
pub(crate) struct Filter {
    wanted: Wanted,
    known: HashMap<InstanceId, (Arc<Entry>, Option<Instant>)>,
    /// Whom operators drain.
    drained: HashSet<InstanceId>,
    all_drained: bool,
    /// Those that may be used, by address; the last of a set is the one that counts.
    rivals: HashMap<Arc<str>, BTreeSet<Rival>>,
    used: HashMap<InstanceId, Resolved>,
}

/// Orders instances with one address: present before held, then by age.
type Rival = (bool, svc_registry::Revision, InstanceId);

impl Filter {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    pub(crate) fn start(&mut self, snapshot: Snapshot) -> Vec<Difference> {
        let Snapshot { instances, held, intents, .. } = snapshot;
        let changes = (intents.into_iter().map(Change::Intent))
            .chain(instances.into_iter().map(Change::Added))
            .chain(held.into_iter().map(|(entry, until)| Change::Held(entry, until)));
        self.apply(changes)
    }

    /// Takes the changes of one step. Inserts come first, so that a consumer that takes them one by one is never
    /// without an endpoint while it need not be.
    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Vec<Difference> {
        let mut touched = BTreeSet::new();
        for change in changes {
            match change {
                Change::Added(entry) | Change::Modified(entry) => self.put(&entry, None, &mut touched),
                Change::Held(entry, until) => self.put(&entry, Some(until), &mut touched),
                Change::Removed(entry) => self.remove(&entry.record.id, &mut touched),
                Change::Intent(intent) => self.drain(intent.target.id.as_ref(), true, &mut touched),
                Change::IntentGone(intent) => self.drain(intent.target.id.as_ref(), false, &mut touched),
                Change::Policy(_) | Change::PolicyGone(_) | Change::Bad(_) | Change::BadGone(_) => {}
            }
        }
        let mut differences: Vec<_> = touched.iter().filter_map(|id| self.compare(id)).collect();
        differences.sort_by_key(|difference| matches!(difference, Difference::Drop(_)));
        differences
    }

    /// Every instance that is known, with the reason why it is left out.
    pub(crate) fn explain(&self) -> Vec<(Arc<Entry>, Option<Excluded>)> {
        let reason = |entry: &Arc<Entry>| match self.excluded(entry) {
            None if !self.used.contains_key(&entry.record.id) => Some(Excluded::SameAddress),
            reason => reason,
        };
        self.known.values().map(|(entry, _)| (entry.clone(), reason(entry))).collect()
    }

    fn put(&mut self, entry: &Arc<Entry>, held: Option<Instant>, touched: &mut BTreeSet<InstanceId>) {
        self.remove(&entry.record.id, touched);
        self.known.insert(entry.record.id.clone(), (entry.clone(), held));
        self.enter(entry, held, touched);
    }

    fn remove(&mut self, id: &InstanceId, touched: &mut BTreeSet<InstanceId>) {
        touched.insert(id.clone());
        if let Some((entry, held)) = self.known.remove(id) {
            self.leave(&entry, held, touched);
        }
    }

    fn drain(&mut self, id: Option<&InstanceId>, wished: bool, touched: &mut BTreeSet<InstanceId>) {
        let concerned: Vec<InstanceId> = match id {
            Some(id) => vec![id.clone()],
            None => self.known.keys().cloned().collect(),
        };
        match id {
            Some(id) if wished => drop(self.drained.insert(id.clone())),
            Some(id) => drop(self.drained.remove(id)),
            None => self.all_drained = wished,
        }
        for id in concerned {
            if let Some((entry, held)) = self.known.get(&id).cloned() {
                self.leave(&entry, held, touched);
                self.enter(&entry, held, touched);
            }
        }
    }

    /// An instance competes for its address.
    fn enter(&mut self, entry: &Entry, held: Option<Instant>, touched: &mut BTreeSet<InstanceId>) {
        if self.excluded(entry).is_none() {
            let rivals = self.rivals.entry(entry.record.address.to_arc()).or_default();
            touched.extend(rivals.last().map(|(.., id)| id.clone()));
            rivals.insert(rival(entry, held));
        }
        touched.insert(entry.record.id.clone());
    }

    /// It does no more; the next one may take its place.
    fn leave(&mut self, entry: &Entry, held: Option<Instant>, touched: &mut BTreeSet<InstanceId>) {
        let address = entry.record.address.to_arc();
        if let Some(rivals) = self.rivals.get_mut(&address) {
            rivals.remove(&rival(entry, held));
            touched.extend(rivals.last().map(|(.., id)| id.clone()));
            if rivals.is_empty() {
                self.rivals.remove(&address);
            }
        }
    }

    fn compare(&mut self, id: &InstanceId) -> Option<Difference> {
        let next = self.known.get(id).filter(|(entry, _)| {
            let rivals = self.rivals.get(entry.record.address.as_str());
            rivals.and_then(BTreeSet::last).is_some_and(|(.., winner)| winner == id)
        });
        match next.map(|(entry, held)| Resolved::new(entry, *held)) {
            Some(next) if self.used.get(id) == Some(&next) => None,
            Some(next) => {
                self.used.insert(id.clone(), next.clone());
                Some(Difference::Use(next))
            }
            None => self.used.remove(id).map(|gone| Difference::Drop(gone.key)),
        }
    }

    fn excluded(&self, entry: &Entry) -> Option<Excluded> {
        let record = &entry.record;
        let tag = |name: &str| match name {
            "zone" => record.zone.as_deref(),
            name => record.tags.get(name).map(|value| &**value),
        };
        if record.state != State::Serving {
            Some(Excluded::State(record.state))
        } else if self.all_drained || self.drained.contains(&record.id) {
            Some(Excluded::Intent)
        } else if self
            .wanted
            .version
            .as_deref()
            .is_some_and(|version| record.version.as_deref() != Some(version))
            || self.wanted.tags.iter().any(|(name, value)| tag(name) != Some(value))
        {
            Some(Excluded::Selector)
        } else {
            None
        }
    }
}

fn rival(entry: &Entry, held: Option<Instant>) -> Rival {
    (held.is_none(), entry.created, entry.record.id.clone())
}

#[cfg(test)]
mod tests;
