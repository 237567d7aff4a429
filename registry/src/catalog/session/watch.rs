//! One range: its phase, its applied revision and its set.

use tokio::time::Instant;

use super::history::History;
use super::message::KeyEvent;
use crate::backoff::Backoff;
use crate::catalog::event::Freshness;
use crate::catalog::range::{Key, Kv, Range};
use crate::catalog::set::{Anchor, RangeSet, Stored};
use crate::name::{InstanceId, Revision};

/// Keys in a page of a list. etcd 3.4 walks its whole index for each, so they are few and large.
const PAGE: i64 = 10_000;

/// Where a range stands.
///
/// ```text
/// Waiting(list) -> Listing -> Ready -> Opening -> Live
///        ^            |  ^       ^        |         |
///        +-- failed --+  +-------|--------+---------+  compacted, wiped: list again
///                                +--------+---------+  stream ended: resume from the applied revision
/// ```
#[derive(Debug)]
pub(super) enum Phase {
    /// Something was refused; it goes on then: with a list, or with a watch if the set is known.
    Waiting {
        until: Instant,
        list: bool,
    },
    Listing(Listing),
    /// Known, and waiting for the stream to open.
    Ready,
    /// Its watch was asked for.
    Opening {
        id: i64,
    },
    /// Its watch runs.
    Live {
        id: i64,
    },
}

/// A list under way.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) ticket: u64,
    /// What was known of the store when the first page was asked for.
    pub(super) asked_under: History,
    /// The revision that all pages are of: the first one's.
    pub(super) at: Option<Revision>,
    pub(super) found: Vec<(Key, Stored)>,
    pub(super) drained: Vec<InstanceId>,
}

/// An anchor that is being read.
#[derive(Debug)]
pub(super) struct Check {
    /// `None` while it waits to be read again.
    pub(super) ticket: Option<u64>,
    pub(super) retry: Option<Instant>,
    pub(super) at: Revision,
    pub(super) anchor: Anchor,
}

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) phase: Phase,
    pub(super) set: RangeSet,
    /// The revision of its last complete group of events, or of its list; `None` until it was listed.
    pub(super) applied: Option<Revision>,
    /// The next list follows a wipe or a restore.
    pub(super) wiped: bool,
    /// Keys in a page; smaller after an answer that was too large, 0 (no limit) after a compaction between pages.
    pub(super) limit: i64,
    pub(super) check: Option<Check>,
    /// Events of a revision whose last fragment has not come.
    pub(super) fragments: Vec<KeyEvent>,
    pub(super) freshness: Option<Freshness>,
    pub(super) backoff: Backoff,
}

impl Watch {
    pub(super) fn new(range: &Range, now: Instant) -> Self {
        Self {
            phase: Phase::Waiting { until: now, list: true },
            set: RangeSet::new(range.is_guarded()),
            applied: None,
            wiped: false,
            limit: PAGE,
            check: None,
            fragments: Vec::new(),
            freshness: None,
            backoff: Backoff::stream(),
        }
    }

    /// The id of its watch on the present stream.
    pub(super) fn id(&self) -> Option<i64> {
        match self.phase {
            Phase::Opening { id } | Phase::Live { id } => Some(id),
            _ => None,
        }
    }

    /// A page was too large to decode: smaller ones, so that it never becomes a loop.
    pub(super) fn shrink_page(&mut self) {
        self.limit = if self.limit == 0 { PAGE / 10 } else { (self.limit / 10).max(1) };
    }

    /// The revision was compacted between pages, on a busy etcd: without pages it cannot happen again.
    pub(super) fn list_at_once(&mut self) {
        self.limit = 0;
    }

    /// Applies a response's events; those of a fragmented revision once its last part is here. Events at or below
    /// the applied revision are old news from a lagging member.
    pub(super) fn take(&mut self, events: Vec<KeyEvent>, fragment: bool) -> Option<Vec<KeyEvent>> {
        let applied = self.applied.unwrap_or_default();
        self.fragments.extend(events.into_iter().filter(|event| event.at() > applied));
        if fragment || self.fragments.is_empty() {
            return None;
        }
        let events = std::mem::take(&mut self.fragments);
        self.applied = events.iter().map(KeyEvent::at).max().or(self.applied);
        Some(events)
    }
}

/// A key as the set keeps it.
pub(super) fn stored(range: &Range, prefix: &crate::keys::Prefix, kv: &Kv) -> (Key, Stored) {
    let item = range.item(prefix, kv);
    (kv.key.clone(), Stored { item, lease: kv.lease, created: kv.created, modified: kv.modified })
}
