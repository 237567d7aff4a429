//! Watches: who wants to hear of which keys, and what to tell next. A value without tasks or clocks.
//!
//! Nothing is queued per watcher. A change only marks the watchers of its key, with the revision from which
//! they have something to hear; the stream's task is woken and [pulls](Watches::next) batches out of the store's
//! log as fast as its client reads. A watcher that starts in the past is marked from the beginning, and one
//! that falls behind a compaction is cancelled: both as in etcd. Next: [`session`] is that task.

mod batch;
mod index;
mod intervals;
pub(crate) mod session;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use etcd_client::proto::PbWatchResponse;
use tokio::sync::Notify;

pub(crate) use batch::fragments;
use index::Index;

use crate::store::{Change, KeyRange, Store};

/// The id in answers that concern no single watcher.
const NO_WATCH: i64 = -1;

/// One of the streams that are open, over all restarts.
pub(crate) type StreamId = u64;

/// What a client asks of a new watch.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) range: KeyRange,
    /// 0: from now on.
    pub(crate) start_revision: i64,
    /// 0: any.
    pub(crate) watch_id: i64,
    pub(crate) prev_kv: bool,
    pub(crate) fragment: bool,
    pub(crate) progress_notify: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
}

#[derive(Debug)]
struct Watcher {
    wanted: Wanted,
    /// While marked: the first revision that it has not heard of,
    next: i64,
    /// and the last that concerns it.
    last: i64,
    /// Nothing was sent to it since the last progress notice.
    quiet: bool,
}

#[derive(Debug)]
struct Stream {
    wake: Arc<Notify>,
    watchers: BTreeMap<i64, Watcher>,
    marked: BTreeSet<i64>,
    next_id: i64,
}

/// All streams with their watchers.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    streams: HashMap<StreamId, Stream>,
    index: Index,
    /// Set by a fault hook: why each of so many next watches is refused.
    refusals: Vec<String>,
}

impl Watches {
    /// A new stream; `wake` is told whenever [`next`](Self::next) has something.
    pub(crate) fn open(&mut self, id: StreamId, wake: Arc<Notify>) {
        let (watchers, marked) = (BTreeMap::new(), BTreeSet::new());
        self.streams.insert(id, Stream { wake, watchers, marked, next_id: 0 });
    }

    pub(crate) fn close(&mut self, id: StreamId) {
        let Some(stream) = self.streams.remove(&id) else { return };
        for (watch_id, watcher) in stream.watchers {
            self.index.remove(&watcher.wanted.range, (id, watch_id));
        }
    }

    /// Creates a watch, or says in the same answer why not.
    pub(crate) fn create(&mut self, id: StreamId, wanted: Wanted, store: &Store) -> PbWatchResponse {
        match self.try_create(id, wanted, store) {
            Ok(watch_id) => PbWatchResponse { watch_id, created: true, ..Default::default() },
            Err(reason) => Self::refusal(reason),
        }
    }

    /// The answer to a watch that cannot be: created and cancelled at once.
    pub(crate) fn refusal(reason: String) -> PbWatchResponse {
        PbWatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..Default::default()
        }
    }

    fn try_create(&mut self, id: StreamId, wanted: Wanted, store: &Store) -> Result<i64, String> {
        if let Some(reason) = self.refusals.pop() {
            return Err(reason);
        }
        let stream = self.streams.get_mut(&id).ok_or("the stream is closed")?;
        if wanted.range.is_empty() {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        let watch_id = match wanted.watch_id {
            0 => stream.unused_id(),
            id if stream.watchers.contains_key(&id) => {
                return Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned());
            }
            id => id,
        };
        let next = wanted.start_revision;
        if next != 0 && next <= store.revision() {
            stream.marked.insert(watch_id);
        }
        self.index.insert(&wanted.range, (id, watch_id));
        let watcher = Watcher { wanted, next, last: store.revision(), quiet: false };
        stream.watchers.insert(watch_id, watcher);
        Ok(watch_id)
    }

    /// Ends a watch that the client does not want any more; no answer for one that does not exist.
    pub(crate) fn cancel(&mut self, id: StreamId, watch_id: i64) -> Option<PbWatchResponse> {
        self.remove(id, watch_id)?;
        Some(PbWatchResponse { watch_id, canceled: true, ..Default::default() })
    }

    fn remove(&mut self, id: StreamId, watch_id: i64) -> Option<Watcher> {
        let stream = self.streams.get_mut(&id)?;
        stream.marked.remove(&watch_id);
        let watcher = stream.watchers.remove(&watch_id)?;
        self.index.remove(&watcher.wanted.range, (id, watch_id));
        Some(watcher)
    }

    /// Takes note of a change and wakes the streams that have to tell of it.
    pub(crate) fn mark(&mut self, change: &Change) {
        for (id, watch_id) in self.index.watchers_of(&change.key) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let Some(watcher) = stream.watchers.get_mut(&watch_id) else { continue };
            // It may have asked for a revision that is still to come.
            if change.revision < watcher.wanted.start_revision {
                continue;
            }
            watcher.last = change.revision;
            if stream.marked.insert(watch_id) {
                watcher.next = change.revision;
                stream.wake.notify_one();
            }
        }
    }

    /// What a stream is to send next, if anything. The header's revision is set, the rest is the caller's.
    pub(crate) fn next(&mut self, id: StreamId, store: &Store) -> Option<(PbWatchResponse, bool)> {
        loop {
            let stream = self.streams.get_mut(&id)?;
            let watch_id = *stream.marked.first()?;
            let watcher = stream.watchers.get_mut(&watch_id)?;
            if watcher.next < store.compacted() {
                self.remove(id, watch_id);
                return Some((batch::compacted(watch_id, store), false));
            }
            let batch = batch::collect(store, &watcher.wanted, watcher.next, watcher.last);
            match batch.next {
                Some(next) => watcher.next = next,
                None => {
                    stream.marked.remove(&watch_id);
                }
            }
            if !batch.events.is_empty() {
                watcher.quiet = false;
                let fragment = watcher.wanted.fragment;
                let response = PbWatchResponse { watch_id, events: batch.events, ..Default::default() };
                return Some((response, fragment));
            }
        }
    }

    /// The answer to a progress request: none unless every watcher of the stream is up to date.
    pub(crate) fn progress(&self, id: StreamId) -> Option<PbWatchResponse> {
        let stream = self.streams.get(&id)?;
        let current = stream.marked.is_empty() && !stream.watchers.is_empty();
        current.then(|| PbWatchResponse { watch_id: NO_WATCH, ..Default::default() })
    }

    /// The notices due to watchers that asked for them and heard nothing since the last round.
    pub(crate) fn notices(&mut self, id: StreamId) -> Vec<PbWatchResponse> {
        let Some(stream) = self.streams.get_mut(&id) else { return Vec::new() };
        let mut notices = Vec::new();
        for (&watch_id, watcher) in &mut stream.watchers {
            let quiet = std::mem::replace(&mut watcher.quiet, true);
            if watcher.wanted.progress_notify && quiet && !stream.marked.contains(&watch_id) {
                notices.push(PbWatchResponse { watch_id, ..Default::default() });
            }
        }
        notices
    }

    /// Fault: every watcher hears again of all between two revisions.
    pub(crate) fn replay(&mut self, from: i64, to: i64) {
        for stream in self.streams.values_mut() {
            for (&watch_id, watcher) in &mut stream.watchers {
                // To the newest; what comes later marks it again.
                (watcher.next, watcher.last) = (from, to);
                stream.marked.insert(watch_id);
            }
            stream.wake.notify_one();
        }
    }

    /// Fault: the next `count` watches are refused.
    pub(crate) fn refuse(&mut self, count: usize, reason: &str) {
        self.refusals = vec![reason.to_owned(); count];
    }

    pub(crate) fn count(&self) -> usize {
        self.streams.values().map(|stream| stream.watchers.len()).sum()
    }
}

