//! The state of one range: what its keys hold now, and what a batch of events changes.
//!
//! In come the events of complete revisions, or a whole list; out go differences. A change costs the same among ten
//! instances and among ten thousand. What the [guard](super::guard) holds stays in here, marked, until it is let go.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::entry::Item;
use super::guard::{Guard, HOLD};
use super::range::Key;
use super::tally::Tally;
use crate::name::{InstanceId, LeaseId, Revision};
use crate::record::State;

/// A key with what it holds.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) item: Item,
    pub(super) lease: LeaseId,
    pub(super) created: Revision,
    pub(super) modified: Revision,
}

/// What a subscriber sees under a key.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) item: Item,
    /// Gone from etcd, but not to be dropped before then.
    pub(super) held_until: Option<Instant>,
}

/// One difference.
#[derive(Debug, Clone)]
pub(super) struct Delta {
    pub(super) key: Key,
    /// Whether subscribers saw something under the key before.
    pub(super) was_seen: bool,
    /// What they see now.
    pub(super) now: Option<Seen>,
}

/// The newest key of a range, by which a wipe is told (law 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Anchor {
    /// This key was created and last modified then, under this lease. A store that was wiped and filled again in the
    /// same order may have the same revisions, but leases are drawn at random.
    Newest { key: Key, lease: LeaseId, created: Revision, modified: Revision },
    /// There was no key.
    Empty,
}

#[derive(Debug, Default)]
pub(super) struct RangeSet {
    present: HashMap<Key, Stored>,
    held: HashMap<Key, (Stored, Instant)>,
    /// The held, by the address that another record may turn out to have.
    held_at: HashMap<Arc<str>, Key>,
    /// The held in the order in which they run out.
    expiries: VecDeque<(Instant, Key)>,
    tally: Tally,
    guard: Option<Guard>,
}

/// What one batch has removed so far, and whom it cannot have lost.
#[derive(Debug, Default)]
struct Batch {
    gone: HashMap<Key, Stored>,
    addresses: HashSet<Arc<str>>,
    arrived: usize,
    deltas: Vec<Delta>,
}

impl RangeSet {
    /// An empty set; `guarded` if what vanishes in masses is to be held.
    pub(super) fn new(guarded: bool) -> Self {
        Self { guard: guarded.then(Guard::default), ..Self::default() }
    }

    /// Applies the events of complete revisions, in order; `None` is a deletion.
    pub(super) fn apply(
        &mut self,
        events: impl IntoIterator<Item = (Key, Option<Stored>)>,
        now: Instant,
    ) -> Vec<Delta> {
        let mut batch = Batch::default();
        for (key, event) in events {
            match event {
                Some(stored) => self.put(key, stored, &mut batch),
                None => self.remove(key, &mut batch),
            }
        }
        self.settle(batch, &HashSet::new(), false, now)
    }

    /// Takes a whole list in place of what was known. `wiped`: etcd lost or restored its data before.
    /// `drained`: the ids whose records lie under the other root, which are not lost.
    pub(super) fn replace(
        &mut self,
        listed: Vec<(Key, Stored)>,
        drained: &HashSet<InstanceId>,
        wiped: bool,
        now: Instant,
    ) -> Vec<Delta> {
        let mut batch = Batch::default();
        let keys: HashSet<&Key> = listed.iter().map(|(key, _)| key).collect();
        let absent: Vec<Key> = self.present.keys().filter(|key| !keys.contains(key)).cloned().collect();
        for key in absent {
            self.remove(key, &mut batch);
        }
        for (key, stored) in listed {
            self.put(key, stored, &mut batch);
        }
        self.settle(batch, drained, wiped, now)
    }

