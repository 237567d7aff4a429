//! What the session hears and what it wants done.

use std::sync::Arc;

use super::history::Header;
use crate::catalog::event::Freshness;
use crate::catalog::range::{Key, Kv, Range};
use crate::catalog::set::{Anchor, Delta};
use crate::etcd::Failure;
use crate::name::{InstanceId, Revision};

/// What happened.
#[derive(Debug)]
pub(in crate::catalog) enum Event {
    /// Somebody wants to follow a range that nobody followed.
    Subscribe(Range),
    /// Nobody follows a range any longer.
    Unsubscribe(Range),
    /// A page of a list, or why there is none.
    Listed { range: Range, ticket: u64, page: Result<Page, Refusal> },
    /// The stream is open, at that member; its first watch was asked for with it.
    Opened { stream: u64, member: Arc<str> },
    /// The stream said something.
    Response { stream: u64, response: Response },
    /// The stream is over, or could not be opened.
    Ended { stream: u64, refusal: Refusal },
    /// The store's revision, read linearizably.
    Verified { ticket: u64, header: Result<Header, Refusal> },
    /// What stands at a watch's anchor.
    Anchored { range: Range, ticket: u64, found: Result<Anchor, Refusal> },
    /// A held instance's connection ended: there is nothing to hold.
    Release { range: Range, key: Key },
    /// The time that `Session::next_timer` told has come.
    Timer,
}

impl Event {
    /// Whether it says that etcd has answered.
    pub(in crate::catalog) fn is_heard(&self) -> bool {
        match self {
            Event::Listed { page, .. } => page.is_ok(),
            Event::Verified { header, .. } => header.is_ok(),
            Event::Anchored { found, .. } => found.is_ok(),
            Event::Opened { .. } | Event::Response { .. } => true,
            Event::Subscribe(_)
            | Event::Unsubscribe(_)
            | Event::Ended { .. }
            | Event::Release { .. }
            | Event::Timer => false,
        }
    }
}

/// What is to be done.
#[derive(Debug)]
pub(in crate::catalog) enum Action {
    /// Read a page of a range, and the ids under the other root if `drained`.
    List { range: Range, ticket: u64, at: Option<Revision>, after: Option<Key>, limit: i64, drained: bool },
    /// Read the revision of the store, linearizably.
    Verify { ticket: u64 },
    /// Read what stands at an anchor, at that revision.
    ReadAnchor { range: Range, ticket: u64, at: Revision, anchor: Anchor },
    /// Open the stream with this watch.
    Open { stream: u64, watch: Create },
    /// Ask for another watch on the open stream.
    Create(Create),
    /// End a watch.
    Cancel { id: i64 },
    /// Ask the stream for a sign of life.
    AskProgress,
    /// Drop the stream, also one that is still being opened.
    Close,
    /// Hand differences to the range's subscribers; those of one call belong together.
    Publish { range: Range, revision: Revision, deltas: Vec<Delta> },
    /// Tell the range's subscribers how fresh it is.
    Tell { range: Range, freshness: Freshness },
    /// etcd is away or refuses, and why; or it is back: worth a line in the log.
    Log(Option<Arc<str>>),
}

/// A watch to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::catalog) struct Create {
    pub(in crate::catalog) range: Range,
    pub(in crate::catalog) id: i64,
    pub(in crate::catalog) start: Revision,
}

/// One page of a list.
#[derive(Debug)]
pub(in crate::catalog) struct Page {
    pub(in crate::catalog) header: Header,
    pub(in crate::catalog) kvs: Vec<Kv>,
    pub(in crate::catalog) more: bool,
    pub(in crate::catalog) drained: Vec<InstanceId>,
}

/// A change of one key.
#[derive(Debug, Clone)]
pub(in crate::catalog) enum KeyEvent {
    Put(Kv),
    Delete { key: Key, at: Revision },
}

impl KeyEvent {
    /// The revision that it belongs to.
    pub(super) fn at(&self) -> Revision {
        match self {
            Self::Put(kv) => kv.modified,
            Self::Delete { at, .. } => *at,
        }
    }
}

/// What the stream said about one watch; a progress notice has neither id nor events.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Response {
    pub(in crate::catalog) id: i64,
    pub(in crate::catalog) created: bool,
    pub(in crate::catalog) canceled: Option<Canceled>,
    /// More events of the same revision follow in the next response.
    pub(in crate::catalog) fragment: bool,
    pub(in crate::catalog) events: Vec<KeyEvent>,
}

/// Why a watch ended.
#[derive(Debug)]
pub(in crate::catalog) struct Canceled {
    pub(in crate::catalog) compacted: bool,
    pub(in crate::catalog) refusal: Refusal,
}

/// Why a call failed.
#[derive(Debug, Clone)]
pub(in crate::catalog) struct Refusal {
    pub(in crate::catalog) failure: Failure,
    pub(in crate::catalog) reason: Arc<str>,
}