impl Stream {
    fn unused_id(&mut self) -> i64 {
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        self.next_id - 1
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(store: &mut Store, watches: &mut Watches, key: &'static str) {
        let revision = store.revision() + 1;
        store.write().put(Bytes::from_static(key.as_bytes()), Bytes::new(), 0);
        store.changes().since(revision).for_each(|change| watches.mark(change));
    }

    fn wanted(key: &str, start_revision: i64) -> Wanted {
        Wanted {
            range: KeyRange::one(key.as_bytes()),
            start_revision,
            watch_id: 0,
            prev_kv: false,
            fragment: false,
            progress_notify: false,
            no_put: false,
            no_delete: false,
        }
    }

    /// The revisions that a stream hears of until it has heard all.
    fn heard(watches: &mut Watches, store: &Store) -> Vec<i64> {
        let answers = std::iter::from_fn(|| watches.next(1, store));
        let events = answers.flat_map(|(answer, _)| answer.events);
        events.filter_map(|event| event.kv.map(|kv| kv.mod_revision)).collect()
    }

    #[test]
    fn a_watcher_that_is_slow_hears_of_every_change_between_its_answers() {
        let (mut store, mut watches) = (Store::new(), Watches::default());
        watches.open(1, Arc::default());
        watches.create(1, wanted("k", 0), &store);
        for key in ["k", "other", "k", "other", "k"] {
            put(&mut store, &mut watches, key);
        }
        assert_eq!(heard(&mut watches, &store), [2, 4, 6]);
        put(&mut store, &mut watches, "other");
        put(&mut store, &mut watches, "k");
        assert_eq!(heard(&mut watches, &store), [8]);
    }

    #[test]
    fn a_watcher_of_the_past_hears_what_comes_while_it_catches_up() {
        let (mut store, mut watches) = (Store::new(), Watches::default());
        watches.open(1, Arc::default());
        put(&mut store, &mut watches, "k");
        watches.create(1, wanted("k", 2), &store);
        put(&mut store, &mut watches, "other");
        put(&mut store, &mut watches, "k");
        assert_eq!(heard(&mut watches, &store), [2, 4]);
        watches.replay(1, store.revision());
        put(&mut store, &mut watches, "k");
        assert_eq!(heard(&mut watches, &store), [2, 4, 5], "a replay, and what comes meanwhile");
    }

    #[test]
    fn only_the_streams_that_a_change_concerns_are_woken() {
        let (mut store, mut watches) = (Store::new(), Watches::default());
        for id in 0..1000 {
            watches.open(id, Arc::default());
            watches.create(id, wanted(if id == 7 { "k" } else { "other" }, 0), &store);
        }
        put(&mut store, &mut watches, "k");
        let marked: Vec<StreamId> = watches
            .streams
            .iter()
            .filter(|(_, stream)| !stream.marked.is_empty())
            .map(|(id, _)| *id)
            .collect();
        assert_eq!(marked, [7]);
    }
}
