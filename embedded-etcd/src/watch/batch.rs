//! What one answer to a watcher holds.

use etcd_client::proto::{PbEvent, PbWatchResponse};
use prost::Message;

use super::Wanted;
use crate::store::{Change, Item, Store};

/// How many revisions one answer tells of at most: etcd's `watchBatchMaxRevs`.
const MAX_REVISIONS: usize = 1000;

// mvccpb.Event.EventType
const PUT: i32 = 0;
const DELETE: i32 = 1;

/// Events of whole revisions, and where to go on if there may be more.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<PbEvent>,
    pub(super) next: Option<i64>,
    /// How many changes were looked at.
    pub(super) looked_at: usize,
}

/// Gathers what happened from one revision up to another, which may lie ahead.
pub(super) fn collect(store: &Store, wanted: &Wanted, from: i64, to: i64) -> Batch {
    let mut batch = Batch { events: Vec::new(), next: None, looked_at: 0 };
    let (mut revisions, mut last) = (0, 0);
    for change in store.changes().since(from).take_while(|change| change.revision <= to) {
        batch.looked_at += 1;
        if change.lost || !wanted.range.contains(&change.key) {
            continue;
        }
        if change.revision != last {
            if revisions == MAX_REVISIONS {
                batch.next = Some(change.revision);
                break;
            }
            (revisions, last) = (revisions + 1, change.revision);
        }
        let filtered = if change.now.is_some() { wanted.no_put } else { wanted.no_delete };
        if !filtered {
            batch.events.push(event(change, wanted.prev_kv, store.compacted()));
        }
    }
    batch
}

fn event(change: &Change, prev_kv: bool, compacted: i64) -> PbEvent {
    // The value before is read at the revision before, which may be compacted.
    let before = change.before.as_ref().filter(|_| prev_kv && change.revision > compacted);
    let kv = match &change.now {
        Some(item) => item.to_message(),
        None => Item {
            key: change.key.clone(),
            value: Default::default(),
            create_revision: 0,
            mod_revision: change.revision,
            version: 0,
            lease: 0,
        }
        .to_message(),
    };
    PbEvent {
        r#type: if change.now.is_some() { PUT } else { DELETE },
        kv: Some(kv),
        prev_kv: before.map(|item| item.to_message()),
    }
}

/// The end of a watcher that wants what is compacted.
pub(super) fn compacted(watch_id: i64, store: &Store) -> PbWatchResponse {
    PbWatchResponse { watch_id, canceled: true, compact_revision: store.compacted(), ..Default::default() }
}

/// Splits an answer so that each part stays below the message limit, if it has more than one event.
pub(crate) fn fragments(mut response: PbWatchResponse, max_bytes: usize) -> Vec<PbWatchResponse> {
    if response.encoded_len() < max_bytes || response.events.len() < 2 {
        return vec![response];
    }
    let events = std::mem::take(&mut response.events);
    let empty = PbWatchResponse { fragment: true, ..response };
    let (mut parts, mut size) = (vec![empty.clone()], empty.encoded_len());
    for event in events {
        // A tag and at most four bytes of length around each event.
        let more = event.encoded_len() + 5;
        let full = size + more >= max_bytes;
        if full && parts.last().is_some_and(|part| !part.events.is_empty()) {
            parts.push(empty.clone());
            size = empty.encoded_len();
        }
        size += more;
        if let Some(part) = parts.last_mut() {
            part.events.push(event);
        }
    }
    if let Some(last) = parts.last_mut() {
        last.fragment = false;
    }
    parts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::settings::Settings;
    use crate::store::KeyRange;

    fn everything() -> Wanted {
        Wanted {
            range: KeyRange::new(&[0], &[0]),
            start_revision: 0,
            watch_id: 0,
            prev_kv: false,
            fragment: false,
            progress_notify: false,
            no_put: false,
            no_delete: false,
        }
    }

    fn put(store: &mut Store, size: usize) {
        store.write().put(Bytes::from_static(b"k"), vec![b'v'; size].into(), 0);
    }

    #[test]
    fn a_batch_ends_after_a_thousand_revisions_and_tells_where_to_go_on() {
        let mut store = Store::new();
        (0..1500).for_each(|_| put(&mut store, 1));
        let first = collect(&store, &everything(), 2, i64::MAX);
        assert_eq!((first.events.len(), first.next), (1000, Some(1002)));
        let rest = collect(&store, &everything(), 1002, i64::MAX);
        assert_eq!((rest.events.len(), rest.next), (500, None));
    }

    #[test]
    fn a_watcher_looks_only_at_what_lies_between_the_changes_it_was_marked_for() {
        let mut store = Store::new();
        (0..1500).for_each(|_| put(&mut store, 1));
        let batch = collect(&store, &everything(), 700, 701);
        assert_eq!((batch.events.len(), batch.next, batch.looked_at), (2, None, 2));
    }

    #[test]
    fn fragments_keep_the_order_and_the_limit_and_only_the_last_is_final() {
        let mut store = Store::new();
        for size in [900_000, 900_000, 900_000, 10, 1_500_000, 1_500_000] {
            put(&mut store, size);
        }
        let events = collect(&store, &everything(), 1, i64::MAX).events;
        let whole = PbWatchResponse { watch_id: 7, events: events.clone(), ..Default::default() };
        let max = Settings::default().max_message_bytes();
        let parts = fragments(whole, max);
        assert_eq!(parts.iter().map(|part| part.events.len()).collect::<Vec<_>>(), [2, 2, 1, 1]);
        assert!(parts.iter().all(|part| part.encoded_len() < max && part.watch_id == 7));
        assert_eq!(parts.iter().map(|part| part.fragment).collect::<Vec<_>>(), [true, true, true, false]);
        assert!(parts.into_iter().flat_map(|part| part.events).eq(events));
    }
}
