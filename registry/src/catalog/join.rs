//! What one subscriber knows: two record roots become one instance per id, and keys become changes.
//!
//! In come the keys that changed; out go [`Change`]s. An instance that drains moves from one root to the other in one
//! transaction, but its two halves come over two watches in either order; so the removal of a draining record waits
//! a moment for the other half, and whoever follows both roots sees a move as one change. A pure value.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::entry::{BadEntry, Entry, IntentEntry, Item, PolicyEntry};
use super::event::{Change, Snapshot};
use super::range::Key;
use super::set::Seen;
use crate::keys::Root;
use crate::name::{InstanceId, ServiceName};
use crate::record::State;

/// How long the second half of a move may take.
const OTHER_HALF: Duration = Duration::from_secs(1);

type Id = (ServiceName, InstanceId);

#[derive(Debug)]
pub(super) struct Join {
    /// Whether both roots are followed.
    both: bool,
    instances: HashMap<Id, Known>,
    intents: HashMap<Key, Arc<IntentEntry>>,
    policies: HashMap<Key, Arc<PolicyEntry>>,
    bad: HashMap<Key, Arc<BadEntry>>,
    /// Which instance a key had, to find it when the key is gone.
    keys: HashMap<Key, (Id, Root)>,
    /// Removals that wait for the other half, oldest first.
    leaving: Vec<(Instant, Id)>,
}

/// An instance: its record under each root, and what the subscriber was told.
#[derive(Debug, Default)]
struct Known {
    serving: Option<Half>,
    draining: Option<Half>,
    told: Option<Half>,
}

#[derive(Debug, Clone)]
struct Half {
    entry: Arc<Entry>,
    held: Option<Instant>,
}

impl Join {
    pub(super) fn new(both: bool) -> Self {
        Self {
            both,
            instances: HashMap::new(),
            intents: HashMap::new(),
            policies: HashMap::new(),
            bad: HashMap::new(),
            keys: HashMap::new(),
            leaving: Vec::new(),
        }
    }

    /// Takes the keys that changed in one step.
    pub(super) fn apply(&mut self, changed: HashMap<Key, Option<Seen>>, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut touched = Vec::new();
        for (key, seen) in changed {
            let item = seen.as_ref().map(|s| s.item.clone());
            self.apply_intent(&key, item.as_ref(), &mut changes);
            self.apply_policy(&key, item.as_ref(), &mut changes);
            self.apply_bad(&key, item.as_ref(), &mut changes);
            touched.extend(self.apply_record(key, seen));
        }
        changes.extend(touched.into_iter().filter_map(|id| self.tell(&id, true, now)));
        changes
    }

    /// Gives up waiting for other halves.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Change> {
        let due: Vec<Id> = self.leaving.extract_if(.., |(at, _)| *at <= now).map(|(_, id)| id).collect();
        due.into_iter().filter_map(|id| self.tell(&id, false, now)).collect()
    }

    /// When [`expire`](Self::expire) has something to do.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.leaving.iter().map(|(at, _)| *at).min()
    }

    /// Everything that is known, as the first event of a subscription. Costs as much as it holds.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for told in self.instances.values().filter_map(|known| known.told.as_ref()) {
            match told.held {
                None => snapshot.instances.push(told.entry.clone()),
                Some(until) => snapshot.held.push((told.entry.clone(), until)),
            }
        }
        let order = |e: &Arc<Entry>| (e.record.service.clone(), e.record.id.clone());
        snapshot.instances.sort_by_cached_key(order);
        snapshot.held.sort_by_cached_key(|(entry, _)| order(entry));
        snapshot.intents = self.intents.values().cloned().collect();
        snapshot.intents.sort_by_cached_key(|i| (i.target.service.clone(), i.target.id.clone()));
        snapshot.policies = self.policies.values().cloned().collect();
        snapshot.policies.sort_by_cached_key(|p| p.service.clone());
        snapshot.bad = self.bad.values().cloned().collect();
        snapshot.bad.sort_by_cached_key(|b| b.key.clone());
        snapshot
    }

    fn apply_intent(&mut self, key: &Key, item: Option<&Item>, changes: &mut Vec<Change>) {
        match item {
            Some(Item::Intent(intent)) => {
                self.intents.insert(key.clone(), intent.clone());
                changes.push(Change::Intent(intent.clone()));
            }
            _ => changes.extend(self.intents.remove(key).map(Change::IntentGone)),
        }
    }

    fn apply_policy(&mut self, key: &Key, item: Option<&Item>, changes: &mut Vec<Change>) {
        match item {
            Some(Item::Policy(policy)) => {
                self.policies.insert(key.clone(), policy.clone());
                changes.push(Change::Policy(policy.clone()));
            }
            _ => changes.extend(self.policies.remove(key).map(Change::PolicyGone)),
        }
    }

    fn apply_bad(&mut self, key: &Key, item: Option<&Item>, changes: &mut Vec<Change>) {
        match item {
            Some(Item::Bad(bad)) => {
                self.bad.insert(key.clone(), bad.clone());
                changes.push(Change::Bad(bad.clone()));
            }
            _ => changes.extend(self.bad.remove(key).map(Change::BadGone)),
        }
    }

    /// Notes a record, or that there is none any more; the instance that it concerns.
    fn apply_record(&mut self, key: Key, seen: Option<Seen>) -> Option<Id> {
        let seen = seen.and_then(|seen| match &seen.item {
            Item::Record(entry) => Some(Half { entry: entry.clone(), held: seen.held_until }),
            Item::Intent(_) | Item::Policy(_) | Item::Bad(_) => None,
        });
        let (id, root) = match &seen {
            Some(half) => {
                let record = &half.entry.record;
                let of = ((record.service.clone(), record.id.clone()), half.entry.root);
                self.keys.insert(key, of.clone());
                of
            }
            None => self.keys.remove(&key)?,
        };
        let known = self.instances.entry(id.clone()).or_default();
        match root {
            Root::Serving => known.serving = seen,
            Root::Draining => known.draining = seen,
        }
        Some(id)
    }

    /// Compares an instance with what the subscriber was told of it. `patient`: it may be half a move.
    fn tell(&mut self, id: &Id, patient: bool, now: Instant) -> Option<Change> {
        let known = self.instances.get_mut(id)?;
        let Some(current) = known.current().cloned() else {
            let told = known.told.take();
            if let Some(half) = told.as_ref().filter(|t| patient && self.both && t.is_draining()) {
                known.told = Some(half.clone());
                self.leaving.push((now + OTHER_HALF, id.clone()));
                return None;
            }
            self.instances.remove(id);
            return told.map(|told| Change::Removed(told.entry));
        };
        let told = known.told.replace(current.clone());
        match (told, current.held) {
            (Some(told), _) if told.is_same(&current) => None,
            (_, Some(until)) => Some(Change::Held(current.entry, until)),
            (Some(told), None) if told.held.is_none() => Some(Change::Modified(current.entry)),
            (_, None) => Some(Change::Added(current.entry)),
        }
    }
}

impl Known {
    /// Of two records the one that is not merely held counts, then the newer.
    fn current(&self) -> Option<&Half> {
        [&self.serving, &self.draining]
            .into_iter()
            .flatten()
            .max_by_key(|h| (h.held.is_none(), h.entry.modified))
    }
}

impl Half {
    fn is_same(&self, other: &Half) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry) && self.held == other.held
    }

    fn is_draining(&self) -> bool {
        self.entry.record.state != State::Serving
    }
}

#[cfg(test)]
mod tests;
