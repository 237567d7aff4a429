//! The calls to etcd, and its answers in the words of the session.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, GetResponse, KeyValue, KvClient, WatchOptions, WatchResponse, WatchStream};
use svc_channel::Peer;

use super::range::{Key, Kv, Range};
use super::session::{Canceled, Create, Header, KeyEvent, Page, Refusal, Response};
use super::set::Anchor;
use crate::etcd::{Etcd, Failure, classify};
use crate::name::{InstanceId, LeaseId, Revision};

/// How long the first answer on a new stream may take; a follower may wait for a leader for some seconds.
const OPENING: Duration = Duration::from_secs(5);

/// One page of a range, from after a key on, at a revision or now.
pub(super) async fn page(
    etcd: &Etcd,
    range: &Range,
    at: Option<Revision>,
    after: Option<Key>,
    limit: i64,
) -> Result<Page, etcd_client::Error> {
    let prefix = range.prefix(etcd.prefix()).into_bytes();
    let end = end_of(&prefix);
    let start = match after {
        // The smallest key above: the same with a zero byte behind it.
        Some(key) => [&key[..], &[0]].concat(),
        None => prefix,
    };
    let options = GetOptions::new().with_range(end).with_limit(limit).with_revision(at.map_or(0, |r| r.0));
    let mut answer = etcd.kv().get(start, Some(options)).await?;
    let header = header(&answer);
    let more = answer.more();
    let kvs = answer.take_kvs().into_iter().map(kv).collect();
    Ok(Page { header, kvs, more, drained: Vec::new() })
}

/// The ids of a guarded range's instances that lie under the other root at that revision.
pub(super) async fn drained(
    etcd: &Etcd,
    range: &Range,
    at: Revision,
) -> Result<Vec<InstanceId>, etcd_client::Error> {
    let Some(other) = range.draining() else { return Ok(Vec::new()) };
    let prefix = other.prefix(etcd.prefix());
    let options = GetOptions::new().with_prefix().with_keys_only().with_revision(at.0);
    let answer = etcd.kv().get(prefix, Some(options)).await?;
    let ids = answer.kvs().iter().filter_map(|kv| etcd.prefix().parse_record(kv.key())?.ok());
    Ok(ids.map(|key| key.id).collect())
}

/// What the store says of itself, read linearizably and at no cost: a count of one key.
pub(super) async fn verify(etcd: &Etcd) -> Result<Header, etcd_client::Error> {
    let options = GetOptions::new().with_count_only();
    let answer = etcd.kv().get(etcd.prefix().as_str(), Some(options)).await?;
    Ok(header(&answer))
}

/// What stands where an anchor is.
pub(super) async fn anchor(
    etcd: &Etcd,
    range: &Range,
    at: Revision,
    anchor: &Anchor,
) -> Result<Anchor, etcd_client::Error> {
    let options = GetOptions::new().with_revision(at.0).with_keys_only().with_limit(1);
    let mut kv: KvClient = etcd.kv();
    let answer = match anchor {
        Anchor::Newest { key, .. } => kv.get(key.to_vec(), Some(options)).await?,
        Anchor::Empty => kv.get(range.prefix(etcd.prefix()), Some(options.with_prefix())).await?,
    };
    Ok(match answer.kvs().first() {
        None => Anchor::Empty,
        Some(kv) => Anchor::Newest {
            key: kv.key().into(),
            lease: LeaseId(kv.lease()),
            created: Revision(kv.create_revision()),
            modified: Revision(kv.mod_revision()),
        },
    })
}

/// Opens the stream with its first watch; what tells where it goes comes with it.
pub(super) async fn open(etcd: &Etcd, create: &Create) -> Result<(WatchStream, Peer), Refusal> {
    let (key, options) = watch(etcd, create);
    let (mut client, peer) = etcd.watch_stream();
    match tokio::time::timeout(OPENING, client.watch(key, Some(options))).await {
        Ok(Ok(stream)) => Ok((stream, peer)),
        Ok(Err(error)) => Err(stream_refusal(etcd, "opening the watch stream", &peer, error)),
        Err(_) => Err(Refusal {
            failure: Failure::TimedOut,
            reason: format!("etcd at {} left a watch unanswered for {OPENING:?}", etcd.member(&peer)).into(),
        }),
    }
}

/// The request for a watch.
pub(super) fn watch(etcd: &Etcd, create: &Create) -> (Vec<u8>, WatchOptions) {
    let options = WatchOptions::new()
        .with_prefix()
        .with_start_revision(create.start.0)
        .with_watch_id(create.id)
        .with_fragment();
    (create.range.prefix(etcd.prefix()).into_bytes(), options)
}

/// What the stream said. Events of kinds that etcd does not have today are passed over.
pub(super) fn response(etcd: &Etcd, peer: &Peer, response: WatchResponse) -> Response {
    let response = response.0;
    let canceled = response.canceled.then(|| {
        let compacted = response.compact_revision > 0;
        let status = tonic::Status::unknown(response.cancel_reason.clone());
        let error = etcd_client::Error::GRpcStatus(status);
        Canceled { compacted, refusal: stream_refusal(etcd, "etcd ended the watch", peer, error) }
    });
    let events = response.events.into_iter().filter_map(|event| {
        let kv = event.kv?;
        match event.r#type {
            0 => Some(KeyEvent::Put(Kv {
                key: kv.key.into(),
                value: kv.value,
                lease: LeaseId(kv.lease),
                created: Revision(kv.create_revision),
                modified: Revision(kv.mod_revision),
            })),
            1 => Some(KeyEvent::Delete { key: kv.key.into(), at: Revision(kv.mod_revision) }),
            _ => None,
        }
    });
    Response {
        id: response.watch_id,
        created: response.created,
        canceled,
        fragment: response.fragment,
        events: events.collect(),
    }
}

pub(super) fn refusal(etcd: &Etcd, doing: &str, error: etcd_client::Error) -> Refusal {
    let failure = classify(&error);
    Refusal { failure, reason: Arc::from(etcd.error(doing, error).to_string()) }
}

/// The same of the stream.
pub(super) fn stream_refusal(etcd: &Etcd, doing: &str, peer: &Peer, error: etcd_client::Error) -> Refusal {
    let failure = classify(&error);
    Refusal { failure, reason: Arc::from(etcd.stream_error(doing, peer, error).to_string()) }
}

fn header(answer: &GetResponse) -> Header {
    answer.header().map_or(Header { cluster: 0, term: 0, revision: Revision(0) }, |h| Header {
        cluster: h.cluster_id(),
        term: h.raft_term(),
        revision: Revision(h.revision()),
    })
}

pub(super) fn kv(kv: KeyValue) -> Kv {
    let (lease, created, modified) = (kv.lease(), kv.create_revision(), kv.mod_revision());
    let (key, value) = kv.into_key_value();
    Kv {
        key: key.into(),
        value,
        lease: LeaseId(lease),
        created: Revision(created),
        modified: Revision(modified),
    }
}

/// The first key that is above all keys with a prefix. Ours end in `/`, so the last byte can be raised.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}
