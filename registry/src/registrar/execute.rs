//! Carries a table's actions out on etcd: a value in, etcd's answer as a value out. No decision is made here.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Compare, CompareOp, GetResponse, KeyValue, LeaseGrantOptions, PutOptions, Txn, TxnOp, TxnOpResponse,
    TxnResponse,
};

use super::entry::Outcome;
use super::ownership::{Change, Held, Keys, Overridden, Seen, Wished};
use super::table::Trouble;
use crate::etcd::{Etcd, classify};
use crate::intent::{DrainIntent, SetIntent};
use crate::keys::{RecordKey, Root};
use crate::name::{InstanceId, LeaseId, Revision, ServiceName};
use crate::record::decode;

/// Asks for a lease under an id of ours; etcd may grant more than the TTL asked for.
pub(super) async fn grant(etcd: Etcd, lease: LeaseId, ttl: Duration) -> Result<Duration, Trouble> {
    let seconds = i64::try_from(ttl.as_secs().max(1)).unwrap_or(i64::MAX);
    let options = LeaseGrantOptions::new().with_id(lease.0);
    let granted = etcd.guarded().lease_client().grant(seconds, Some(options)).await;
    let granted = granted.map_err(|error| trouble(&etcd, "granting a lease", error))?;
    Ok(Duration::from_secs(u64::try_from(granted.ttl()).unwrap_or_default().max(1)))
}

/// Revokes a lease; where etcd does not answer it runs out by itself.
pub(super) async fn revoke(etcd: Etcd, lease: LeaseId) {
    if let Err(error) = etcd.guarded().lease_client().revoke(lease.0).await {
        tracing::debug!(%lease, %error, "lease not revoked; it runs out by itself");
    }
}

/// Reads an instance's five keys at one revision.
pub(super) async fn read(etcd: Etcd, keys: Keys) -> Result<Seen, Trouble> {
    let answer = etcd.guarded().kv_client().txn(Txn::new().and_then(gets(&keys))).await;
    let answer = answer.map_err(|error| trouble(&etcd, &format!("reading {}", keys.serving), error))?;
    Ok(seen(&answer))
}

/// Sends a transaction whose failure reads the five keys back; perhaps twice, so that it may read what it has done itself.
pub(super) async fn commit(etcd: Etcd, keys: Keys, change: Change) -> Result<Outcome, Trouble> {
    let answer = etcd.guarded().kv_client().txn(render(&keys, &change)).await;
    let answer = answer.map_err(|error| trouble(&etcd, &format!("writing {}", keys.serving), error))?;
    Ok(if answer.succeeded() {
        Outcome::Done(revision(&answer))
    } else {
        Outcome::Conflict(Box::new(seen(&answer)))
    })
}

fn render(keys: &Keys, change: &Change) -> Txn {
    let compares: Vec<Compare> = change
        .compares
        .iter()
        .map(|(key, at)| Compare::mod_revision(key.as_str(), CompareOp::Equal, at.0))
        .collect();
    let puts = change.puts.iter().map(|(key, value, lease)| {
        TxnOp::put(key.as_str(), value.as_slice(), Some(PutOptions::new().with_lease(lease.0)))
    });
    let deletes = change.deletes.iter().map(|key| TxnOp::delete(key.as_str(), None));
    let ops: Vec<TxnOp> = puts.chain(deletes).collect();
    Txn::new().when(compares).and_then(ops).or_else(gets(keys))
}

fn gets(keys: &Keys) -> Vec<TxnOp> {
    [&keys.serving, &keys.draining, &keys.intent, &keys.intent_for_all, &keys.set]
        .map(|key| TxnOp::get(key.as_str(), None))
        .into()
}

fn revision(answer: &TxnResponse) -> Revision {
    Revision(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
}

fn seen(answer: &TxnResponse) -> Seen {
    let mut found = answer.op_responses().into_iter().map(|op| match op {
        TxnOpResponse::Get(get) => first(get),
        _ => None,
    });
    let mut next = || found.next().flatten();
    Seen {
        revision: revision(answer),
        serving: next().map(held),
        draining: next().map(held),
        intent: next().as_ref().map(wished),
        intent_for_all: next().as_ref().map(wished),
        set: next().as_ref().map(overridden),
    }
}

fn first(mut get: GetResponse) -> Option<KeyValue> {
    let mut found = get.take_kvs();
    (!found.is_empty()).then(|| found.swap_remove(0))
}

fn held(kv: KeyValue) -> Held {
    // Only who wrote it matters here, which is in the value: service and id are the key's, known to the caller.
    let record = ServiceName::new("any")
        .ok()
        .zip(InstanceId::new("any").ok())
        .and_then(|(service, id)| decode(&RecordKey { root: Root::Serving, service, id }, kv.value()).ok());
    Held {
        mod_revision: Revision(kv.mod_revision()),
        lease: LeaseId(kv.lease()),
        incarnation: record.as_ref().and_then(|record| record.incarnation),
        epoch: record.as_ref().and_then(|record| record.epoch),
        value: kv.into_key_value().1,
    }
}

fn wished(kv: &KeyValue) -> Wished {
    Wished { mod_revision: Revision(kv.mod_revision()), intent: DrainIntent::decode(kv.value()) }
}

fn overridden(kv: &KeyValue) -> Overridden {
    Overridden { mod_revision: Revision(kv.mod_revision()), set: SetIntent::decode(kv.value()) }
}

fn trouble(etcd: &Etcd, doing: &str, error: etcd_client::Error) -> Trouble {
    let failure = classify(&error);
    let text: Arc<str> = etcd.error(doing, error).to_string().into();
    Trouble { failure, text }
}
