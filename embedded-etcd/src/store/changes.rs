//! The log of changes since the last compaction, from which watches are fed and catch up.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Item;

/// What one write did to one key.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: i64,
    pub(crate) key: Bytes,
    /// `None`: deleted.
    pub(crate) now: Option<Arc<Item>>,
    pub(crate) before: Option<Arc<Item>>,
    /// Set by a fault hook: no watch tells of it.
    pub(crate) lost: bool,
}

/// The changes in the order in which they happened.
#[derive(Debug, Default)]
pub(crate) struct Changes(VecDeque<Change>);

impl Changes {
    pub(super) fn push(&mut self, change: Change) {
        self.0.push_back(change);
    }

    /// All changes at or after a revision.
    pub(crate) fn since(&self, revision: i64) -> impl Iterator<Item = &Change> {
        let first = self.0.partition_point(|change| change.revision < revision);
        self.0.range(first..)
    }

    /// The same, to be marked.
    pub(crate) fn since_mut(&mut self, revision: i64) -> impl Iterator<Item = &mut Change> {
        let first = self.0.partition_point(|change| change.revision < revision);
        self.0.range_mut(first..)
    }

    pub(super) fn forget_before(&mut self, revision: i64) {
        let first = self.0.partition_point(|change| change.revision < revision);
        self.0.drain(..first);
    }
}
