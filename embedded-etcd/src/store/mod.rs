//! The keys at every revision: a value that writes go into and reads come out of, without a clock or a task.
//!
//! A write happens inside [`Store::write`], at the next revision; all its changes are appended to the
//! [log](changes), from which watches are fed. Reads see the newest state or that of any revision that is not
//! compacted. Next: [`range`] answers Range requests from it, [`crate::txn`] transactions.

mod changes;
mod item;
mod key_range;
pub(crate) mod range;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use changes::{Change, Changes};
pub(crate) use item::Item;
use item::{History, Version};
pub(crate) use key_range::KeyRange;

use crate::refusal::Refusal;

/// The revision of a store that nothing was written to yet.
const FIRST_REVISION: i64 = 1;
/// Stands for "never compacted", as in etcd.
const NEVER: i64 = -1;

/// The keys, their past, and the log of changes.
#[derive(Debug)]
pub(crate) struct Store {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Bytes, History>,
    changes: Changes,
    size: Size,
}

/// What the store holds, in bytes of keys, values and a flat rate for each version, the past included.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) used: u64,
    /// With what compactions freed and nobody gave back, which a quota counts.
    pub(crate) allocated: u64,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            revision: FIRST_REVISION,
            compacted: NEVER,
            keys: BTreeMap::new(),
            changes: Changes::default(),
            size: Size::default(),
        }
    }

    /// One whose past is to be [restored](Self::restore).
    pub(crate) fn at(revision: i64, compacted: i64) -> Self {
        Self { revision, compacted, ..Self::new() }
    }

    /// Does again what a write did to a key; versions of a key come in their order. The change is to be
    /// [logged](Self::log).
    pub(crate) fn restore(&mut self, revision: i64, key: Bytes, now: Option<Arc<Item>>) -> Change {
        let version = match &now {
            Some(item) => Version::Put(item.clone()),
            None => Version::Deleted { revision },
        };
        let before = self.get(&key).cloned();
        self.push(&key, version);
        self.revision = self.revision.max(revision);
        Change { revision, key, now, before, lost: false }
    }

    /// Lets watches that start in the past find a restored change.
    pub(crate) fn log(&mut self, change: Change) {
        if change.revision >= self.compacted {
            self.changes.push(change);
        }
    }

    /// Ends the restoring: what a compaction had taken away goes.
    pub(crate) fn settle(&mut self) {
        let compacted = self.compacted;
        self.keys.retain(|_, history| history.compact(compacted));
        self.measure();
        self.defragment();
    }

    /// The versions that are older than the log.
    pub(crate) fn before_compaction(&self) -> impl Iterator<Item = &Arc<Item>> {
        let oldest = self.keys.values().filter_map(History::oldest);
        oldest.filter(|item| item.mod_revision < self.compacted)
    }

    fn measure(&mut self) {
        self.size.used = self.keys.iter().map(|(key, history)| history.size(key)).sum();
    }

    fn push(&mut self, key: &Bytes, version: Version) {
        let Size { used, allocated } = &mut self.size;
        *used += version.size(key);
        *allocated = (*allocated).max(*used);
        self.keys.entry(key.clone()).or_default().push(version);
    }

    /// The revision of the last write.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    /// Up to where the past is gone; -1 if never compacted.
    pub(crate) fn compacted(&self) -> i64 {
        self.compacted
    }

    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    pub(crate) fn changes_mut(&mut self) -> &mut Changes {
        &mut self.changes
    }

    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Gives back what compactions freed.
    pub(crate) fn defragment(&mut self) {
        self.size.allocated = self.size.used;
    }

    /// A hash of the versions at or before a revision that are still held.
    pub(crate) fn hash(&self, revision: i64) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        for (key, history) in &self.keys {
            history.hash(key, revision, &mut hasher);
        }
        hasher.finalize()
    }

    /// The newest version of a key.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Item>> {
        self.keys.get(key).and_then(History::newest)
    }

    /// The keys of a range, in order, as they were at a revision; the newest state for `None`.
    pub(crate) fn view(&self, range: &KeyRange, at: Option<i64>) -> impl Iterator<Item = &Arc<Item>> {
        let within = range.bounds().map(|bounds| self.keys.range::<[u8], _>(bounds));
        within.into_iter().flatten().filter_map(move |(_, history)| match at {
            None => history.newest(),
            Some(revision) => history.at(revision),
        })
    }

    /// Refuses revisions that cannot be read, whether ahead or compacted.
    pub(crate) fn check_readable(&self, revision: i64) -> Result<(), Refusal> {
        if revision > self.revision {
            Err(Refusal::FutureRevision)
        } else if revision < self.compacted {
            Err(Refusal::Compacted)
        } else {
            Ok(())
        }
    }

    /// Begins a write. Nothing has been changed, and the revision stays, unless it puts or deletes something.
    pub(crate) fn write(&mut self) -> Write<'_> {
        Write { at: self.revision + 1, store: self }
    }

    /// Forgets the past before `revision`: of each key stays its version at that revision and all later ones.
    pub(crate) fn compact(&mut self, revision: i64) -> Result<(), Refusal> {
        if revision <= self.compacted {
            return Err(Refusal::Compacted);
        }
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        self.compacted = revision;
        self.keys.retain(|_, history| history.compact(revision));
        self.measure();
        self.changes.forget_before(revision);
        Ok(())
    }
}

/// A write in progress: everything in it happens at one revision.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    store: &'a mut Store,
    at: i64,
}

impl Write<'_> {
    /// The state with what this write has changed so far.
    pub(crate) fn store(&self) -> &Store {
        self.store
    }

    /// The revision that a response tells: this write's own once it changed something.
    pub(crate) fn revision(&self) -> i64 {
        self.store.revision
    }

    /// Puts a value; gives the version before.
    pub(crate) fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Option<Arc<Item>> {
        let before = self.store.get(&key).cloned();
        let item = Arc::new(Item {
            key: key.clone(),
            value,
            create_revision: before.as_ref().map_or(self.at, |item| item.create_revision),
            mod_revision: self.at,
            version: before.as_ref().map_or(1, |item| item.version + 1),
            lease,
        });
        self.store.push(&key, Version::Put(item.clone()));
        self.changed(Change { revision: self.at, key, now: Some(item), before: before.clone(), lost: false });
        before
    }

    /// Deletes all keys of a range; gives their last versions.
    pub(crate) fn delete(&mut self, range: &KeyRange) -> Vec<Arc<Item>> {
        let gone: Vec<Arc<Item>> = self.store.view(range, None).cloned().collect();
        for item in &gone {
            self.store.push(&item.key, Version::Deleted { revision: self.at });
            let before = Some(item.clone());
            self.changed(Change { revision: self.at, key: item.key.clone(), now: None, before, lost: false });
        }
        gone
    }

    fn changed(&mut self, change: Change) {
        self.store.revision = self.at;
        self.store.changes.push(change);
    }
}
