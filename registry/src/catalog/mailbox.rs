//! What waits for one subscriber: at most one difference for each key, however slow it is.
//!
//! The catalog's task puts, the subscription takes; both hold the lock for as long as that takes and never across an
//! await. Differences that cancel each other out leave nothing behind, so that memory is bounded by the set.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::event::Freshness;
use super::range::{Key, Range};
use super::set::{Delta, Seen};
use crate::name::Revision;

/// What was taken: all that happened since the last time, as one step.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// What each changed key holds now.
    pub(super) changed: HashMap<Key, Option<Seen>>,
    /// The revision of each range that moved; a range is known once it is in here.
    pub(super) revisions: HashMap<Range, Revision>,
    /// Each range's freshness, where that changed.
    pub(super) freshness: HashMap<Range, Freshness>,
    /// The catalog's task has ended; nothing more comes.
    pub(super) closed: bool,
}

/// Shared by the task and one subscription.
#[derive(Debug, Clone, Default)]
pub(super) struct Mailbox(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    /// What the subscriber saw under the key when it last took, and what is there now.
    pending: HashMap<Key, (bool, Option<Seen>)>,
    revisions: HashMap<Range, Revision>,
    freshness: HashMap<Range, Freshness>,
    closed: bool,
    waker: Option<Waker>,
}

impl Mailbox {
    /// Puts the differences of one step, all or none of which are taken.
    pub(super) fn put(&self, range: &Range, revision: Revision, deltas: &[Delta]) {
        let mut inner = self.lock();
        for delta in deltas {
            inner.note(&delta.key, delta.was_seen, delta.now.clone());
        }
        inner.revisions.insert(range.clone(), revision);
        inner.wake();
    }

    /// Puts all that is known of a range, for a subscriber that comes later.
    pub(super) fn seed<'a>(
        &self,
        range: &Range,
        revision: Revision,
        seen: impl Iterator<Item = (&'a Key, Seen)>,
    ) {
        let mut inner = self.lock();
        inner.pending.extend(seen.map(|(key, seen)| (key.clone(), (false, Some(seen)))));
        inner.revisions.insert(range.clone(), revision);
        inner.wake();
    }

    pub(super) fn tell(&self, range: &Range, freshness: Freshness) {
        let mut inner = self.lock();
        inner.freshness.insert(range.clone(), freshness);
        inner.wake();
    }

    /// Whether the subscription is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.wake();
    }

    /// Takes everything. Cancel safe: nothing is taken before it is returned.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Taken> {
        let mut inner = self.lock();
        if inner.pending.is_empty()
            && inner.revisions.is_empty()
            && inner.freshness.is_empty()
            && !inner.closed
        {
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Taken {
            changed: inner.pending.drain().map(|(key, (_, now))| (key, now)).collect(),
            revisions: std::mem::take(&mut inner.revisions),
            freshness: std::mem::take(&mut inner.freshness),
            closed: inner.closed,
        })
    }

    /// A panic elsewhere while the lock was held cannot have left it half changed in a way that matters here.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn note(&mut self, key: &Key, was_seen: bool, now: Option<Seen>) {
        if let Some((before, waiting)) = self.pending.get_mut(key) {
            if now.is_none() && !*before {
                self.pending.remove(key);
            } else {
                *waiting = now;
            }
        } else if was_seen || now.is_some() {
            self.pending.insert(key.clone(), (was_seen, now));
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::catalog::entry::{BadEntry, Item};
    use crate::name::Revision;

    fn key(n: u32) -> Key {
        n.to_be_bytes().into()
    }

    fn item(reason: &str) -> Seen {
        let bad = BadEntry { key: String::new(), reason: reason.to_owned() };
        Seen { item: Item::Bad(Arc::new(bad)), held_until: None }
    }

    fn put(mailbox: &Mailbox, n: u32, was_seen: bool, now: Option<Seen>) {
        mailbox.put(&Range::Intents, Revision(1), &[Delta { key: key(n), was_seen, now }]);
    }

    fn take(mailbox: &Mailbox) -> Option<Taken> {
        match mailbox.poll_take(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }

    #[test]
    fn many_changes_of_a_key_are_one_and_the_last_counts() {
        let mailbox = Mailbox::default();
        put(&mailbox, 1, false, Some(item("a")));
        put(&mailbox, 1, true, Some(item("b")));
        let taken = take(&mailbox).unwrap();
        assert!(matches!(&taken.changed[&key(1)], Some(Seen { item: Item::Bad(b), .. }) if b.reason == "b"));
        assert!(take(&mailbox).is_none(), "taken once");
    }

    #[test]
    fn what_came_and_went_leaves_nothing_behind() {
        let mailbox = Mailbox::default();
        for n in 0..1_000 {
            put(&mailbox, n, false, Some(item("a")));
            put(&mailbox, n, true, None);
        }
        assert!(mailbox.lock().pending.is_empty(), "memory is bounded by the set");
        assert!(take(&mailbox).unwrap().changed.is_empty());
    }

    #[test]
    fn what_was_seen_and_went_is_told() {
        let mailbox = Mailbox::default();
        put(&mailbox, 1, true, Some(item("b")));
        put(&mailbox, 1, true, None);
        assert!(take(&mailbox).unwrap().changed[&key(1)].is_none());
    }

    #[test]
    fn a_range_is_known_once_it_was_put_even_if_it_is_empty() {
        let mailbox = Mailbox::default();
        assert!(take(&mailbox).is_none());
        mailbox.put(&Range::Intents, Revision(7), &[]);
        assert_eq!(take(&mailbox).unwrap().revisions[&Range::Intents], Revision(7));
    }

    #[test]
    fn it_knows_when_nobody_reads_it() {
        let mailbox = Mailbox::default();
        let reader = mailbox.clone();
        assert!(!mailbox.is_abandoned());
        drop(reader);
        assert!(mailbox.is_abandoned());
    }
}