    /// Lets go what was held long enough.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<Delta> {
        let mut deltas = Vec::new();
        while self.expiries.front().is_some_and(|(until, _)| *until <= now) {
            let Some((until, key)) = self.expiries.pop_front() else { break };
            if self.held.get(&key).is_some_and(|(_, held_until)| *held_until == until) {
                deltas.extend(self.release(&key));
            }
        }
        deltas
    }

    /// Lets go a held instance early: its connection ended, or its address is another's now.
    pub(super) fn release(&mut self, key: &Key) -> Option<Delta> {
        let (stored, _) = self.held.remove(key)?;
        self.tally.held = self.held.len();
        if let Some(address) = stored.address() {
            self.held_at.remove(&address);
        }
        Some(Delta { key: key.clone(), was_seen: true, now: None })
    }

    /// All that a subscriber that comes now sees.
    pub(super) fn seen(&self) -> impl Iterator<Item = (&Key, Seen)> {
        let present =
            self.present.iter().map(|(key, s)| (key, Seen { item: s.item.clone(), held_until: None }));
        let held = self
            .held
            .iter()
            .map(|(key, (s, until))| (key, Seen { item: s.item.clone(), held_until: Some(*until) }));
        present.chain(held)
    }

    /// How many there are of which state.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// The key by which a wipe is told. Walks the set; asked once for each watch opened.
    pub(super) fn anchor(&self) -> Anchor {
        match self.present.iter().max_by_key(|(_, s)| s.modified) {
            Some((key, s)) => {
                Anchor::Newest { key: key.clone(), lease: s.lease, created: s.created, modified: s.modified }
            }
            None => Anchor::Empty,
        }
    }

    fn put(&mut self, key: Key, mut next: Stored, batch: &mut Batch) {
        let returned = self.release(&key).is_some();
        let old = batch.gone.remove(&key).or_else(|| self.take(&key));
        let was_serving = old.as_ref().is_some_and(Stored::is_serving);
        if let Some(address) = next.address() {
            if let Some(other) = self.held_at.get(&address).cloned() {
                batch.deltas.extend(self.release(&other));
            }
            batch.addresses.insert(address);
        }
        if let Some(count) = self.tally.of(&next.item) {
            *count += 1;
        }
        batch.arrived += usize::from(next.is_serving() && !was_serving);
        match &old {
            Some(old) if !returned && old.item.is_same(&next.item) => next.item = old.item.clone(),
            _ => {
                let now = Some(Seen { item: next.item.clone(), held_until: None });
                batch.deltas.push(Delta { key: key.clone(), was_seen: returned || old.is_some(), now });
            }
        }
        self.present.insert(key, next);
    }

    fn remove(&mut self, key: Key, batch: &mut Batch) {
        if let Some(stored) = self.take(&key) {
            batch.gone.insert(key, stored);
        }
    }

    fn take(&mut self, key: &Key) -> Option<Stored> {
        let stored = self.present.remove(key)?;
        if let Some(count) = self.tally.of(&stored.item) {
            *count -= 1;
        }
        Some(stored)
    }

    /// Decides what becomes of the removed: gone, or held.
    fn settle(
        &mut self,
        batch: Batch,
        drained: &HashSet<InstanceId>,
        wiped: bool,
        now: Instant,
    ) -> Vec<Delta> {
        let Batch { gone, addresses, arrived, mut deltas } = batch;
        let is_lost = |s: &Stored| s.is_serving() && s.id().is_some_and(|id| !drained.contains(id));
        let mut hold = false;
        if let Some(guard) = &mut self.guard {
            guard.lost(gone.values().filter(|s| is_lost(s)).count(), now);
            guard.arrived(arrived, now);
            hold = wiped || guard.is_mass_loss(self.tally.serving, now);
        }
        for (key, stored) in gone {
            let address = stored.address().filter(|a| hold && !addresses.contains(a));
            let mut seen = None;
            if let Some(address) = address.filter(|_| is_lost(&stored) && !stored.is_foreign()) {
                let until = now + HOLD;
                seen = Some(Seen { item: stored.item.clone(), held_until: Some(until) });
                self.held_at.insert(address, key.clone());
                self.expiries.push_back((until, key.clone()));
                self.held.insert(key.clone(), (stored, until));
            }
            deltas.push(Delta { key, was_seen: true, now: seen });
        }
        self.tally.held = self.held.len();
        deltas
    }
}

impl Stored {
    fn is_serving(&self) -> bool {
        matches!(&self.item, Item::Record(entry) if entry.record.state == State::Serving)
    }

    fn is_foreign(&self) -> bool {
        matches!(&self.item, Item::Record(entry) if entry.record.is_foreign())
    }

    fn address(&self) -> Option<Arc<str>> {
        match &self.item {
            Item::Record(entry) => Some(entry.record.address.to_arc()),
            Item::Intent(_) | Item::Policy(_) | Item::Bad(_) => None,
        }
    }

    fn id(&self) -> Option<&InstanceId> {
        match &self.item {
            Item::Record(entry) => Some(&entry.record.id),
            Item::Intent(_) | Item::Policy(_) | Item::Bad(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
