//! The stream that a subscriber polls: mailbox -> join -> events.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tokio::time::{Instant, Sleep};

use super::event::{CatalogEvent, Changes, Freshness};
use super::inbox::Handle;
use super::join::Join;
use super::mailbox::{Mailbox, Taken};
use super::range::Range;
use crate::name::Revision;

/// What [`Catalog::watch`](super::Catalog::watch) returns: a snapshot first, then changes, for as long as it is
/// polled. Dropping it ends the subscription, and the watch in etcd with the last one.
///
/// A subscriber that is slow gets what happened meanwhile as one step. It ends only when the runtime does.
///
/// # Cancel safety
/// Nothing is lost when a `next()` on it is dropped.
#[derive(Debug)]
pub struct Subscription {
    mailbox: Mailbox,
    join: Join,
    /// The ranges that it is made of; the first is the one of the records.
    ranges: Vec<Range>,
    revisions: HashMap<Range, Revision>,
    freshness: HashMap<Range, Freshness>,
    told: Freshness,
    started: bool,
    ready: VecDeque<CatalogEvent>,
    closed: bool,
    timer: Option<Pin<Box<Sleep>>>,
    /// Dropped after the mailbox, so that the task finds that nobody reads it any more.
    _left: Left,
}

/// Keeps the catalog's task alive, and tells it when the subscription is dropped.
#[derive(Debug)]
struct Left(Arc<Handle>);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.left();
    }
}

impl Subscription {
    pub(super) fn new(ranges: Vec<Range>, mailbox: Mailbox, handle: Arc<Handle>) -> Self {
        let both = ranges.iter().any(|range| matches!(range, Range::Draining(_)));
        Self {
            mailbox,
            join: Join::new(both),
            ranges,
            revisions: HashMap::new(),
            freshness: HashMap::new(),
            told: Freshness::Live,
            started: false,
            ready: VecDeque::new(),
            closed: false,
            timer: None,
            _left: Left(handle),
        }
    }

    /// How fresh the set is; `None` before etcd has answered or refused for the first time. Tells why the first
    /// snapshot does not come.
    pub fn freshness(&self) -> Option<&Freshness> {
        let stale = |range| self.freshness.get(range).filter(|f| matches!(f, Freshness::Stale { .. }));
        let records = self.ranges.first()?;
        let required = self.ranges.iter().filter(|range| *range == records || !self.is_denied(range));
        required.into_iter().find_map(stale).or_else(|| self.freshness.get(records))
    }

    /// A tool without permission for intents or draining records sees the rest.
    fn is_denied(&self, range: &Range) -> bool {
        matches!(self.freshness.get(range), Some(Freshness::Stale { denied: true, .. }))
    }

    fn absorb(&mut self, taken: Taken) {
        let now = Instant::now();
        self.closed = taken.closed;
        let reached = taken.revisions.values().copied().max();
        self.revisions.extend(taken.revisions);
        self.freshness.extend(taken.freshness);
        let changes = self.join.apply(taken.changed, now);
        if self.started {
            self.push(changes, reached);
        } else if self.is_complete() {
            self.started = true;
            let mut snapshot = self.join.snapshot();
            snapshot.revision = self.revisions.values().copied().min().unwrap_or_default();
            self.ready.push_back(CatalogEvent::Snapshot(snapshot));
        }
        if self.started {
            let freshness = self.freshness().cloned().unwrap_or(Freshness::Live);
            if freshness != self.told {
                self.told = freshness.clone();
                self.ready.push_back(CatalogEvent::Freshness(freshness));
            }
        }
    }

    fn is_complete(&self) -> bool {
        let records = self.ranges.first();
        let answered = |range: &Range| {
            self.revisions.contains_key(range) || (Some(range) != records && self.is_denied(range))
        };
        self.ranges.iter().all(answered)
    }

    fn push(&mut self, changes: Vec<super::Change>, reached: Option<Revision>) {
        if !changes.is_empty() {
            let revision = reached.or_else(|| self.revisions.values().copied().max()).unwrap_or_default();
            self.ready.push_back(CatalogEvent::Changes(Changes { revision, changes }));
        }
    }

    /// Waits for the second half of a move no longer than it may take.
    fn poll_expiry(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.join.next_expiry() else {
            self.timer = None;
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        ready!(timer.as_mut().poll(cx));
        let changes = self.join.expire(Instant::now());
        if self.started {
            self.push(changes, None);
        }
        Poll::Ready(())
    }
}

impl Stream for Subscription {
    type Item = CatalogEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<CatalogEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.closed {
                return Poll::Ready(None);
            }
            // News before the timer: the other half of a move may be among them.
            match self.mailbox.poll_take(cx) {
                Poll::Ready(taken) => self.absorb(taken),
                Poll::Pending => ready!(self.poll_expiry(cx)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;
    use crate::catalog::inbox::Inbox;
    use crate::catalog::range::Scope;

    fn stale(denied: bool) -> Freshness {
        Freshness::Stale { since: Instant::now(), reason: "because".into(), denied }
    }

    fn following(ranges: &[Range]) -> (Subscription, Mailbox) {
        let (mailbox, handle) = (Mailbox::default(), Arc::new(Handle::new(Arc::new(Inbox::default()))));
        (Subscription::new(ranges.to_vec(), mailbox.clone(), handle), mailbox)
    }

    #[tokio::test]
    async fn the_snapshot_waits_for_every_range_but_not_for_one_that_is_denied() {
        let records = Range::Records(Scope::All);
        let (mut events, mailbox) = following(&[records.clone(), Range::Intents]);
        mailbox.put(&records, Revision(5), &[]);
        mailbox.tell(&records, Freshness::Live);
        mailbox.tell(&Range::Intents, stale(false));
        assert!(events.next().now_or_never().is_none(), "an intent may still come");
        mailbox.tell(&Range::Intents, stale(true));
        let snapshot = events.next().now_or_never().flatten();
        assert!(matches!(snapshot, Some(CatalogEvent::Snapshot(s)) if s.revision == Revision(5)));
        assert_eq!(events.freshness(), Some(&Freshness::Live), "what it may see is fresh");
    }

    #[tokio::test]
    async fn without_a_snapshot_it_says_why() {
        let records = Range::Records(Scope::All);
        let (mut events, mailbox) = following(std::slice::from_ref(&records));
        assert_eq!(events.freshness(), None);
        mailbox.tell(&records, stale(true));
        assert!(events.next().now_or_never().is_none(), "the records themselves are what it is for");
        assert!(matches!(events.freshness(), Some(Freshness::Stale { denied: true, .. })));
    }

    #[tokio::test]
    async fn it_ends_when_the_task_does() {
        let (mut events, mailbox) = following(&[Range::Intents]);
        mailbox.close();
        assert!(events.next().await.is_none());
    }
}
