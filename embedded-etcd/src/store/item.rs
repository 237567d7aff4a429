//! One key at one revision, and the versions of a key in order.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::PbKeyValue;

/// A key with its value as one write left it. Never changed afterwards, so that it is shared freely.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    /// How often it was put since it was created.
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

impl Item {
    pub(crate) fn to_message(&self) -> PbKeyValue {
        PbKeyValue { value: self.value.to_vec(), ..self.to_message_without_value() }
    }

    pub(crate) fn to_message_without_value(&self) -> PbKeyValue {
        PbKeyValue {
            key: self.key.to_vec(),
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: Vec::new(),
            lease: self.lease,
        }
    }
}

/// What is reckoned for a version beside its key and value: revisions, counts, the lease.
const VERSION_BYTES: usize = 64;

/// What one write did to a key.
#[derive(Debug)]
pub(super) enum Version {
    Put(Arc<Item>),
    Deleted { revision: i64 },
}

impl Version {
    fn revision(&self) -> i64 {
        match self {
            Version::Put(item) => item.mod_revision,
            Version::Deleted { revision } => *revision,
        }
    }

    fn item(&self) -> Option<&Arc<Item>> {
        match self {
            Version::Put(item) => Some(item),
            Version::Deleted { .. } => None,
        }
    }

    /// In bytes, with a flat rate for what is kept beside key and value.
    pub(super) fn size(&self, key: &[u8]) -> u64 {
        (VERSION_BYTES + key.len() + self.item().map_or(0, |item| item.value.len())) as u64
    }
}

/// The versions of one key, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History(Vec<Version>);

impl History {
    pub(super) fn push(&mut self, version: Version) {
        self.0.push(version);
    }

    pub(super) fn newest(&self) -> Option<&Arc<Item>> {
        self.0.last().and_then(Version::item)
    }

    pub(super) fn oldest(&self) -> Option<&Arc<Item>> {
        self.0.first().and_then(Version::item)
    }

    pub(super) fn at(&self, revision: i64) -> Option<&Arc<Item>> {
        let later = self.0.partition_point(|version| version.revision() <= revision);
        self.0[..later].last().and_then(Version::item)
    }

    /// Drops what nobody can read any more; false if nothing is left.
    pub(super) fn compact(&mut self, revision: i64) -> bool {
        let later = self.0.partition_point(|version| version.revision() <= revision);
        // Of what lies at or before the revision the last one is still to be read, unless it is a deletion.
        let stays = later > 0 && self.0[later - 1].item().is_some();
        self.0.drain(..later - usize::from(stays));
        !self.0.is_empty()
    }

    pub(super) fn size(&self, key: &[u8]) -> u64 {
        self.0.iter().map(|version| version.size(key)).sum()
    }

    /// Adds what a revision can see of the versions to a hash.
    pub(super) fn hash(&self, key: &[u8], revision: i64, hasher: &mut crc32fast::Hasher) {
        for version in self.0.iter().filter(|version| version.revision() <= revision) {
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(key);
            hasher.update(&version.revision().to_le_bytes());
            let Some(item) = version.item() else { continue };
            for number in [item.create_revision, item.version, item.lease, item.value.len() as i64] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&item.value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(revision: i64) -> Version {
        Version::Put(Arc::new(Item {
            key: Bytes::new(),
            value: Bytes::new(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        }))
    }

    fn seen(history: &History, revision: i64) -> Option<i64> {
        history.at(revision).map(|item| item.mod_revision)
    }

    #[test]
    fn compaction_keeps_what_is_read_at_its_revision_and_later() {
        let mut history = History(vec![put(2), put(4), Version::Deleted { revision: 6 }, put(8)]);
        assert!(history.compact(5));
        assert_eq!([5, 6, 7, 8].map(|revision| seen(&history, revision)), [Some(4), None, None, Some(8)]);
        assert_eq!(history.0.len(), 3);
    }

    #[test]
    fn compaction_leaves_nothing_of_a_deleted_key() {
        let mut history = History(vec![put(2), Version::Deleted { revision: 4 }]);
        assert!(!history.compact(4));
        let mut empty = History::default();
        assert!(!empty.compact(1));
    }
}
